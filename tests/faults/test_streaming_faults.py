"""Long files and logs, written while uploaders and daemons of a real HDFS with three DataNodes die, hang and restart.

What has gone out of a long file is no longer here: it must not get lost, and not be sent twice.
"""

import errno
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hdfs_fuse.config import StagingConfig

from tests.faults.test_writing_faults import (
    DEADLINE_S,
    cluster,
    hdfs,
    stored_or_kept,
    uploader_pid,
    wait_until_stored,
)
from tests.mount.local import KIB, MIB, Mounted, mounted
from tests.support.local_hdfs import LocalHdfs

__all__ = ["cluster", "hdfs"]

PIECES = [number.to_bytes(8, "little") + os.urandom(MIB - 8) for number in range(80)]
Fault = Callable[[LocalHdfs], None]


@contextmanager
def streaming(hdfs: LocalHdfs, hdfs_dir: str, tmp_path: Path, deadline_s: float) -> Iterator[Mounted]:
    staging = StagingConfig(directory=str(tmp_path / "staging"), stream_from_bytes=256 * KIB, window_bytes=20 * MIB)
    uri, conf_dir = f"{hdfs.uri}{hdfs_dir}", str(hdfs.conf_dir)
    with mounted(
        uri, tmp_path, read_only=False, staging=staging, hadoop_conf_dir=conf_dir, call_deadline_s=deadline_s
    ) as made:
        yield made
        assert "Traceback" not in made.log.read_text()


@pytest.fixture
def mount(hdfs: LocalHdfs, hdfs_dir: str, tmp_path: Path) -> Iterator[Mounted]:
    with streaming(hdfs, hdfs_dir, tmp_path, DEADLINE_S) as made:
        yield made


def kill_uploader(_: LocalHdfs) -> None:
    os.kill(uploader_pid(), signal.SIGKILL)


def stop_uploader(_: LocalHdfs) -> None:
    os.kill(uploader_pid(), signal.SIGSTOP)  # the daemon kills it


def kill_datanode(hdfs: LocalHdfs) -> None:
    hdfs.kill_datanode(0)


def restart_datanode(hdfs: LocalHdfs) -> None:
    hdfs.kill_datanode(1)
    hdfs.start_datanode(1)


def restart_namenode(hdfs: LocalHdfs) -> None:
    hdfs.kill_namenode()
    hdfs.start_namenode()


@contextmanager
def hung_datanode(hdfs: LocalHdfs) -> Iterator[None]:
    hdfs.pause_datanode(2)
    try:
        yield
    finally:
        hdfs.resume_datanode(2)


FAULTS = [kill_uploader, stop_uploader, kill_datanode, restart_datanode, restart_namenode]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_long_file(hdfs: LocalHdfs, hdfs_dir: str, mount: Mounted, fault: Fault) -> None:
    hdfs.prepare_starts()
    with stored_or_kept(), (mount.path / "long").open("wb", buffering=0) as file:
        for piece in PIECES[:50]:
            file.write(piece)
        striking = threading.Thread(target=fault, args=(hdfs,))
        striking.start()
        try:
            for piece in PIECES[50:]:
                file.write(piece)
        finally:
            striking.join()
    wait_until_stored(hdfs, hdfs_dir, {"long": b"".join(PIECES)})


def test_a_long_file_while_a_datanode_hangs(hdfs: LocalHdfs, hdfs_dir: str, mount: Mounted) -> None:
    with stored_or_kept(), (mount.path / "long").open("wb", buffering=0) as file:
        for piece in PIECES[:50]:
            file.write(piece)
        with hung_datanode(hdfs):
            for piece in PIECES[50:]:
                file.write(piece)
    wait_until_stored(hdfs, hdfs_dir, {"long": b"".join(PIECES)})


def test_a_long_file_while_the_namenode_is_gone_for_longer_than_the_deadline(
    hdfs: LocalHdfs, hdfs_dir: str, tmp_path: Path
) -> None:
    with streaming(hdfs, hdfs_dir, tmp_path, deadline_s=DEADLINE_S / 3) as mount:
        file = (mount.path / "long").open("wb", buffering=0)
        for piece in PIECES[:50]:
            file.write(piece)
        hdfs.kill_namenode()
        for piece in PIECES[50:]:
            file.write(piece)
        with pytest.raises(OSError) as caught:  # noqa: PT011
            file.close()
        assert caught.value.errno in (errno.EIO, errno.ETIMEDOUT)
        hdfs.start_namenode()
        wait_until_stored(hdfs, hdfs_dir, {"long": b"".join(PIECES)})


@pytest.mark.parametrize("fault", FAULTS)
def test_a_log(hdfs: LocalHdfs, hdfs_dir: str, mount: Mounted, fault: Fault) -> None:
    hdfs.prepare_starts()
    lines = [b"line %d\n" % number * 1000 for number in range(20)]
    with stored_or_kept(), (mount.path / "log").open("wb", buffering=0) as log:
        for number, line in enumerate(lines):
            log.write(line)
            if number == 10:
                fault(hdfs)
            os.fsync(log.fileno())
            if number == 10:
                assert hdfs.fetch(hdfs_dir)["log"] == b"".join(lines[: number + 1])
    wait_until_stored(hdfs, hdfs_dir, {"log": b"".join(lines)})
