"""Extended attributes through a mount, on a real HDFS and on local files."""

import contextlib
import ctypes
import errno
import os
import subprocess
from functools import partial
from pathlib import Path

import pytest

from tests.mount.behind import Behind, code
from tests.mount.local import KIB, MIB, Mounted, mounted, mounted_writable
from tests.support.local_hdfs import LocalHdfs
from tests.support.waiting import wait_until

# Every byte, and bytes that are no text.
VALUE = bytes(range(256)) + b"\xff\xfe\0"


def user_xattrs(path: Path) -> dict[str, bytes]:
    """What tools such as `cp -a` see."""
    return {name: os.getxattr(path, name) for name in os.listxattr(path)}


def told_by_hdfs(path: Path) -> dict[str, str]:
    names = ("owner", "group", "replication", "block_size", "storage_policy", "erasure_coding_policy", "anything")
    told = {}
    for name in names:
        with contextlib.suppress(OSError):
            told[name] = os.getxattr(path, f"user.hdfs.{name}").decode()
    return told


def test_what_is_set_is_stored(behind: Behind, mount: Mounted) -> None:
    behind.put("file", b"x")
    (mount.path / "dir").mkdir()
    for name in ("file", "dir"):
        path = mount.path / name
        assert user_xattrs(path) == {}
        expected = {"user.bytes": VALUE, "user.empty": b"", "user.größe": b"x"}
        for attribute, value in expected.items():
            os.setxattr(path, attribute, b"old")
            os.setxattr(path, attribute, value)
        assert user_xattrs(path) == behind.xattrs(name) == expected
        os.removexattr(path, "user.bytes")
        assert sorted(behind.xattrs(name)) == ["user.empty", "user.größe"]


def test_create_and_replace(behind: Behind, mount: Mounted) -> None:
    path = mount.path / "file"
    path.write_bytes(b"x")
    assert code(lambda: os.setxattr(path, "user.a", b"1", os.XATTR_REPLACE)) == errno.ENODATA
    os.setxattr(path, "user.a", b"1", os.XATTR_CREATE)
    assert code(lambda: os.setxattr(path, "user.a", b"2", os.XATTR_CREATE)) == errno.EEXIST
    os.setxattr(path, "user.a", b"3", os.XATTR_REPLACE)
    assert behind.xattrs("file") == {"user.a": b"3"}


def test_what_is_not_there_and_what_is_refused(mount: Mounted) -> None:
    path = mount.path / "file"
    path.write_bytes(b"x")
    assert code(lambda: os.getxattr(path, "user.none")) == errno.ENODATA
    assert code(lambda: os.removexattr(path, "user.none")) == errno.ENODATA
    assert code(lambda: os.getxattr(mount.path / "missing", "user.a")) == errno.ENOENT
    for name in ("security.selinux", "system.posix_acl_access", "trusted.a", "security.capability"):
        assert code(partial(os.getxattr, path, name)) == errno.ENOTSUP
    for name in ("security.a", "trusted.a"):
        assert code(partial(os.setxattr, path, name, b"")) == errno.ENOTSUP
        assert code(partial(os.removexattr, path, name)) == errno.ENOTSUP
    assert code(lambda: os.setxattr(path, os.fsencode("user.") + b"\xff", b"")) == errno.EINVAL
    assert mount.stats()["errors"] == {"EINVAL": {"InvalidArgumentError": 1}}


