"""What every backend does alike: against a real HDFS, the local disk, and the fake that other tests use."""

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import msgspec
import pytest
from hdfs_fuse import errors
from hdfs_fuse.backend import client_environment
from hdfs_fuse.backend.base import Backend, FileKind, Policies

from tests.contract.adapters import ADAPTERS, Adapter, make_adapter, resilient
from tests.support.libhdfs import libhdfs_environment
from tests.support.local_hdfs import LocalHdfs
from tests.support.waiting import wait_until

# Several DataNode packets of 64 KiB, and no multiple of one.
CONTENT = bytes(i * 7 % 251 for i in range(300_001))

ODD_NAMES = [
    *(
        "a b",
        " lead",
        "a%20b",
        "a?b",
        "a#b",
        "a&b=c",
        "a+b",
        "a;b",
        "a\\b",
        "a*b",
        "[a]",
        "{a}",
        "a\nb",
        "-r",
        ".hidden",
    ),
    *("ünï", "日本語", "\u0301", "😀", "x" * 255),
]


@pytest.fixture(params=ADAPTERS)
def adapter(request: pytest.FixtureRequest) -> Adapter:
    return make_adapter(request.param, request)


@pytest.fixture(params=["plain", "resilient"])
def backend(request: pytest.FixtureRequest, adapter: Adapter) -> Iterator[Backend]:
    made = adapter.backend if request.param == "plain" else resilient(adapter.backend)
    yield made
    made.close()


# ---- status


def test_status_of_a_file(adapter: Adapter, backend: Backend) -> None:
    before_ms = time.time_ns() // 1_000_000
    adapter.put(f"{adapter.root}/file", CONTENT)
    found = backend.status(f"{adapter.root}/file")
    assert (found.name, found.kind, found.length_bytes, found.mode) == ("file", FileKind.FILE, len(CONTENT), 0o644)
    assert found.owner
    if adapter.name != "fake":
        # Arrow has whole seconds on HDFS.
        assert before_ms - 1000 <= found.mtime_ms <= time.time_ns() // 1_000_000
    if adapter.name == "hdfs-native":
        assert found.replication == 1
        assert found.block_size_bytes == 128 << 20
        assert found.atime_ms > 0


def test_status_of_a_directory(adapter: Adapter, backend: Backend) -> None:
    adapter.make_directories([f"{adapter.root}/dir"])
    found = backend.status(f"{adapter.root}/dir")
    assert (found.name, found.kind, found.length_bytes) == ("dir", FileKind.DIRECTORY, 0)
    assert found.mode == 0o755


def test_status_of_the_root(backend: Backend) -> None:
    found = backend.status("/")
    assert (found.name, found.kind) == ("", FileKind.DIRECTORY)


def test_status_of_what_is_not_there(adapter: Adapter, backend: Backend) -> None:
    with pytest.raises(errors.NotFoundError, match="missing"):
        backend.status(f"{adapter.root}/missing")
    with pytest.raises(errors.NotFoundError):
        backend.status(f"{adapter.root}/missing/below")


def test_status_below_a_file(adapter: Adapter, backend: Backend) -> None:
    adapter.put(f"{adapter.root}/file", b"")
    with pytest.raises((errors.NotDirectoryError, errors.NotFoundError)):
        backend.status(f"{adapter.root}/file/below")


def test_a_replaced_file_has_another_modification_time(adapter: Adapter, backend: Backend) -> None:
    if adapter.name == "pyarrow-hdfs":
        pytest.skip("whole seconds: arrow.py says so")
    adapter.put(f"{adapter.root}/file", b"one")
    before = backend.status(f"{adapter.root}/file").mtime_ms
    end = time.monotonic() + 5
    while backend.status(f"{adapter.root}/file").mtime_ms == before:
        adapter.put(f"{adapter.root}/file", b"two")
        assert time.monotonic() < end


def test_odd_names(adapter: Adapter, backend: Backend) -> None:
    # libhdfs hands names to Java as modified UTF-8, in which characters beyond U+FFFF look different.
    names = [name for name in ODD_NAMES if adapter.name != "pyarrow-hdfs" or max(name) <= "\uffff"]
    adapter.put_all({f"{adapter.root}/{name}": name.encode() for name in names})
    assert sorted(entry.name for entry in backend.list(adapter.root)) == sorted(names)
    for name in names:
        path, content = f"{adapter.root}/{name}", name.encode()
        assert backend.status(path).name == name
        assert backend.open(path).read(0, len(content)) == content
        assert backend.delete(path, recursive=False)
    assert list(backend.list(adapter.root)) == []


