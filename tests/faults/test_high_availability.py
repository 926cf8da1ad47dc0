"""Mounts of an HDFS with two NameNodes, while the active one hands over or dies."""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.mount.local import MIB, Mounted, mounted_writable
from tests.mount.test_kerberos import login
from tests.support.local_hdfs import HaHdfs, HaKerberosHdfs, KerberosHdfs

CONTENT = os.urandom(MIB) * 24
DEADLINE_S = 60.0  # longer than clients look for the active NameNode


@pytest.fixture(scope="module", params=[HaHdfs, HaKerberosHdfs], ids=["simple", "kerberos"])
def cluster(request: pytest.FixtureRequest, nothing_left_behind: None) -> Iterator[HaHdfs]:
    with request.param() as running:
        yield running


@pytest.fixture
def hdfs(cluster: HaHdfs) -> Iterator[HaHdfs]:
    """Two NameNodes that run; which is active each test leaves to the next."""
    yield cluster
    cluster.mend()


@pytest.fixture
def config(hdfs: HaHdfs) -> dict[str, Any]:
    """Of a mount: where the NameNodes are, and who asks them."""
    kerberos = login(hdfs, "alice") if isinstance(hdfs, KerberosHdfs) else None
    return {"hadoop_conf_dir": str(hdfs.conf_dir), "kerberos": kerberos}


@pytest.fixture
def mount(hdfs: HaHdfs, hdfs_dir: str, config: dict[str, Any], tmp_path: Path) -> Iterator[Mounted]:
    hdfs.prepare_starts()
    with mounted_writable(f"{hdfs.uri}{hdfs_dir}", tmp_path, **config, call_deadline_s=DEADLINE_S) as made:
        yield made
        assert "Traceback" not in made.log.read_text()


def crash(hdfs: HaHdfs) -> None:
    """What a failover controller does about a NameNode that has died."""
    hdfs.kill_namenode()
    hdfs.failover()


HANDOVERS = pytest.mark.parametrize("hand_over", [HaHdfs.failover, crash], ids=["by order", "by a crash"])


@contextmanager
def meanwhile(action: Callable[[], None]) -> Iterator[None]:
    """Have `action` happen beside the block."""
    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(action)
        yield
        done.result()


@HANDOVERS
def test_the_other_namenode_serves_the_next_call(
    hdfs: HaHdfs, hdfs_dir: str, mount: Mounted, hand_over: Callable[[HaHdfs], None]
) -> None:
    (mount.path / "before").write_bytes(b"before")
    hand_over(hdfs)
    assert (mount.path / "before").read_bytes() == b"before"
    (mount.path / "directory").mkdir()
    (mount.path / "before").rename(mount.path / "directory" / "renamed")
    (mount.path / "after").write_bytes(CONTENT)
    assert sorted(os.listdir(mount.path)) == ["after", "directory"]
    assert hdfs.fetch(hdfs_dir) == {"after": CONTENT, "directory/renamed": b"before"}


@HANDOVERS
def test_files_that_are_written_meanwhile_are_stored(
    hdfs: HaHdfs, hdfs_dir: str, mount: Mounted, hand_over: Callable[[HaHdfs], None]
) -> None:
    files = {f"file{number}": os.urandom(4096) for number in range(60)}

    def write(item: tuple[str, bytes]) -> None:
        (mount.path / item[0]).write_bytes(item[1])

    with (mount.path / "large").open("wb", buffering=0) as large, ThreadPoolExecutor(4) as pool:
        large.write(CONTENT[: 8 * MIB])
        with meanwhile(lambda: hand_over(hdfs)):
            for _ in pool.map(write, files.items()):
                pass
            large.write(CONTENT[8 * MIB :])
    assert hdfs.fetch(hdfs_dir) == {**files, "large": CONTENT}


@HANDOVERS
def test_reading_goes_on(hdfs: HaHdfs, mount: Mounted, hand_over: Callable[[HaHdfs], None]) -> None:
    for name in ("open", "opened later"):
        (mount.path / name).write_bytes(CONTENT)
    with (mount.path / "open").open("rb", buffering=0) as file:
        content = file.read(MIB)
        with meanwhile(lambda: hand_over(hdfs)):
            while part := file.read(MIB):
                content += part
    assert content == CONTENT
    assert (mount.path / "opened later").read_bytes() == CONTENT


def test_what_is_asked_over_http_goes_to_the_active_namenode_too(hdfs: HaHdfs, hdfs_dir: str, mount: Mounted) -> None:
    """Quotas and extended attributes: the client's RPC has neither."""
    hdfs.dfsadmin("-setSpaceQuota", str(512 * MIB), hdfs_dir)
    (mount.path / "file").write_bytes(b"content")
    for _ in range(2):
        found = os.statvfs(mount.path)
        assert found.f_blocks * found.f_frsize == 512 * MIB
        os.setxattr(mount.path / "file", "user.colour", b"red")
        assert os.getxattr(mount.path / "file", "user.colour") == b"red"
        hdfs.failover()


def test_a_mount_begins_whichever_namenode_is_active(
    hdfs: HaHdfs, hdfs_dir: str, config: dict[str, Any], tmp_path: Path
) -> None:
    for number in range(2):
        with mounted_writable(f"{hdfs.uri}{hdfs_dir}", tmp_path / str(number), **config) as made:
            (made.path / f"file{number}").write_bytes(b"content")
        hdfs.failover()
    assert hdfs.fetch(hdfs_dir) == {"file0": b"content", "file1": b"content"}
