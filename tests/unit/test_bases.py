"""The part of a stream that was given up becomes the base, also when HDFS's answer to that comes too late."""

from pathlib import Path

import pytest
from hdfs_fuse.backend.base import FileKind, FileStatus
from hdfs_fuse.backend.resilient import ResilientBackend
from hdfs_fuse.config import MountConfig, StagingConfig
from hdfs_fuse.errors import DeadlineError, FileChangedError
from hdfs_fuse.hidden import is_hidden, name_while_writing
from hdfs_fuse.inodes import InodeTable
from hdfs_fuse.metrics import Metrics
from hdfs_fuse.writing.bases import Bases
from hdfs_fuse.writing.draft import Draft
from hdfs_fuse.writing.staging import StagingArea

from tests.support.fake_backend import FakeFilesystem
from tests.unit.test_calls import calls_with

SIBLING = name_while_writing("file")


@pytest.mark.parametrize("loses_answer", [False, True])
async def test_a_part_is_taken_at_the_latest_with_the_second_attempt(tmp_path: Path, loses_answer: bool) -> None:
    disk = FakeFilesystem()
    disk.put(f"/{SIBLING}", b"sent already")
    inodes = InodeTable("/", disk.find("/").status)
    backend = ResilientBackend(disk.client, budget_s=0, deadline_s=1, verify_above_bytes=0)
    area = StagingArea(StagingConfig(directory=str(tmp_path)))
    new = FileStatus("file", FileKind.FILE, 0, 0o644, "alice", "staff", 1)
    draft = Draft(inodes.remember(inodes.root, "file", new, 0.0), area.create(), None)
    draft.sibling = inodes.root, SIBLING
    inodes.root.children += 1
    async with calls_with() as (calls, metrics):
        bases = Bases(MountConfig(uri="file:///"), backend, inodes, calls, Metrics())
        if loses_answer:
            disk.lose_answer("rename", DeadlineError("no answer"))
            with pytest.raises(DeadlineError):
                await bases.take_part(draft, f"/{SIBLING}", 4)
            assert draft.sibling is not None
        with pytest.raises(FileChangedError):
            await bases.take_part(draft, f"/{SIBLING}", 100)
        await bases.take_part(draft, f"/{SIBLING}", 4)
        assert draft.base is not None
        assert draft.part is not None
        assert is_hidden(draft.part[1])
        assert await calls.run(draft.base.read, 0, draft.base_bytes) == b"sent"
        assert disk.names_below("/") == [draft.part[1]]
        assert draft.next_part == ""
        assert metrics.hdfs_timeout_count == 0
    area.close()
