"""Owners and groups: HDFS has names, files of a mount show ids of this node."""

import grp
import os
import pwd
from collections.abc import Callable

import trio

from hdfs_fuse.backend.base import FileStatus
from hdfs_fuse.errors import InvalidArgumentError

# What a name shows that this node does not know: nobody and nogroup, the kernel's overflowuid (proc(5)).
NOBODY = 65534
# How long an answer of the node's user database is believed, in seconds, and how long it is waited for: it may ask a
# server (nsswitch.conf(5)).
_TTL_S = 600.0
_PATIENCE_S = 2.0


class Owners:
    """Ids that files show. Belongs to the event loop."""

    def __init__(self, user: str, uid: int | None, gid: int | None) -> None:
        """Show ids.

        Args:
            user: whom the mount acts as on HDFS.
            uid: of all files; None shows each file's own, and the mount's own files as those of this process.
            gid: likewise.
        """
        self._uid = uid
        self._gid = gid
        self._user = user
        self._uids: dict[str, tuple[int, float]] = {}
        self._gids: dict[str, tuple[int, float]] = {}

    async def learn(self, status: FileStatus) -> None:
        """Have the ids of a file for `ids_of`."""
        now_s = trio.current_time()
        if self._uid is None and self._uids.get(status.owner, _UNKNOWN)[1] < now_s:
            self._uids[status.owner] = await _ask(self._uid_of, status.owner), now_s + _TTL_S
        if self._gid is None and self._gids.get(status.group, _UNKNOWN)[1] < now_s:
            self._gids[status.group] = await _ask(_gid_of, status.group), now_s + _TTL_S

    def _uid_of(self, owner: str) -> int:
        return os.getuid() if owner == self._user else pwd.getpwnam(owner).pw_uid

    def ids_of(self, status: FileStatus) -> tuple[int, int]:
        """Owner and group that a file shows."""
        uid = self._uids.get(status.owner, _UNKNOWN)[0] if self._uid is None else self._uid
        gid = self._gids.get(status.group, _UNKNOWN)[0] if self._gid is None else self._gid
        return uid, gid

    def names_of(self, uid: int | None, gid: int | None) -> tuple[str | None, str | None]:
        """The names that HDFS is to have for an owner and a group, None for None; blocks.

        Raises:
            InvalidArgumentError: an id has no name here.
        """
        try:
            return None if uid is None else self._user_of(uid), None if gid is None else grp.getgrgid(gid).gr_name
        except KeyError as e:
            raise InvalidArgumentError(
                f"{e.args[0]}: this node has no name for it, and HDFS knows names only"
            ) from None

    def _user_of(self, uid: int) -> str:
        is_ours = uid == (os.getuid() if self._uid is None else self._uid)
        return self._user if is_ours else pwd.getpwuid(uid).pw_name


_UNKNOWN = NOBODY, float("-inf")


def _gid_of(group: str) -> int:
    return grp.getgrnam(group).gr_gid


async def _ask(find: Callable[[str], int], name: str) -> int:
    """What the user database says, if it does so in time."""
    with trio.move_on_after(_PATIENCE_S):
        try:
            return await trio.to_thread.run_sync(find, name, abandon_on_cancel=True)
        except (KeyError, OSError, ValueError):
            pass
    return NOBODY
