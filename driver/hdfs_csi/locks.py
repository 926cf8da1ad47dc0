"""One operation a volume at a time. Owns the set of busy volumes and nothing else."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from hdfs_fuse.errors import UnavailableError

from hdfs_csi.errors import VolumeBusyError


class VolumeLocks:
    """Locks named by volume id that never wait.

    A second call for a busy volume is refused instead of queued (CSI Error Scheme, ABORTED): the CO repeats it with
    backoff, and calls that wait for a hung volume can't use up the threads of the others. Nor may many volumes do so
    together: beyond the limit every call is refused, so that threads are left for those that need no volume, Probe
    above all. An id is kept only while it is held.
    """

    def __init__(self, limit: int) -> None:
        """Let up to `limit` volumes be busy at once."""
        self._limit = limit
        self._mutex = threading.Lock()
        self._held: set[str] = set()

    @contextmanager
    def hold(self, volume_id: str) -> Iterator[None]:
        """Keep `volume_id` for the block.

        Raises:
            VolumeBusyError: another call holds it.
            UnavailableError: too many volumes are busy.
        """
        with self._mutex:
            if volume_id in self._held:
                raise VolumeBusyError(f"volume {volume_id!r}: another operation is still running; try again later")
            if len(self._held) >= self._limit:
                raise UnavailableError(f"{self._limit} operations are running already; try again later")
            self._held.add(volume_id)
        try:
            yield
        finally:
            with self._mutex:
                self._held.discard(volume_id)
