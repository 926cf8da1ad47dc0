"""What a daemon and its uploader processes say to each other, over a stream of length-prefixed msgpack.

daemon                                       uploader
the MountConfig (JSON)                 ->
                                       <-    Answer number 0: ready
Reserve, Publish, Abandon, ...         ->
                                       <-    Progress, while bytes go out; then one Answer for each request
                                       <-    Completed, when a file that was published while open is closed
the end of the stream                  ->    finishes its requests, removes what was only reserved, ends
"""

import struct
from typing import Literal

import msgspec

from hdfs_fuse import errors
from hdfs_fuse.errors import HdfsFuseError

_HEADER = struct.Struct("<I")


class Source(msgspec.Struct, array_like=True, frozen=True):
    """Where bytes that were not changed come from: one version of a file.

    Attributes:
        path: in the filesystem.
        mtime_ms, length_bytes: the version.
    """

    path: str
    mtime_ms: int
    length_bytes: int


class Content(msgspec.Struct, array_like=True, frozen=True):
    """What a file is to hold.

    Attributes:
        length_bytes: of all of it.
        staged_path: where the bytes of `staged` are, each at its place; empty when there are none.
        staged: ranges [start, stop), in order.
        base: the file that has the bytes before `base_bytes` which are not staged. What neither has is zeros.
        base_bytes: how much of it still counts.
    """

    length_bytes: int
    staged_path: str
    staged: list[tuple[int, int]]
    base: Source | None
    base_bytes: int


class Reserve(msgspec.Struct, tag=True, frozen=True):
    """Begin a hidden sibling of a file that somebody wants to write: its lease keeps other writers away.

    Attributes:
        number: of the request, and of the session that it begins.
        sibling: path of the hidden file.
        mode: permission bits.
        take_over: whether a sibling that is there is ours, of a session that is lost.
    """

    number: int
    sibling: str
    mode: int
    take_over: bool


class Publish(msgspec.Struct, tag=True, frozen=True):
    """Write a sibling, and give it its name: others see the old file or the new one.

    Attributes:
        number: of the request.
        session: it ends, whatever becomes of this.
        sibling: where its file is now, since a directory may have been renamed.
        target: the path to take.
        overwrite: whether a file that is there is replaced.
        content: the bytes.
        mode: permission bits.
        mtime_ms, atime_ms: times to set; None leaves what HDFS sets.
        xattrs: extended attributes to set, beside those of the file that is replaced.
        keep_open: answer as soon as the bytes are on the DataNodes' disks, and complete the file afterwards.
        over_http: have a DataNode write it (WebHDFS), whose Java client recovers from more than ours.
        alone: that DataNode alone at first, see base.Backend.put.
    """

    number: int
    session: int
    sibling: str
    target: str
    overwrite: bool
    content: Content
    mode: int
    mtime_ms: int | None
    atime_ms: int | None
    xattrs: dict[str, bytes]
    keep_open: bool
    over_http: bool
    alone: bool


class Abandon(msgspec.Struct, tag=True, frozen=True):
    """End a session and remove its sibling, wherever that is now."""

    number: int
    session: int
    sibling: str


Request = Reserve | Publish | Abandon


class Progress(msgspec.Struct, tag=True, frozen=True):
    """The request is alive: so many bytes have gone out."""

    number: int
    sent_bytes: int


class Answer(msgspec.Struct, tag=True, frozen=True):
    """The end of a request.

    Attributes:
        number: of the request.
        error: name of a class of hdfs_fuse.errors; empty for success.
        message: of the error.
        mtime_ms, length_bytes: of the file that was published.
        is_open: whether it is still to be completed; then a Completed follows.
    """

    number: int
    error: str = ""
    message: str = ""
    mtime_ms: int = 0
    length_bytes: int = 0
    is_open: bool = False

    @staticmethod
    def of(number: int, error: HdfsFuseError) -> "Answer":
        """The answer that a request failed."""
        return Answer(number, type(error).__name__, str(error))

    def check(self) -> "Answer":
        """This answer, or its error raised."""
        if self.error:
            raise errors.named(self.error, self.message)
        return self


# What became of a file that was published while it was open: it is complete; it has been replaced or removed since;
# nobody knows, and its lease may be left.
Completion = Literal["complete", "gone", "unknown"]


class Completed(msgspec.Struct, tag=True, frozen=True):
    """A file that was published while it was open is complete now.

    HDFS has given it the time of the close (INodeFile.toCompleteFile), though others may have seen an earlier one.

    Attributes:
        number: of the request that published it.
        completion: what became of it.
    """

    number: int
    completion: Completion


Reply = Progress | Answer | Completed


def frame(message: msgspec.Struct) -> bytes:
    """A message as it goes over the stream."""
    data = msgspec.msgpack.encode(message)
    return _HEADER.pack(len(data)) + data


def take_frames(received: bytearray) -> list[bytes]:
    """Complete messages, taken out of what has been received."""
    frames, at = [], 0
    while len(received) - at >= _HEADER.size:
        end = at + _HEADER.size + _HEADER.unpack_from(received, at)[0]
        if end > len(received):
            break
        frames.append(bytes(memoryview(received)[at + _HEADER.size : end]))
        at = end
    del received[:at]
    return frames
