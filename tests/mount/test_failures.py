"""Mounts that can't be made, and daemons that die or hang: clear errors, and nothing left behind."""

import errno
import os
import signal
import socket
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hdfs_fuse.config import MountConfig, StagingConfig
from hdfs_fuse.errors import (
    BusyError,
    DeadlineError,
    HdfsFuseError,
    InvalidArgumentError,
    NotDirectoryError,
    NotFoundError,
    UnavailableError,
)
from hdfs_fuse.mounter import mounts
from hdfs_fuse.mounter.daemons import Ending
from hdfs_fuse.mounter.mounter import Mounter
from hdfs_fuse.mounter.supervisor import Supervisor, stats_path

from tests.mount.conftest import MountTmpfs
from tests.mount.local import mounted, mounted_writable
from tests.support.daemons import FORKS, daemons
from tests.support.processes import ProcessIdentity
from tests.support.waiting import wait_until


@pytest.fixture
def mounter(tmp_path: Path) -> Iterator[Mounter]:
    with tempfile.TemporaryDirectory(prefix="hf-") as runtime:
        yield Mounter(Supervisor(runtime, str(tmp_path / "daemon.log"), FORKS))


def test_bad_places_to_mount_from(mounter: Mounter, mountpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    cases: list[tuple[str, type[HdfsFuseError], str]] = [
        (f"file://{tmp_path}/absent", NotFoundError, "absent"),
        (f"file://{tmp_path}/file", NotDirectoryError, "a mount needs a directory"),
        ("hdfs://127.0.0.1:1/data", UnavailableError, "127.0.0.1:1"),
        ("hdfs:///data", InvalidArgumentError, "fs.defaultFS"),
    ]
    for uri, kind, message in cases:
        with pytest.raises(kind, match=message):
            mounter.mount(MountConfig(uri=uri), str(mountpoint))
        assert mounts.find(str(mountpoint)) is None
    with pytest.raises(InvalidArgumentError, match="unknown filesystem scheme 's3'"):
        MountConfig(uri="s3://bucket/key")


def test_bad_mountpoints(mounter: Mounter, tmp_path: Path) -> None:
    config = MountConfig(uri=f"file://{tmp_path}")
    with pytest.raises(NotFoundError, match="make the directory first"):
        mounter.mount(config, str(tmp_path / "absent"))
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(NotDirectoryError, match="file: not a directory"):
        mounter.mount(config, str(tmp_path / "file"))
    with mounted(f"file://{tmp_path}", tmp_path / "a") as mount, pytest.raises(BusyError, match=r"in use by file:///"):
        mounter.mount(config, str(mount.path))


def test_a_daemon_that_is_too_slow_is_ended(mounter: Mounter, mountpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(DeadlineError, match="did not get as far as Connected"):
        mounter.mount(MountConfig(uri=f"file://{tmp_path}"), str(mountpoint), deadline_s=0.001)
    assert mounts.find(str(mountpoint)) is None
    assert daemons() == []


def test_a_killed_daemon_is_noticed_and_its_mount_removed(tmp_path: Path) -> None:
    with mounted(f"file://{tmp_path}", tmp_path / "a") as mount:
        pid = mount.stats()["pid"]
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not Path(f"/proc/{pid}").exists(), "the daemon is reaped")
        with pytest.raises(OSError, match=os.strerror(errno.ENOTCONN)):
            os.listdir(mount.path)
        assert not mounts.is_alive(str(mount.path))
        with pytest.raises(BusyError, match="does not answer"):
            mount.mounter.mount(MountConfig(uri=f"file://{tmp_path}"), str(mount.path))
        mount.mounter.unmount(str(mount.path))
        assert mounts.find(str(mount.path)) is None
        mount.mounter.mount(MountConfig(uri=f"file://{tmp_path}"), str(mount.path))
        assert "a" in os.listdir(mount.path)


def test_a_hung_daemon_is_freed_within_the_deadline(tmp_path: Path) -> None:
    with mounted(f"file://{tmp_path}", tmp_path / "a") as mount:
        pid = mount.stats()["pid"]
        os.kill(pid, signal.SIGSTOP)
        waiting = subprocess.Popen(["ls", mount.path], stderr=subprocess.DEVNULL)
        try:
            assert not mounts.is_alive(str(mount.path), deadline_s=0.5)
            mount.mounter.unmount(str(mount.path), deadline_s=10)
            assert mounts.find(str(mount.path)) is None
            assert waiting.wait(10) != 0  # freed by the abort, with an error
        finally:
            waiting.kill()
            waiting.wait()
        assert not Path(f"/proc/{pid}").exists()


@pytest.mark.parametrize("number", [signal.SIGSTOP, signal.SIGKILL])
def test_a_daemon_of_another_supervisor_is_ended(tmp_path: Path, number: signal.Signals) -> None:
    with mounted(f"file://{tmp_path}", tmp_path / "a") as mount:
        daemon = ProcessIdentity.of(mount.stats()["pid"])
        daemon.send(number)
        Mounter(Supervisor(mount.runtime_dir)).unmount(str(mount.path), force=True, deadline_s=20)
        assert mounts.find(str(mount.path)) is None
        assert not daemon.alive()
        assert os.listdir(mount.runtime_dir) == []


def test_who_unmounts_waits_until_all_is_stored(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    with mounted_writable(f"file://{tmp_path}/tree", tmp_path / "a") as mount:
        daemon = ProcessIdentity.of(mount.stats()["pid"])
        left_open = os.open(mount.path / "file", os.O_WRONLY | os.O_CREAT)
        os.write(left_open, b"content")
        Mounter(Supervisor(mount.runtime_dir)).unmount(str(mount.path), force=True)
        assert not daemon.alive()
        assert (tmp_path / "tree" / "file").read_bytes() == b"content"
        assert os.listdir(tmp_path / "a" / "staging") == []
        with pytest.raises(OSError, match=os.strerror(errno.ENOTCONN)):
            os.close(left_open)


class _Reusing(Supervisor):
    """Right after an unmount the kernel gives the device's number to another filesystem, as on a busy node."""

    def __init__(self, runtime_dir: str, mount_another: Callable[[Path], None], directory: Path) -> None:
        super().__init__(runtime_dir)
        self._mount_another = mount_another
        self._directory = directory

    @contextmanager
    def ending(self, mountpoint: str, device: str | None) -> Iterator[Any]:
        with super().ending(mountpoint, device) as ending:
            yield _ReusingEnding(ending, lambda: self._take(device))

    def _take(self, device: str | None) -> None:
        for number in range(20):  # the lowest number that is free; other tests mount too
            self._mount_another(self._directory / str(number))
            if any(entry.device == device for entry in mounts.entries()):
                return
        raise AssertionError(f"{device} was not given again")


@dataclass
class _ReusingEnding:
    """Ending, whose first use comes when the mount is gone."""

    ending: Ending
    take: Callable[[], None]

    @property
    def devices(self) -> frozenset[str]:
        self.take()
        return self.ending.devices

    def finish(self, devices: frozenset[str], *, deadline_s: float) -> None:
        self.ending.finish(devices, deadline_s=deadline_s)


def test_who_unmounts_waits_also_where_the_device_number_is_another_mount_s_by_then(
    tmp_path: Path, mount_tmpfs: MountTmpfs
) -> None:
    (tmp_path / "tree").mkdir()
    with mounted_writable(f"file://{tmp_path}/tree", tmp_path / "a") as mount:
        daemon = ProcessIdentity.of(mount.stats()["pid"])
        daemon.send(signal.SIGSTOP)
        going_on = threading.Timer(1.0, lambda: daemon.send(signal.SIGCONT))
        going_on.start()
        Mounter(_Reusing(mount.runtime_dir, mount_tmpfs, tmp_path / "others")).unmount(str(mount.path), deadline_s=20)
        assert not daemon.alive()
        assert os.listdir(tmp_path / "a" / "staging") == []
        going_on.join()


def test_daemons_that_end_with_their_container_store_what_was_written(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "mnt").mkdir()
    with tempfile.TemporaryDirectory(prefix="hf-") as runtime:
        supervisor = Supervisor(runtime, str(tmp_path / "daemon.log"), FORKS)
        config = MountConfig(
            uri=f"file://{tmp_path}/tree", read_only=False, staging=StagingConfig(directory=str(tmp_path / "staging"))
        )
        mounter = Mounter(supervisor)
        mounter.mount(config, str(tmp_path / "mnt"))
        try:
            left_open = os.open(tmp_path / "mnt" / "file", os.O_WRONLY | os.O_CREAT)
            os.write(left_open, b"content")
            supervisor.end_all()
            assert (tmp_path / "tree" / "file").read_bytes() == b"content"
            assert os.listdir(tmp_path / "staging") == []
            with pytest.raises(OSError, match=os.strerror(errno.ENOTCONN)):
                os.close(left_open)
        finally:
            mounter.unmount(str(tmp_path / "mnt"), force=True)


def test_a_daemon_whose_mount_somebody_else_removed_is_ended(tmp_path: Path) -> None:
    """As where the node service was killed between unmounting and waiting."""
    with mounted(f"file://{tmp_path}", tmp_path / "a") as mount:
        daemon = ProcessIdentity.of(mount.stats()["pid"])
        daemon.send(signal.SIGSTOP)
        mounts.unmount(str(mount.path), force=True)
        Mounter(Supervisor(mount.runtime_dir)).unmount(str(mount.path), deadline_s=20)
        assert not daemon.alive()
        assert os.listdir(mount.runtime_dir) == []


def test_a_daemon_that_still_serves_bind_mounts_goes_on(tmp_path: Path) -> None:
    bound = tmp_path / "bound"
    bound.mkdir()
    with mounted(f"file://{tmp_path}", tmp_path / "a") as mount:
        daemon = ProcessIdentity.of(mount.stats()["pid"])
        mounts.bind(str(mount.path), str(bound), read_only=False)
        try:
            for mounter in (mount.mounter, Mounter(Supervisor(mount.runtime_dir)), mount.mounter):
                mounter.unmount(str(mount.path))
                assert "bound" in os.listdir(bound)
        finally:
            mounts.unmount(str(bound), force=True)
        mount.mounter.unmount(str(mount.path))
        assert not daemon.alive()
        assert os.listdir(mount.runtime_dir) == []


def test_who_asks_for_statistics_and_goes_away_harms_nobody(tmp_path: Path) -> None:
    with mounted(f"file://{tmp_path}", tmp_path / "a") as mount:
        entry = mounts.find(str(mount.path))
        assert entry is not None
        pid = mount.stats()["pid"]
        os.kill(pid, signal.SIGSTOP)
        for _ in range(3):
            with socket.socket(socket.AF_UNIX) as connection:
                connection.connect(stats_path(mount.runtime_dir, entry.device))
        os.kill(pid, signal.SIGCONT)
        assert mount.stats()["pid"] == pid
        assert "a" in os.listdir(mount.path)


def test_a_mount_in_use_is_not_torn_away(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    with mounted(f"file://{tmp_path}", tmp_path / "a") as mount:
        with (mount.path / "file").open("rb"), pytest.raises(BusyError, match="in use"):
            mount.mounter.unmount(str(mount.path))
        assert (mount.path / "file").read_bytes() == b"content"


def test_a_vanished_file_that_the_kernel_still_holds_is_stale(tmp_path: Path) -> None:
    (tmp_path / "source" / "dir").mkdir(parents=True)
    with mounted(f"file://{tmp_path}/source", tmp_path / "a") as mount:
        held = os.open(mount.path / "dir", os.O_RDONLY | os.O_DIRECTORY)
        try:
            (tmp_path / "source" / "dir").rmdir()
            with pytest.raises(OSError, match=os.strerror(errno.ESTALE)):
                os.fstat(held)
        finally:
            os.close(held)
        assert os.listdir(mount.path) == []
