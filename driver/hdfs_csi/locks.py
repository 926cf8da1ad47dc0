"""One operation a volume at a time. Owns the set of busy volumes and nothing else."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from hdfs_csi.errors import VolumeBusyError


class VolumeLocks:
    """Locks named by volume id that never wait.

    A second call for a busy volume is refused instead of queued (CSI Error Scheme, ABORTED): the CO repeats it with
    backoff, and calls that wait for a hung volume can't use up the threads of the others. Memory is bounded by the
    calls in flight, since an id is kept only while it is held.
    """

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._held: set[str] = set()

    @contextmanager
    def hold(self, volume_id: str) -> Iterator[None]:
        """Keep `volume_id` for the block.

        Raises:
            VolumeBusyError: another call holds it.
        """
        with self._mutex:
            if volume_id in self._held:
                raise VolumeBusyError(f"volume {volume_id!r}: another operation is still running; try again later")
            self._held.add(volume_id)
        try:
            yield
        finally:
            with self._mutex:
                self._held.discard(volume_id)
