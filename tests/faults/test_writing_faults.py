"""Writing through a mount while daemons of a real HDFS with three DataNodes die, hang and come back."""

import contextlib
import errno
import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hdfs_fuse.errors import DeadlineError
from hdfs_fuse.mounter import mounts
from hdfs_native import Client

from tests.mount.local import MIB, Mounted, mounted_writable
from tests.perf.observe import children_of
from tests.support.daemons import command, daemons
from tests.support.local_hdfs import LocalHdfs
from tests.support.processes import ProcessIdentity
from tests.support.waiting import wait_until

CONTENT = os.urandom(MIB) * 24
# Short, since some tests wait for it; an attempt that shows no progress is given up after a third.
DEADLINE_S = 30.0


@pytest.fixture(scope="module")
def cluster(nothing_left_behind: None) -> Iterator[LocalHdfs]:
    """Three DataNodes, all of which every block goes to; the NameNode believes in a dead one for ten minutes."""
    properties = {
        "dfs.namenode.safemode.extension": "0",
        "dfs.replication": "3",
        "dfs.namenode.heartbeat.recheck-interval": "300000",
    }
    with LocalHdfs(datanodes=3, block_size_bytes=8 * MIB, properties=properties) as running:
        yield running


@pytest.fixture
def hdfs(cluster: LocalHdfs) -> Iterator[LocalHdfs]:
    """The cluster, whole again after each test."""
    yield cluster
    cluster.mend()


@pytest.fixture
def mount(hdfs: LocalHdfs, hdfs_dir: str, tmp_path: Path) -> Iterator[Mounted]:
    with mounted_writable(
        f"{hdfs.uri}{hdfs_dir}", tmp_path, hadoop_conf_dir=str(hdfs.conf_dir), call_deadline_s=DEADLINE_S
    ) as made:
        yield made
        assert "Traceback" not in made.log.read_text()


def write_all(mount: Mounted, count: int, threads: int = 4) -> dict[str, bytes]:
    """Create small files, and one of several HDFS blocks."""
    files = {f"file{number}": os.urandom(4096) for number in range(count)} | {"large": CONTENT}
    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(lambda item: (mount.path / item[0]).write_bytes(item[1]), files.items()):
            pass
    return files


@contextlib.contextmanager
def stored_or_kept() -> Iterator[None]:
    """A write that succeeds, or fails within its deadline and keeps the bytes.

    Here it may fail: all DataNodes have one address, so the NameNode takes the hung one for that of its writer.
    """
    started = time.monotonic()
    try:
        yield
    except TimeoutError:
        assert time.monotonic() - started < 2 * DEADLINE_S


def wait_until_stored(hdfs: LocalHdfs, directory: str, files: dict[str, bytes]) -> None:
    wait_until(lambda: sorted(names(hdfs, directory)) == sorted(files), "all files are stored", timeout_s=120)
    assert hdfs.fetch(directory) == files


def uploader_pid() -> int:
    """Process id of the uploader, which the first change has started."""
    (daemon,) = daemons()
    (uploader,) = [pid for pid in children_of(daemon) if b"upload.uploader" in command(pid)]
    return uploader


# ---- DataNodes


def test_a_dead_datanode_that_the_namenode_still_names(hdfs: LocalHdfs, hdfs_dir: str, mount: Mounted) -> None:
    hdfs.kill_datanode(1)
    files = write_all(mount, 60)
    assert hdfs.fetch(hdfs_dir) == files


def test_a_hung_datanode(hdfs: LocalHdfs, hdfs_dir: str, mount: Mounted) -> None:
    files = {"small": b"small", "large": CONTENT}
    hdfs.pause_datanode(2)
    try:
        for name, content in files.items():
            with stored_or_kept():
                (mount.path / name).write_bytes(content)
    finally:
        hdfs.resume_datanode(2)
    wait_until_stored(hdfs, hdfs_dir, files)


@pytest.mark.parametrize("fault", ["kill", "pause"])
def test_a_datanode_fails_while_a_file_is_uploaded(hdfs: LocalHdfs, hdfs_dir: str, mount: Mounted, fault: str) -> None:
    (mount.path / "first").write_bytes(b"x")  # an uploader is there
    sent = threading.Event()

    def strike() -> None:
        wait_until(lambda: any(name.endswith(".writing") for name in names(hdfs, hdfs_dir)), "the upload has begun")
        (hdfs.kill_datanode if fault == "kill" else hdfs.pause_datanode)(0)
        sent.set()

    thread = threading.Thread(target=strike)
    thread.start()
    try:
        with stored_or_kept(), (mount.path / "large").open("wb", buffering=0) as file:
            file.write(CONTENT[: 16 * MIB])
            thread.join(0.5)
            file.write(CONTENT[16 * MIB :])
        thread.join()
    finally:
        if fault == "pause":
            hdfs.resume_datanode(0)
    assert sent.is_set()
    wait_until_stored(hdfs, hdfs_dir, {"first": b"x", "large": CONTENT})


def names(hdfs: LocalHdfs, directory: str) -> list[str]:
    found = hdfs.webhdfs("GET", directory, "LISTSTATUS")["FileStatuses"]["FileStatus"]
    return [entry["pathSuffix"] for entry in found]


# ---- the NameNode


def test_the_namenode_is_restarted_while_a_file_is_written(hdfs: LocalHdfs, hdfs_dir: str, mount: Mounted) -> None:
    with (mount.path / "file").open("wb", buffering=0) as file:
        file.write(b"one")
        hdfs.stop_namenode()
        file.write(b"two")
        starting = threading.Timer(1.0, hdfs.start_namenode)
        starting.start()
    starting.join()
    hdfs.wait_ready()
    assert hdfs.fetch(hdfs_dir) == {"file": b"onetwo"}


