"""The socket of `hdfs-csi mounter`: who may use it, what it refuses, and clients that go away in the middle."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest
from hdfs_fuse import handover
from hdfs_fuse.config import MountConfig
from hdfs_fuse.errors import DeadlineError, HdfsFuseError, MountError, NotFoundError, UnavailableError, UnsupportedError
from hdfs_fuse.mounter import mounts, protocol, stats
from hdfs_fuse.mounter.client import RemoteSupervisor
from hdfs_fuse.mounter.mounter import Mounter
from hdfs_fuse.mounter.server import Server
from hdfs_fuse.mounter.supervisor import Supervisor, stats_path

from tests.support.daemons import FORKS, daemons, fork_servers
from tests.support.processes import ProcessIdentity
from tests.support.waiting import wait_until


@dataclass(frozen=True)
class Served:
    """A supervisor that listens in this process."""

    path: str
    runtime_dir: str

    @property
    def mounter(self) -> Mounter:
        return Mounter(RemoteSupervisor(self.path))

    @contextlib.contextmanager
    def connected(self) -> Iterator[socket.socket]:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as channel:
            channel.settimeout(20)
            channel.connect(self.path)
            yield channel


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with tempfile.TemporaryDirectory(prefix="hf-") as directory:
        runtime = os.path.join(directory, "run")
        server = Server(f"{directory}/mounter.sock", Supervisor(runtime, str(tmp_path / "daemon.log"), FORKS))
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}).start()
        try:
            yield Served(f"{directory}/mounter.sock", runtime)
        finally:
            server.shutdown()
            server.server_close()
            wait_until(lambda: daemons() == [], "no daemon is left")


def start(tmp_path: Path, version: int = protocol.VERSION) -> protocol.Start:
    return protocol.Start(
        version, msgspec.Raw(MountConfig(uri=f"file://{tmp_path}").to_json()), str(tmp_path / "mnt"), 20.0
    )


def refusal(channel: socket.socket) -> HdfsFuseError:
    reply, _ = handover.receive(channel, protocol.Reply)
    assert isinstance(reply, handover.Failed)
    return reply.as_error()


def test_a_mount_is_made_and_ended(served: Served, mountpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    for _ in range(2):
        served.mounter.mount(MountConfig(uri=f"file://{tmp_path}"), str(mountpoint))
        (pid,) = daemons()
        entry = mounts.find(str(mountpoint))
        assert entry is not None
        assert stats.fetch(stats_path(served.runtime_dir, entry.device))["pid"] == pid
        assert (mountpoint / "file").read_bytes() == b"content"
        served.mounter.unmount(str(mountpoint))
        assert (daemons(), os.listdir(served.runtime_dir)) == ([], [])
    served.mounter.unmount(str(mountpoint))  # nothing there is success


def test_what_a_daemon_says_arrives(served: Served, mountpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="absent"):
        served.mounter.mount(MountConfig(uri=f"file://{tmp_path}/absent"), str(mountpoint))
    with pytest.raises(UnavailableError, match=r"127\.0\.0\.1:1"):
        served.mounter.mount(MountConfig(uri="hdfs://127.0.0.1:1/data"), str(mountpoint))
    with pytest.raises(DeadlineError, match="Connected"):
        served.mounter.mount(MountConfig(uri=f"file://{tmp_path}"), str(mountpoint), deadline_s=0.001)
    assert mounts.find(str(mountpoint)) is None
    assert daemons() == []


def test_nobody_listens(tmp_path: Path, mountpoint: Path) -> None:
    mounter = Mounter(RemoteSupervisor(str(tmp_path / "absent.sock")))
    with pytest.raises(UnavailableError, match="is `hdfs-csi mounter` running"):
        mounter.mount(MountConfig(uri=f"file://{tmp_path}"), str(mountpoint))
    with pytest.raises(UnavailableError):
        mounter.unmount(str(mountpoint))


def test_a_mounter_that_hangs(tmp_path: Path, mountpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hdfs_fuse.mounter.client._GRACE_S", 0.5)
    with (
        tempfile.TemporaryDirectory(prefix="hf-") as directory,
        socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener,
    ):
        listener.bind(f"{directory}/mounter.sock")
        listener.listen()
        with pytest.raises(DeadlineError, match="no answer to Start"):
            Mounter(RemoteSupervisor(f"{directory}/mounter.sock")).mount(
                MountConfig(uri=f"file://{tmp_path}"), str(mountpoint), deadline_s=0.5
            )
    assert mounts.find(str(mountpoint)) is None


def test_another_version_is_refused(served: Served, tmp_path: Path) -> None:
    for message in (protocol.Ping(99), start(tmp_path, 99), protocol.End(99, "/mnt", None)):
        with served.connected() as channel:
            handover.send(channel, message)
            error = refusal(channel)
            assert isinstance(error, UnsupportedError)
            assert "given version 99" in str(error)
            assert "accepted is 1" in str(error)


@pytest.mark.parametrize("junk", [b"x", b"{}", b'{"type":"Start","version":1}', b'{"type":"Mounted"}', b"\xff" * 4096])
def test_junk_is_refused(served: Served, junk: bytes) -> None:
    with served.connected() as channel:
        channel.send(junk)
        assert isinstance(refusal(channel), MountError)
    assert RemoteSupervisor(served.path).problem() == ""


def test_a_configuration_of_a_later_release_is_refused(served: Served, tmp_path: Path) -> None:
    with served.connected() as channel:
        handover.send(channel, start(tmp_path))
    data = b'{"type":"Start","version":1,"config":{"uri":"file:///","later":1},"mountpoint":"/mnt","deadline_s":1}'
    with served.connected() as channel:
        channel.send(data)
        assert "later" in str(refusal(channel))
    with served.connected() as channel:
        channel.send(data.replace(b'"version":1', b'"version":2'))
        assert "given version 2" in str(refusal(channel))


def test_a_client_that_goes_before_it_mounts(served: Served, tmp_path: Path) -> None:
    with served.connected() as channel:
        handover.send(channel, start(tmp_path))
        assert handover.receive(channel, protocol.Reply)[0] == handover.Connected()
        assert len(daemons()) == 1
    wait_until(lambda: daemons() == [], "its daemon is ended")


def test_a_client_that_passes_no_descriptors(served: Served, tmp_path: Path) -> None:
    with served.connected() as channel:
        handover.send(channel, start(tmp_path))
        handover.receive(channel, protocol.Reply)
        handover.send(channel, protocol.Mounted("0:99", 5.0))
        assert "given 0 descriptors" in str(refusal(channel))
    wait_until(lambda: daemons() == [], "its daemon is ended")


def test_a_client_that_goes_before_it_unmounts(served: Served, mountpoint: Path, tmp_path: Path) -> None:
    served.mounter.mount(MountConfig(uri=f"file://{tmp_path}"), str(mountpoint))
    entry = mounts.find(str(mountpoint))
    assert entry is not None
    with served.connected() as channel:
        handover.send(channel, protocol.End(protocol.VERSION, str(mountpoint), entry.device))
        assert handover.receive(channel, protocol.Reply)[0] == protocol.Found(frozenset({entry.device}))
    assert "mnt" in os.listdir(mountpoint)
    served.mounter.unmount(str(mountpoint))


def test_other_users_are_refused(served: Served) -> None:
    assert os.stat(served.path).st_mode & 0o777 == 0o600
    os.chmod(served.path, 0o666)
    os.chmod(os.path.dirname(served.path), 0o755)
    script = (
        "import socket, sys; s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET); s.connect(sys.argv[1]);"
        "s.settimeout(20); sys.exit(len(s.recv(100)))"
    )
    identity = ["setpriv", "--reuid=1000", "--regid=1000", "--clear-groups", "--"]
    python = os.path.realpath(sys.executable)
    # Python may stand in root's home, where only root gets to.
    capabilities = ["setpriv", "--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search", "--"]
    command = [*capabilities, *identity, python, "-c", script, served.path]
    done = subprocess.run(command, capture_output=True, check=False, timeout=30)
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_fork_server_that_hangs_is_replaced(
    served: Served, mountpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hdfs_fuse.mounter.forks._FORK_S", 2.0)
    FORKS.close()  # the next has that deadline
    served.mounter.mount(MountConfig(uri=f"file://{tmp_path}"), str(mountpoint))
    served.mounter.unmount(str(mountpoint))
    (server,) = fork_servers()
    ProcessIdentity.of(server).send(signal.SIGSTOP)
    with pytest.raises(MountError, match="does not run"):
        served.mounter.mount(MountConfig(uri=f"file://{tmp_path}"), str(mountpoint))
    assert mounts.find(str(mountpoint)) is None
    served.mounter.mount(MountConfig(uri=f"file://{tmp_path}"), str(mountpoint))
    served.mounter.unmount(str(mountpoint))
    FORKS.close()


def test_a_fork_server_that_dies_is_started_again(served: Served, mountpoint: Path, tmp_path: Path) -> None:
    served.mounter.mount(MountConfig(uri=f"file://{tmp_path}"), str(mountpoint))
    (pid,) = daemons()
    daemon = ProcessIdentity.of(pid)
    (number,) = fork_servers()
    server = ProcessIdentity.of(number)
    server.send(signal.SIGKILL)
    assert server.wait_gone(10)
    assert "mnt" in os.listdir(mountpoint)
    second = tmp_path / "second"
    second.mkdir()
    served.mounter.mount(MountConfig(uri=f"file://{tmp_path}"), str(second))
    served.mounter.unmount(str(second))
    served.mounter.unmount(str(mountpoint))
    assert not daemon.alive()