@pytest.mark.parametrize("name", ["a:b", "a\udcffb"])
def test_names_that_hdfs_can_not_hold_are_not_there(adapter: Adapter, backend: Backend, name: str) -> None:
    path = f"{adapter.root}/{name}"
    with pytest.raises(errors.NotFoundError):
        backend.status(path)
    with pytest.raises(errors.NotFoundError):
        backend.open(path)
    if adapter.is_hdfs:
        with pytest.raises(errors.InvalidArgumentError):
            backend.make_directory(path, 0o755)


def test_a_name_that_is_too_long(adapter: Adapter, backend: Backend) -> None:
    with pytest.raises(errors.NameTooLongError):
        backend.make_directory(f"{adapter.root}/{'x' * 256}", 0o755)


# ---- list


def test_list_shows_what_status_shows(adapter: Adapter, backend: Backend) -> None:
    adapter.put(f"{adapter.root}/file", CONTENT)
    adapter.make_directories([f"{adapter.root}/dir"])
    adapter.put(f"{adapter.root}/dir/not-listed", b"")
    found = {entry.name: entry for entry in backend.list(adapter.root)}
    assert found == {name: backend.status(f"{adapter.root}/{name}") for name in ("file", "dir")}


def test_list_of_the_root_directory(backend: Backend) -> None:
    assert "" not in [entry.name for entry in backend.list("/")]


def test_list_of_an_empty_directory(adapter: Adapter, backend: Backend) -> None:
    assert list(backend.list(adapter.root)) == []


def test_list_of_more_than_one_batch(adapter: Adapter, backend: Backend) -> None:
    names = [f"entry-{i:05}" for i in range(2500)]  # HDFS sends 1000 at a time
    adapter.make_directories([f"{adapter.root}/{name}" for name in names])
    assert sorted(entry.name for entry in backend.list(adapter.root)) == names


def test_list_may_be_left_early(adapter: Adapter, backend: Backend) -> None:
    adapter.make_directories([f"{adapter.root}/{i}" for i in range(3)])
    listing = backend.list(adapter.root)
    assert next(listing).name in {"0", "1", "2"}
    del listing
    assert len(list(backend.list(adapter.root))) == 3


def test_list_of_a_file(adapter: Adapter, backend: Backend) -> None:
    adapter.put(f"{adapter.root}/file", b"")
    with pytest.raises(errors.NotDirectoryError):
        list(backend.list(f"{adapter.root}/file"))


def test_list_of_what_is_not_there(adapter: Adapter, backend: Backend) -> None:
    with pytest.raises(errors.NotFoundError):
        list(backend.list(f"{adapter.root}/missing"))


# ---- open, read, stream


def test_open_of_what_is_no_file(adapter: Adapter, backend: Backend) -> None:
    adapter.put(f"{adapter.root}/file", b"")
    with pytest.raises(errors.IsDirectoryError):
        backend.open(adapter.root)
    with pytest.raises(errors.NotFoundError):
        backend.open(f"{adapter.root}/missing")
    with pytest.raises((errors.NotDirectoryError, errors.NotFoundError)):
        backend.open(f"{adapter.root}/file/below")


PACKET = 64 << 10


RANGES = [
    (0, len(CONTENT)),
    (0, 0),
    (0, 1),
    (len(CONTENT), len(CONTENT)),
    (len(CONTENT) - 1, len(CONTENT)),
    (512, 1024),  # a checksum chunk
    (511, 513),
    (PACKET, 2 * PACKET),
    (PACKET - 1, PACKET + 1),
    (1, len(CONTENT) - 1),
]


def test_ranges(adapter: Adapter, backend: Backend) -> None:
    adapter.put(f"{adapter.root}/file", CONTENT)
    reader = backend.open(f"{adapter.root}/file")
    assert reader.length_bytes == len(CONTENT)
    for start, stop in RANGES:
        assert reader.read(start, stop) == CONTENT[start:stop]
        assert b"".join(reader.stream(start, stop)) == CONTENT[start:stop]
    reader.close()


