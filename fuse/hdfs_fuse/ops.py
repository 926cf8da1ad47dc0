"""pyfuse3 <-> fs: decode, call, encode, guard; no logic.

pyfuse3 ends the whole mount on any exception but FUSEError, so every handler is guarded.
"""

import ctypes
import errno
import functools
import logging
import os
import stat
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Concatenate, ParamSpec, TypeVar

import pyfuse3
import trio

from hdfs_fuse.backend.base import FileKind, FileStatus
from hdfs_fuse.backend.identity import acting_user
from hdfs_fuse.changes import Changes
from hdfs_fuse.config import MountConfig
from hdfs_fuse.errors import HdfsFuseError, InvalidArgumentError, errno_of
from hdfs_fuse.fs import NEGATIVE_TTL_S, Filesystem
from hdfs_fuse.inodes import Inode
from hdfs_fuse.metrics import Metrics
from hdfs_fuse.owners import Owners

logger = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")
Handler = Callable[Concatenate[Any, P], Coroutine[Any, Any, R]]

_FILE_TYPES = {FileKind.FILE: 0o100000, FileKind.DIRECTORY: 0o040000, FileKind.SYMLINK: 0o120000}
# What programs ask for in passing, and what is not there.
_ORDINARY = frozenset({errno.ENOENT, errno.ENODATA, errno.EOPNOTSUPP})
# Larger than any number of ours: inode numbers of entries that the kernel gets by name only.
_UNNUMBERED = 1 << 62
_STATFS_BLOCK_BYTES = 4096
# struct fuse_entry_param is the first member of pyfuse3.EntryAttributes, and the node id the first of that.
_NODE_ID_OFFSET = object.__basicsize__


def guarded(latency: str | None = None) -> Callable[[Handler[P, R]], Handler[P, R]]:
    """Turn exceptions into errnos, count them, and observe the handler's duration as the metric `latency`."""

    def decorate(handler: Handler[P, R]) -> Handler[P, R]:
        @functools.wraps(handler)
        async def guard(self: Any, *args: P.args, **kwargs: P.kwargs) -> R:
            started = time.perf_counter()
            try:
                return await handler(self, *args, **kwargs)
            except pyfuse3.FUSEError:
                raise
            except HdfsFuseError as e:
                raise pyfuse3.FUSEError(self.report(handler.__name__, e)) from e
            except Exception as e:
                logger.exception("unexpected error in %s", handler.__name__)
                self.metrics.errors.count(errno.EIO, e)
                raise pyfuse3.FUSEError(errno.EIO) from e
            finally:
                if latency is not None:
                    getattr(self.metrics, latency).observe(time.perf_counter() - started)

        return guard  # type: ignore[return-value]  # functools.wraps keeps the name of `self`

    return decorate


