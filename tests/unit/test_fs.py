"""The filesystem's semantics without a kernel, over real files: names, attributes, lifetimes, handles."""

import contextlib
import os
import threading
from pathlib import Path

import pytest
import trio
from hdfs_fuse import errors
from hdfs_fuse.backend.base import FileKind, FileReader, FileStatus
from hdfs_fuse.backend.local import LocalBackend
from hdfs_fuse.fs import NEGATIVE_TTL_S
from hdfs_fuse.handles import DirectoryHandle
from hdfs_fuse.inodes import ROOT
from trio.testing import MockClock

from tests.model.harness import KIB, PATIENCE_S, Served, eventually, serve
from tests.support.fake_backend import FakeFilesystem

TTL_S = 10.0
# A file larger than one block, and than what counts as small.
LARGE = os.urandom(300 * KIB)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "d" / "e").mkdir(parents=True)
    (tmp_path / "small").write_bytes(b"small content")
    (tmp_path / "large").write_bytes(LARGE)
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "d" / "e" / "f").write_bytes(b"deep")
    return tmp_path


def replace(path: Path, data: bytes, *, mtime_s: float) -> None:
    """Put another file in a file's place, as a rename does."""
    new = path.with_name(f".{path.name}.new")
    new.write_bytes(data)
    os.utime(new, (mtime_s, mtime_s))
    new.rename(path)


def stored_blocks(cache: Path) -> list[Path]:
    return [path for path in cache.glob("v2/*/*") if path.is_file()]


# --- names and attributes ---


@pytest.mark.trio
async def test_lookup_finds_and_counts(root: Path) -> None:
    async with serve(root) as served:
        one = await served.fs.lookup(ROOT, "small")
        again = await served.fs.lookup(ROOT, "small")
        assert one is again
        assert one.lookups == 2
        assert (one.status.kind, one.status.length_bytes) == (FileKind.FILE, 13)
        directory = await served.fs.lookup(ROOT, "d")
        assert directory.status.kind is FileKind.DIRECTORY
        assert served.fs.inodes.path_of(directory) == str(root / "d")


@pytest.mark.trio
async def test_an_absent_name_is_not_found_and_leaves_nothing(root: Path) -> None:
    async with serve(root) as served:
        with pytest.raises(errors.NotFoundError):
            await served.fs.lookup(ROOT, "nothing")
        assert len(served.fs.inodes) == 1


@pytest.mark.trio
async def test_names_that_can_not_be(root: Path) -> None:
    async with serve(root) as served:
        with pytest.raises(errors.NameTooLongError, match="256 bytes"):
            await served.fs.lookup(ROOT, "x" * 256)
        with pytest.raises(errors.NameTooLongError):
            await served.fs.lookup(ROOT, "é" * 128)
        with pytest.raises(errors.NotFoundError):
            await served.fs.lookup(ROOT, "x" * 255)
        with pytest.raises(errors.NotFoundError, match="UTF-8"):
            await served.fs.lookup(ROOT, "\udcff")


@pytest.mark.trio
async def test_a_file_is_no_directory(root: Path) -> None:
    async with serve(root) as served:
        file = await served.fs.lookup(ROOT, "small")
        with pytest.raises(errors.NotDirectoryError):
            await served.fs.lookup(file.number, "x")
        with pytest.raises(errors.NotDirectoryError):
            await served.fs.opendir(file.number)
        directory = await served.fs.lookup(ROOT, "d")
        with pytest.raises(errors.IsDirectoryError):
            await served.fs.open(directory.number)


@pytest.mark.trio
async def test_attributes_are_believed_for_their_lifetime(root: Path, mock_clock: MockClock) -> None:
    async with serve(root, metadata_ttl_s=TTL_S) as served:
        inode = await served.fs.lookup(ROOT, "small")
        replace(root / "small", b"x" * 100, mtime_s=1000)
        mock_clock.jump(TTL_S - 0.1)
        assert (await served.fs.getattr(inode.number)).status.length_bytes == 13
        assert (await served.fs.lookup(ROOT, "small")).status.length_bytes == 13
        mock_clock.jump(0.2)
        assert (await served.fs.getattr(inode.number)).status.length_bytes == 100
        assert (await served.fs.lookup(ROOT, "small")) is inode


