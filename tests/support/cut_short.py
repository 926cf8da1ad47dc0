"""A filesystem whose calls are cut short: for what has to be finished by whoever comes next."""

import threading
from collections.abc import Callable
from typing import Any, TypeVar

from hdfs_csi.filesystems import Filesystems
from hdfs_fuse.errors import UnavailableError

from tests.support.fake_backend import FakeAdministration, FakeBackend, FakeFilesystem

R = TypeVar("R")

_OF_BACKEND = ("status", "open", "make_directory", "set_owner", "delete", "rename", "create", "set_times")
_OF_ADMINISTRATION = ("set_quota", "set_storage_policy", "mark", "mark_of", "create_snapshot", "delete_snapshot")


class CutShort(FakeBackend):
    """The client of a controller that loses HDFS at one of its calls, and for all later ones.

    Attributes:
        administration: of the same filesystem; its calls count too.
        calls: how many were made.
        is_cut: whether it has come to that.
    """

    def __init__(self, disk: FakeFilesystem, step: int | None = None, *, after: bool = False) -> None:
        """Cut the call number `step`, before or after its effect; never when that is None."""
        super().__init__(disk)
        self._step, self._after = step, after
        self._mutex = threading.Lock()
        self.calls = 0
        self.is_cut = False
        self.administration = FakeAdministration(disk)
        for name in _OF_BACKEND:
            setattr(self, name, self._counted(getattr(self, name)))
        for name in _OF_ADMINISTRATION:
            setattr(self.administration, name, self._counted(getattr(self.administration, name)))

    def _counted(self, call: Callable[..., R]) -> Callable[..., R]:
        def counted(*args: Any, **kwargs: Any) -> R:
            with self._mutex:
                was_cut = self.is_cut
                self.is_cut |= self.calls == self._step
                is_now = self.is_cut and not was_cut
                self.calls += 1
            if was_cut or (is_now and not self._after):
                raise UnavailableError("cut short before it began")
            result = call(*args, **kwargs)
            if is_now:
                raise UnavailableError("cut short, with its effect")
            return result

        return counted

    def discard_client(self) -> None:
        """See ResilientBackend."""
        raise AssertionError("nothing hangs here")

    def filesystems(self) -> Filesystems:
        """What a controller that has this client is given."""
        return Filesystems(deadline_s=5, connect=lambda _: self, connect_administration=lambda _: self.administration)
