"""Changes through a mount, on a real HDFS and on local files: what applications do, and what HDFS then has."""

import contextlib
import errno
import grp
import mmap
import os
import random
import signal
import stat
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
from hdfs_fuse.hidden import name_while_writing

from tests.mount.behind import Behind, code
from tests.mount.local import KIB, MIB, Mounted, mounted_writable
from tests.support.daemons import daemons
from tests.support.local_hdfs import LocalHdfs
from tests.support.waiting import wait_until

LARGE = random.Random(3).randbytes(3 * MIB + 17)


# ---- contents


def test_what_close_has_acknowledged_is_stored(behind: Behind, mount: Mounted) -> None:
    for name, content in (("empty", b""), ("small", b"small"), ("large", LARGE)):
        with (mount.path / name).open("wb") as file:
            file.write(content)
        assert behind.content(name) == content
        assert (mount.path / name).read_bytes() == content
    assert behind.names() == ["empty", "large", "small"]


def test_nobody_sees_a_part_of_a_file(behind: Behind, mount: Mounted) -> None:
    behind.put("file", b"old")
    with (mount.path / "file").open("wb") as file:
        file.write(LARGE[:MIB])
        file.flush()
        assert behind.content("file") == b"old"
        file.write(LARGE[MIB:])
    assert behind.content("file") == LARGE


def test_fsync_stores_and_the_file_goes_on(behind: Behind, mount: Mounted) -> None:
    with (mount.path / "file").open("wb", buffering=0) as file:
        file.write(b"one")
        assert not behind.has("file")
        os.fsync(file.fileno())
        assert behind.content("file") == b"one"
        file.write(b"two")
        os.fdatasync(file.fileno())
        assert behind.content("file") == b"onetwo"
        file.write(b"three")
    assert behind.content("file") == b"onetwothree"


def test_writes_at_random_places(behind: Behind, mount: Mounted) -> None:
    behind.put("file", LARGE)
    model = bytearray(LARGE)
    at_random = random.Random(5)
    with (mount.path / "file").open("r+b", buffering=0) as file:
        for _ in range(100):
            start, size = at_random.randrange(len(model)), at_random.randrange(1, 9000)
            data = at_random.randbytes(size)
            os.pwrite(file.fileno(), data, start)
            model[start : start + size] = data
            start = at_random.randrange(len(model))
            assert os.pread(file.fileno(), 5000, start) == model[start : start + 5000]
    assert behind.content("file") == model
    assert (mount.path / "file").read_bytes() == model


def test_truncate_down_and_up(behind: Behind, mount: Mounted) -> None:
    behind.put("file", LARGE)
    path = mount.path / "file"
    os.truncate(path, 100)
    assert behind.content("file") == LARGE[:100]
    os.truncate(path, 5000)
    assert behind.content("file") == LARGE[:100] + bytes(4900)
    with path.open("r+b", buffering=0) as file:
        file.truncate(50)
        file.seek(200 * KIB)
        file.write(b"end")
        assert path.stat().st_size == 200 * KIB + 3
    assert behind.content("file") == LARGE[:50] + bytes(200 * KIB - 50) + b"end"
    path.write_bytes(b"")
    assert behind.content("file") == b""


def test_append(behind: Behind, mount: Mounted) -> None:
    behind.put("file", b"start")
    for part in (b"-one", b"-two"):
        with (mount.path / "file").open("ab") as file:
            file.write(part)
    assert behind.content("file") == b"start-one-two"


def test_a_shared_map_is_stored(behind: Behind, mount: Mounted) -> None:
    path = mount.path / "file"
    with path.open("w+b") as file:
        file.truncate(200 * KIB)
        with mmap.mmap(file.fileno(), 200 * KIB) as view:
            view[100 * KIB : 100 * KIB + 5] = b"hello"
            view.flush()
            view[0:3] = b"abc"
    expected = b"abc" + bytes(100 * KIB - 3) + b"hello" + bytes(100 * KIB - 5)
    assert behind.content("file") == expected
    with path.open("r+b") as file:
        view = mmap.mmap(file.fileno(), 0)
    view[3:6] = b"def"  # after the descriptor was closed: stored when the map goes
    view.close()
    wait_until(lambda: behind.content("file")[:6] == b"abcdef", "the map is stored")