def test_bytes_beyond_the_end_are_an_error(adapter: Adapter, backend: Backend) -> None:
    adapter.put(f"{adapter.root}/file", CONTENT)
    reader = backend.open(f"{adapter.root}/file")
    for start, stop in [(0, len(CONTENT) + 1), (len(CONTENT) + 1, len(CONTENT) + 2)]:
        with pytest.raises(errors.ShortReadError):
            reader.read(start, stop)
        with pytest.raises(errors.ShortReadError):
            list(reader.stream(start, stop))
    for start, stop in [(-1, 1), (2, 1)]:
        with pytest.raises(errors.InvalidArgumentError):
            reader.read(start, stop)
    assert reader.read(0, 1) == CONTENT[:1]


def test_an_empty_file(adapter: Adapter, backend: Backend) -> None:
    adapter.put(f"{adapter.root}/file", b"")
    reader = backend.open(f"{adapter.root}/file")
    assert reader.length_bytes == 0
    assert reader.read(0, 0) == b""
    assert list(reader.stream(0, 0)) == []


def test_a_file_of_many_blocks(adapter: Adapter, backend: Backend) -> None:
    content = os.urandom(1 << 20) * 9
    adapter.put(f"{adapter.root}/file", content)
    reader = backend.open(f"{adapter.root}/file")
    # Longer than any adapter's chunk, from no boundary to no boundary.
    assert reader.read(1, len(content) - 1) == content[1:-1]
    assert b"".join(reader.stream(1, len(content) - 1)) == content[1:-1]


def test_a_stream_may_be_left_early(adapter: Adapter, backend: Backend) -> None:
    adapter.put(f"{adapter.root}/file", CONTENT)
    reader = backend.open(f"{adapter.root}/file")
    for _ in range(20):
        stream = reader.stream(100, len(CONTENT))
        assert bytes(next(stream))[:10] == CONTENT[100:110]
        del stream
    assert b"".join(reader.stream(5, len(CONTENT))) == CONTENT[5:]


def test_streams_do_not_disturb_each_other(adapter: Adapter, backend: Backend) -> None:
    adapter.put(f"{adapter.root}/file", CONTENT)
    reader = backend.open(f"{adapter.root}/file")
    one, two = reader.stream(0, len(CONTENT)), reader.stream(1000, len(CONTENT))
    first, second = bytes(next(one)), bytes(next(two))
    assert reader.read(7, 9) == CONTENT[7:9]
    assert first + b"".join(one) == CONTENT
    assert second + b"".join(two) == CONTENT[1000:]


def test_several_threads_share_a_reader(adapter: Adapter, backend: Backend) -> None:
    adapter.put(f"{adapter.root}/file", CONTENT)
    reader = backend.open(f"{adapter.root}/file")
    together = threading.Barrier(8)

    def work(number: int) -> None:
        together.wait()
        for turn in range(10):
            start = (number * 31 + turn * 7919) % (len(CONTENT) - 20_000)
            assert reader.read(start, start + 20_000) == CONTENT[start : start + 20_000]
            if turn % 5 == 0:
                assert b"".join(reader.stream(start, len(CONTENT))) == CONTENT[start:]

    with ThreadPoolExecutor(8) as pool:
        for done in [pool.submit(work, number) for number in range(8)]:
            done.result()


def test_a_closed_reader(adapter: Adapter, backend: Backend) -> None:
    adapter.put(f"{adapter.root}/file", CONTENT)
    reader = backend.open(f"{adapter.root}/file")
    reader.close()
    reader.close()
    with pytest.raises(errors.InvalidArgumentError, match="closed"):
        reader.read(0, 1)
    with pytest.raises(errors.InvalidArgumentError, match="closed"):
        reader.stream(0, 1)


# ---- directories, owners, deletes


def test_make_directory_with_its_parents(adapter: Adapter, backend: Backend) -> None:
    umask = os.umask(0o077)
    try:
        backend.make_directory(f"{adapter.root}/a/b/c", 0o1777)
    finally:
        os.umask(umask)
    assert backend.status(f"{adapter.root}/a/b/c").kind is FileKind.DIRECTORY
    if adapter.is_exact:
        assert backend.status(f"{adapter.root}/a/b/c").mode == 0o1777
    if adapter.is_exact and adapter.name != "local":
        assert backend.status(f"{adapter.root}/a/b").mode == 0o755


def test_make_directory_leaves_one_that_exists_as_it_is(adapter: Adapter, backend: Backend) -> None:
    backend.make_directory(f"{adapter.root}/dir", 0o750)
    adapter.put(f"{adapter.root}/dir/file", b"kept")
    backend.make_directory(f"{adapter.root}/dir", 0o777)
    if adapter.is_exact:
        assert backend.status(f"{adapter.root}/dir").mode == 0o750
    assert [entry.name for entry in backend.list(f"{adapter.root}/dir")] == ["file"]


