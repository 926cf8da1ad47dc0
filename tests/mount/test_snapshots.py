"""Snapshots of HDFS directories through a mount: read by name, and never changed."""

import errno
import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.mount.behind import code
from tests.mount.local import Mounted, mounted_writable
from tests.support.local_hdfs import LocalHdfs


@pytest.fixture
def mount(hdfs: LocalHdfs, hdfs_dir: str, tmp_path: Path) -> Iterator[Mounted]:
    """A mount with the directory `dir`, of which there is a snapshot `s1`, and `plain`, which may have none."""
    with mounted_writable(f"{hdfs.uri}{hdfs_dir}", tmp_path, hadoop_conf_dir=str(hdfs.conf_dir)) as made:
        for name in ("dir", "dir/sub", "plain"):
            (made.path / name).mkdir()
        (made.path / "dir" / "file").write_bytes(b"old")
        os.setxattr(made.path / "dir" / "file", "user.a", b"x")
        (made.path / "dir" / "sub" / "deep").write_bytes(b"deep")
        hdfs.webhdfs("PUT", f"{hdfs_dir}/dir", "ALLOWSNAPSHOT")
        hdfs.webhdfs("PUT", f"{hdfs_dir}/dir", "CREATESNAPSHOT", snapshotname="s1")
        yield made
        hdfs.webhdfs("DELETE", f"{hdfs_dir}/dir", "DELETESNAPSHOT", snapshotname="s1")
        hdfs.webhdfs("PUT", f"{hdfs_dir}/dir", "DISALLOWSNAPSHOT")
        assert " WARNING " not in made.log.read_text()


def test_snapshots_are_read_by_name(mount: Mounted) -> None:
    directory = mount.path / "dir"
    snapshot = directory / ".snapshot" / "s1"
    (directory / "file").write_bytes(b"new content")
    (directory / "sub" / "deep").unlink()
    assert sorted(os.listdir(directory)) == ["file", "sub"]
    assert os.listdir(directory / ".snapshot") == ["s1"]
    assert sorted(os.listdir(snapshot)) == ["file", "sub"]
    assert (snapshot / "file").read_bytes() == b"old"
    assert (snapshot / "file").stat().st_size == 3
    assert (snapshot / "sub" / "deep").read_bytes() == b"deep"
    assert os.getxattr(snapshot / "file", "user.a") == b"x"
    assert (directory / "file").read_bytes() == b"new content"
    assert os.access(snapshot / "file", os.R_OK)


def test_what_is_no_snapshot_is_not_there(mount: Mounted) -> None:
    for path in (".snapshot", "plain/.snapshot", "dir/sub/.snapshot", "dir/.snapshot/s2", "dir/.snapshot/s1/none"):
        assert code(partial(os.stat, mount.path / path)) == errno.ENOENT


def test_every_change_of_a_snapshot_is_refused(mount: Mounted) -> None:
    directory = mount.path / "dir"
    snapshots, snapshot = directory / ".snapshot", directory / ".snapshot" / "s1"
    file = snapshot / "file"
    changes: dict[str, Callable[[], object]] = {
        "mkdir": (snapshot / "new").mkdir,
        "create": partial(os.open, snapshot / "new", os.O_WRONLY | os.O_CREAT),
        "create only": partial(os.open, snapshot / "new", os.O_WRONLY | os.O_CREAT | os.O_EXCL),
        "unlink": file.unlink,
        "rmdir": (snapshot / "sub").rmdir,
        "rename": partial(os.rename, file, snapshot / "new"),
        "rename out of it": partial(os.rename, file, directory / "new"),
        "rename into it": partial(os.rename, directory / "file", snapshot / "new"),
        "rename over it": partial(os.rename, directory / "file", file),
        "write": partial(os.open, file, os.O_WRONLY),
        "append": partial(os.open, file, os.O_RDWR | os.O_APPEND),
        "truncate": partial(os.truncate, file, 1),
        "open to truncate": partial(os.open, file, os.O_WRONLY | os.O_TRUNC),
        "chmod": partial(os.chmod, file, 0o600),
        "chown": partial(os.chown, file, 1, 1),
        "utime": partial(os.utime, file, (1, 1)),
        "setxattr": partial(os.setxattr, file, "user.a", b"y"),
        "removexattr": partial(os.removexattr, file, "user.a"),
        "a new snapshot": (snapshots / "s2").mkdir,
        "create beside snapshots": partial(os.open, snapshots / "file", os.O_WRONLY | os.O_CREAT),
        "remove a snapshot": snapshot.rmdir,
        "rename a snapshot": partial(os.rename, snapshot, snapshots / "s2"),
        "remove all snapshots": snapshots.rmdir,
        "rename all snapshots": partial(os.rename, snapshots, directory / "new"),
        "chmod of all": partial(os.chmod, snapshots, 0o700),
    }
    assert {name: code(change) for name, change in changes.items()} == dict.fromkeys(changes, errno.EROFS)
    assert not os.access(file, os.W_OK)
    assert not os.access(snapshot, os.W_OK)
    assert file.read_bytes() == (directory / "file").read_bytes() == b"old"


def test_a_directory_that_has_snapshots_stays(mount: Mounted) -> None:
    directory = mount.path / "dir"
    assert code(partial(os.rename, directory, mount.path / "new")) == errno.EBUSY
    (directory / "sub" / "deep").unlink()
    (directory / "sub").rmdir()
    (directory / "file").unlink()
    assert code(directory.rmdir) == errno.EBUSY
    assert (directory / ".snapshot" / "s1" / "file").read_bytes() == b"old"


def test_the_name_is_kept_for_snapshots(mount: Mounted) -> None:
    name = mount.path / "plain" / ".snapshot"
    assert code(name.mkdir) == errno.EINVAL
    assert code(partial(os.open, name, os.O_WRONLY | os.O_CREAT)) == errno.EINVAL
    assert code(partial(os.rename, mount.path / "dir" / "file", name)) == errno.EINVAL
    assert os.listdir(mount.path / "plain") == []
