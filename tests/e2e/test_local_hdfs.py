"""The local HDFS itself: what the other tests build on."""

import signal
import socket
import subprocess
import sys
import uuid
from pathlib import Path

import hdfs_native
import httpx
import pytest

from tests.support.leftovers import processes_with
from tests.support.local_hdfs import LocalHdfs, LocalHdfsError
from tests.support.processes import Daemon, ProcessIdentity

COMMAND = (sys.executable, "-m", "tests.support.local_hdfs")


def write(hdfs: LocalHdfs, path: str, data: bytes) -> None:
    with hdfs_native.Client(hdfs.uri).create(path) as file:
        file.write(data)


def read(hdfs: LocalHdfs, path: str) -> bytes:
    return bytes(hdfs_native.Client(hdfs.uri).read(path).read())


def identities(hdfs: LocalHdfs) -> list[ProcessIdentity]:
    found = [daemon.identity for daemon in [hdfs.namenode, *hdfs.datanodes] if daemon.identity]
    assert len(found) == 1 + len(hdfs.datanodes)
    return found


def test_files_come_back_as_written(hdfs: LocalHdfs, hdfs_dir: str) -> None:
    data = bytes(range(256)) * 5000
    write(hdfs, f"{hdfs_dir}/file", data)
    assert read(hdfs, f"{hdfs_dir}/file") == data
    assert f"{hdfs_dir}/file" in hdfs.fs_shell("-ls", hdfs_dir)


def test_permissions_hold_for_users_that_this_machine_does_not_have(hdfs: LocalHdfs, hdfs_dir: str) -> None:
    hdfs.webhdfs("PUT", f"{hdfs_dir}/private", "MKDIRS", permission="750")
    hdfs.webhdfs("PUT", f"{hdfs_dir}/private", "SETOWNER", owner="root", group="data")
    hdfs.webhdfs("GET", f"{hdfs_dir}/private", "LISTSTATUS", user="alice")
    with pytest.raises(LocalHdfsError, match="Permission denied: user=bob"):
        hdfs.webhdfs("GET", f"{hdfs_dir}/private", "LISTSTATUS", user="bob")


def test_each_test_gets_its_own_directory(hdfs: LocalHdfs, hdfs_dir: str) -> None:
    assert hdfs.webhdfs("GET", hdfs_dir, "LISTSTATUS")["FileStatuses"]["FileStatus"] == []


def test_a_second_instance_beside_the_first_leaves_nothing_behind(hdfs: LocalHdfs, tmp_path: Path) -> None:
    directory = tmp_path / "second"
    with LocalHdfs(datanodes=2, directory=directory) as second:
        assert second.uri != hdfs.uri
        write(second, "/only-here", b"x")
        with pytest.raises(LocalHdfsError, match="FileNotFoundException"):
            hdfs.webhdfs("GET", "/only-here", "GETFILESTATUS")
        started = identities(second)

        # The port of a killed DataNode stays its own, and it comes back with its blocks.
        second.stop_datanode(1)
        second.kill_datanode(0)
        assert not running(second.datanodes[0])
        with socket.socket() as other, pytest.raises(OSError, match="in use"):
            other.bind(("127.0.0.1", second.datanode_ports[0]))
        second.start_datanode(0)
        assert read(second, "/only-here") == b"x"

        # A frozen one is still there, and a stop ends it all the same.
        second.pause_datanode(0)
        assert running(second.datanodes[0])
        started += [daemon.identity for daemon in second.datanodes if daemon.identity]
    assert not any(identity.alive() for identity in started)
    assert not directory.exists()
    assert hdfs.why_not_ready() == ""


def running(daemon: Daemon) -> bool:
    # A function, since a type checker takes a property for unchanged by the calls between two looks.
    return daemon.running


def test_a_daemon_that_dies_at_the_start_is_named_with_its_log(tmp_path: Path) -> None:
    directory = tmp_path / "broken"
    broken = LocalHdfs(directory=directory, properties={"dfs.namenode.http-address": "127.0.0.1:notaport"})
    with pytest.raises(LocalHdfsError, match=r"(?s)namenode died; the end of its log:.*notaport"):
        broken.start()
    assert not directory.exists()


