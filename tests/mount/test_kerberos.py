"""Mounts of an HDFS that believes Kerberos tickets only."""

import errno
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from hdfs_fuse.backend import connect, resolve
from hdfs_fuse.config import Kerberos, MountConfig
from hdfs_fuse.errors import HdfsFuseError, UnavailableError, UnsupportedError
from hdfs_fuse.mounter import mounts

from tests.mount.local import MIB, Mounted, mounted, mounted_writable
from tests.mount.test_cli import COMMAND
from tests.perf.observe import children_of
from tests.support.local_hdfs import KerberosHdfs

CONTENT = os.urandom(3 * MIB + 7)
BRIEF_S = 6  # of a ticket's life
MountAs = Callable[..., AbstractContextManager[Mounted]]
SMALL = {f"small{number:03}": os.urandom(4096) for number in range(200)}


@pytest.fixture(scope="module")
def hdfs(nothing_left_behind: None) -> Iterator[KerberosHdfs]:
    with KerberosHdfs(protection="integrity") as running:
        yield running


@pytest.fixture
def mount_as(hdfs: KerberosHdfs, hdfs_dir: str, tmp_path: Path) -> MountAs:
    """Mounts the test's directory by the keytab of a user, in a directory of that name."""

    def mount(user: str, name: str = "mount", **options: Any) -> AbstractContextManager[Mounted]:
        config: dict[str, Any] = {"hadoop_conf_dir": str(hdfs.conf_dir), "kerberos": login(hdfs, user), **options}
        return mounted_writable(f"{hdfs.uri}{hdfs_dir}", tmp_path / name, **config)

    return mount


def login(hdfs: KerberosHdfs, user: str) -> Kerberos:
    krb5_conf = hdfs.krb5_conf.read_text(encoding="ascii")
    return Kerberos(principal=hdfs.principal(user), keytab=hdfs.keytab(user).read_bytes(), krb5_conf=krb5_conf)


def forget(mount: Mounted) -> None:
    """Have what is read next come from HDFS."""
    for name in os.listdir(mount.path):
        mount.drop_pages(name)
    for block in mount.block_files():
        block.unlink()


def test_files_are_written_and_read_as_the_principal(hdfs: KerberosHdfs, hdfs_dir: str, mount_as: MountAs) -> None:
    with mount_as("alice") as mount:
        (mount.path / "large").write_bytes(CONTENT)
        for name, content in SMALL.items():
            (mount.path / name).write_bytes(content)
    assert hdfs.fetch(hdfs_dir) == {"large": CONTENT, **SMALL}
    with mount_as("alice", "again") as mount, ThreadPoolExecutor(16) as pool:
        assert (mount.path / "large").read_bytes() == CONTENT
        logins = hdfs.tickets_given_to("alice")
        daemon = mount.stats()["pid"]
        # Until a loader process runs and has logged in: the daemon has its connections.
        while not children_of(daemon) or hdfs.tickets_given_to("alice") == logins:
            assert list(pool.map(lambda name: (mount.path / name).read_bytes(), SMALL)) == list(SMALL.values())
            forget(mount)
        assert list(pool.map(lambda name: (mount.path / name).read_bytes(), SMALL)) == list(SMALL.values())
        assert mount.stats()["errors"] == {}
        assert "Traceback" not in mount.log.read_text()
    listed = hdfs.webhdfs("GET", hdfs_dir, "LISTSTATUS")["FileStatuses"]["FileStatus"]
    assert {status["owner"] for status in listed} == {"alice"}


def test_others_are_kept_out(hdfs: KerberosHdfs, hdfs_dir: str, mount_as: MountAs) -> None:
    with mount_as("alice") as alice, mount_as("bob", "bob") as bob:
        (alice.path / "private").write_bytes(b"secret")
        (alice.path / "private").chmod(0o600)
        (alice.path / "shared").write_bytes(b"old")
        with pytest.raises(PermissionError):
            (bob.path / "private").read_bytes()
        with pytest.raises(PermissionError):
            (bob.path / "shared").write_bytes(b"new")
        assert (bob.path / "shared").read_bytes() == b"old"
        # Whether he may is the NameNode's answer, not the mode's: WebHDFS is asked.
        hdfs.fs_shell("-setfacl", "-m", "user:bob:rw-", f"{hdfs_dir}/shared")
        with (bob.path / "shared").open("r+b") as file:
            file.write(b"new")
        assert (alice.path / "shared").read_bytes() == b"new"


