"""The state of one file that is being changed; what happens to it is in drafts.py and the modules below that."""

import time
from dataclasses import replace
from typing import TYPE_CHECKING

import trio

from hdfs_fuse.errors import HdfsFuseError
from hdfs_fuse.inodes import Inode
from hdfs_fuse.open_file import OpenFile
from hdfs_fuse.upload.messages import Content, Source
from hdfs_fuse.writing.staging import StagedFile

if TYPE_CHECKING:
    from hdfs_fuse.backend.base import FileStatus
    from hdfs_fuse.upload.uploads import Session
    from hdfs_fuse.writing.stream import Stream


class DraftEndedError(HdfsFuseError):
    """A draft that was asked for something is no more."""


class Draft:
    """A file that is being changed. Belongs to the event loop.

    Its bytes are those that are staged, over those of the base, over zeros.

    Attributes:
        inode: the file.
        staged: bytes that were written.
        base: the version that HDFS has, or the part of a stream that was given up.
        base_bytes: how much of it still counts.
        part: directory and hidden name of the base, where that is the part of a stream.
        next_part: the name that the sibling is just getting, to become that; empty when it is not.
        stored_bytes: how much of the front is the same in the version that HDFS has under the file's name.
        is_new: whether HDFS has no file of that name yet.
        is_dirty: whether there is something to publish.
        is_replaced: whether that is so because another client has replaced the file: writing it is an error.
        is_to_check: whether others could write the file since it was stored.
        is_removed: whether its name is gone: nothing will be published.
        is_ended: whether the mount has forgotten it: a file that is opened again gets another draft.
        writers: open handles that may write.
        length_bytes: of the file as it is here.
        mode: permission bits.
        xattrs: extended attributes of a file that HDFS does not have yet.
        mtime_ms, atime_ms: times that were asked for; None leaves what HDFS sets.
        lock: held by who changes the draft.
        released: set when there are no writers.
        sibling: directory and hidden name of the file that is going to be published; the directory stays meanwhile.
        sibling_is_ours: whether it is there, begun by this daemon.
        left_bytes: the length of what was published and may have its name, though the answer was an error.
        left_s: when the sibling was left without anybody who holds its lease, on trio's clock.
        session: writes the sibling, which is empty. None while `stream` has it.
        was_completing: whether the file was being completed when its sibling was begun, which changes its time.
        named: the version that HDFS has under the file's name, as far as this draft knows.
        tried_bytes: how long that may have become by what was sent behind its end.
        target: what was under the file's name when the sibling was begun.
        stream: sends the front of the file to the sibling.
        may_stream: False once the application has gone back.
        tail: writes behind the end of the version that HDFS has, under the file's name.
        tail_is_idle: nothing was written there lately.
    """

    __slots__ = (
        "atime_ms",
        "base",
        "base_bytes",
        "inode",
        "is_dirty",
        "is_ended",
        "is_new",
        "is_removed",
        "is_replaced",
        "is_to_check",
        "left_bytes",
        "left_s",
        "length_bytes",
        "lock",
        "may_stream",
        "mode",
        "mtime_ms",
        "named",
        "next_part",
        "part",
        "released",
        "session",
        "sibling",
        "sibling_is_ours",
        "staged",
        "stored_bytes",
        "stream",
        "tail",
        "tail_is_idle",
        "target",
        "tried_bytes",
        "was_completing",
        "writers",
        "xattrs",
    )

    def __init__(self, inode: Inode, staged: StagedFile, base: OpenFile | None) -> None:
        self.inode = inode
        self.staged = staged
        self.base = base
        self.base_bytes = self.length_bytes = inode.status.length_bytes if base is not None else 0
        self.stored_bytes = self.base_bytes
        self.part: tuple[Inode, str] | None = None
        self.next_part = ""
        self.is_new = self.is_dirty = base is None
        self.is_removed = self.is_replaced = self.is_to_check = self.is_ended = False
        self.mode = inode.status.mode
        self.mtime_ms: int | None = None
        self.atime_ms: int | None = None
        self.xattrs: dict[str, bytes] = {}
        self.writers = 0
        self.lock = trio.Lock()
        self.released = trio.Event()
        self.sibling: tuple[Inode, str] | None = None
        self.sibling_is_ours = False
        self.session: Session | None = None
        self.stream: Stream | None = None
        self.may_stream = True
        self.target: FileStatus | None = None
        self.named = None if base is None else base.status
        self.was_completing = False
        self.left_s = float("-inf")
        self.left_bytes: int | None = None
        self.tried_bytes = self.stored_bytes
        self.tail: Session | None = None
        self.tail_is_idle = False

    def touch(self, start: int, stop: int) -> None:
        """[start, stop) has been changed just now, and maybe the length."""
        self.is_dirty = True
        self.mtime_ms = None
        self.stored_bytes = min(self.stored_bytes, start)
        self.length_bytes = stop
        status = self.inode.status
        self.inode.status = replace(status, length_bytes=stop, mtime_ms=time.time_ns() // 1_000_000)

    def held_s(self, now_s: float) -> float:
        """Until when the lease of the sibling was held, on trio's clock."""
        return self.left_s if self.session is None else min(now_s, self.session.ended_s)

    @property
    def is_stored(self) -> bool:
        """Whether HDFS has all of it and nobody writes it any more; others may, from now on."""
        return not self.writers and not self.is_dirty

    @property
    def staged_front(self) -> int:
        """Where the bytes that are staged without a gap end; they begin where those end that a stream has stored."""
        begin = 0 if self.stream is None else self.stream.discarded_bytes
        start, stop = next(iter(self.staged.extents), (begin, begin))
        return stop if start == begin else begin

    def content(self, sent_bytes: int) -> Content:
        """What is to be published; `sent_bytes` of it have gone out."""
        base = None
        if self.base is not None and self.base_bytes:
            status = self.base.status
            base = Source(self.base.path, status.mtime_ms, status.length_bytes)
        extents = list(self.staged.extents)
        path = self.staged.path if extents else ""
        return Content(self.length_bytes, sent_bytes, path, extents, base, self.base_bytes)