def test_descriptors_that_were_duplicated(behind: Behind, mount: Mounted) -> None:
    fd = os.open(mount.path / "file", os.O_WRONLY | os.O_CREAT)
    other = os.dup(fd)
    os.write(fd, b"one")
    os.close(fd)
    assert behind.content("file") == b"one"
    os.write(other, b"two")
    pid = os.fork()
    if pid == 0:
        os._exit(0)  # closes the child's
    os.waitpid(pid, 0)
    os.write(other, b"three")
    os.close(other)
    assert behind.content("file") == b"onetwothree"


def test_readers_of_the_mount_see_what_is_written(mount: Mounted) -> None:
    path = mount.path / "file"
    with path.open("wb", buffering=0) as writer:
        writer.write(b"one")
        with path.open("rb", buffering=0) as reader:
            assert reader.read() == b"one"
            writer.write(b"two")
            assert reader.read() == b"two"
            os.fsync(writer.fileno())
            writer.write(b"three")
            assert os.pread(reader.fileno(), 100, 0) == b"onetwothree"
        assert sorted(os.listdir(mount.path)) == ["file"]
        assert path.stat().st_size == 11
    with path.open("rb") as reader:
        path.write_bytes(b"new")
        mount.drop_pages("file")
        assert reader.read() == b"new"


# ---- one writer


def test_one_writer_a_file(behind: Behind, mount: Mounted, tmp_path: Path) -> None:
    with mounted_writable(behind.uri, tmp_path / "other") as other:
        with (mount.path / "file").open("wb") as file:
            assert code(lambda: os.open(mount.path / "file", os.O_WRONLY)) == errno.EBUSY
            for path in (other.path / "file", mount.path / "file"):
                assert code(partial(os.open, path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)) == errno.EEXIST
            assert code(lambda: os.open(other.path / "file", os.O_WRONLY | os.O_CREAT)) == errno.EBUSY
            file.write(b"first")
        with (other.path / "file").open("ab") as file:
            assert code(lambda: os.open(mount.path / "file", os.O_RDWR)) == errno.EBUSY
            assert (mount.path / "file").read_bytes() == b"first"
            file.write(b"second")
        assert behind.content("file") == b"firstsecond"
        assert (mount.path / "file").read_bytes() == b"firstsecond"