def test_what_is_asked_over_http(hdfs: KerberosHdfs, hdfs_dir: str, mount_as: MountAs) -> None:
    """Quotas, extended attributes, and what another node is still writing."""
    hdfs.dfsadmin("-setSpaceQuota", str(512 * MIB), hdfs_dir)
    with mount_as("alice") as mount, mount_as("alice", "other") as other:
        found = os.statvfs(mount.path)
        assert found.f_blocks * found.f_frsize == 512 * MIB
        (mount.path / "file").write_bytes(b"content")
        os.setxattr(mount.path / "file", "user.colour", b"red")
        assert os.getxattr(other.path / "file", "user.colour") == b"red"
        assert os.getxattr(other.path / "file", "user.hdfs.owner") == b"alice"
        (mount.path / "file").write_bytes(b"other content")
        assert os.getxattr(mount.path / "file", "user.colour") == b"red"
        with (mount.path / "growing").open("wb", buffering=0) as file:
            file.write(CONTENT)
            os.fsync(file.fileno())
            assert (other.path / "growing").read_bytes() == CONTENT


@pytest.fixture
def backend_config(hdfs: KerberosHdfs, hdfs_dir: str, monkeypatch: pytest.MonkeyPatch) -> MountConfig:
    monkeypatch.setenv("KRB5_CONFIG", str(hdfs.krb5_conf))  # put back afterwards: the login changes it
    return MountConfig(uri=f"{hdfs.uri}{hdfs_dir}", hadoop_conf_dir=str(hdfs.conf_dir), kerberos=login(hdfs, "alice"))


def test_the_second_way_of_storing_a_file(hdfs: KerberosHdfs, hdfs_dir: str, backend_config: MountConfig) -> None:
    backend, root = connect(backend_config), resolve(backend_config).path
    backend.put(f"{root}/file", iter([CONTENT[:MIB], CONTENT[MIB:]]), len(CONTENT), 0o640, alone=False)
    for _ in range(2):  # with a token of the NameNode's, and with that token again
        backend.extend(f"{root}/file", iter([b"more"]), 4)
    assert hdfs.fetch(hdfs_dir) == {"file": CONTENT + b"moremore"}
    backend.close()


def test_tickets_are_renewed(hdfs: KerberosHdfs, hdfs_dir: str, mount_as: MountAs) -> None:
    hdfs.add_user("brief", "-maxlife", f"{BRIEF_S}seconds")
    with mount_as("brief") as mount:
        (mount.path / "file").write_bytes(b"content")
        os.setxattr(mount.path / "file", "user.colour", b"red")
        time.sleep(BRIEF_S + 1)
        logins = hdfs.tickets_given_to("brief")
        assert os.getxattr(mount.path / "file", "user.colour") == b"red"  # over WebHDFS
        assert hdfs.tickets_given_to("brief") > logins
        logins = hdfs.tickets_given_to("brief")
        hdfs.stop_namenode()
        hdfs.start_namenode()  # the native client has to connect, and to log in, anew
        assert os.listdir(mount.path) == ["file"]
        assert hdfs.tickets_given_to("brief") > logins
        assert (mount.path / "file").read_bytes() == b"content"


def test_a_kdc_that_hangs_and_one_that_is_away(
    hdfs: KerberosHdfs, hdfs_dir: str, tmp_path: Path, mount_as: MountAs
) -> None:
    hdfs.add_user("short", "-maxlife", f"{BRIEF_S}seconds")
    with mount_as("short") as mount, ThreadPoolExecutor(4) as pool:
        (mount.path / "file").write_bytes(b"content")
        os.setxattr(mount.path / "file", "user.colour", b"red")
        time.sleep(BRIEF_S + 1)

        def colour() -> object:
            try:
                return os.getxattr(mount.path / "file", "user.colour")
            except OSError as e:
                return e.errno

        hdfs.kdc.pause()
        try:
            waiting = [pool.submit(colour) for _ in range(4)]
            forget(mount)
            assert (mount.path / "file").read_bytes() == b"content"  # by the connections that there are
            assert [call.result() for call in waiting] == [errno.EIO] * 4
            assert mount.stats()["hdfs_timeout_count"] == 0  # the client has not been given up
        finally:
            hdfs.kdc.resume()
        hdfs.kdc.stop()
        try:
            config: dict[str, Any] = {"hadoop_conf_dir": str(hdfs.conf_dir), "kerberos": login(hdfs, "alice")}
            with (
                pytest.raises(UnavailableError, match="Cannot contact any KDC"),
                mounted(f"{hdfs.uri}{hdfs_dir}", tmp_path / "another", **config),
            ):
                pass
        finally:
            hdfs.start_kdc()
        assert colour() == b"red"