def test_a_directory_with_something_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").touch()
    with pytest.raises(LocalHdfsError, match="not empty"):
        LocalHdfs(directory=tmp_path).start()
    assert (tmp_path / "mine").exists()


def test_the_command_line_starts_shows_and_stops(tmp_path: Path) -> None:
    place = ("--dir", str(tmp_path / "instance"))
    assert run("status", *place).returncode == 3
    try:
        said = run("up", *place)
        assert said.returncode == 0, said.stderr
        started = identities(LocalHdfs.attach(tmp_path / "instance"))
        assert all(identity.alive() for identity in started)
        assert run("up", *place).stderr.startswith("runs already")
        shown = run("status", *place)
        assert shown.returncode == 0
        assert "ready: 1 live DataNode" in shown.stdout
        started[1].send(signal.SIGKILL)
        assert started[1].wait_gone(10)
        assert run("status", *place).returncode == 3
    finally:
        stopped = run("down", *place)
    assert stopped.returncode == 0, stopped.stderr
    assert not any(identity.alive() for identity in started)
    assert not (tmp_path / "instance").exists()
    assert "nothing runs" in run("down", *place).stderr


def test_the_command_line_undoes_a_start_that_is_interrupted(tmp_path: Path) -> None:
    directory = tmp_path / "instance"
    command = [*COMMAND, "up", "--dir", str(directory)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as starting:
        assert starting.stderr
        assert starting.stderr.readline().startswith("starting Hadoop")
        starting.terminate()
    assert starting.returncode == 128 + signal.SIGTERM
    assert not directory.exists()


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, check=False)


def test_daemons_end_with_a_parent_that_is_killed() -> None:
    script = (
        "import os, pathlib, signal\n"
        "from tests.support.processes import Daemon\n"
        "sleeper = Daemon('sleeper', ['sleep', 'infinity'], pathlib.Path('/dev/null'), dict(os.environ))\n"
        "sleeper.start()\n"
        "print(sleeper.identity.pid, flush=True)\n"
        "signal.pause()\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout
        child = ProcessIdentity.of(int(parent.stdout.readline()))
        parent.kill()
    assert child.wait_gone(10)


def test_another_process_with_a_recycled_pid_is_never_signalled(tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "infinity"]) as innocent:
        now = ProcessIdentity.of(innocent.pid)
        earlier = ProcessIdentity(now.pid, now.start_ticks - 1, now.boot_id)
        Daemon("gone", ["false"], tmp_path / "log", {}, identity=earlier).stop()
        assert innocent.poll() is None
        innocent.kill()


def test_webhdfs_redirects_to_where_the_datanode_listens(hdfs: LocalHdfs, hdfs_dir: str) -> None:
    data = b"redirected" * 1000
    write(hdfs, f"{hdfs_dir}/file", data)
    answer = httpx.get(
        f"{hdfs.namenode_http}/webhdfs/v1{hdfs_dir}/file", params={"op": "OPEN"}, follow_redirects=True, trust_env=False
    )
    assert answer.content == data
    assert answer.url.host == "127.0.0.1"


def test_what_a_test_leaves_behind_is_found() -> None:
    mark = "HDFS_CSI_TEST_LEFTOVER", str(uuid.uuid4())
    assert processes_with(*mark) == []
    # The parent ends at once, so only the environment tells where the child came from.
    orphan = ["sh", "-c", "sleep infinity >/dev/null & echo $!"]
    pid = subprocess.run(orphan, env=dict([mark]), stdout=subprocess.PIPE, text=True, check=True).stdout.strip()
    assert processes_with(*mark) == [f"{pid}: sleep infinity"]
    child = ProcessIdentity.of(int(pid))
    child.send(signal.SIGKILL)
    assert child.wait_gone(10)
    assert processes_with(*mark) == []