class Operations(pyfuse3.Operations):
    """The handlers. One object a process, since pyfuse3 keeps one session a process."""

    supports_dot_lookup = False  # only an NFS server would look '.' and '..' up

    def __init__(self, fs: Filesystem, config: MountConfig, metrics: Metrics, on_init: Callable[[], None]) -> None:
        """Serve `fs`; `on_init` is called while FUSE_INIT is being answered."""
        super().__init__()
        self._fs = fs
        self.metrics = metrics
        self._on_init = on_init
        self._owners = Owners(acting_user(config), config.uid, config.gid)
        self._mode_mask = ~config.umask
        self._group_as_owner = config.group_as_owner
        self._is_read_only = config.read_only
        self._ttl_s = config.metadata_ttl_s
        self._can_hide_node_ids = _can_hide_node_ids()
        self._reported: set[str] = set()

    def report(self, handler: str, error: HdfsFuseError) -> int:
        """The errno for an error; logs what an operator should know, once for each kind of incident."""
        code = errno_of(error)
        if code not in _ORDINARY:
            self.metrics.errors.count(code, error)
        if code in {errno.EIO, errno.ETIMEDOUT}:
            incident = f"{handler} {type(error).__name__}"
            log = logger.debug if incident in self._reported else logger.warning
            self._reported.add(incident)
            log("%s failed with %s: %s", handler, errno.errorcode[code], error)
        return code

    def init(self) -> None:
        """FUSE_INIT has come; its reply goes out after this."""
        self._on_init()

    # --- names and attributes ---

    @guarded("lookup_latency")
    async def lookup(self, parent_inode: int, name: bytes, ctx: object) -> pyfuse3.EntryAttributes:  # noqa: ARG002
        """FUSE_LOOKUP."""
        try:
            return await self._attributes(await self._fs.lookup(parent_inode, os.fsdecode(name)))
        except HdfsFuseError as e:
            if errno_of(e) != errno.ENOENT:
                raise
            absent = pyfuse3.EntryAttributes()
            absent.st_ino = 0  # a negative entry, which the kernel may believe for a while
            absent.entry_timeout = min(self._ttl_s, NEGATIVE_TTL_S)
            return absent

    @guarded("lookup_latency")
    async def getattr(self, inode: int, ctx: object) -> pyfuse3.EntryAttributes:  # noqa: ARG002
        """FUSE_GETATTR."""
        return await self._attributes(await self._fs.getattr(inode))

    async def forget(self, inode_list: Sequence[tuple[int, int]]) -> None:
        """FUSE_FORGET."""
        for number, lookups in inode_list:
            self._fs.forget(number, lookups)

    @guarded()
    async def access(self, inode: int, mode: int, ctx: object) -> bool:  # noqa: ARG002
        """FUSE_ACCESS."""
        await self._fs.access(
            inode, read=bool(mode & os.R_OK), write=bool(mode & os.W_OK), execute=bool(mode & os.X_OK)
        )
        return True

    @guarded()
    async def statfs(self, ctx: object) -> pyfuse3.StatvfsData:  # noqa: ARG002
        """FUSE_STATFS."""
        space = await self._fs.statfs()
        data = pyfuse3.StatvfsData()
        data.f_bsize = data.f_frsize = _STATFS_BLOCK_BYTES
        data.f_blocks = space.capacity_bytes // _STATFS_BLOCK_BYTES
        # Not what can still be written: df takes the difference to f_blocks for what is used.
        data.f_bfree = max(space.capacity_bytes - space.used_bytes, 0) // _STATFS_BLOCK_BYTES
        data.f_bavail = space.free_bytes // _STATFS_BLOCK_BYTES
        data.f_files = space.max_names
        data.f_ffree = data.f_favail = max(space.max_names - space.used_names, 0)
        data.f_namemax = 255
        return data

    # --- directories ---

    @guarded()
    async def opendir(self, inode: int, ctx: object) -> int:  # noqa: ARG002
        """FUSE_OPENDIR."""
        return await self._fs.opendir(inode)

    @guarded("readdir_latency")
    async def readdir(self, fh: int, start_id: int, token: pyfuse3.ReaddirToken) -> None:
        """FUSE_READDIRPLUS. Offsets 0 and 1 are '.' and '..', the entries follow."""
        directory = self._fs.directory(fh)
        offset = start_id
        while offset < 2:
            attributes = self._name_only(await self._attributes(directory.inode), directory.inode.number)
            if not pyfuse3.readdir_reply(token, b"." * (offset + 1), attributes, offset + 1):
                return
            offset += 1
        status = await directory.entry(offset - 2)
        while status is not None and await self._reply_entry(directory, token, status, offset + 1):
            offset += 1
            # What is fetched already fills the kernel's buffer; more is fetched when it asks again.
            status = directory.peek(offset - 2)

    async def _reply_entry(self, directory: Any, token: pyfuse3.ReaddirToken, status: FileStatus, next_id: int) -> bool:
        name = os.fsencode(status.name)
        if self._can_hide_node_ids and not self._fs.has_room_for_inodes:
            self._fs.note_listed(directory, status)
            await self._owners.learn(status)
            attributes = self._name_only(self._fill(pyfuse3.EntryAttributes(), status), _UNNUMBERED + next_id)
            return pyfuse3.readdir_reply(token, name, attributes, next_id)
        inode = self._fs.enter(directory, status)
        if pyfuse3.readdir_reply(token, name, await self._attributes(inode), next_id):
            return True
        self._fs.forget(inode.number, 1)
        return False

    @guarded()
    async def releasedir(self, fh: int) -> None:
        """FUSE_RELEASEDIR."""
        self._fs.releasedir(fh)

    # --- files ---

    @guarded("open_latency")
    async def open(self, inode: int, flags: int, ctx: object) -> pyfuse3.FileInfo:  # noqa: ARG002
        """FUSE_OPEN."""
        handle, keep_cache = await self._fs.open(inode, flags)
        return pyfuse3.FileInfo(fh=handle, keep_cache=keep_cache)

    @guarded("open_latency")
    async def create(
        self,
        parent_inode: int,
        name: bytes,
        mode: int,
        flags: int,
        ctx: object,  # noqa: ARG002
    ) -> tuple[pyfuse3.FileInfo, pyfuse3.EntryAttributes]:
        """FUSE_CREATE."""
        handle, inode = await self._fs.create(parent_inode, os.fsdecode(name), mode, flags)
        return pyfuse3.FileInfo(fh=handle), await self._attributes(inode)

    @guarded("read_latency")
    async def read(self, fh: int, off: int, size: int) -> bytes | memoryview:  # type: ignore[override]
        """FUSE_READ."""
        return await self._fs.read(fh, off, size)

    @guarded("write_latency")
    async def write(self, fh: int, off: int, buf: bytes) -> int:
        """FUSE_WRITE."""
        return await self._fs.write(fh, off, buf)

    @guarded("publish_latency")
    async def flush(self, fh: int) -> None:
        """FUSE_FLUSH, once for every close(2). ENOSYS from a read-only mount tells the kernel never to ask again."""
        if self._is_read_only:
            raise pyfuse3.FUSEError(errno.ENOSYS)
        await self._fs.publish(fh, durable=False)

    @guarded("publish_latency")
    async def fsync(self, fh: int, datasync: bool) -> None:  # noqa: ARG002
        """FUSE_FSYNC."""
        await self._fs.publish(fh, durable=True)

    @guarded()
    async def fsyncdir(self, fh: int, datasync: bool) -> None:
        """FUSE_FSYNCDIR: names are in HDFS as soon as a call that changes them returns."""

    @guarded()
    async def release(self, fh: int) -> None:
        """FUSE_RELEASE."""
        await self._fs.release(fh)

    # --- changes ---

    @guarded("change_latency")
    async def setattr(
        self,
        inode: int,
        attr: pyfuse3.EntryAttributes,
        fields: pyfuse3.SetattrFields,
        fh: int | None,  # noqa: ARG002
        ctx: object,  # noqa: ARG002
    ) -> pyfuse3.EntryAttributes:
        """FUSE_SETATTR."""
        changes, node = self._fs.changes, await self._fs.getattr(inode)
        if fields.update_size:
            await self._fs.truncate(node, attr.st_size)
        if fields.update_mode:
            await changes.set_mode(node, attr.st_mode & 0o1777)
        await self._owners.learn(node.status)
        shown_uid, shown_gid = self._owners.ids_of(node.status)
        uid = attr.st_uid if fields.update_uid and attr.st_uid != shown_uid else None
        gid = attr.st_gid if fields.update_gid and attr.st_gid != shown_gid else None
        if uid is not None or gid is not None:
            await changes.set_owner(node, functools.partial(self._owners.names_of, uid, gid))
        mtime_ms = attr.st_mtime_ns // 1_000_000 if fields.update_mtime else None
        atime_ms = attr.st_atime_ns // 1_000_000 if fields.update_atime else None
        if mtime_ms is not None or atime_ms is not None:
            await changes.set_times(node, mtime_ms, atime_ms)
        return await self._attributes(node)

    @guarded("change_latency")
    async def mkdir(self, parent_inode: int, name: bytes, mode: int, ctx: object) -> pyfuse3.EntryAttributes:  # noqa: ARG002
        """FUSE_MKDIR."""
        return await self._attributes(await self._fs.make_directory(parent_inode, os.fsdecode(name), mode & 0o1777))

    @guarded("change_latency")
    async def rmdir(self, parent_inode: int, name: bytes, ctx: object) -> None:  # noqa: ARG002
        """FUSE_RMDIR."""
        await self._fs.changes.remove_directory(self._fs.inodes.get(parent_inode), os.fsdecode(name))

    @guarded("change_latency")
    async def unlink(self, parent_inode: int, name: bytes, ctx: object) -> None:  # noqa: ARG002
        """FUSE_UNLINK."""
        await self._fs.changes.unlink(self._fs.inodes.get(parent_inode), os.fsdecode(name))

    @guarded("change_latency")
    async def rename(
        self,
        parent_inode_old: int,
        name_old: bytes,
        parent_inode_new: int,
        name_new: bytes,
        flags: int,
        ctx: object,  # noqa: ARG002
    ) -> None:
        """FUSE_RENAME2."""
        if flags & ~pyfuse3.RENAME_NOREPLACE:
            raise InvalidArgumentError("rename: of the flags only RENAME_NOREPLACE is known to HDFS")
        inodes = self._fs.inodes
        await self._fs.changes.rename(
            inodes.get(parent_inode_old), os.fsdecode(name_old),
            inodes.get(parent_inode_new), os.fsdecode(name_new),
            overwrite=not flags & pyfuse3.RENAME_NOREPLACE,
        )  # fmt: skip

    @guarded()
    async def mknod(
        self,
        parent_inode: int,
        name: bytes,
        mode: int,
        rdev: int,  # noqa: ARG002
        ctx: object,  # noqa: ARG002
    ) -> pyfuse3.EntryAttributes:
        """FUSE_MKNOD: regular files only."""
        if not stat.S_ISREG(mode):
            raise Changes.refuse("a device, FIFO or socket")
        handle, inode = await self._fs.create(parent_inode, os.fsdecode(name), mode, os.O_WRONLY | os.O_EXCL)
        try:
            await self._fs.publish(handle, durable=False)
        finally:
            await self._fs.release(handle)
        return await self._attributes(inode)

    @guarded()
    async def symlink(self, parent_inode: int, name: bytes, target: bytes, ctx: object) -> pyfuse3.EntryAttributes:  # noqa: ARG002
        """FUSE_SYMLINK."""
        raise Changes.refuse("a symbolic link")

    @guarded()
    async def link(self, inode: int, new_parent_inode: int, new_name: bytes, ctx: object) -> pyfuse3.EntryAttributes:  # noqa: ARG002
        """FUSE_LINK."""
        raise Changes.refuse("a hard link")

    # --- extended attributes ---

    @guarded("xattr_latency")
    async def getxattr(self, inode: int, name: bytes, ctx: object) -> bytes:  # noqa: ARG002
        """FUSE_GETXATTR; of a setxattr with XATTR_CREATE or XATTR_REPLACE, pyfuse3 asks this before."""
        return await self._fs.xattrs.get(inode, os.fsdecode(name))

    @guarded("xattr_latency")
    async def listxattr(self, inode: int, ctx: object) -> Sequence[bytes]:  # noqa: ARG002
        """FUSE_LISTXATTR."""
        return [os.fsencode(name) for name in await self._fs.xattrs.names(inode)]

    @guarded("change_latency")
    async def setxattr(self, inode: int, name: bytes, value: bytes, ctx: object) -> None:  # noqa: ARG002
        """FUSE_SETXATTR."""
        await self._fs.xattrs.set(inode, os.fsdecode(name), value)

    @guarded("change_latency")
    async def removexattr(self, inode: int, name: bytes, ctx: object) -> None:  # noqa: ARG002
        """FUSE_REMOVEXATTR."""
        await self._fs.xattrs.remove(inode, os.fsdecode(name))

    # --- encoding ---

    async def _attributes(self, inode: Inode) -> pyfuse3.EntryAttributes:
        await self._owners.learn(inode.status)
        attributes = self._fill(pyfuse3.EntryAttributes(), inode.status)
        attributes.st_ino = inode.number
        # Not a full lifetime: what we have believed for a while the kernel may believe only for the rest.
        attributes.entry_timeout = attributes.attr_timeout = max(inode.expires_s - trio.current_time(), 0.0)
        return attributes

    def _fill(self, attributes: pyfuse3.EntryAttributes, status: FileStatus) -> pyfuse3.EntryAttributes:
        mtime_ns = status.mtime_ms * 1_000_000
        mode = status.mode | (status.mode & stat.S_IRWXU) >> 3 if self._group_as_owner else status.mode
        attributes.st_mode = _FILE_TYPES[status.kind] | (mode & self._mode_mask)
        attributes.st_uid, attributes.st_gid = self._owners.ids_of(status)
        attributes.st_size = status.length_bytes
        attributes.st_blocks = (status.length_bytes + 511) // 512
        attributes.st_mtime_ns = attributes.st_ctime_ns = mtime_ns
        attributes.st_atime_ns = status.atime_ms * 1_000_000 or mtime_ns
        return attributes

    @staticmethod
    def _name_only(attributes: pyfuse3.EntryAttributes, number: int) -> pyfuse3.EntryAttributes:
        """Let a directory entry show `number`, but give the kernel no node to hold on to.

        A READDIRPLUS entry with node id 0 is a name only (fs/fuse/readdir.c, fuse_direntplus_link). pyfuse3 sets both
        numbers at once, so the node id is cleared behind its back; `_can_hide_node_ids` has made sure of the place.
        """
        attributes.st_ino = number
        if _can_hide_node_ids():
            ctypes.c_uint64.from_address(id(attributes) + _NODE_ID_OFFSET).value = 0
        return attributes


@functools.cache
def _can_hide_node_ids() -> bool:
    """Whether pyfuse3.EntryAttributes keeps the node id where it is expected."""
    probe = pyfuse3.EntryAttributes()
    for number in (0x1234_5678_9ABC, 0x0FED_CBA9_8765_4321):
        probe.st_ino = number
        if ctypes.c_uint64.from_address(id(probe) + _NODE_ID_OFFSET).value != number:
            logger.warning("this pyfuse3 keeps node ids elsewhere: listing huge directories takes more memory")
            return False
    return True