@pytest.mark.trio
async def test_a_removed_file_is_stale_after_its_lifetime(root: Path, mock_clock: MockClock) -> None:
    async with serve(root, metadata_ttl_s=TTL_S) as served:
        inode = await served.fs.lookup(ROOT, "small")
        (root / "small").unlink()
        assert (await served.fs.getattr(inode.number)) is inode
        mock_clock.jump(TTL_S)
        with pytest.raises(errors.StaleError):
            await served.fs.getattr(inode.number)
        with pytest.raises(errors.NotFoundError):
            await served.fs.lookup(ROOT, "small")
        with pytest.raises(errors.StaleError):
            await served.fs.open(inode.number)
        (root / "small").write_bytes(b"new")
        assert (await served.fs.lookup(ROOT, "small")).number != inode.number


@pytest.mark.trio
async def test_a_removed_root_is_stale_and_comes_back(tmp_path: Path, mock_clock: MockClock) -> None:
    root = tmp_path / "root"
    root.mkdir()
    async with serve(root, metadata_ttl_s=TTL_S) as served:
        root.rmdir()
        mock_clock.jump(TTL_S)
        with pytest.raises(errors.StaleError):
            await served.fs.getattr(ROOT)
        root.mkdir()
        assert (await served.fs.getattr(ROOT)).number == ROOT


@pytest.mark.trio
async def test_a_file_that_became_a_directory_is_another_inode(root: Path, mock_clock: MockClock) -> None:
    async with serve(root, metadata_ttl_s=TTL_S) as served:
        file = await served.fs.lookup(ROOT, "small")
        (root / "small").unlink()
        (root / "small").mkdir()
        mock_clock.jump(TTL_S)
        with pytest.raises(errors.StaleError, match="was a file, is a directory"):
            await served.fs.getattr(file.number)
        directory = await served.fs.lookup(ROOT, "small")
        assert directory.number != file.number
        assert directory.status.kind is FileKind.DIRECTORY
        served.fs.forget(file.number, 1)
        assert (await served.fs.lookup(ROOT, "small")) is directory


@pytest.mark.trio
async def test_lookup_notices_the_change_of_kind_too(root: Path, mock_clock: MockClock) -> None:
    async with serve(root, metadata_ttl_s=TTL_S) as served:
        file = await served.fs.lookup(ROOT, "small")
        (root / "small").unlink()
        (root / "small").mkdir()
        mock_clock.jump(TTL_S)
        assert (await served.fs.lookup(ROOT, "small")).number != file.number


@pytest.mark.trio
async def test_without_a_lifetime_every_question_is_asked(root: Path) -> None:
    async with serve(root, metadata_ttl_s=0) as served:
        inode = await served.fs.lookup(ROOT, "small")
        replace(root / "small", b"y" * 50, mtime_s=1000)
        assert (await served.fs.getattr(inode.number)).status.length_bytes == 50


def test_absences_are_believed_for_less_long() -> None:
    assert 0 < NEGATIVE_TTL_S < 10


@pytest.mark.trio
async def test_names_are_asked_back_when_there_are_too_many(tmp_path: Path) -> None:
    for i in range(1100):
        (tmp_path / f"n{i}").touch()
    async with serve(tmp_path, max_inodes=1000) as served:
        for i in range(1100):
            await served.fs.lookup(ROOT, f"n{i}")
        assert len(set(served.kernel.forgotten)) >= 100
        assert all(name for name in served.kernel.forgotten), "the root was asked back"


# --- access ---


@pytest.mark.trio
async def test_access(root: Path) -> None:
    async with serve(root) as served:
        file = await served.fs.lookup(ROOT, "small")
        await served.fs.access(file.number, read=True, write=False, execute=False)
        await served.fs.access(ROOT, read=True, write=False, execute=True)
        with pytest.raises(errors.ReadOnlyError):
            await served.fs.access(file.number, read=False, write=True, execute=False)
        with pytest.raises(errors.PermissionDeniedError):
            await served.fs.access(file.number, read=False, write=False, execute=True)


# --- directories ---


async def listing(served: Served, number: int) -> list[str]:
    handle = await served.fs.opendir(number)
    directory = served.fs.directory(handle)
    names: list[str] = []
    while (status := await directory.entry(len(names))) is not None:
        names.append(status.name)
    served.fs.releasedir(handle)
    return names


