"""What a daemon and its uploader processes say to each other, over a stream of length-prefixed msgpack.

daemon                                       uploader
the MountConfig (JSON)                 ->
                                       <-    Answer number 0: ready
Reserve, Send, Publish, ...            ->
                                       <-    Progress, while bytes go out; then one Answer for each request
the end of the stream                  ->    finishes its requests, completes what has its name, removes what has none

A session is a file that an uploader has open for writing: it begins with Reserve or Append, and its number is that
request's. Requests of one session come one after the other.
"""

import struct

import msgspec

from hdfs_fuse import errors
from hdfs_fuse.backend.base import FileStatus
from hdfs_fuse.errors import HdfsFuseError

# Files that are being completed at once in one uploader. The client waits 0.4 to 0.5 s for that, in a thread each: so
# this many give about twice as many small files a second.
MAX_CLOSING = 400

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
        sent_bytes: so much of the front is in the session's file already, and need not be here.
        staged_path: where the bytes of `staged` are, each at its place; empty when there are none.
        staged: ranges [start, stop), in order.
        base: the file that has the bytes before `base_bytes` which are not staged. What neither has is zeros.
        base_bytes: how much of it still counts.
    """

    length_bytes: int
    sent_bytes: int
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
        replaces: a session that this one replaces, with the same sibling; 0 for none.
        target: the file, whose status the answer has: as it is once the lease is held. Empty for none.
    """

    number: int
    sibling: str
    mode: int
    take_over: bool
    replaces: int
    target: str


class Append(msgspec.Struct, tag=True, frozen=True):
    """Go on behind the end of a file that is complete; the answer has its length.

    Attributes:
        number: of the request, and of the session that it begins.
        path: of the file.
        over_http: have DataNodes write it (WebHDFS), see base.Backend.extend; no lease is held then.
    """

    number: int
    path: str
    over_http: bool


class Send(msgspec.Struct, tag=True, frozen=True):
    """Write what a session's file does not have yet; the answer says how much of it HDFS has.

    Attributes:
        number: of the request.
        session: it goes on, but after an error: then its file is as it is.
        content: the bytes.
        durable: whether they are to be on the DataNodes' disks, and seen by others.
    """

    number: int
    session: int
    content: Content
    durable: bool


class Publish(msgspec.Struct, tag=True, frozen=True):
    """Write what a sibling does not have yet, and give it its name: others see the old file or the new one.

    Attributes:
        number: of the request.
        session: it ends, but where the answer says that it is open.
        sibling: where its file is now, since a directory may have been renamed.
        target: the path to take.
        overwrite: whether a file that is there is replaced.
        content: the bytes.
        mode: permission bits.
        mtime_ms, atime_ms: times to set; None leaves what HDFS sets.
        xattrs: extended attributes to set, beside those of the file that is replaced.
        keep_open: answer as soon as the bytes are on the DataNodes' disks: the session goes on.
        durable: whether the bytes are to be on the DataNodes' disks, also where the session ends.
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
    durable: bool
    over_http: bool
    alone: bool


class Finish(msgspec.Struct, tag=True, frozen=True):
    """End a session and complete its file.

    HDFS gives it the time of that (INodeFile.toCompleteFile), and others may have seen it with another one: that is
    restored at once. Answered with NotFoundError or BusyError where somebody else has replaced or removed the file.

    Attributes:
        number: of the request.
        session: it ends.
        path: where the file is, as far as the daemon knows.
        mtime_ms: its time; None leaves what HDFS sets.
    """

    number: int
    session: int
    path: str
    mtime_ms: int | None


class Abandon(msgspec.Struct, tag=True, frozen=True):
    """End a session and remove its sibling, wherever that is now."""

    number: int
    session: int
    sibling: str


Request = Reserve | Append | Send | Publish | Finish | Abandon


class Progress(msgspec.Struct, tag=True, frozen=True):
    """The request is alive."""

    number: int


class Answer(msgspec.Struct, tag=True, frozen=True):
    """The end of a request.

    Attributes:
        number: of the request.
        error: name of a class of hdfs_fuse.errors; empty for success.
        message: of the error.
        mtime_ms: of the file that was published, or finished; 0 where that was not restored.
        length_bytes: of the file that was published or that is appended to; of Send: how much has been written.
        stored_bytes: of Send: how much of that stays there whatever happens to this process.
        is_open: whether the session goes on; its file is still to be completed.
        target: of Reserve: what is at the path of the file; None where nothing is, or it was not asked.
    """

    number: int
    error: str = ""
    message: str = ""
    mtime_ms: int = 0
    length_bytes: int = 0
    stored_bytes: int = 0
    is_open: bool = False
    target: FileStatus | None = None

    @staticmethod
    def of(number: int, error: HdfsFuseError) -> "Answer":
        """The answer that a request failed."""
        return Answer(number, type(error).__name__, str(error))

    def check(self) -> "Answer":
        """This answer, or its error raised."""
        if self.error:
            raise errors.named(self.error, self.message)
        return self


Reply = Progress | Answer


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