@pytest.mark.parametrize("after_crash", [False, True])
def test_of_many_who_create_one_succeeds(behind: Behind, mount: Mounted, tmp_path: Path, after_crash: bool) -> None:
    turns = 2 if after_crash else 5
    with mounted_writable(behind.uri, tmp_path / "other") as other:
        for turn in range(turns):
            if after_crash:
                behind.put(name_while_writing(f"lock{turn}"), b"left by one who is gone")
            together = threading.Barrier(4)
            won: list[int] = []

            def create(
                root: Path, turn: int = turn, together: threading.Barrier = together, won: list[int] = won
            ) -> None:
                together.wait()
                with contextlib.suppress(FileExistsError):
                    won.append(os.open(root / f"lock{turn}", os.O_WRONLY | os.O_CREAT | os.O_EXCL))

            threads = [threading.Thread(target=create, args=(m.path,)) for m in (mount, mount, other, other)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert len(won) == 1
            os.close(won[0])
    assert behind.names() == [f"lock{turn}" for turn in range(turns)]


def test_what_other_clients_change_is_seen(behind: Behind, mount: Mounted) -> None:
    path = mount.path / "file"
    path.write_bytes(b"ours")
    behind.put("file", b"theirs, and longer")
    assert path.read_bytes() == b"theirs, and longer"
    with path.open("ab") as file:
        file.write(b"!")
    assert behind.content("file") == b"theirs, and longer!"


def test_what_replaces_a_file_is_seen_by_a_daemon_that_is_late(behind: Behind, mount: Mounted) -> None:
    """It meets the RELEASE of our writer together with the reader who came after the replacement."""
    (daemon,) = daemons()
    with ThreadPoolExecutor() as pool:
        for turn in range(10):
            path = mount.path / f"file{turn}"
            path.write_bytes(b"ours")
            os.kill(daemon, signal.SIGSTOP)
            try:
                behind.put(path.name, b"theirs, and longer")
                reader = pool.submit(path.read_bytes)
                time.sleep(0.02)  # else they meet less often
            finally:
                os.kill(daemon, signal.SIGCONT)
            assert reader.result() == b"theirs, and longer"


# ---- names


def test_unlinked_files_stay_open(behind: Behind, mount: Mounted) -> None:
    behind.put("old", LARGE)
    path = mount.path / "old"
    with path.open("r+b", buffering=0) as file, path.open("rb", buffering=0) as reader:
        file.write(b"new")
        path.unlink()
        assert not path.exists()
        assert os.pread(file.fileno(), 10, 0) == b"new" + LARGE[3:10]
        mount_bytes = os.pread(reader.fileno(), len(LARGE), 0)
        assert mount_bytes == b"new" + LARGE[3:]
        file.write(b"more")
    wait_until(lambda: behind.names() == [], "the file is gone")
    fd = os.open(mount.path / "new", os.O_RDWR | os.O_CREAT)
    os.unlink(mount.path / "new")
    os.write(fd, b"scratch")
    assert os.pread(fd, 7, 0) == b"scratch"
    os.close(fd)
    wait_until(lambda: behind.names() == [], "nothing was stored")


def test_rename_of_open_files(behind: Behind, mount: Mounted) -> None:
    root = mount.path
    with (root / "temporary").open("wb", buffering=0) as file:
        file.write(b"one")
        (root / "temporary").rename(root / "final")
        assert behind.content("final") == b"one"
        file.write(b"two")
    assert behind.content("final") == b"onetwo"
    behind.put("large", LARGE)
    (root / "dir").mkdir()
    with (root / "large").open("rb") as reader:
        (root / "large").rename(root / "dir" / "moved")
        (root / "dir").rename(root / "elsewhere")
        assert reader.read() == LARGE
    assert behind.names() == ["elsewhere", "final"]


def test_rename_over_what_is_there(behind: Behind, mount: Mounted) -> None:
    root = mount.path
    behind.put("old", b"old")
    (root / "new").write_bytes(b"new")
    with (root / "old").open("rb", buffering=0) as reader:
        (root / "new").rename(root / "old")
        assert reader.read() == b"old"
    assert behind.content("old") == b"new"
    wait_until(lambda: behind.names() == ["old"], "the replaced file is gone")
    for name in ("empty", "full", "full/sub"):
        (root / name).mkdir()
    assert code(lambda: os.rename(root / "old", root / "empty")) == errno.EISDIR
    assert code(lambda: os.rename(root / "empty", root / "old")) == errno.ENOTDIR
    assert code(lambda: os.rename(root / "empty", root / "full")) == errno.ENOTEMPTY
    assert code(lambda: os.rename(root / "full", root / "full" / "sub" / "x")) == errno.EINVAL
    assert code(lambda: os.rename(root / "missing", root / "x")) == errno.ENOENT
    os.rename(root / "full", root / "empty")
    assert behind.names() == ["empty", "old"]
    assert behind.names("empty") == ["sub"]


def test_directories(behind: Behind, mount: Mounted) -> None:
    root = mount.path
    umask = os.umask(0o027)
    try:
        (root / "dir").mkdir(0o777)
        os.close(os.open(root / "dir" / "file", os.O_WRONLY | os.O_CREAT, 0o666))
    finally:
        os.umask(umask)
    assert (behind.mode("dir"), behind.mode("dir/file")) == (0o750, 0o640)
    assert code((root / "dir").mkdir) == errno.EEXIST
    assert code((root / "dir").rmdir) == errno.ENOTEMPTY
    assert code((root / "missing" / "below").mkdir) == errno.ENOENT
    assert code((root / "dir" / "file" / "below").mkdir) == errno.ENOTDIR
    (root / "dir" / "file").unlink()
    with (root / "dir" / "open").open("wb"):
        assert code((root / "dir").rmdir) == errno.ENOTEMPTY
        (root / "dir" / "open").unlink()
    (root / "dir").rmdir()
    assert behind.names() == []


def test_what_a_dead_writer_left_does_not_keep_a_directory(behind: Behind, mount: Mounted) -> None:
    (mount.path / "dir").mkdir()
    hidden = f".hdfs-csi-{'a' * 32}.writing"
    behind.put(f"dir/{hidden}", b"left")
    assert os.listdir(mount.path / "dir") == []
    assert not (mount.path / "dir" / hidden).exists()
    assert code(lambda: os.open(mount.path / "dir" / hidden, os.O_WRONLY | os.O_CREAT)) in (errno.EINVAL, errno.ENOENT)
    (mount.path / "dir").rmdir()
    assert behind.names() == []


def test_what_a_dead_writer_left_goes_with_a_listing(behind: Behind, mount: Mounted) -> None:
    old, new = f".hdfs-csi-{'a' * 32}.writing", f".hdfs-csi-{'b' * 32}.writing"
    for name in (old, new):
        behind.put(name, b"left")
    behind.set_mtime_ms(old, (int(time.time()) - 3700) * 1000)
    assert os.listdir(mount.path) == []
    wait_until(lambda: behind.names() == [new], "the old one is gone")
    with pytest.raises(FileNotFoundError):
        (mount.path / new).unlink()
    behind.remove(new)


def test_a_writer_that_goes_while_it_is_looked_at_whether_it_is_dead(behind: Behind, mount: Mounted) -> None:
    sibling = name_while_writing("file")
    behind.put(sibling, b"")
    opened = threading.Thread(target=lambda: (mount.path / "file").write_bytes(b"ours"))
    opened.start()
    time.sleep(0.3)  # it watches now; where that is later, it finds nothing, and is right too
    behind.remove(sibling)
    opened.join()
    assert behind.content("file") == b"ours"


def test_a_log_that_is_rotated_while_it_is_open(behind: Behind, mount: Mounted, tmp_path: Path) -> None:
    with (mount.path / "log").open("wb", buffering=0) as old:
        old.write(b"one")
        (mount.path / "log").rename(mount.path / "log.1")
        with (mount.path / "log").open("wb", buffering=0) as new:
            new.write(b"two")
            old.write(b" more")
        with mounted_writable(behind.uri, tmp_path / "other") as other:
            assert code(lambda: os.open(other.path / "log.1", os.O_WRONLY)) == errno.EBUSY
    assert (behind.content("log"), behind.content("log.1")) == (b"two", b"one more")


def test_a_rename_over_an_open_file_that_fails(behind: Behind, mount: Mounted) -> None:
    (mount.path / "source").write_bytes(b"source")
    with (mount.path / "target").open("wb", buffering=0) as target, (mount.path / "new").open("wb", buffering=0) as new:
        target.write(b"stored ")
        os.fsync(target.fileno())
        target.write(b"dirty ")
        new.write(b"new ")
        behind.remove("source")
        for name in ("target", "new"):
            assert code(lambda name=name: (mount.path / "source").rename(mount.path / name)) == errno.ENOENT  # type: ignore[misc]
        target.write(b"more")
        new.write(b"more")
    assert (behind.content("target"), behind.content("new")) == (b"stored dirty more", b"new more")


def test_a_file_that_another_node_replaced_while_it_was_open(behind: Behind, mount: Mounted) -> None:
    with (mount.path / "log").open("wb", buffering=0) as log:
        log.write(b"one")
        os.fsync(log.fileno())
        behind.put("log", b"another")
        for _ in range(2):
            assert code(lambda: log.write(b"two")) == errno.ESTALE
        assert behind.content("log") == b"another"
        (mount.path / "log").write_bytes(b"again")  # what was open of the other one keeps nobody out
    assert behind.content("log") == b"again"


def test_what_hdfs_has_none_of(mount: Mounted) -> None:
    (mount.path / "file").write_bytes(b"x")
    assert code(lambda: os.symlink("file", mount.path / "link")) == errno.EPERM
    assert code(lambda: os.link(mount.path / "file", mount.path / "link")) == errno.EPERM
    assert code(lambda: os.mkfifo(mount.path / "fifo")) == errno.EPERM
    assert os.listdir(mount.path) == ["file"]


# ---- attributes


def test_modes_and_times(behind: Behind, mount: Mounted) -> None:
    path = mount.path / "file"
    path.write_bytes(b"x")
    path.chmod(0o600)
    os.utime(path, ns=(1_111_111_111_111_000_000, 1_222_222_222_222_000_000))
    found = path.stat()
    assert (stat.S_IMODE(found.st_mode), found.st_mtime_ns) == (0o600, 1_222_222_222_222_000_000)
    assert behind.mode("file") == 0o600
    wait_until(lambda: behind.mtime_ms("file") == 1_222_222_222_222, "the time stays")
    with path.open("ab", buffering=0) as file:
        file.write(b"y")
        os.utime(file.fileno(), ns=(1_333_333_333_333_000_000, 1_333_333_333_333_000_000))
        os.fchmod(file.fileno(), 0o640)
    assert path.stat().st_mtime_ns == 1_333_333_333_333_000_000
    assert behind.mode("file") == 0o640
    (mount.path / "dir").mkdir()
    os.utime(mount.path / "dir", ns=(1_111_111_111_111_000_000, 1_222_222_222_222_000_000))
    assert (mount.path / "dir").stat().st_mtime_ns == 1_222_222_222_222_000_000


def test_times_stay_as_they_were_told(behind: Behind, mount: Mounted) -> None:
    told = {}
    for number in range(20):
        path = mount.path / f"file{number}"
        path.write_bytes(b"x" * number)
        told[path.name] = path.stat().st_mtime_ns
    for number in range(10):
        (mount.path / f"file{number}").rename(mount.path / f"moved{number}")
        told[f"moved{number}"] = told.pop(f"file{number}")

    def differences() -> list[tuple[str, int]]:
        later_ms = {name: behind.mtime_ms(name) - mtime_ns // 1_000_000 for name, mtime_ns in told.items()}
        return [(name, ms) for name, ms in later_ms.items() if ms]

    def same() -> bool:
        return not differences()

    wait_until(same, "HDFS has the times that were told", explain=lambda: str(differences()))
    assert {name: (mount.path / name).stat().st_mtime_ns for name in told} == told


def test_times_of_what_others_have_put_there_stay(behind: Behind, tmp_path: Path) -> None:
    expected = {f"file{number}": 1_500_000_000_000 + number for number in range(20)}
    with mounted_writable(behind.uri, tmp_path / "other") as mount:
        for name, mtime_ms in expected.items():
            (mount.path / name).write_bytes(b"ours")
            behind.put(name, b"theirs")
            behind.set_mtime_ms(name, mtime_ms)
    assert {name: behind.mtime_ms(name) for name in expected} == expected


# ---- limits


def test_a_full_staging_directory(behind: Behind, tmp_path: Path) -> None:
    with mounted_writable(behind.uri, tmp_path, staging_size_bytes=MIB) as mount:
        fd = os.open(mount.path / "large", os.O_WRONLY | os.O_CREAT)
        parts = range(0, len(LARGE), 64 * KIB)
        codes = [code(partial(os.pwrite, fd, LARGE[at : at + 64 * KIB], at)) for at in parts]
        assert set(codes) == {None, errno.ENOSPC}
        os.close(fd)
        (mount.path / "large").unlink()
        (mount.path / "small").write_bytes(b"fits")
        assert behind.content("small") == b"fits"


def test_names_that_hdfs_does_not_take(behind: Behind, mount: Mounted) -> None:
    assert code(lambda: (mount.path / ("x" * 255)).write_bytes(b"")) is None
    assert code(lambda: (mount.path / ("ü" * 128)).write_bytes(b"")) == errno.ENAMETOOLONG
    assert code(lambda: os.mkdir(os.fsencode(mount.path) + b"/\xff")) == errno.EINVAL
    if behind.uri.startswith("hdfs"):
        assert code(lambda: (mount.path / "a:b").write_bytes(b"")) == errno.EINVAL
        assert code((mount.path / "a:b").mkdir) == errno.EINVAL


def test_a_quota(hdfs: LocalHdfs, hdfs_dir: str, behind: Behind, mount: Mounted) -> None:
    if not behind.uri.startswith("hdfs"):
        pytest.skip("quotas are HDFS's")
    (mount.path / "small").write_bytes(b"x")
    hdfs.webhdfs("PUT", hdfs_dir, "SETQUOTA", storagespacequota=str(MIB), namespacequota="5")
    assert code(partial((mount.path / "large").write_bytes, LARGE)) == errno.EDQUOT
    assert (mount.path / "large").read_bytes() == LARGE  # kept, and tried again
    hdfs.webhdfs("PUT", hdfs_dir, "SETQUOTA", storagespacequota=str(1 << 40), namespacequota="5")
    wait_until(lambda: behind.has("large"), "the file is stored", timeout_s=60)
    assert behind.content("large") == LARGE
    codes = [code((mount.path / f"dir{number}").mkdir) for number in range(5)]
    assert errno.EDQUOT in codes


@pytest.mark.parametrize("change", ["rename", "chown"])
def test_a_kept_file_that_is_changed_is_stored_and_let_go(
    hdfs: LocalHdfs, hdfs_dir: str, behind: Behind, mount: Mounted, change: str
) -> None:
    if not behind.is_hdfs:
        pytest.skip("quotas are HDFS's")
    hdfs.webhdfs("PUT", hdfs_dir, "SETQUOTA", storagespacequota=str(MIB), namespacequota="5")
    file = mount.path / "large"
    assert code(partial(file.write_bytes, LARGE)) == errno.EDQUOT
    # The last RELEASE has tried once more: now nobody has the file open.
    wait_until(lambda: (mount.stats()["open_files"], mount.stats()["publishing_files"]) == (0, 0), "it is given up")
    assert (mount.stats()["changed_files"], mount.stats()["staged_bytes"]) == (1, len(LARGE))
    hdfs.webhdfs("PUT", hdfs_dir, "SETQUOTA", storagespacequota=str(1 << 40), namespacequota="5")
    if change == "rename":
        file = file.rename(mount.path / "renamed")
    else:
        os.chown(file, -1, grp.getgrnam("games").gr_gid)
    assert behind.content(file.name) == LARGE
    assert (mount.stats()["changed_files"], mount.stats()["staged_bytes"]) == (0, 0)
    assert file.read_bytes() == LARGE
    behind.put(file.name, b"by another client")
    wait_until(lambda: file.read_bytes() == b"by another client", "the mount sees what another client has written")


def test_files_that_are_written_at_once_share_a_quota(
    hdfs: LocalHdfs, hdfs_dir: str, behind: Behind, mount: Mounted
) -> None:
    if not behind.is_hdfs:
        pytest.skip("quotas are HDFS's")
    # Of each file that is not complete HDFS counts a whole block, 128 MiB: there is room for three.
    hdfs.webhdfs("PUT", hdfs_dir, "SETQUOTA", storagespacequota=str(400 * MIB))
    expected = {f"file{number}": str(number).encode() for number in range(40)}
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda item: (mount.path / item[0]).write_bytes(item[1]), expected.items()))
    assert {name: behind.content(name) for name in expected} == expected


