"""Loads that several open files share: the one that began a load closes, breaks or hangs, and the others go on."""

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
from hdfs_fuse import errors
from hdfs_fuse.backend.local import LocalBackend, LocalReader
from hdfs_fuse.backend.resilient import ResilientBackend
from hdfs_fuse.cache.content import LoadCancelledError
from hdfs_fuse.cache.keys import BlockKeys, FileVersion
from hdfs_fuse.inodes import ROOT
from hdfs_fuse.metrics import Metrics
from hdfs_fuse.open_file import OpenFile

from tests.model.harness import KIB, MIB, PATIENCE_S, Served, eventually, serve

LARGE = os.urandom(300 * KIB)
SMALL = os.urandom(5000)


class Holding(LocalBackend):
    """Real files; the first transfer of their beginning waits until it is let go on, and then breaks if so ordered."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.go_on = threading.Event()
        self.failure: errors.HdfsFuseError | None = None

    def open(self, path: str) -> "HoldingReader":  # type: ignore[override]
        reader = super().open(path)
        return HoldingReader(self, reader)

    def hold(self, start: int) -> None:
        """Called when a transfer begins."""
        if start == 0 and not self.entered.is_set():
            self.entered.set()
            assert self.go_on.wait(PATIENCE_S)
            if self.failure is not None:
                raise self.failure


class HoldingReader:
    """base.FileReader that asks its backend first."""

    def __init__(self, backend: Holding, reader: LocalReader) -> None:
        self._backend = backend
        self._reader = reader
        self.length_bytes = reader.length_bytes

    def read(self, start: int, stop: int) -> bytes:
        self._backend.hold(start)
        return self._reader.read(start, stop)

    def stream(self, start: int, stop: int) -> Iterator[bytes]:
        chunks = self._reader.stream(start, stop)
        self._backend.hold(start)
        yield from chunks

    def close(self) -> None:
        self._reader.close()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "large").write_bytes(LARGE)
    (tmp_path / "small").write_bytes(SMALL)
    return tmp_path


async def forgotten(served: Served, path: Path) -> None:
    """Wait until the load of a small file, which ends a little after its readers have it, is out of reach."""
    status = LocalBackend().status(str(path))
    version = FileVersion("local", str(path), status.mtime_ms, status.length_bytes)
    keys = BlockKeys(version, served.config.cache.block_size_bytes)
    await eventually(lambda: not served.cache.is_known(keys, 0))


async def read_what_another_loads(
    served: Served, backend: Holding, number: int, failure: errors.HdfsFuseError | None
) -> tuple[bytes, int]:
    """Read the beginning of a file while another handle loads it, is interrupted, closes, and its transfer fails.

    Returns:
        What was read, and the handle that is still open.
    """
    one, _ = await served.fs.open(number)
    other, _ = await served.fs.open(number)
    results: list[bytes] = []

    async def read(handle: int) -> None:
        results.append(await served.read(handle, 0, 64 * KIB))

    async with trio.open_nursery() as nursery:
        async with trio.open_nursery() as interrupted:
            interrupted.start_soon(read, one)
            await eventually(backend.entered.is_set)
            nursery.start_soon(read, other)
            await trio.testing.wait_all_tasks_blocked()
            interrupted.cancel_scope.cancel()
        await served.fs.release(one)
        backend.failure = failure
        backend.go_on.set()
    (data,) = results
    return data, other


@pytest.mark.trio
@pytest.mark.parametrize("failure", [None, errors.UnavailableError("broken")], ids=["goes on", "breaks"])
@pytest.mark.parametrize("has_cache", [True, False], ids=["disk", "memory"])
async def test_who_waits_for_the_load_of_a_file_that_closes_gets_its_bytes(
    root: Path, tmp_path_factory: pytest.TempPathFactory, failure: errors.HdfsFuseError | None, has_cache: bool
) -> None:
    backend = Holding()
    cache = tmp_path_factory.mktemp("cache") if has_cache else None
    async with serve(root, backend=lambda: backend, cache_directory=cache) as served:
        number = (await served.fs.lookup(ROOT, "large")).number
        data, other = await read_what_another_loads(served, backend, number, failure)
        assert data == LARGE[: 64 * KIB]
        assert await served.read(other, 0, len(LARGE)) == LARGE
        await served.fs.release(other)


@pytest.mark.trio
async def test_who_waits_for_a_small_file_that_closes_gets_its_bytes(root: Path) -> None:
    backend = Holding()
    backend.entered.set()  # the open reads the file; that may pass
    async with serve(root, backend=lambda: backend) as served:
        number = (await served.fs.lookup(ROOT, "small")).number
        handle, _ = await served.fs.open(number)  # from now on this identity is known to be allowed
        await served.fs.release(handle)
        await forgotten(served, root / "small")
        backend.entered.clear()
        data, other = await read_what_another_loads(served, backend, number, errors.UnavailableError("broken"))
        assert data == SMALL
        await served.fs.release(other)


@pytest.mark.trio
@pytest.mark.parametrize("name", ["large", "small"])
async def test_a_load_that_hangs_fails_its_readers_and_not_those_after_them(root: Path, name: str) -> None:
    backend = Holding()
    backend.entered.set()
    async with serve(root, backend=lambda: backend, call_deadline_s=0.5) as served:
        number = (await served.fs.lookup(ROOT, name)).number
        handle, _ = await served.fs.open(number)
        if name == "small":  # the open has read it: a second handle asks again
            await served.fs.release(handle)
            handle, _ = await served.fs.open(number)
            await forgotten(served, root / "small")
        backend.entered.clear()
        with pytest.raises(errors.DeadlineError):
            await served.read(handle, 0, 1000)
        content = (root / name).read_bytes()
        assert await served.read(handle, 0, 1000) == content[:1000]
        assert await served.read(handle, 0, len(content)) == content
        backend.go_on.set()
        await served.fs.release(handle)


@pytest.mark.trio
async def test_a_listing_that_hangs_can_be_repeated(root: Path) -> None:
    go_on = threading.Event()
    calls: list[str] = []

    class HangingList(LocalBackend):
        def list(self, path: str):  # type: ignore[no-untyped-def]
            calls.append(path)
            if len(calls) == 1:
                assert go_on.wait(PATIENCE_S)
            yield from super().list(path)

    async with serve(root, backend=HangingList, call_deadline_s=0.5) as served:
        directory = served.fs.directory(await served.fs.opendir(ROOT))
        with pytest.raises(errors.DeadlineError):
            await directory.entry(0)
        names: list[str] = []
        while (status := await directory.entry(len(names))) is not None:
            names.append(status.name)
        assert sorted(names) == ["large", "small"]
        go_on.set()


class HangingOpen(LocalBackend):
    """Real files; the first open hangs until the end."""

    def __init__(self) -> None:
        self.opens = 0
        self.go_on = threading.Event()

    def open(self, path: str) -> LocalReader:
        self.opens += 1
        if self.opens == 1:
            self.go_on.wait(PATIENCE_S)
        return super().open(path)


def test_an_open_that_hangs_holds_nobody_up(root: Path) -> None:
    disk = HangingOpen()
    backend = ResilientBackend(lambda: disk, budget_s=0, deadline_s=20)
    file = OpenFile(backend, str(root / "large"), backend.status(str(root / "large")), Metrics())
    hanging = threading.Thread(target=file.open)
    hanging.start()
    try:
        assert file.read(0, len(LARGE)) == LARGE
    finally:
        disk.go_on.set()
        hanging.join()
    assert disk.opens == 2
    assert file.read(0, 10) == LARGE[:10]
    file.close()
    with pytest.raises(LoadCancelledError):
        file.open()
    assert disk.opens == 2


@pytest.mark.trio
@pytest.mark.parametrize("has_disk", [False, True], ids=["no disk", "a full disk"])
@pytest.mark.parametrize("readers", [1, 2, 4])
async def test_what_the_disk_does_not_take_is_read_once(tmp_path: Path, readers: int, has_disk: bool) -> None:
    """What is loaded ahead must not be dropped before it is read, though the files are larger than the memory."""
    contents = {f"file{i}": os.urandom(24 * MIB) for i in range(readers)}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    async with serve(
        tmp_path,
        cache_directory=tmp_path / "cache" if has_disk else None,
        cache_size_bytes=MIB // 2,
        block_size_bytes=MIB,
        read_ahead_bytes=16 * MIB,
        workers=16,
    ) as served:
        served.cache.budget.size_bytes = 16 * MIB

        async def read(name: str, content: bytes) -> None:
            assert await served.read_path(name) == content

        async with trio.open_nursery() as nursery:
            for item in contents.items():
                nursery.start_soon(read, *item)
        # Until a full disk has turned the first block away, more is loaded ahead than there is memory for.
        extra_bytes = 16 * MIB if has_disk and readers > 1 else 0
        assert served.metrics.hdfs_bytes <= readers * 24 * MIB + extra_bytes