@pytest.mark.trio
async def test_readdir_shows_everything_once(root: Path) -> None:
    async with serve(root) as served:
        assert sorted(await listing(served, ROOT)) == ["d", "empty", "large", "small"]
        with pytest.raises(errors.StaleError):
            served.fs.directory(1)


@pytest.mark.trio
async def test_readdir_of_thousands_and_back(tmp_path: Path) -> None:
    names = {f"entry-{i:04}" for i in range(1777)}
    for name in names:
        (tmp_path / name).touch()
    async with serve(tmp_path) as served:
        assert set(await listing(served, ROOT)) == names
        directory = served.fs.directory(await served.fs.opendir(ROOT))
        found = [status.name for i in range(1777) if (status := await directory.entry(i)) is not None]
        assert await directory.entry(1777) is None
        for offset in (1776, 1200, 3, 499, 500, 501, 0):  # as seekdir and rewinddir do
            status = await directory.entry(offset)
            assert status is not None
            assert status.name == found[offset]
            assert directory.peek(offset) is status


@pytest.mark.trio
async def test_a_rewind_shows_the_directory_as_it_is_now(root: Path) -> None:
    async with serve(root) as served:
        directory = served.fs.directory(await served.fs.opendir(ROOT))
        assert await directory.entry(0) is not None
        (root / "new").touch()
        names: list[str] = []
        while (status := await directory.entry(len(names))) is not None:
            names.append(status.name)
        assert sorted(names) == ["d", "empty", "large", "new", "small"]


@pytest.mark.trio
async def test_a_directory_that_is_gone(root: Path) -> None:
    async with serve(root) as served:
        directory = await served.fs.lookup(ROOT, "d")
        handle = served.fs.directory(await served.fs.opendir(directory.number))
        os.rename(root / "d", root / "elsewhere")
        with pytest.raises(errors.NotFoundError):
            await handle.entry(0)


@pytest.mark.trio
async def test_a_listing_that_broke_is_not_the_end_of_the_directory() -> None:
    disk = FakeFilesystem()
    names = [f"n{i:03}" for i in range(20)]
    for name in names:
        disk.put(f"/{name}", b"")
    async with serve("/", backend=disk.client) as served:
        directory = served.fs.directory(await served.fs.opendir(ROOT))
        disk.fail("list entry", errors.PermissionDeniedError("not any more"))
        with pytest.raises(errors.PermissionDeniedError):
            await directory.entry(0)
        found: list[str] = []
        while (status := await directory.entry(len(found))) is not None:
            found.append(status.name)
        assert found == names


async def first_entry(served: Served) -> tuple[DirectoryHandle, FileStatus]:
    """The root, opened, and what its listing begins with."""
    directory = served.fs.directory(await served.fs.opendir(ROOT))
    status = await directory.entry(0)
    assert status is not None
    return directory, status


@pytest.mark.trio
async def test_entries_of_a_listing_are_known_to_the_kernel(root: Path) -> None:
    async with serve(root) as served:
        directory, status = await first_entry(served)
        inode = served.fs.enter(directory, status)
        assert inode.lookups == 1
        assert (await served.fs.lookup(ROOT, status.name)) is inode
        served.fs.forget(inode.number, 2)
        assert len(served.fs.inodes) == 1


@pytest.mark.trio
async def test_what_was_listed_by_name_only_needs_no_second_question(mock_clock: MockClock) -> None:
    disk = FakeFilesystem()
    disk.put("/f", b"12345")
    async with serve("/", backend=disk.client, metadata_ttl_s=TTL_S) as served:
        directory, status = await first_entry(served)
        served.fs.note_listed(directory, status)
        before = disk.calls["status"]
        inode = await served.fs.lookup(ROOT, "f")
        assert disk.calls["status"] == before
        disk.put("/f", b"1234567")
        mock_clock.jump(TTL_S)
        assert (await served.fs.lookup(ROOT, "f")).status.length_bytes == 7
        assert inode.status.length_bytes == 7