def test_permissions(hdfs: LocalHdfs, hdfs_dir: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in hdfs.environment.items():
        monkeypatch.setenv(name, value)
    behind = Behind(f"{hdfs.uri}{hdfs_dir}")
    behind.put("theirs", b"x")
    hdfs.webhdfs("PUT", f"{hdfs_dir}/closed", "MKDIRS", permission="755")
    with mounted_writable(f"{hdfs.uri}{hdfs_dir}", tmp_path, user="alice") as mount:
        assert code(partial((mount.path / "closed" / "file").write_bytes, b"x")) == errno.EACCES
        assert code((mount.path / "closed" / "dir").mkdir) == errno.EACCES
        assert code(partial((mount.path / "theirs").chmod, 0o600)) == errno.EACCES
        # A rename over it would be allowed, since the directory is everybody's.
        assert code(partial((mount.path / "theirs").write_bytes, b"y")) == errno.EACCES
        assert not os.access(mount.path / "theirs", os.W_OK)
        assert behind.content("theirs") == b"x"
        assert code(partial(os.chown, mount.path / "theirs", 1, -1)) == errno.EACCES
        (mount.path / "ours").write_bytes(b"x")
        assert hdfs.webhdfs("GET", f"{hdfs_dir}/ours", "GETFILESTATUS")["FileStatus"]["owner"] == "alice"
    with mounted_writable(f"{hdfs.uri}{hdfs_dir}", tmp_path) as mount:
        os.chown(mount.path / "ours", 1, 1)
        status = hdfs.webhdfs("GET", f"{hdfs_dir}/ours", "GETFILESTATUS")["FileStatus"]
        assert (status["owner"], status["group"]) == ("daemon", "daemon")
        assert code(partial(os.chown, mount.path / "ours", 54321, -1)) == errno.EINVAL


def test_a_file_that_is_replaced_while_parts_of_it_are_changed(behind: Behind, mount: Mounted) -> None:
    behind.put("file", LARGE)
    fd = os.open(mount.path / "file", os.O_RDWR)
    os.pwrite(fd, b"ours", 100)
    behind.put("file", b"theirs")
    assert code(partial(os.fsync, fd)) == errno.ESTALE
    assert behind.content("file") == b"theirs"  # never a mix
    assert code(partial(os.ftruncate, fd, 0)) == errno.ESTALE
    assert code(partial(os.close, fd)) == errno.ESTALE
    (mount.path / "file").write_bytes(b"all ours")
    assert behind.content("file") == b"all ours"
