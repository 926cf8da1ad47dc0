"""The errnos of docs/semantics.md that no other test provokes: limits of HDFS, lost blocks, a cluster without room."""

import ctypes
import errno
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.mount.behind import code
from tests.mount.local import KIB, MIB, Mounted, mounted, mounted_writable
from tests.support.hadoop import CRYPTO_ADMIN, KEY_SHELL
from tests.support.local_hdfs import LocalHdfs
from tests.support.waiting import wait_until

ITEMS = 30


@pytest.fixture(scope="module")
def limited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalHdfs]:
    """An HDFS with small limits, and with the key `key` for encryption zones.

    The store of keys is the NameNode's alone: a client that knew of it would look for a KMS.
    """
    keys = f"jceks://file{tmp_path_factory.mktemp('keys')}/keys.jceks"
    limits = {
        "dfs.namenode.fs-limits.max-directory-items": str(ITEMS),
        "dfs.namenode.fs-limits.max-blocks-per-file": "2",
    }
    with LocalHdfs(
        properties=limits, namenode_properties={"hadoop.security.key.provider.path": keys}, block_size_bytes=MIB
    ) as hdfs:
        hdfs.tool(KEY_SHELL, "create", "key", "-provider", keys)
        hdfs.stop_namenode()
        hdfs.start_namenode()
        yield hdfs


@pytest.fixture
def mount(limited: LocalHdfs, tmp_path: Path) -> Iterator[Mounted]:
    limited.fs_shell("-mkdir", "-p", "/test")
    with mounted_writable(f"{limited.uri}/test", tmp_path, hadoop_conf_dir=str(limited.conf_dir)) as made:
        yield made
    limited.fs_shell("-rm", "-r", "-skipTrash", "/test")


def test_too_many_entries_in_a_directory(mount: Mounted) -> None:
    codes = [code((mount.path / str(number)).mkdir) for number in range(ITEMS + 1)]
    assert codes == [None] * ITEMS + [errno.EDQUOT]
    assert code(partial(os.open, mount.path / "file", os.O_WRONLY | os.O_CREAT)) == errno.EDQUOT


def test_too_many_blocks_in_a_file(mount: Mounted) -> None:
    path = mount.path / "file"
    path.write_bytes(bytes(2 * MIB))
    with path.open("ab", buffering=0) as file:
        file.write(b"x")
        assert code(lambda: os.fsync(file.fileno())) == errno.EFBIG
        file.truncate(2 * MIB)
    assert path.stat().st_size == 2 * MIB


def descend(root: Path, name: str) -> tuple[int, int]:
    """Make directories of that name, one in the other, until one is refused; their number, and the last one open."""
    directory, depth = os.open(root, os.O_RDONLY), 0
    while (refusal := code(partial(os.mkdir, name, dir_fd=directory))) is None:
        below = os.open(name, os.O_RDONLY, dir_fd=directory)
        os.close(directory)
        directory, depth = below, depth + 1
    assert refusal == errno.ENAMETOOLONG
    return depth, directory


