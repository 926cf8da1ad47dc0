"""Mounts of a real HDFS: bytes, permissions, identities, and what breaks while a reader reads."""

import contextlib
import errno
import os
import random
import signal
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hdfs_fuse.errors import PermissionDeniedError
from hdfs_native import Client

from tests.mount.local import MIB, mounted
from tests.perf.observe import children_of
from tests.support.local_hdfs import LocalHdfs
from tests.support.waiting import wait_until

LARGE = random.Random(7).randbytes(9 * MIB + 11)


def put(hdfs: LocalHdfs, path: str, content: bytes) -> None:
    hdfs.fs_shell("-put", "-f", "-", path, stdin=content)


def bytes_or_errno(fd: int, size: int, offset: int) -> bytes | int | None:
    try:
        return os.pread(fd, size, offset)
    except OSError as e:
        return e.errno


@pytest.fixture(autouse=True)
def hadoop_environment(hdfs: LocalHdfs, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in hdfs.environment.items():
        monkeypatch.setenv(name, value)


def test_content_names_and_times_are_those_of_hdfs(hdfs: LocalHdfs, hdfs_dir: str, tmp_path: Path) -> None:
    put(hdfs, f"{hdfs_dir}/large", LARGE)
    put(hdfs, f"{hdfs_dir}/größe", b"small")
    hdfs.fs_shell("-mkdir", "-p", f"{hdfs_dir}/deep/er")
    with mounted(f"{hdfs.uri}{hdfs_dir}", tmp_path) as mount:
        assert sorted(os.listdir(mount.path)) == ["deep", "größe", "large"]
        assert (mount.path / "large").read_bytes() == LARGE
        assert (mount.path / "größe").read_bytes() == b"small"
        assert (mount.path / "deep" / "er").is_dir()
        status = hdfs.webhdfs("GET", f"{hdfs_dir}/large", "GETFILESTATUS")["FileStatus"]
        assert (mount.path / "large").stat().st_mtime_ns == status["modificationTime"] * 1_000_000
        assert os.statvfs(mount.path).f_blocks > 1
        mount.drop_pages("large")
        assert (mount.path / "large").read_bytes() == LARGE
        counted = mount.stats()
        assert counted["hdfs_bytes"] == len(LARGE) + 5
        assert counted["errors"] == {}


def test_quotas_show_in_statfs(hdfs: LocalHdfs, hdfs_dir: str, tmp_path: Path) -> None:
    put(hdfs, f"{hdfs_dir}/large", LARGE)
    hdfs.webhdfs("PUT", hdfs_dir, "SETQUOTA", namespacequota="10", storagespacequota=str(1 << 30))
    with mounted(f"{hdfs.uri}{hdfs_dir}", tmp_path) as mount:
        found = os.statvfs(mount.path)
        assert found.f_blocks * found.f_frsize == 1 << 30
        taken = (found.f_blocks - found.f_bfree) * found.f_frsize
        assert len(LARGE) <= taken < len(LARGE) + 2 * found.f_frsize
        assert found.f_bavail <= found.f_bfree
        assert (found.f_files, found.f_ffree) == (10, 8)


def test_a_replaced_file_shows_its_new_content(hdfs: LocalHdfs, hdfs_dir: str, tmp_path: Path) -> None:
    put(hdfs, f"{hdfs_dir}/file", LARGE)
    with mounted(f"{hdfs.uri}{hdfs_dir}", tmp_path) as mount:
        assert (mount.path / "file").read_bytes() == LARGE
        put(hdfs, f"{hdfs_dir}/file", LARGE[::-1])
        assert (mount.path / "file").read_bytes() == LARGE[::-1]


def test_a_file_replaced_under_its_reader_is_never_mixed(hdfs: LocalHdfs, hdfs_dir: str, tmp_path: Path) -> None:
    put(hdfs, f"{hdfs_dir}/file", LARGE)
    with (
        mounted(f"{hdfs.uri}{hdfs_dir}", tmp_path, read_ahead_bytes=0) as mount,
        (mount.path / "file").open("rb", buffering=0) as file,
    ):
        assert os.pread(file.fileno(), 4096, 0) == LARGE[:4096]
        put(hdfs, f"{hdfs_dir}/file", LARGE[::-1])
        # DataNodes remove replaced blocks in their own time: the old bytes may still be there.
        assert bytes_or_errno(file.fileno(), 4096, 8 * MIB) in (LARGE[8 * MIB : 8 * MIB + 4096], errno.ESTALE)


def test_the_cache_serves_nobody_what_he_may_not_read(hdfs: LocalHdfs, hdfs_dir: str, tmp_path: Path) -> None:
    for name, mode in (("open", "644"), ("private", "600")):
        put(hdfs, f"{hdfs_dir}/{name}", LARGE[:50_000])
        hdfs.fs_shell("-chmod", mode, f"{hdfs_dir}/{name}")
    with mounted(f"{hdfs.uri}{hdfs_dir}", tmp_path / "root") as mount:
        assert (mount.path / "private").read_bytes() == (mount.path / "open").read_bytes() == LARGE[:50_000]
        wait_until(lambda: len(mount.block_files()) == 2, "both files are cached")
        with mounted(f"{hdfs.uri}{hdfs_dir}", tmp_path / "alice", mount.cache, user="alice") as alice:
            assert (alice.path / "open").read_bytes() == LARGE[:50_000]
            assert alice.stats()["hdfs_bytes"] == 0
            with pytest.raises(PermissionError):
                (alice.path / "private").read_bytes()
            assert not os.access(alice.path / "private", os.R_OK)
            assert os.access(alice.path / "open", os.R_OK)


def test_a_root_that_may_not_be_entered_is_refused(hdfs: LocalHdfs, hdfs_dir: str, tmp_path: Path) -> None:
    hdfs.fs_shell("-chmod", "700", hdfs_dir)
    with (
        pytest.raises(PermissionDeniedError, match=r"alice|Permission denied"),
        mounted(f"{hdfs.uri}{hdfs_dir}", tmp_path, user="alice"),
    ):
        pass


@pytest.fixture(scope="module")
def two_datanodes() -> Iterator[LocalHdfs]:
    with LocalHdfs(datanodes=2, properties={"dfs.replication": "2"}) as running:
        put(running, "/data/large", LARGE)
        yield running


def test_a_datanode_dies_under_a_reader(two_datanodes: LocalHdfs, tmp_path: Path) -> None:
    hdfs = two_datanodes
    with (
        mounted(f"{hdfs.uri}/data", tmp_path, read_ahead_bytes=0, hadoop_conf_dir=str(hdfs.conf_dir)) as mount,
        (mount.path / "large").open("rb", buffering=0) as file,
    ):
        seen = os.pread(file.fileno(), MIB, 0)
        hdfs.kill_datanode(0)
        try:
            for start in range(MIB, len(LARGE), MIB):
                seen += os.pread(file.fileno(), MIB, start)
        finally:
            hdfs.start_datanode(0)
            hdfs.wait_ready()
        assert seen == LARGE


def test_a_hung_namenode_costs_a_timeout_and_not_the_mount(two_datanodes: LocalHdfs, tmp_path: Path) -> None:
    hdfs = two_datanodes
    with mounted(f"{hdfs.uri}/data", tmp_path, call_deadline_s=2.0, hadoop_conf_dir=str(hdfs.conf_dir)) as mount:
        hdfs.pause_namenode()
        try:
            # In a process of its own: a read that hangs must not take the test along.
            command = ["timeout", "-k", "1", "30", "cat", str(mount.path / "large")]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            assert os.strerror(errno.ETIMEDOUT) in done.stderr
        finally:
            hdfs.resume_namenode()
        assert (mount.path / "large").read_bytes() == LARGE
        assert mount.stats()["hdfs_timeout_count"] > 0


def test_small_files_are_read_on_when_their_loader_is_killed(hdfs: LocalHdfs, hdfs_dir: str, tmp_path: Path) -> None:
    contents = {f"{i:03d}": random.Random(i).randbytes(1000 + i) for i in range(300)}
    client = Client(hdfs.uri)

    def store(name: str) -> None:
        with client.create(f"{hdfs_dir}/{name}") as writer:
            writer.write(contents[name])

    with ThreadPoolExecutor(50) as pool:  # each close takes 0.4 s
        list(pool.map(store, contents))
    killed: list[int] = []
    with (
        mounted(f"{hdfs.uri}{hdfs_dir}", tmp_path, metadata_ttl_s=60.0) as mount,
        ThreadPoolExecutor(16) as pool,
    ):
        daemon = mount.stats()["pid"]

        def read(name: str) -> bytes:
            if not killed:
                for pid in children_of(daemon):
                    killed.append(pid)
                    with contextlib.suppress(ProcessLookupError):  # another reader was faster
                        os.kill(pid, signal.SIGKILL)
            return (mount.path / name).read_bytes()

        while not killed:  # until the daemon has found a loader worth starting
            assert dict(zip(contents, pool.map(read, contents), strict=True)) == contents
            for name in contents:
                mount.drop_pages(name)
            for block in mount.block_files():
                block.unlink()
        assert dict(zip(contents, pool.map(read, contents), strict=True)) == contents
        assert mount.stats()["errors"] == {}