def test_what_hdfs_says(hdfs: LocalHdfs, hdfs_dir: str, behind: Behind, mount: Mounted) -> None:
    behind.put("file", b"x")
    path = mount.path / "file"
    if behind.is_hdfs:
        status = hdfs.webhdfs("GET", f"{hdfs_dir}/file", "GETFILESTATUS")["FileStatus"]
        owners = {"owner": status["owner"], "group": status["group"]}
        assert told_by_hdfs(path) == {**owners, "replication": "1", "block_size": str(128 * MIB)}
        hdfs.webhdfs("PUT", hdfs_dir, "SETSTORAGEPOLICY", storagepolicy="ONE_SSD")
        hdfs.webhdfs("PUT", "/", "ENABLEECPOLICY", ecpolicy="XOR-2-1-1024k")
        hdfs.webhdfs("PUT", hdfs_dir, "SETECPOLICY", ecpolicy="XOR-2-1-1024k")
        policies = {"storage_policy": "ONE_SSD", "erasure_coding_policy": "XOR-2-1-1024k"}
        assert told_by_hdfs(mount.path) == {**owners, **policies}
    else:
        assert told_by_hdfs(path) == {"owner": "root", "group": "root"}
    # rsync would remove what it sees and the source has not.
    assert os.listxattr(path) == []
    for name in ("user.hdfs.owner", "user.hdfs.storage_policy", "user.hdfs.anything"):
        assert code(partial(os.setxattr, path, name, b"x")) == errno.EPERM
        assert code(partial(os.removexattr, path, name)) == errno.EPERM
    for name in ("user.hdfs.erasure_coding_policy", "user.hdfs.anything"):
        assert code(partial(os.getxattr, path, name)) == errno.ENODATA


def test_files_that_are_written_again_keep_them(behind: Behind, mount: Mounted) -> None:
    for name, content in (("small", b"x"), ("large", bytes(3 * MIB))):
        path = mount.path / name
        path.write_bytes(content)
        os.setxattr(path, "user.a", VALUE)
        os.setxattr(path, "user.b", b"")
        path.write_bytes(content + b"again")
        with path.open("ab", buffering=0) as file:
            file.write(b"more")
            os.fsync(file.fileno())
            os.setxattr(path, "user.c", b"while it is open")
            os.removexattr(path, "user.b")
            file.write(b"end")
        os.truncate(path, 5)
        assert behind.content(name) == (content + b"againmoreend")[:5]
        assert behind.xattrs(name) == user_xattrs(path) == {"user.a": VALUE, "user.c": b"while it is open"}
        path.rename(mount.path / "moved")
        assert behind.xattrs("moved") == {"user.a": VALUE, "user.c": b"while it is open"}


def test_files_that_are_not_stored_yet(behind: Behind, mount: Mounted) -> None:
    path = mount.path / "file"
    with path.open("wb", buffering=0) as file:
        assert code(lambda: os.getxattr(file.fileno(), "user.a")) == errno.ENODATA
        os.setxattr(file.fileno(), "user.a", VALUE)
        os.setxattr(path, "user.b", b"")
        assert code(lambda: os.setxattr(path, "user.a", b"", os.XATTR_CREATE)) == errno.EEXIST
        os.removexattr(path, "user.b")
        assert code(lambda: os.removexattr(path, "user.b")) == errno.ENODATA
        assert user_xattrs(path) == {"user.a": VALUE}
        assert b"root" in os.getxattr(path, "user.hdfs.owner")
        assert code(lambda: os.getxattr(path, "user.hdfs.storage_policy")) == errno.ENODATA
        if behind.is_hdfs:
            assert code(lambda: os.setxattr(path, "user.large", bytes(40 * KIB))) == errno.E2BIG
        assert not behind.has("file")
        file.write(b"content")
    assert behind.content("file") == b"content"
    assert behind.xattrs("file") == {"user.a": VALUE}
    path.write_bytes(b"again")
    assert behind.xattrs("file") == {"user.a": VALUE}


def test_limits(behind: Behind, mount: Mounted) -> None:
    path = mount.path / "file"
    path.write_bytes(b"x")
    os.setxattr(path, "user.a", b"x" * 100)
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.getxattr(os.fsencode(path), b"user.a", ctypes.create_string_buffer(10), 10) == -1
    assert ctypes.get_errno() == errno.ERANGE
    if behind.is_hdfs:
        assert code(lambda: os.setxattr(path, "user.large", bytes(20 * KIB))) == errno.E2BIG
        codes = [code(partial(os.setxattr, path, f"user.{number}", b"x")) for number in range(40)]
        assert codes == [None] * 31 + [errno.ENOSPC] * 9
    assert code(lambda: os.setxattr(path, "user.large", bytes(65 * KIB))) == errno.E2BIG