def test_a_path_that_is_too_long(mount: Mounted) -> None:
    (mount.path / "file").write_bytes(b"x")
    for name, expected in (("x" * 200, (8000 - len("/test")) // 201), ("a", 1000 - 1)):
        depth, directory = descend(mount.path, name)
        assert depth == expected
        new = "y" * 250
        assert code(partial(os.open, new, os.O_WRONLY | os.O_CREAT, dir_fd=directory)) == errno.ENAMETOOLONG
        assert code(partial(os.rename, mount.path / "file", new, dst_dir_fd=directory)) == errno.ENAMETOOLONG
        os.close(directory)


def test_renames_across_encryption_zones_and_mounts(limited: LocalHdfs, mount: Mounted, tmp_path: Path) -> None:
    for name in ("zone", "plain", "plain/below"):
        (mount.path / name).mkdir()
    limited.tool(CRYPTO_ADMIN, "-createZone", "-keyName", "key", "-path", "/test/zone")
    (mount.path / "zone" / "below").mkdir()
    zone, plain = mount.path / "zone", mount.path / "plain"
    assert code(partial(os.rename, zone / "below", plain / "new")) == errno.EXDEV
    assert code(partial(os.rename, plain / "below", zone / "new")) == errno.EXDEV
    os.rename(zone / "below", zone / "new")
    (mount.path / "file").write_bytes(b"x")
    with mounted_writable(f"{limited.uri}/test", tmp_path / "other", hadoop_conf_dir=str(limited.conf_dir)) as other:
        assert code(partial(os.rename, mount.path / "file", other.path / "new")) == errno.EXDEV
    assert sorted(os.listdir(mount.path)) == ["file", "plain", "zone"]


def test_a_file_in_the_place_of_a_directory_and_the_reverse(mount: Mounted) -> None:
    (mount.path / "dir").mkdir()
    (mount.path / "file").write_bytes(b"x")
    assert code(partial(os.open, mount.path / "dir", os.O_WRONLY)) == errno.EISDIR
    assert code((mount.path / "dir").unlink) == errno.EISDIR
    assert code((mount.path / "file").rmdir) == errno.ENOTDIR
    assert code(partial(os.listdir, mount.path / "file")) == errno.ENOTDIR
    assert code(partial(os.stat, mount.path / "file" / "below")) == errno.ENOTDIR


def test_flags_of_rename(mount: Mounted) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    for name in ("one", "two"):
        (mount.path / name).write_bytes(name.encode())
    one, two = (os.fsencode(mount.path / name) for name in ("one", "two"))
    for flags, expected in ((1, errno.EEXIST), (2, errno.EINVAL)):  # RENAME_NOREPLACE, RENAME_EXCHANGE
        assert libc.renameat2(-100, one, -100, two, flags) == -1
        assert ctypes.get_errno() == expected
    assert (mount.path / "two").read_bytes() == b"two"


def test_a_mount_that_is_read_only(limited: LocalHdfs, mount: Mounted, tmp_path: Path) -> None:
    (mount.path / "file").write_bytes(b"x")
    (mount.path / "dir").mkdir()
    with mounted(f"{limited.uri}/test", tmp_path / "other", hadoop_conf_dir=str(limited.conf_dir)) as other:
        root = other.path
        for change in (
            (root / "new").mkdir,
            partial(os.open, root / "new", os.O_WRONLY | os.O_CREAT),
            partial(os.open, root / "file", os.O_RDWR),
            partial(os.truncate, root / "file", 0),
            (root / "file").unlink,
            (root / "dir").rmdir,
            partial(os.rename, root / "file", root / "new"),
            partial(os.chmod, root / "file", 0o600),
            partial(os.utime, root / "file"),
            partial(os.setxattr, root / "file", "user.a", b""),
        ):
            assert code(change) == errno.EROFS


def test_blocks_that_are_lost(limited: LocalHdfs, mount: Mounted, tmp_path: Path) -> None:
    (mount.path / "file").write_bytes(bytes(700 * KIB))
    with mounted(
        f"{limited.uri}/test", tmp_path / "other", hadoop_conf_dir=str(limited.conf_dir), call_deadline_s=4.0
    ) as other:
        for block in (limited.directory / "datanode0").rglob("blk_*"):
            block.unlink()
        assert code((other.path / "file").read_bytes) == errno.EIO
        assert (other.path / "file").stat().st_size == 700 * KIB


def test_a_namenode_that_is_gone(tmp_path: Path) -> None:
    with (
        LocalHdfs() as hdfs,
        mounted_writable(hdfs.uri, tmp_path, hadoop_conf_dir=str(hdfs.conf_dir), call_deadline_s=12.0) as mount,
    ):
        hdfs.kill_namenode()
        assert code(partial(os.stat, mount.path / "file")) == errno.EIO
        assert code((mount.path / "dir").mkdir) == errno.EIO
        assert code(partial(os.open, mount.path / "file", os.O_WRONLY | os.O_CREAT)) in (errno.EIO, errno.ETIMEDOUT)
        hdfs.start_namenode()
        wait_until(lambda: code((mount.path / "dir").mkdir) is None, "HDFS answers again")


def test_a_cluster_without_room(tmp_path: Path) -> None:
    with (
        LocalHdfs(block_size_bytes=1 << 46) as hdfs,  # a DataNode must have room for a whole block
        mounted_writable(hdfs.uri, tmp_path, hadoop_conf_dir=str(hdfs.conf_dir)) as mount,
    ):
        fd = os.open(mount.path / "file", os.O_WRONLY | os.O_CREAT)
        os.write(fd, b"kept")
        assert code(partial(os.fsync, fd)) == errno.ENOSPC
        assert (mount.path / "file").read_bytes() == b"kept"
        os.unlink(mount.path / "file")
        os.close(fd)
        (mount.path / "empty").write_bytes(b"")  # needs no block
        assert os.listdir(mount.path) == ["empty"]