def test_make_directory_where_a_file_is(adapter: Adapter, backend: Backend) -> None:
    adapter.put(f"{adapter.root}/file", b"")
    with pytest.raises(errors.AlreadyExistsError):
        backend.make_directory(f"{adapter.root}/file", 0o755)
    with pytest.raises(errors.NotDirectoryError):
        backend.make_directory(f"{adapter.root}/file/below", 0o755)
    with pytest.raises(errors.NotDirectoryError):
        backend.make_directory(f"{adapter.root}/file/below/it", 0o755)


def test_set_owner(adapter: Adapter, backend: Backend) -> None:
    # HDFS takes any names, the local disk only those that it knows.
    owner, group = ("daemon", "daemon") if adapter.name.endswith("local") else ("alice", "data")
    backend.make_directory(f"{adapter.root}/dir", 0o755)
    backend.set_owner(f"{adapter.root}/dir", owner, None)
    backend.set_owner(f"{adapter.root}/dir", None, group)
    if adapter.is_exact:
        found = backend.status(f"{adapter.root}/dir")
        assert (found.owner, found.group) == (owner, group)
    with pytest.raises(errors.NotFoundError):
        backend.set_owner(f"{adapter.root}/missing", owner, None)


def test_delete(adapter: Adapter, backend: Backend) -> None:
    adapter.make_directories([f"{adapter.root}/dir", f"{adapter.root}/dir/sub"])
    adapter.put(f"{adapter.root}/dir/file", b"")
    with pytest.raises(errors.DirectoryNotEmptyError):
        backend.delete(f"{adapter.root}/dir", recursive=False)
    assert backend.delete(f"{adapter.root}/dir/file", recursive=False) is True
    assert backend.delete(f"{adapter.root}/dir/file", recursive=False) is False
    assert backend.delete(f"{adapter.root}/dir/sub", recursive=False) is True
    adapter.put(f"{adapter.root}/dir/again", b"")
    assert backend.delete(f"{adapter.root}/dir", recursive=True) is True
    assert backend.delete(f"{adapter.root}/dir", recursive=True) is False
    with pytest.raises(errors.NotFoundError):
        backend.status(f"{adapter.root}/dir")


# ---- writing


@pytest.fixture
def writable(adapter: Adapter, backend: Backend) -> Backend:
    if adapter.name == "pyarrow-hdfs":
        with pytest.raises(errors.UnsupportedError, match="hdfs-native"):
            backend.create(f"{adapter.root}/file", mode=0o644, overwrite=False)
        pytest.skip("backend pyarrow does not write to HDFS, and says so")
    return backend


def write(backend: Backend, path: str, data: bytes, mode: int = 0o640) -> None:
    writer = backend.create(path, mode=mode, overwrite=True)
    writer.write(data)
    writer.close()


def content(backend: Backend, path: str) -> bytes:
    reader = backend.open(path)
    return reader.read(0, reader.length_bytes)


def test_copy_attributes(adapter: Adapter, writable: Backend) -> None:
    source, target = f"{adapter.root}/source", f"{adapter.root}/target"
    owner, group = ("daemon", "daemon") if adapter.name.endswith("local") else ("alice", "data")
    adapter.put(source, b"old")
    writable.set_owner(source, owner, group)
    adapter.put(target, b"new")
    for _ in range(2):
        writable.copy_attributes(source, target)
        found = writable.status(target)
        assert (found.mode, found.length_bytes) == (0o644, 3)
        if adapter.is_exact:
            assert (found.owner, found.group) == (owner, group)
    for missing in (source, target):
        assert writable.delete(missing, recursive=False)
        with pytest.raises(errors.NotFoundError):
            writable.copy_attributes(source, target)
        adapter.put(missing, b"again")


def test_create_write_and_close(adapter: Adapter, writable: Backend) -> None:
    path = f"{adapter.root}/file"
    umask = os.umask(0o077)
    try:
        writer = writable.create(path, mode=0o1664, overwrite=False)
    finally:
        os.umask(umask)
    writer.write(CONTENT[:1000])
    writer.write(b"")
    writer.write(CONTENT[1000:])
    writer.close()
    writer.close()
    assert content(writable, path) == CONTENT
    found = writable.status(path)
    assert (found.length_bytes, found.mode) == (len(CONTENT), 0o1664 if adapter.is_exact else found.mode)


