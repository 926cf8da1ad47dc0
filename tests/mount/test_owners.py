"""Owners, groups and access control lists: what a mount shows of them, changes, and keeps."""

import errno
import grp
import os
import pwd
from functools import partial
from pathlib import Path

import pytest
from hdfs_fuse.owners import NOBODY

from tests.mount.behind import Behind, code
from tests.mount.local import Mounted, mounted_writable
from tests.support.local_hdfs import LocalHdfs

GAMES = pwd.getpwnam("games").pw_uid, grp.getgrnam("games").gr_gid
DAEMON = pwd.getpwnam("daemon").pw_uid, grp.getgrnam("daemon").gr_gid


def shown(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_uid, found.st_gid


def test_files_show_their_owners(behind: Behind, mount: Mounted) -> None:
    (mount.path / "ours").write_bytes(b"x")
    behind.put("theirs", b"x")
    behind.set_owner("theirs", "games", "games")
    assert shown(mount.path / "ours")[0] == os.getuid()
    assert shown(mount.path / "theirs") == GAMES
    with os.scandir(mount.path) as entries:
        assert {entry.name: entry.stat().st_uid for entry in entries} == {"ours": os.getuid(), "theirs": GAMES[0]}
    with (mount.path / "new").open("wb"):
        assert shown(mount.path / "new")[0] == os.getuid()


def test_names_that_the_node_does_not_know(hdfs: LocalHdfs, hdfs_dir: str, behind: Behind, mount: Mounted) -> None:
    if not behind.is_hdfs:
        pytest.skip("a local file has ids")
    behind.put("file", b"x")
    behind.set_owner("file", "nobody-we-know", "no-group-we-know")
    assert shown(mount.path / "file") == (NOBODY, NOBODY)


def test_one_owner_for_all(behind: Behind, tmp_path: Path) -> None:
    behind.put("file", b"x")
    with mounted_writable(behind.uri, tmp_path / "other", uid=1234, gid=5678) as mount:
        assert shown(mount.path / "file") == (1234, 5678)
        assert shown(mount.path) == (1234, 5678)


def test_chown(behind: Behind, mount: Mounted) -> None:
    path = mount.path / "file"
    path.write_bytes(b"x")
    os.chown(path, GAMES[0], -1)
    assert behind.owner("file")[0] == "games"
    assert shown(path)[0] == GAMES[0]
    os.chown(path, -1, DAEMON[1])
    assert behind.owner("file") == ("games", "daemon")
    assert shown(path) == (GAMES[0], DAEMON[1])
    os.chown(path, os.getuid(), -1)
    assert shown(path) == (os.getuid(), DAEMON[1])
    for ids in ((3_999_999_999, -1), (-1, 3_999_999_999)):
        assert code(partial(os.chown, path, *ids)) == errno.EINVAL
    with path.open("r+b") as file:
        file.write(b"changed")
        os.fchown(file.fileno(), *GAMES)
        file.write(b" again")
    assert (behind.owner("file"), behind.content("file")) == (("games", "games"), b"changed again")


def test_a_file_whose_content_is_replaced_keeps_its_owner(behind: Behind, mount: Mounted) -> None:
    path = mount.path / "file"
    path.write_bytes(b"x" * 1000)
    os.chown(path, *GAMES)
    path.write_bytes(b"truncated, and written anew")
    with path.open("r+b") as file:
        file.write(b"changed")
    assert (behind.owner("file"), shown(path)) == (("games", "games"), GAMES)


def test_a_file_whose_content_is_replaced_keeps_what_hdfs_has_of_it(
    hdfs: LocalHdfs, hdfs_dir: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in hdfs.environment.items():
        monkeypatch.setenv(name, value)
    behind = Behind(f"{hdfs.uri}{hdfs_dir}")
    behind.put("file", b"old")
    hdfs.webhdfs("PUT", f"{hdfs_dir}/file", "SETREPLICATION", replication="2")
    hdfs.webhdfs("PUT", f"{hdfs_dir}/file", "MODIFYACLENTRIES", aclspec="user:bob:r-x,group:staff:rw-")
    with mounted_writable(behind.uri, tmp_path / "superuser") as mount:
        (mount.path / "file").write_bytes(b"new")
    found = hdfs.webhdfs("GET", f"{hdfs_dir}/file", "GETFILESTATUS")["FileStatus"]
    acl = hdfs.webhdfs("GET", f"{hdfs_dir}/file", "GETACLSTATUS")["AclStatus"]
    assert (behind.content("file"), found["replication"]) == (b"new", 2)
    assert acl["entries"] == ["user:bob:r-x", "group::r--", "group:staff:rw-"]
    assert acl["permission"] == "674"  # the group's bits are the mask

    # Who may neither give files away nor belongs to the group still may replace what he may write.
    hdfs.webhdfs("PUT", f"{hdfs_dir}/file", "MODIFYACLENTRIES", aclspec="user:alice:rw-")
    hdfs.webhdfs("PUT", hdfs_dir, "SETPERMISSION", permission="777")
    with mounted_writable(behind.uri, tmp_path / "alice", user="alice") as mount:
        (mount.path / "file").write_bytes(b"newer")
    acl = hdfs.webhdfs("GET", f"{hdfs_dir}/file", "GETACLSTATUS")["AclStatus"]
    assert (behind.content("file"), behind.owner("file")[0]) == (b"newer", "alice")
    assert acl["entries"] == ["user:alice:rw-", "user:bob:r-x", "group::r--", "group:staff:rw-"]