def test_web_servers_without_a_principal(hdfs: KerberosHdfs, hdfs_dir: str, mount_as: MountAs) -> None:
    """What goes over them is missing, and the rest works; no principal has an address in its name."""
    address = hdfs.namenode_http.removeprefix("http://").replace("localhost", "127.0.0.1")
    with mount_as("alice", hadoop_properties={"dfs.namenode.http-address": address}) as mount:
        for content in (b"old", b"new"):
            (mount.path / "file").write_bytes(content)
        with pytest.raises(OSError, match=os.strerror(errno.ENOTSUP)):
            os.getxattr(mount.path / "file", "user.colour")
        found = os.statvfs(mount.path)
        assert found.f_blocks * found.f_frsize == 1 << 50
    assert hdfs.fetch(hdfs_dir) == {"file": b"new"}


# ---- without a keytab, and without a right one


def test_the_ticket_cache_of_who_mounts(hdfs: KerberosHdfs, hdfs_dir: str, tmp_path: Path) -> None:
    tickets = tmp_path / "tickets"
    mountpoint = tmp_path / "mnt"
    mountpoint.mkdir()
    with tempfile.TemporaryDirectory(prefix="hf-") as runtime:
        environment = {
            **os.environ, **hdfs.environment, "KRB5CCNAME": f"FILE:{tickets}", "HDFS_FUSE_RUNTIME_DIR": runtime
        }  # fmt: skip

        def run(*command: object) -> "subprocess.CompletedProcess[str]":
            words = [COMMAND, *map(str, command)]
            return subprocess.run(words, env=environment, check=False, capture_output=True, text=True, timeout=100)

        options = ("--cache-dir", tmp_path / "cache", "--metadata-ttl", "0", "--writable")
        refused = run("mount", f"{hdfs.uri}{hdfs_dir}", mountpoint, *options)
        assert refused.returncode == 1
        assert "redential" in refused.stderr
        assert mounts.find(str(mountpoint)) is None
        checked = run("doctor", f"{hdfs.uri}{hdfs_dir}", "--no-mount", "--no-cache")
        assert checked.returncode == 1
        assert "kinit" in checked.stdout

        hdfs.log_in("alice", tickets)
        done = run("mount", f"{hdfs.uri}{hdfs_dir}", mountpoint, *options)
        assert done.returncode == 0, done.stderr
        try:
            (mountpoint / "file").write_bytes(b"content")
            os.setxattr(mountpoint / "file", "user.colour", b"red")
            assert hdfs.webhdfs("GET", f"{hdfs_dir}/file", "GETFILESTATUS")["FileStatus"]["owner"] == "alice"
            checked = run("doctor", f"{hdfs.uri}{hdfs_dir}", "--no-mount", "--no-cache")
            assert checked.returncode == 0, checked.stdout
            assert hdfs.principal("alice") in checked.stdout.replace("\n", "")

            tickets.unlink()
            hdfs.stop_namenode()
            hdfs.start_namenode()
            with pytest.raises(PermissionError):
                os.stat(mountpoint / "file")
            with pytest.raises(PermissionError):
                os.getxattr(mountpoint / "file", "user.colour")
            hdfs.log_in("alice", tickets)
            assert os.stat(mountpoint / "file").st_size == len(b"content")
            assert os.getxattr(mountpoint / "file", "user.colour") == b"red"
        finally:
            ended = run("umount", mountpoint)
        assert ended.returncode == 0, ended.stderr


def test_keys_that_are_not_the_principals(hdfs: KerberosHdfs, hdfs_dir: str, tmp_path: Path) -> None:
    wrong = Kerberos(
        principal=hdfs.principal("alice"),
        keytab=hdfs.keytab("bob").read_bytes(),
        krb5_conf=hdfs.krb5_conf.read_text(encoding="ascii"),
    )
    with (
        pytest.raises(HdfsFuseError, match="redential"),
        mounted(f"{hdfs.uri}{hdfs_dir}", tmp_path, hadoop_conf_dir=str(hdfs.conf_dir), kerberos=wrong),
    ):
        pass


def test_a_configuration_that_knows_nothing_of_kerberos(hdfs: KerberosHdfs, hdfs_dir: str) -> None:
    config = MountConfig(uri=f"{hdfs.uri}{hdfs_dir}", call_deadline_s=8.0, hadoop_properties={
        "dfs.namenode.http-address": hdfs.namenode_http.removeprefix("http://")
    })  # fmt: skip
    backend = connect(config)
    with pytest.raises(UnsupportedError, match=r"hadoop\.security\.authentication"):
        backend.space(hdfs_dir)
    with pytest.raises(UnavailableError):
        backend.status(hdfs_dir)
    backend.close()