def test_programs(behind: Behind, mount: Mounted, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"content")
    os.setxattr(source, "user.a", VALUE)

    def run(*command: str) -> None:
        subprocess.run(command, cwd=mount.path, check=True, timeout=60, stdin=subprocess.DEVNULL)

    run("cp", "--preserve=xattr", str(source), "copy")
    run("rsync", "-aX", str(source), "synced")
    run("tar", "-C", str(tmp_path), "--xattrs", "-cf", "archive", "source")
    run("tar", "--xattrs", "-xf", "archive")
    run("mv", "source", "unpacked")
    for name in ("copy", "synced", "unpacked"):
        assert behind.content(name) == b"content"
        assert behind.xattrs(name) == {"user.a": VALUE}
    run("cp", "-a", "copy", str(tmp_path / "back"))
    assert os.getxattr(tmp_path / "back", "user.a") == VALUE


def test_what_programs_ask_in_passing_costs_no_call(hdfs: LocalHdfs, hdfs_dir: str, tmp_path: Path) -> None:
    hdfs.fs_shell("-put", "-", f"{hdfs_dir}/file", stdin=b"x")
    with mounted(f"{hdfs.uri}{hdfs_dir}", tmp_path, hadoop_conf_dir=str(hdfs.conf_dir), metadata_ttl_s=60.0) as mount:
        path = mount.path / "file"
        assert path.read_bytes() == b"x"
        calls = mount.stats()["hdfs_call_count"]
        for name in ("security.selinux", "system.posix_acl_access", "security.capability"):
            assert code(partial(os.getxattr, path, name)) == errno.ENOTSUP
        assert os.getxattr(path, "user.hdfs.owner")
        assert mount.stats()["hdfs_call_count"] == calls
        assert mount.stats()["errors"] == {}
        # A mount that is read-only shows them and changes none.
        hdfs.webhdfs(
            "PUT", f"{hdfs_dir}/file", "SETXATTR", **{"xattr.name": "user.a", "xattr.value": "0xff", "flag": "CREATE"}
        )
        assert os.getxattr(path, "user.a") == b"\xff"
        for change in (lambda: os.setxattr(path, "user.a", b""), lambda: os.removexattr(path, "user.a")):
            assert code(change) == errno.EROFS


def test_writes_ask_for_no_attributes(mount: Mounted) -> None:
    with (mount.path / "file").open("wb", buffering=0) as file:
        for _ in range(100):
            file.write(b"x" * 4096)
        assert mount.stats()["xattr_latency"]["count"] <= 2  # once, and again when the attributes are looked at


def test_who_may(hdfs: LocalHdfs, hdfs_dir: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in hdfs.environment.items():
        monkeypatch.setenv(name, value)
    behind = Behind(f"{hdfs.uri}{hdfs_dir}")
    behind.put("theirs", b"x")
    behind.put("private", b"x")
    hdfs.fs_shell("-chmod", "600", f"{hdfs_dir}/private")
    with mounted_writable(f"{hdfs.uri}{hdfs_dir}", tmp_path, user="alice") as mount:
        assert user_xattrs(mount.path / "theirs") == {}
        assert code(lambda: os.setxattr(mount.path / "theirs", "user.a", b"")) == errno.EACCES
        assert code(lambda: os.getxattr(mount.path / "private", "user.a")) == errno.EACCES
        (mount.path / "ours").write_bytes(b"x")
        os.setxattr(mount.path / "ours", "user.a", b"x")
        assert behind.xattrs("ours") == {"user.a": b"x"}


def test_a_namenode_that_hangs(tmp_path: Path) -> None:
    with (
        LocalHdfs() as hdfs,
        mounted(
            hdfs.uri, tmp_path, hadoop_conf_dir=str(hdfs.conf_dir), call_deadline_s=2.0, metadata_ttl_s=60.0
        ) as mount,
    ):
        os.stat(mount.path)
        hdfs.pause_namenode()
        try:
            assert code(lambda: os.getxattr(mount.path, "user.a")) in (errno.ETIMEDOUT, errno.EIO)
        finally:
            hdfs.resume_namenode()
        wait_until(lambda: code(lambda: os.getxattr(mount.path, "user.a")) == errno.ENODATA, "HDFS answers again")