def test_create_an_empty_file(adapter: Adapter, writable: Backend) -> None:
    writable.create(f"{adapter.root}/file", mode=0o644, overwrite=False).close()
    assert content(writable, f"{adapter.root}/file") == b""


def test_create_only_what_is_not_there(adapter: Adapter, writable: Backend) -> None:
    path = f"{adapter.root}/file"
    adapter.put(path, b"old")
    with pytest.raises(errors.AlreadyExistsError):
        writable.create(path, mode=0o644, overwrite=False)
    with pytest.raises(errors.AlreadyExistsError):
        writable.create(adapter.root, mode=0o644, overwrite=False)
    assert content(writable, path) == b"old"
    write(writable, path, b"new")
    assert content(writable, path) == b"new"
    with pytest.raises(errors.NotFoundError):
        writable.create(f"{adapter.root}/missing/file", mode=0o644, overwrite=False)
    with pytest.raises((errors.NotDirectoryError, errors.NotFoundError)):
        writable.create(f"{path}/below", mode=0o644, overwrite=False)


def test_one_writer_a_file(adapter: Adapter, writable: Backend) -> None:
    path = f"{adapter.root}/file"
    writer = writable.create(path, mode=0o644, overwrite=False)
    with pytest.raises(errors.BusyError):
        writable.create(path, mode=0o644, overwrite=False)
    with pytest.raises(errors.BusyError):
        writable.append(path)
    writer.write(b"first")
    writer.close()
    with pytest.raises(errors.AlreadyExistsError):
        writable.create(path, mode=0o644, overwrite=False)


def test_overwriting_takes_the_file_from_its_writer(adapter: Adapter, writable: Backend) -> None:
    path = f"{adapter.root}/file"
    writer = writable.create(path, mode=0o644, overwrite=False)
    writer.write(b"lost")
    write(writable, path, b"kept")
    with contextlib.suppress(errors.HdfsFuseError):
        writer.sync()
    assert content(writable, path) == b"kept"


def test_synced_bytes_count(adapter: Adapter, writable: Backend) -> None:
    path = f"{adapter.root}/file"
    writer = writable.create(path, mode=0o644, overwrite=False)
    writer.sync()
    assert writable.status(path).length_bytes == 0
    for part in (CONTENT[:70_000], CONTENT[70_000:]):
        writer.write(part)
        writer.sync()
    assert writable.status(path).length_bytes == len(CONTENT)
    writer.close()
    assert content(writable, path) == CONTENT


def test_a_file_may_be_renamed_while_it_is_written(adapter: Adapter, writable: Backend) -> None:
    path = f"{adapter.root}/file"
    adapter.put(path, b"old")
    writer = writable.create(f"{path}.new", mode=0o644, overwrite=False)
    writer.write(CONTENT)
    writer.sync()
    writable.rename(f"{path}.new", path, overwrite=True)
    assert writable.status(path).length_bytes == len(CONTENT)
    writer.write(b"more")
    writer.close()
    assert content(writable, path) == CONTENT + b"more"
    assert [entry.name for entry in writable.list(adapter.root)] == ["file"]


def test_append(adapter: Adapter, writable: Backend) -> None:
    path = f"{adapter.root}/file"
    adapter.put(path, b"")
    for part in (CONTENT, b"", b"x", CONTENT):
        writer = writable.append(path)
        writer.write(part)
        writer.sync()
        writer.close()
    assert content(writable, path) == CONTENT + b"x" + CONTENT
    with pytest.raises(errors.NotFoundError):
        writable.append(f"{adapter.root}/missing")
    with pytest.raises(errors.HdfsFuseError):
        writable.append(adapter.root)


def test_a_lease_can_be_recovered(adapter: Adapter, writable: Backend) -> None:
    path = f"{adapter.root}/file"
    writer = writable.create(path, mode=0o644, overwrite=False)
    writer.write(CONTENT)
    writer.sync()
    if adapter.name.endswith("local"):
        # Ends with its holder, as a flock does.
        with pytest.raises(errors.BusyError):
            writable.recover_lease(path)
        writer.close()
    wait_until(lambda: writable.recover_lease(path), "the lease is recovered")
    assert content(writable, path) == CONTENT
    append = writable.append(path)
    append.write(b"more")
    append.close()
    assert content(writable, path) == CONTENT + b"more"


# ---- changes of names and attributes


