"""Questions to mounts in every state: answered, or given up in time, with no more than one process left behind."""

import os
import signal
from pathlib import Path

import pytest
from hdfs_fuse.errors import DeadlineError, StaleError, UnavailableError
from hdfs_fuse.mounter import probes

from tests.mount.local import mounted
from tests.support.daemons import questions_of
from tests.support.processes import ProcessIdentity
from tests.support.waiting import wait_until


def test_a_mount_that_is_well(tmp_path: Path) -> None:
    with mounted(f"file://{tmp_path}", tmp_path / "a") as mount:
        real, found = os.statvfs(tmp_path), probes.space(str(mount.path), deadline_s=10)
        assert found.capacity_bytes == real.f_blocks * real.f_frsize
        assert 0 < found.available_bytes <= found.free_bytes <= found.capacity_bytes
        assert (found.max_names, found.free_names <= found.max_names) == (real.f_files, True)
        probes.check_listing(str(mount.path), deadline_s=10)


def test_a_directory_that_is_gone(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    with mounted(f"file://{source}", tmp_path / "a") as mount:
        source.rmdir()
        with pytest.raises(StaleError):
            probes.check_listing(str(mount.path), deadline_s=10)
        probes.space(str(mount.path), deadline_s=10)


def test_a_dead_mount(tmp_path: Path) -> None:
    with mounted(f"file://{tmp_path}", tmp_path / "a") as mount:
        daemon = ProcessIdentity.of(mount.stats()["pid"])
        daemon.send(signal.SIGKILL)
        assert daemon.wait_gone(10)
        for ask in (probes.space, probes.check_listing):
            with pytest.raises(UnavailableError, match="has ended"):
                ask(str(mount.path), deadline_s=10)


def test_a_mount_that_hangs_in_the_kernel_keeps_one_process(tmp_path: Path) -> None:
    # The second daemon waits for the first, so who asks it can't be killed: the kernel waits for the answer.
    with mounted(f"file://{tmp_path}", tmp_path / "a") as first:
        daemon = ProcessIdentity.of(first.stats()["pid"])
        with mounted(f"file://{first.path}", tmp_path / "b") as second:
            daemon.send(signal.SIGSTOP)
            try:
                for _ in range(4):
                    with pytest.raises(DeadlineError):
                        probes.check_listing(str(second.path), deadline_s=0.3)
                assert questions_of(os.getpid()) == ["find"]
                probes.space(str(second.path), deadline_s=10)  # the daemon itself is well
            finally:
                daemon.send(signal.SIGCONT)
            wait_until(lambda: not questions_of(os.getpid()), "the process ends when it is answered")
            probes.check_listing(str(second.path), deadline_s=10)
