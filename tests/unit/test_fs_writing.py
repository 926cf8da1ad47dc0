"""The filesystem's semantics while a file's last writer goes, which takes longer than close(2), over real files."""

import errno
import os
import threading
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest
import trio
from hdfs_fuse import errors
from hdfs_fuse.backend.base import FileStatus
from hdfs_fuse.backend.local import LocalBackend
from hdfs_fuse.inodes import ROOT, Inode

from tests.model.harness import PATIENCE_S, Served, eventually, serve
from tests.unit.test_fs import replace

OURS, THEIRS = b"ours", b"theirs, and longer"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "tree").mkdir()
    return tmp_path / "tree"


def writable(root: Path) -> AbstractAsyncContextManager[Served]:
    return serve(root, staging_directory=root.parent / "staging", metadata_ttl_s=0)


@asynccontextmanager
async def replaced_while_closing(served: Served, root: Path, handle: int, inode: Inode) -> AsyncIterator[trio.Nursery]:
    """Inside, `handle` is being released, and another client has replaced the file; then the release goes on."""
    assert served.drafts is not None
    draft = served.drafts.of(inode)
    assert draft is not None
    async with trio.open_nursery() as nursery, draft.lock:
        nursery.start_soon(served.fs.release, handle)
        await trio.testing.wait_all_tasks_blocked()
        replace(root / "file", THEIRS, mtime_s=1000)
        yield nursery
    assert served.drafts.of(inode) is not draft


async def write(served: Served, handle: int) -> None:
    await served.fs.write(handle, 0, OURS)
    await served.fs.publish(handle, durable=False)


async def refuse(served: Served, number: int) -> None:
    with pytest.raises(errors.HdfsFuseError) as failed:
        await served.fs.open(number, os.O_WRONLY)
    assert errors.errno_of(failed.value) == errno.ESTALE  # of which the kernel looks the name up again


@pytest.mark.trio
async def test_what_replaces_a_file_that_is_being_closed_is_read(root: Path) -> None:
    async with writable(root) as served:
        handle, inode = await served.fs.create(ROOT, "file", 0o644, os.O_WRONLY)
        await write(served, handle)
        async with replaced_while_closing(served, root, handle, inode):
            found = await served.fs.lookup(ROOT, "file")
            assert found.status.length_bytes == len(THEIRS)
            reader, _ = await served.fs.open(found.number)
        assert served.kernel.stored == {found.number: THEIRS}
        assert await served.read(reader, 0, 100) == THEIRS
        await served.fs.release(reader)


@pytest.mark.trio
@pytest.mark.parametrize("writes", [False, True])
async def test_what_replaces_a_file_that_is_being_closed_is_not_overwritten(root: Path, writes: bool) -> None:
    (root / "file").write_bytes(OURS)
    async with writable(root) as served:
        inode = await served.fs.lookup(ROOT, "file")
        handle, _ = await served.fs.open(inode.number, os.O_WRONLY)
        if writes:
            await write(served, handle)
        async with replaced_while_closing(served, root, handle, inode) as nursery:
            nursery.start_soon(refuse, served, inode.number)
            await trio.testing.wait_all_tasks_blocked()
        again = await served.fs.lookup(ROOT, "file")
        handle, _ = await served.fs.open(again.number, os.O_WRONLY)
        await served.fs.write(handle, len(THEIRS), b"!")
        await served.fs.publish(handle, durable=False)
        await served.fs.release(handle)
    assert (root / "file").read_bytes() == THEIRS + b"!"
    assert os.listdir(root) == ["file"]


@pytest.mark.trio
async def test_who_waits_for_a_writer_of_ours_goes_on_with_what_that_one_wrote(root: Path) -> None:
    (root / "file").write_bytes(b"old")
    async with writable(root) as served, trio.open_nursery() as nursery:
        inode = await served.fs.lookup(ROOT, "file")
        reader, _ = await served.fs.open(inode.number)
        handle, _ = await served.fs.open(inode.number, os.O_WRONLY)
        await served.fs.write(handle, 0, OURS)
        second: list[int] = []

        async def open_second() -> None:
            second.append((await served.fs.open(inode.number, os.O_WRONLY))[0])

        nursery.start_soon(open_second)
        await trio.testing.wait_all_tasks_blocked()
        assert not second
        await served.fs.publish(handle, durable=False)
        await served.fs.release(handle)
        await eventually(lambda: bool(second))
        await served.fs.write(second[0], len(OURS), b" again")
        await served.fs.publish(second[0], durable=False)
        await served.fs.release(second[0])
        assert await served.read(reader, 0, 100) == b"ours again"
        await served.fs.release(reader)
    assert (root / "file").read_bytes() == b"ours again"


@pytest.mark.trio
async def test_a_file_that_is_renamed_while_it_is_asked_about_stays_known(root: Path) -> None:
    (root / "file").write_bytes(OURS)
    is_asked, may_answer = threading.Event(), threading.Event()
    may_answer.set()

    class SlowBackend(LocalBackend):
        def status(self, path: str) -> FileStatus:
            is_asked.set()
            assert may_answer.wait(PATIENCE_S)
            return super().status(path)

    async with serve(root, backend=SlowBackend, metadata_ttl_s=0) as served:
        inode = await served.fs.lookup(ROOT, "file")
        may_answer.clear()
        is_asked.clear()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(served.fs.getattr, inode.number)
            await eventually(is_asked.is_set)
            (root / "file").rename(root / "renamed")
            served.fs.inodes.move(inode, served.fs.inodes.root, "renamed")
            may_answer.set()
        assert await served.fs.lookup(ROOT, "renamed") is inode