@pytest.mark.trio
async def test_entries_are_as_old_as_their_listing(mock_clock: MockClock) -> None:
    disk = FakeFilesystem()
    disk.put("/f", b"12345")
    async with serve("/", backend=disk.client, metadata_ttl_s=TTL_S) as served:
        directory, status = await first_entry(served)
        disk.put("/f", b"1234567")
        mock_clock.jump(TTL_S / 2)  # the program does something else
        inode = await served.fs.lookup(ROOT, "f")
        assert served.fs.enter(directory, status) is inode
        assert inode.status.length_bytes == 7
        assert inode.lookups == 2
        served.fs.forget(inode.number, 2)
        inode = served.fs.enter(directory, status)
        assert inode.status.length_bytes == 5
        mock_clock.jump(TTL_S / 2)
        assert (await served.fs.getattr(inode.number)).status.length_bytes == 7


# --- files ---


@pytest.mark.trio
@pytest.mark.parametrize("has_cache", [True, False])
async def test_contents(root: Path, tmp_path_factory: pytest.TempPathFactory, has_cache: bool) -> None:
    cache = tmp_path_factory.mktemp("cache") if has_cache else None
    async with serve(root, cache_directory=cache) as served:
        for _ in range(2):
            assert await served.read_path("small") == b"small content"
            assert await served.read_path("large") == LARGE
            assert await served.read_path("empty") == b""
            assert await served.read_path("d/e/f") == b"deep"
        assert len(served.fs.inodes) == 1, "forgotten with the last reference"


@pytest.mark.trio
async def test_reads_at_and_beyond_the_end(root: Path) -> None:
    async with serve(root) as served:
        handle, _ = await served.fs.open((await served.fs.lookup(ROOT, "large")).number)
        size = len(LARGE)
        assert await served.read(handle, size - 5, 100) == LARGE[-5:]
        assert await served.read(handle, size, 100) == b""
        assert await served.read(handle, size + 10_000, 100) == b""
        assert await served.read(handle, 64 * KIB - 3, 6) == LARGE[64 * KIB - 3 : 64 * KIB + 3]
        assert await served.read(handle, 0, 10 * size) == LARGE
        await served.fs.release(handle)
        with pytest.raises(errors.StaleError):
            await served.fs.read(handle, 0, 1)
        with pytest.raises(errors.StaleError):
            await served.fs.release(handle)


@pytest.mark.trio
async def test_pages_are_kept_while_the_file_is_the_same(root: Path, mock_clock: MockClock) -> None:
    async with serve(root, metadata_ttl_s=TTL_S) as served:

        async def keeps() -> bool:
            handle, keep = await served.fs.open((await served.fs.lookup(ROOT, "large")).number)
            await served.fs.release(handle)
            return keep

        await keeps()
        assert await keeps()
        mock_clock.jump(TTL_S)
        assert await keeps(), "looked at again, and still the same"
        replace(root / "large", LARGE[::-1], mtime_s=1000)
        assert await keeps(), "the change is not known yet"
        mock_clock.jump(TTL_S)
        assert not await keeps(), "another version"
        assert await keeps()


@pytest.mark.trio
async def test_a_file_changed_since_the_lookup_is_looked_up_again(root: Path, mock_clock: MockClock) -> None:
    """The kernel goes by the length that it was told; of ESTALE it looks up again (fs/namei.c, do_filp_open)."""
    async with serve(root, metadata_ttl_s=TTL_S) as served:
        inode = await served.fs.lookup(ROOT, "large")
        replace(root / "large", LARGE + b"more", mtime_s=1000)
        mock_clock.jump(TTL_S)
        with pytest.raises(errors.StaleError, match="changed since"):
            await served.fs.open(inode.number)
        assert await served.read_path("large") == LARGE + b"more"
        assert inode.children == 0


@pytest.mark.trio
async def test_a_change_within_the_lifetime_that_shows_at_the_open_ends_the_lifetime(root: Path) -> None:
    async with serve(root) as served:
        directory = served.fs.directory(await served.fs.opendir(ROOT))
        for offset in range(4):
            status = await directory.entry(offset)
            assert status is not None
            served.fs.note_listed(directory, status)
        inode = await served.fs.lookup(ROOT, "large")
        replace(root / "large", LARGE + b"more", mtime_s=1000)
        with pytest.raises(errors.FileChangedError):
            await served.fs.open(inode.number)
        assert await served.read_path("large") == LARGE + b"more"