def test_rename(adapter: Adapter, writable: Backend) -> None:
    root = adapter.root
    adapter.make_directories([f"{root}/dir", f"{root}/dir/sub", f"{root}/empty"])
    adapter.put_all({f"{root}/dir/sub/file": b"in", f"{root}/one": b"one", f"{root}/two": b"two"})
    writable.rename(f"{root}/one", f"{root}/two", overwrite=True)
    writable.rename(f"{root}/dir", f"{root}/empty", overwrite=True)
    writable.rename(f"{root}/empty/sub/file", f"{root}/file", overwrite=False)
    assert sorted(entry.name for entry in writable.list(root)) == ["empty", "file", "two"]
    assert [content(writable, f"{root}/{name}") for name in ("two", "file")] == [b"one", b"in"]


def test_renames_that_are_refused(adapter: Adapter, writable: Backend) -> None:
    root = adapter.root
    adapter.make_directories([f"{root}/dir", f"{root}/full"])
    adapter.put_all({f"{root}/full/file": b"", f"{root}/one": b"one", f"{root}/two": b"two"})
    for source, target, overwrite, refusal in (
        ("one", "two", False, errors.AlreadyExistsError),
        ("dir", "full", False, errors.AlreadyExistsError),
        ("dir", "full", True, errors.DirectoryNotEmptyError),
        ("one", "dir", True, errors.IsDirectoryError),
        ("dir", "one", True, errors.NotDirectoryError),
        ("dir", "dir/below", True, errors.InvalidArgumentError),
        ("missing", "new", True, errors.NotFoundError),
        ("one", "missing/new", True, errors.NotFoundError),
        ("one", "two/below", True, (errors.NotDirectoryError, errors.NotFoundError)),
    ):
        with pytest.raises(refusal):
            writable.rename(f"{root}/{source}", f"{root}/{target}", overwrite=overwrite)
    assert sorted(entry.name for entry in writable.list(root)) == ["dir", "full", "one", "two"]
    assert content(writable, f"{root}/two") == b"two"


def test_create_a_directory(adapter: Adapter, writable: Backend) -> None:
    path = f"{adapter.root}/dir"
    writable.create_directory(path, 0o750)
    writable.create_directory(f"{path}/sub", 0o755)
    adapter.put(f"{path}/file", b"")
    if adapter.is_exact:
        assert writable.status(path).mode == 0o750
    for taken in (path, f"{path}/sub", f"{path}/file"):
        with pytest.raises(errors.AlreadyExistsError):
            writable.create_directory(taken, 0o755)
    with pytest.raises(errors.NotFoundError):
        writable.create_directory(f"{path}/missing/below", 0o755)
    with pytest.raises((errors.NotDirectoryError, errors.NotFoundError)):
        writable.create_directory(f"{path}/file/below", 0o755)
    assert sorted(entry.name for entry in writable.list(path)) == ["file", "sub"]


def test_check_write(adapter: Adapter, backend: Backend) -> None:
    adapter.put(f"{adapter.root}/file", b"")
    backend.check_write(f"{adapter.root}/file")
    backend.check_write(adapter.root)
    with pytest.raises(errors.NotFoundError):
        backend.check_write(f"{adapter.root}/missing")


def test_put(adapter: Adapter, writable: Backend) -> None:
    if adapter.name.endswith("local"):
        with pytest.raises(errors.UnsupportedError):
            writable.put(f"{adapter.root}/file", iter([b""]), 0, 0o644, alone=False)
        return
    path = f"{adapter.root}/file"
    writer = writable.create(path, mode=0o644, overwrite=False)
    writer.write(b"lost")
    for data in (CONTENT, b"", b"short"):
        chunks = iter([data[:1000], data[1000:]]) if data else iter([])
        writable.put(path, chunks, len(data), 0o640, alone=data == b"short")
        assert content(writable, path) == data
        assert writable.status(path).mode == 0o640


def test_set_mode_and_times(adapter: Adapter, writable: Backend) -> None:
    adapter.make_directories([f"{adapter.root}/dir"])
    adapter.put(f"{adapter.root}/file", CONTENT)
    for name in ("dir", "file"):
        path = f"{adapter.root}/{name}"
        writable.set_mode(path, 0o1750)
        writable.set_times(path, mtime_ms=1_234_567_890_123, atime_ms=None)
        writable.set_times(path, mtime_ms=None, atime_ms=1_334_567_890_456)
        found = writable.status(path)
        assert found.mtime_ms == 1_234_567_890_123
        if adapter.is_exact:
            assert (found.mode, found.atime_ms) == (0o1750, 1_334_567_890_456)
    with pytest.raises(errors.NotFoundError):
        writable.set_mode(f"{adapter.root}/missing", 0o644)
    with pytest.raises(errors.NotFoundError):
        writable.set_times(f"{adapter.root}/missing", mtime_ms=0, atime_ms=None)