def test_who_unmounts_waits_for_a_hung_namenode(hdfs: LocalHdfs, hdfs_dir: str, mount: Mounted) -> None:
    daemon = ProcessIdentity.of(mount.stats()["pid"])
    left_open = os.open(mount.path / "file", os.O_WRONLY | os.O_CREAT)
    os.write(left_open, b"content")
    hdfs.pause_namenode()
    try:
        for _ in range(2):  # the second time nothing is mounted any longer
            with pytest.raises(DeadlineError, match="still storing files"):
                mount.mounter.unmount(str(mount.path), force=True, deadline_s=1)
            assert (mounts.find(str(mount.path)), daemon.alive()) == (None, True)
    finally:
        hdfs.resume_namenode()
    mount.mounter.unmount(str(mount.path), force=True, deadline_s=60)
    assert not daemon.alive()
    with pytest.raises(OSError, match=os.strerror(errno.ENOTCONN)):
        os.close(left_open)
    assert hdfs.fetch(hdfs_dir) == {"file": b"content"}


def test_safe_mode(hdfs: LocalHdfs, hdfs_dir: str, mount: Mounted) -> None:
    (mount.path / "first").write_bytes(b"x")  # an uploader is there
    # Started before the file is open: a child that closes its copy of a descriptor would have it stored.
    entering = threading.Thread(target=hdfs.dfsadmin, args=("-safemode", "enter"))
    entering.start()
    wait_until(lambda: any(b"DFSAdmin" in command(pid) for pid in children_of(os.getpid())), "dfsadmin runs")
    fd = os.open(mount.path / "file", os.O_WRONLY | os.O_CREAT)
    os.write(fd, b"kept")
    entering.join()
    started = time.monotonic()
    try:
        with pytest.raises(OSError, match="Read-only file system") as caught:
            os.fsync(fd)
        assert caught.value.errno == errno.EROFS
        # Within its deadline, and an attempt more at the most.
        assert time.monotonic() - started < 2 * DEADLINE_S
        with pytest.raises(OSError, match="Read-only file system"):
            (mount.path / "directory").mkdir()
    finally:
        hdfs.dfsadmin("-safemode", "leave")
    os.fsync(fd)
    os.close(fd)
    assert hdfs.fetch(hdfs_dir) == {"first": b"x", "file": b"kept"}


def test_what_close_could_not_store_is_stored_later(hdfs: LocalHdfs, hdfs_dir: str, mount: Mounted) -> None:
    fd = os.open(mount.path / "file", os.O_WRONLY | os.O_CREAT)
    os.write(fd, b"kept")
    hdfs.pause_namenode()
    try:
        with pytest.raises(OSError) as caught:  # noqa: PT011
            os.close(fd)
        assert caught.value.errno in (errno.ETIMEDOUT, errno.EIO)
    finally:
        hdfs.resume_namenode()
    wait_until(lambda: "file" in names(hdfs, hdfs_dir), "the file is stored", timeout_s=90)
    assert (mount.path / "file").read_bytes() == b"kept"
    assert hdfs.fetch(hdfs_dir) == {"file": b"kept"}


# ---- the uploader


def test_an_uploader_dies(hdfs: LocalHdfs, hdfs_dir: str, mount: Mounted) -> None:
    files = {f"file{number}": os.urandom(4096) for number in range(10)}
    for number, (name, data) in enumerate(files.items()):
        with (mount.path / name).open("wb", buffering=0) as file:
            file.write(data)
            if number % 3 == 1:
                os.kill(uploader_pid(), signal.SIGKILL)
    os.kill(uploader_pid(), signal.SIGKILL)  # files that are published are not yet complete

    client = Client(hdfs.uri)
    # Its reader does not see the last block of a file that is not complete.
    wait_until(
        lambda: all(client.read(f"{hdfs_dir}/{name}").size == 4096 for name in files), "all are complete", timeout_s=60
    )
    assert hdfs.fetch(hdfs_dir) == files


def test_an_uploader_hangs(hdfs: LocalHdfs, hdfs_dir: str, mount: Mounted) -> None:
    (mount.path / "first").write_bytes(b"x")
    with (mount.path / "file").open("wb", buffering=0) as file:
        file.write(b"one")
        os.kill(uploader_pid(), signal.SIGSTOP)
    assert hdfs.fetch(hdfs_dir) == {"first": b"x", "file": b"one"}


def test_a_node_that_crashed_keeps_nobody_out_for_long(
    hdfs: LocalHdfs, hdfs_dir: str, mount: Mounted, tmp_path: Path
) -> None:
    (mount.path / "file").write_bytes(b"old")
    ours = set(daemons())
    with mounted_writable(f"{hdfs.uri}{hdfs_dir}", tmp_path / "other", hadoop_conf_dir=str(hdfs.conf_dir)) as other:
        fd = os.open(other.path / "file", os.O_WRONLY)
        os.write(fd, b"lost")
        (daemon,) = set(daemons()) - ours
        for pid in (*children_of(daemon), daemon):
            os.kill(pid, signal.SIGKILL)
        with pytest.raises(OSError, match="busy") as caught:
            os.open(mount.path / "file", os.O_WRONLY)
        assert caught.value.errno == errno.EBUSY
        with contextlib.suppress(OSError):
            os.close(fd)

    def may_write() -> bool:
        with contextlib.suppress(OSError):
            os.close(os.open(mount.path / "file", os.O_WRONLY | os.O_APPEND))
            return True
        return False

    wait_until(may_write, "HDFS's soft limit of a lease, 60 s, is over", timeout_s=150)
    with (mount.path / "file").open("ab") as file:
        file.write(b" and new")
    assert hdfs.fetch(hdfs_dir) == {"file": b"old and new"}