@pytest.mark.trio
async def test_a_change_that_shows_at_a_read_ends_the_lifetime() -> None:
    disk = FakeFilesystem()
    disk.put("/f", LARGE[: 128 * KIB])
    async with serve("/", backend=disk.client) as served:
        handle, _ = await served.fs.open((await served.fs.lookup(ROOT, "f")).number)
        disk.put("/f", LARGE + b"more")
        disk.fail("stream", errors.FileChangedError("replaced"))  # of one of the loads that bring these 128 KiB
        with pytest.raises(errors.FileChangedError):
            await served.read(handle, 0, 128 * KIB)
        await served.fs.release(handle)
        assert await served.read_path("f") == LARGE + b"more"


@pytest.mark.trio
async def test_a_changed_file_shows_its_new_content_after_the_lifetime(root: Path, mock_clock: MockClock) -> None:
    async with serve(root, metadata_ttl_s=TTL_S) as served:
        for name, old in (("small", b"small content"), ("large", LARGE)):
            assert await served.read_path(name) == old
            replace(root / name, old[::-1] + b"longer", mtime_s=1000)
        mock_clock.jump(TTL_S)
        for name, old in (("small", b"small content"), ("large", LARGE)):
            assert await served.read_path(name) == old[::-1] + b"longer"


@pytest.mark.trio
@pytest.mark.parametrize("name", ["small", "large"])
async def test_an_open_file_keeps_its_version(
    root: Path, tmp_path_factory: pytest.TempPathFactory, mock_clock: MockClock, name: str
) -> None:
    """Its node too: the kernel caches pages and length by node, and must not mix those of two versions."""
    old = (root / name).read_bytes()
    new = old[::-1] + b"longer"
    async with serve(root, metadata_ttl_s=TTL_S, cache_directory=tmp_path_factory.mktemp("cache")) as served:
        inode = await served.fs.lookup(ROOT, name)
        handle, _ = await served.fs.open(inode.number)
        replace(root / name, new, mtime_s=1000)
        mock_clock.jump(TTL_S)
        changed = await served.fs.lookup(ROOT, name)
        assert changed.number != inode.number
        assert changed.status.length_bytes == len(new)
        assert (await served.fs.getattr(inode.number)).status.length_bytes == len(old)
        other, _ = await served.fs.open(changed.number)
        assert await served.read(other, 0, len(new)) == new
        with contextlib.suppress(errors.FileChangedError):  # just as good
            assert await served.read(handle, 0, len(new)) == old
        await served.fs.release(handle)
        await served.fs.release(other)


@pytest.mark.trio
async def test_getattr_of_an_open_file_does_not_grow_it(root: Path, mock_clock: MockClock) -> None:
    """The kernel would show zeros beyond the old end: it has the new length and gets no bytes."""
    async with serve(root, metadata_ttl_s=TTL_S) as served:
        inode = await served.fs.lookup(ROOT, "large")
        handle, _ = await served.fs.open(inode.number)
        replace(root / "large", LARGE + b"more", mtime_s=1000)
        mock_clock.jump(TTL_S)
        assert (await served.fs.getattr(inode.number)).status.length_bytes == len(LARGE)
        mock_clock.jump(TTL_S)
        assert (await served.fs.getattr(inode.number)).status.length_bytes == len(LARGE)
        assert (await served.fs.lookup(ROOT, "large")).status.length_bytes == len(LARGE) + 4
        await served.fs.release(handle)


@pytest.mark.trio
async def test_an_open_file_that_was_removed_keeps_its_attributes(root: Path, mock_clock: MockClock) -> None:
    async with serve(root, metadata_ttl_s=TTL_S) as served:
        inode = await served.fs.lookup(ROOT, "large")
        handle, _ = await served.fs.open(inode.number)
        assert await served.read(handle, 0, 10) == LARGE[:10]
        (root / "large").unlink()
        mock_clock.jump(TTL_S)
        assert (await served.fs.getattr(inode.number)).status.length_bytes == len(LARGE)
        with pytest.raises(errors.NotFoundError):
            await served.fs.lookup(ROOT, "large")
        await served.fs.release(handle)
        mock_clock.jump(TTL_S)
        with pytest.raises(errors.StaleError):
            await served.fs.getattr(inode.number)