# ---- extended attributes

# Every byte, and bytes that are no text.
VALUE = bytes(range(256)) + b"\xff\xfe\0"


def test_xattrs(adapter: Adapter, writable: Backend) -> None:
    adapter.put(f"{adapter.root}/file", b"")
    adapter.make_directories([f"{adapter.root}/dir"])
    for name in ("file", "dir"):
        path = f"{adapter.root}/{name}"
        assert (writable.xattrs(path), writable.xattr_names(path)) == ({}, [])
        expected = {"user.bytes": VALUE, "user.empty": b"", "user.größe &=%+": b"x", "user.long": b"y" * 2000}
        for attribute, value in expected.items():
            writable.set_xattr(path, attribute, b"old")
            writable.set_xattr(path, attribute, value)
        assert writable.xattrs(path) == expected
        assert sorted(writable.xattr_names(path)) == sorted(expected)
        writable.remove_xattr(path, "user.bytes")
        assert "user.bytes" not in writable.xattrs(path)
        with pytest.raises(errors.NoAttributeError):
            writable.remove_xattr(path, "user.bytes")


def test_xattrs_of_what_is_not_there(adapter: Adapter, writable: Backend) -> None:
    path = f"{adapter.root}/missing"
    calls: list[Callable[[], object]] = [
        lambda: writable.xattrs(path),
        lambda: writable.xattr_names(path),
        lambda: writable.set_xattr(path, "user.a", b""),
        lambda: writable.remove_xattr(path, "user.a"),
        lambda: writable.policies(path),
    ]
    for call in calls:
        with pytest.raises(errors.NotFoundError):
            call()


def test_limits_of_xattrs(adapter: Adapter, writable: Backend) -> None:
    path = f"{adapter.root}/file"
    adapter.put(path, b"")
    if adapter.name.endswith("local"):
        with pytest.raises(errors.TooLargeError):
            writable.set_xattr(path, "user.large", bytes(1 << 17))
        return
    name = "user.large"
    writable.set_xattr(path, name, bytes(16384 - len("large")))  # HDFS counts the name without its namespace
    for length_bytes in (16384, 40_000, 1 << 20):  # its default limit, its hard one, more than an URL takes
        with pytest.raises(errors.TooLargeError):
            writable.set_xattr(path, name, bytes(length_bytes))
    for number in range(31):
        writable.set_xattr(path, f"user.{number}", b"x")
    with pytest.raises(errors.NoSpaceError):
        writable.set_xattr(path, "user.31", b"x")
    writable.set_xattr(path, "user.30", b"y")


def test_xattrs_of_other_namespaces_are_not_shown(adapter: Adapter, writable: Backend) -> None:
    path = f"{adapter.root}/file"
    adapter.put(path, b"")
    if adapter.name == "fake":
        pytest.skip("the fake has one namespace")
    writable.set_xattr(path, "user.ours", b"x")
    writable.set_xattr(path, "trusted.theirs", b"x")  # we are the superuser, here and there
    assert writable.xattrs(path) == {"user.ours": b"x"}
    assert writable.xattr_names(path) == ["user.ours"]


def test_arrow_reads_xattrs(adapter: Adapter, backend: Backend, request: pytest.FixtureRequest) -> None:
    if adapter.name != "pyarrow-hdfs":
        pytest.skip("the others change them too")
    hdfs = request.getfixturevalue("hdfs")
    assert isinstance(hdfs, LocalHdfs)
    path = f"{adapter.root}/file"
    adapter.put(path, b"")
    hdfs.webhdfs("PUT", path, "SETXATTR", **{"xattr.name": "user.a", "xattr.value": "0x00ff", "flag": "CREATE"})
    assert backend.xattrs(path) == {"user.a": b"\0\xff"}
    with pytest.raises(errors.UnsupportedError):
        backend.set_xattr(path, "user.a", b"")
    with pytest.raises(errors.UnsupportedError):
        backend.remove_xattr(path, "user.a")


