"""The filesystem's semantics while a file's last writer goes, which takes longer than close(2), over real files."""

import errno
import os
from pathlib import Path

import pytest
import trio
from hdfs_fuse import errors
from hdfs_fuse.inodes import ROOT

from tests.model.harness import Served, serve
from tests.unit.test_fs import replace

OURS, THEIRS = b"ours", b"theirs, and longer"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "tree").mkdir()
    return tmp_path / "tree"


async def write(served: Served, handle: int) -> None:
    await served.fs.write(handle, 0, OURS)
    await served.fs.publish(handle, durable=False)


async def refuse(served: Served, number: int, is_refused: trio.Event) -> None:
    with pytest.raises(errors.HdfsFuseError) as failed:
        await served.fs.open(number, os.O_WRONLY)
    assert errors.errno_of(failed.value) == errno.ESTALE  # of which the kernel looks the name up again
    is_refused.set()


@pytest.mark.trio
async def test_what_replaces_a_file_that_is_being_closed_is_read(root: Path, tmp_path: Path) -> None:
    async with (
        serve(root, staging_directory=tmp_path / "staging", metadata_ttl_s=0) as served,
        trio.open_nursery() as nursery,
    ):
        assert served.drafts is not None
        handle, inode = await served.fs.create(ROOT, "file", 0o644, os.O_WRONLY)
        await write(served, handle)
        draft = served.drafts.of(inode)
        assert draft is not None
        async with draft.lock:
            nursery.start_soon(served.fs.release, handle)
            await trio.testing.wait_all_tasks_blocked()
            replace(root / "file", THEIRS, mtime_s=1000)
            found = await served.fs.lookup(ROOT, "file")
            assert found.status.length_bytes == len(THEIRS)
            reader, _ = await served.fs.open(found.number)
        await trio.testing.wait_all_tasks_blocked()
        assert served.drafts.of(inode) is None
        assert served.kernel.stored == {found.number: THEIRS}
        assert await served.read(reader, 0, 100) == THEIRS
        await served.fs.release(reader)


@pytest.mark.trio
@pytest.mark.parametrize("writes", [False, True])
async def test_what_replaces_a_file_that_is_being_closed_is_not_overwritten(
    root: Path, tmp_path: Path, writes: bool
) -> None:
    (root / "file").write_bytes(OURS)
    async with (
        serve(root, staging_directory=tmp_path / "staging", metadata_ttl_s=0) as served,
        trio.open_nursery() as nursery,
    ):
        assert served.drafts is not None
        inode = await served.fs.lookup(ROOT, "file")
        handle, _ = await served.fs.open(inode.number, os.O_WRONLY)
        if writes:
            await write(served, handle)
        draft = served.drafts.of(inode)
        assert draft is not None
        async with draft.lock:
            nursery.start_soon(served.fs.release, handle)
            await trio.testing.wait_all_tasks_blocked()
            replace(root / "file", THEIRS, mtime_s=1000)
            is_refused = trio.Event()
            nursery.start_soon(refuse, served, inode.number, is_refused)
            await trio.testing.wait_all_tasks_blocked()
        await is_refused.wait()
        again = await served.fs.lookup(ROOT, "file")
        handle, _ = await served.fs.open(again.number, os.O_WRONLY)
        await served.fs.write(handle, len(THEIRS), b"!")
        await served.fs.publish(handle, durable=False)
        await served.fs.release(handle)
    assert (root / "file").read_bytes() == THEIRS + b"!"
    assert os.listdir(root) == ["file"]


@pytest.mark.trio
async def test_who_waits_for_a_writer_of_ours_goes_on_with_what_that_one_wrote(root: Path, tmp_path: Path) -> None:
    (root / "file").write_bytes(b"old")
    async with (
        serve(root, staging_directory=tmp_path / "staging", metadata_ttl_s=0) as served,
        trio.open_nursery() as nursery,
    ):
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
        while not second:
            await trio.lowlevel.checkpoint()
        await served.fs.write(second[0], len(OURS), b" again")
        await served.fs.publish(second[0], durable=False)
        await served.fs.release(second[0])
        assert await served.read(reader, 0, 100) == b"ours again"
        await served.fs.release(reader)
    assert (root / "file").read_bytes() == b"ours again"