@pytest.mark.trio
async def test_a_file_replaced_while_it_is_being_opened_is_one_version(root: Path) -> None:
    entered, go_on = threading.Event(), threading.Event()

    class SlowOpen(LocalBackend):
        def open(self, path: str) -> "FileReader":  # type: ignore[override]
            entered.set()
            assert go_on.wait(PATIENCE_S)
            return super().open(path)

    async with serve(root, backend=SlowOpen, metadata_ttl_s=0) as served, trio.open_nursery() as nursery:
        inode = await served.fs.lookup(ROOT, "large")

        async def read() -> None:
            handle, _ = await served.fs.open(inode.number)
            attributes = await served.fs.getattr(inode.number)
            try:
                assert await served.read(handle, 0, 1 << 20) in (LARGE, LARGE[::-1] + b"x")
                assert attributes.status.length_bytes == len(await served.read(handle, 0, 1 << 20))
            finally:
                await served.fs.release(handle)

        async def open_and_read() -> None:
            with contextlib.suppress(errors.FileChangedError):
                await read()

        nursery.start_soon(open_and_read)
        while not entered.is_set():
            await trio.lowlevel.checkpoint()
        replace(root / "large", LARGE[::-1] + b"x", mtime_s=1000)
        await served.fs.getattr(inode.number)
        go_on.set()


@pytest.mark.trio
async def test_an_open_file_outlives_the_kernels_forget(root: Path) -> None:
    async with serve(root) as served:
        inode = await served.fs.lookup(ROOT, "large")
        handle, _ = await served.fs.open(inode.number)
        served.fs.forget(inode.number, 1)
        assert await served.read(handle, 0, 100) == LARGE[:100]
        assert len(served.fs.inodes) == 2
        await served.fs.release(handle)
        assert len(served.fs.inodes) == 1


@pytest.mark.trio
async def test_an_open_that_fails_leaves_no_reference() -> None:
    disk = FakeFilesystem()
    disk.put("/f", bytes(1000 * KIB))
    disk.put("/s", b"small")
    async with serve("/", backend=disk.client) as served:
        for name in ("f", "s"):
            inode = await served.fs.lookup(ROOT, name)
            disk.fail("open", errors.PermissionDeniedError("no"))
            with pytest.raises(errors.PermissionDeniedError):
                await served.fs.open(inode.number)
            served.fs.forget(inode.number, 1)
        assert len(served.fs.inodes) == 1
        assert served.fs.stats()["open_files"] == 0


@pytest.mark.trio
async def test_cached_bytes_are_served_only_to_who_may_read(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    cache = tmp_path_factory.mktemp("cache")
    disk = FakeFilesystem()
    disk.put("/f", LARGE)
    disk.put("/s", b"small")
    async with serve("/", backend=disk.client, cache_directory=cache) as served:
        assert await served.read_path("f") == LARGE
        assert await served.read_path("s") == b"small"
        assert served.cache.store is not None
        await eventually(lambda: len(stored_blocks(cache)) == 6)  # the small one is stored after it was served
    async with serve("/", backend=disk.client, cache_directory=cache) as served:
        for name in ("f", "s"):
            disk.fail("open", errors.PermissionDeniedError("another identity"))
            with pytest.raises(errors.PermissionDeniedError):
                await served.read_path(name)
        assert await served.read_path("f") == LARGE
        assert await served.read_path("s") == b"small"
        assert served.metrics.hdfs_bytes == 0


# --- the whole ---


@pytest.mark.trio
async def test_statfs(root: Path) -> None:
    async with serve(root) as served:
        space = await served.fs.statfs()
        real = os.statvfs(root)
        assert space.capacity_bytes == real.f_blocks * real.f_frsize


@pytest.mark.trio
async def test_statfs_never_fails(mock_clock: MockClock) -> None:
    disk = FakeFilesystem()
    async with serve("/", backend=disk.client) as served:
        disk.fail("space", errors.UnavailableError("no NameNode"))
        assert (await served.fs.statfs()).capacity_bytes > 0
        mock_clock.jump(100)
        known = await served.fs.statfs()
        disk.fail("space", errors.UnavailableError("no NameNode"))
        mock_clock.jump(100)
        assert await served.fs.statfs() == known


@pytest.mark.trio
async def test_stats_tell_what_happened(root: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    async with serve(root, cache_directory=tmp_path_factory.mktemp("cache")) as served:
        await served.read_path("large")
        stats = served.fs.stats()
        assert stats["open_files"] == 0
        assert stats["inodes"] == 1
        assert stats["hdfs_bytes"] == len(LARGE)
        assert isinstance(stats["cache_used_bytes"], int)
        assert stats["cache_used_bytes"] >= len(LARGE)