def test_policies(adapter: Adapter, backend: Backend, request: pytest.FixtureRequest) -> None:
    path = f"{adapter.root}/dir"
    adapter.make_directories([path])
    assert backend.policies(path) == Policies()
    if adapter.is_hdfs:
        hdfs = request.getfixturevalue("hdfs")
        assert isinstance(hdfs, LocalHdfs)
        hdfs.webhdfs("PUT", path, "SETSTORAGEPOLICY", storagepolicy="ONE_SSD")
        hdfs.webhdfs("PUT", "/", "ENABLEECPOLICY", ecpolicy="XOR-2-1-1024k")
        hdfs.webhdfs("PUT", path, "SETECPOLICY", ecpolicy="XOR-2-1-1024k")
        assert backend.policies(path) == Policies("ONE_SSD", "XOR-2-1-1024k")


# ---- space


def test_space_of_the_filesystem(adapter: Adapter, backend: Backend) -> None:
    found = backend.space(adapter.root)
    assert 0 < found.free_bytes <= found.capacity_bytes
    assert 0 <= found.used_bytes <= found.capacity_bytes


def test_space_of_a_quota(adapter: Adapter, backend: Backend, request: pytest.FixtureRequest) -> None:
    if not adapter.is_hdfs:
        pytest.skip("quotas are HDFS's")
    hdfs = request.getfixturevalue("hdfs")
    assert isinstance(hdfs, LocalHdfs)
    hdfs.webhdfs("PUT", adapter.root, "SETQUOTA", storagespacequota=str(1 << 30))
    adapter.put(f"{adapter.root}/file", CONTENT)
    found = backend.space(adapter.root)
    assert (found.capacity_bytes, found.used_bytes) == (1 << 30, len(CONTENT))
    assert found.free_bytes == (1 << 30) - len(CONTENT)
    assert (found.max_names, found.used_names) == (0, 0)


def test_space_of_erasure_coded_files(adapter: Adapter, backend: Backend, request: pytest.FixtureRequest) -> None:
    if not adapter.is_hdfs:
        pytest.skip("quotas are HDFS's")
    hdfs = request.getfixturevalue("hdfs")
    assert isinstance(hdfs, LocalHdfs)
    hdfs.webhdfs("PUT", "/", "ENABLEECPOLICY", ecpolicy="XOR-2-1-1024k")
    hdfs.webhdfs("PUT", adapter.root, "SETECPOLICY", ecpolicy="XOR-2-1-1024k")
    hdfs.webhdfs("PUT", adapter.root, "SETQUOTA", storagespacequota=str(3 << 20))
    found = backend.space(adapter.root)
    assert (found.capacity_bytes, found.used_bytes, found.free_bytes) == (2 << 20, 0, 2 << 20)


def test_names_of_a_quota(adapter: Adapter, backend: Backend, request: pytest.FixtureRequest) -> None:
    if not adapter.is_hdfs:
        pytest.skip("quotas are HDFS's")
    hdfs = request.getfixturevalue("hdfs")
    assert isinstance(hdfs, LocalHdfs)
    hdfs.webhdfs("PUT", adapter.root, "SETQUOTA", namespacequota="10")
    adapter.put(f"{adapter.root}/file", CONTENT)
    found = backend.space(adapter.root)
    assert (found.max_names, found.used_names) == (10, 2)
    assert found.capacity_bytes == backend.space("/").capacity_bytes


# ---- identity


def test_another_user_is_refused(adapter: Adapter, request: pytest.FixtureRequest) -> None:
    if adapter.config is None:
        pytest.skip("the fake knows no users")
    private = f"{adapter.root}/private"
    adapter.backend.make_directory(private, 0o700)
    adapter.put(f"{private}/file", b"secret")
    config = adapter.config
    environment = dict(os.environ)
    if adapter.is_hdfs:
        hdfs = request.getfixturevalue("hdfs")
        assert isinstance(hdfs, LocalHdfs)
        config = msgspec.structs.replace(config, user="alice")
        if adapter.name == "pyarrow-hdfs":
            environment |= libhdfs_environment(hdfs)
        environment |= {k: v for k, v in client_environment(config).items() if k != "CLASSPATH"}
    done = subprocess.run(
        [sys.executable, "-m", "tests.contract.another_user", config.to_json().decode(), private],
        env=environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    denied = "PermissionDeniedError"
    assert json.loads(done.stdout) == dict.fromkeys(
        ["status", "list", "open", "make_directory", "delete", "set_owner", "check_write"], denied
    )
