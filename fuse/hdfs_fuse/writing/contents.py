"""The bytes of drafts, as they are here: staged ones over those of the base over zeros."""

from hdfs_fuse.calls import Calls
from hdfs_fuse.writing.draft import Draft
from hdfs_fuse.writing.siblings import Siblings
from hdfs_fuse.writing.streams import Streams
from hdfs_fuse.writing.tails import Tails


class Contents:
    """What is in drafts. Belongs to the event loop; whoever calls this holds the draft's lock."""

    def __init__(self, calls: Calls, disk: Calls, siblings: Siblings, tails: Tails, streams: Streams) -> None:
        """Read and change drafts.

        Args:
            calls: for reads of bases.
            disk: for the staging disk.
            siblings: keep other writers out.
            tails: complete a base that is to be read.
            streams: send what was written.
        """
        self._calls = calls
        self._disk = disk
        self._siblings = siblings
        self._tails = tails
        self._streams = streams

    async def read(self, draft: Draft, start: int, size: int) -> bytes:
        """At most `size` bytes from `start`; fewer only at the end of the file."""
        if draft.stream is not None and start < draft.stream.discarded_bytes:
            await self._streams.give_up(draft)
        stop = min(start + size, draft.length_bytes)
        pieces = list(draft.staged.extents.pieces(start, stop)) if start < stop else []
        parts = [await self._piece(draft, *piece) for piece in pieces]
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def _piece(self, draft: Draft, start: int, stop: int, is_staged: bool) -> bytes:
        if is_staged:
            return await self._disk.run(draft.staged.read, start, stop)
        middle = min(max(draft.base_bytes, start), stop)
        data = b""
        if start < middle:
            assert draft.base is not None
            await self._tails.complete_base(draft)
            data = await self._calls.run(draft.base.read, start, middle)
        return data + bytes(stop - middle)

    async def write(self, draft: Draft, start: int, data: bytes) -> None:
        """Stage bytes, and lengthen the file where it ends before them; long files go out."""
        await self._siblings.reserve(draft)
        if draft.stream is not None and start < draft.stream.claimed_bytes:
            await self._streams.give_up(draft)
        if draft.stream is not None:
            draft.stream.hold(start)  # the stream goes on while the disk writes
        await self._disk.run(draft.staged.write, start, data)
        draft.touch(start, max(draft.length_bytes, start + len(data)))
        await self._streams.send_early(draft)

    async def truncate(self, draft: Draft, length_bytes: int) -> None:
        """Cut the file, or lengthen it with zeros."""
        await self._siblings.reserve(draft)
        if draft.stream is not None and length_bytes < draft.length_bytes:
            await self._streams.give_up(draft)
        await self._disk.run(draft.staged.cut, length_bytes)
        draft.base_bytes = min(draft.base_bytes, length_bytes)
        draft.touch(min(length_bytes, draft.length_bytes), length_bytes)
