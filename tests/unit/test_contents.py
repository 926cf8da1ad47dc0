"""Writing to a file while its front goes out."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest
import trio
from hdfs_fuse.calls import Calls
from hdfs_fuse.config import StagingConfig
from hdfs_fuse.upload.messages import Answer, Content
from hdfs_fuse.upload.uploads import Session, Uploads
from hdfs_fuse.writing.contents import Contents
from hdfs_fuse.writing.draft import Draft
from hdfs_fuse.writing.siblings import Siblings
from hdfs_fuse.writing.stream import Stream
from hdfs_fuse.writing.streams import Streams
from hdfs_fuse.writing.tails import Tails

KIB = 1 << 10


class World:
    """A draft whose stream sends what is staged at that moment, and a disk that is slower than all that can go out."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.staged = bytearray()
        self.sent = bytearray()
        self.may_send = trio.Event()
        config = StagingConfig(directory="/unused", stream_from_bytes=4 * KIB, window_bytes=1 << 20)
        session = cast(Session, SimpleNamespace(length_bytes=0))
        self.stream = Stream(
            cast(Uploads, self), session, "/unused/1", self._discard, self._reopen, 1.0, config, nursery
        )
        self.draft = SimpleNamespace(stream=self.stream, staged=self, length_bytes=0, touch=self._touch)
        self.contents = Contents(
            cast(Calls, None),
            cast(Calls, SimpleNamespace(run=self._run)),
            cast(Siblings, SimpleNamespace(reserve=self._reserve)),
            cast(Tails, None),
            cast(Streams, self),
        )

    async def send(self, _session: Session, content: Content, *, durable: bool) -> Answer:  # noqa: ARG002
        """As Uploads.send."""
        await self.may_send.wait()
        self.sent += self.staged[content.sent_bytes : content.length_bytes]
        return Answer(0, length_bytes=content.length_bytes)

    async def send_early(self, _draft: Draft) -> None:
        """As Streams.send_early."""
        await self.stream.offer(len(self.staged))

    def write(self, start: int, data: bytes) -> None:
        """As StagedFile.write."""
        self.staged[start : start + len(data)] = data

    async def _run(self, call: Callable[..., object], *args: object) -> None:
        await trio.testing.wait_all_tasks_blocked()
        call(*args)

    def _touch(self, _start: int, length_bytes: int) -> None:
        self.draft.length_bytes = length_bytes

    async def _reserve(self, _draft: Draft) -> None:
        pass

    async def _discard(self, _stop: int) -> None:
        pass

    async def _reopen(self, _ours: range, _over_http: bool) -> Session:
        raise AssertionError("nothing fails here")

    async def put(self, start: int, data: bytes) -> None:
        """A write of the application."""
        await self.contents.write(cast(Any, self.draft), start, data)


@pytest.mark.trio
async def test_what_is_changed_goes_out_changed() -> None:
    """What has not been claimed yet may be changed; the stream must not send it while the disk is at it."""
    async with trio.open_nursery() as nursery:
        world = World(nursery)
        await world.put(0, b"a" * 20 * KIB)
        await trio.testing.wait_all_tasks_blocked()
        assert 0 < world.stream.claimed_bytes < 12 * KIB
        world.may_send.set()
        await world.put(12 * KIB, b"changed")
        await world.put(20 * KIB, b"b" * 4 * KIB)
    assert world.staged == b"a" * 12 * KIB + b"changed" + b"a" * (8 * KIB - 7) + b"b" * 4 * KIB
    assert world.sent == world.staged
