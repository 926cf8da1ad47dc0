"""Files that have their name and their bytes, and are still to be completed in HDFS, which changes their time."""

import logging
from collections.abc import Callable
from functools import partial

import trio

from hdfs_fuse.backend.base import FileStatus
from hdfs_fuse.backend.resilient import ResilientBackend
from hdfs_fuse.calls import Calls
from hdfs_fuse.errors import BusyError, HdfsFuseError, NotFoundError, UnavailableError
from hdfs_fuse.inodes import Inode, InodeTable
from hdfs_fuse.upload.uploads import Session, Uploads

logger = logging.getLogger(__name__)

# How often, and how many times, HDFS is asked whether it has recovered a lease.
_RECOVERY_POLL_S = 1.0
_RECOVERY_POLLS = 30
# How long who wants to append to a file waits for its completion, in seconds; it takes half a second.
_PATIENCE_S = 5.0
# How often a time is restored at most, since the file may be renamed or given another one meanwhile; and how long a
# rename that HDFS has made already is waited for, in seconds.
_RESTORE_ATTEMPTS, _RENAME_S = 20, 0.1


class _Completing:
    """One file, which stays known meanwhile."""

    __slots__ = ("done", "inode")

    def __init__(self, inode: Inode) -> None:
        self.inode = inode
        self.done = trio.Event()


class Completions:
    """What is being completed while nobody waits for it. Belongs to the event loop."""

    def __init__(
        self,
        backend: ResilientBackend,
        calls: Calls,
        inodes: InodeTable,
        uploads: Uploads,
        nursery: trio.Nursery,
        stored: Callable[[Inode], FileStatus | None],
    ) -> None:
        """Complete files.

        Args:
            backend: where they are.
            calls: for it.
            inodes: say where each is now.
            uploads: have written them.
            nursery: where this works.
            stored: the stored version of a file, with the time that it is to have; None leaves what HDFS sets.
        """
        self._stored = stored
        self._backend = backend
        self._calls = calls
        self._inodes = inodes
        self._uploads = uploads
        self._nursery = nursery
        self._completing: dict[Inode, _Completing] = {}

    def __len__(self) -> int:
        return len(self._completing)

    def __contains__(self, inode: Inode) -> bool:
        return inode in self._completing

    def start(self, inode: Inode, session: Session) -> None:
        """End a session whose file has its name."""
        completing = self._completing[inode] = _Completing(inode)
        inode.children += 1
        self._nursery.start_soon(self._complete, completing, session)

    def forget(self, inode: Inode) -> None:
        """The file has been published once more: what was published before has been replaced."""
        if (completing := self._completing.pop(inode, None)) is not None:
            completing.done.set()

    async def wait(self, inode: Inode) -> None:
        """Let a file be completed, if that takes no longer than usual."""
        if (completing := self._completing.get(inode)) is not None:
            with trio.move_on_after(_PATIENCE_S):
                await completing.done.wait()

    async def _complete(self, completing: _Completing, session: Session) -> None:
        inode = completing.inode
        path, mtime_ms = self._inodes.path_of(inode), self._stored_mtime_ms(inode)
        try:
            answer = await self._uploads.finish(session, path, mtime_ms)
        except (NotFoundError, BusyError):
            if self._is_current(completing):
                self._inodes.detach(inode)  # another client has replaced it: look again
            self._end(completing)
            return
        except HdfsFuseError as e:
            logger.info("%s: not completed: %s: %s", path, type(e).__name__, e)
            if self._is_current(completing):
                await self._recover_quietly(inode)
        else:
            if (self._inodes.path_of(inode), self._stored_mtime_ms(inode)) == (path, answer.mtime_ms):
                self._end(completing)
                return
        await self._restore_time(completing)

    async def _recover_quietly(self, inode: Inode) -> None:
        try:
            await self.recover(self._inodes.path_of(inode))
        except HdfsFuseError as e:
            logger.info("%s", e)

    async def recover(self, path: str) -> None:
        """Have HDFS complete a file whose writer is lost; what is on the DataNodes' disks stays.

        Until then hdfs-native's readers miss its last block.

        Raises:
            NotFoundError: it is gone. UnavailableError: HDFS has not done it in time.
        """
        for _ in range(_RECOVERY_POLLS):
            if await self._calls.run(self._backend.recover_lease, path):
                return
            await trio.sleep(_RECOVERY_POLL_S)
        raise UnavailableError(f"{path}: its lease is not recovered")

    def _is_current(self, completing: _Completing) -> bool:
        return self._completing.get(completing.inode) is completing

    async def _restore_time(self, completing: _Completing) -> None:
        """HDFS has given the file the time of its completion: restore the one that it had."""
        inode = completing.inode
        for _ in range(_RESTORE_ATTEMPTS):
            parent, path, stored = inode.parent, self._inodes.path_of(inode), self._stored(inode)
            is_there = parent is not None and self._inodes.find(parent, inode.name) is inode
            if stored is None or not is_there or not self._is_current(completing):
                break
            try:
                found = await self._calls.run(self._backend.status, path)
                if found.length_bytes != stored.length_bytes:
                    break  # another client has replaced it
                set_times = partial(self._backend.set_times, path, mtime_ms=stored.mtime_ms, atime_ms=None)
                await self._calls.run(set_times)
            except NotFoundError:
                await trio.sleep(_RENAME_S)  # HDFS has renamed it, and that is still to be noted here
                continue
            except HdfsFuseError as e:
                logger.info("%s: its time was not restored: %s", path, e)
            if (self._inodes.path_of(inode), self._stored_mtime_ms(inode)) == (path, stored.mtime_ms):
                break  # else it was renamed, or given another time, in between
        self._end(completing)

    def _stored_mtime_ms(self, inode: Inode) -> int | None:
        stored = self._stored(inode)
        return None if stored is None else stored.mtime_ms

    def _end(self, completing: _Completing) -> None:
        inode = completing.inode
        completing.done.set()
        if self._is_current(completing):
            del self._completing[inode]
        inode.children -= 1
        self._inodes.release(inode)
