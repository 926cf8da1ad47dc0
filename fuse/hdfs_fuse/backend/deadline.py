"""Deadlines for blocking calls that can't be cancelled, for callers without an event loop (the CSI driver).

A call that hangs keeps its thread: nobody can take it away from a client that waits for a dead server. So the thread
is left behind, and the number of such threads is bounded.
"""

import queue
import threading
from collections.abc import Callable
from typing import TypeVar

from hdfs_fuse.errors import DeadlineError, UnavailableError

R = TypeVar("R")

# Each costs 8 MiB of address space and some 20 KiB of memory; more than these say that the server is gone.
MAX_ABANDONED_THREADS = 64


class DeadlineCaller:
    """Runs calls in threads of their own and gives up on those that take too long.

    Attributes:
        abandoned: threads given up on whose call has not returned yet.
    """

    def __init__(self, max_abandoned: int = MAX_ABANDONED_THREADS) -> None:
        """Allow `max_abandoned` hanging threads at once."""
        self._max_abandoned = max_abandoned
        self._lock = threading.Lock()
        self.abandoned = 0

    def call(
        self, fn: Callable[..., R], *args: object, deadline_s: float, on_timeout: Callable[[], object] | None = None
    ) -> R:
        """See call_with_deadline."""
        with self._lock:
            if self.abandoned >= self._max_abandoned:
                raise UnavailableError(f"{self.abandoned} earlier calls still hang; the server does not answer")
        # Exactly one of the two sides finds the other gone: the thread when it ends, or the caller when it waited.
        answers: queue.SimpleQueue[tuple[R | None, BaseException | None]] = queue.SimpleQueue()
        given_up = False

        def run() -> None:
            result: R | None = None
            error: BaseException | None = None
            try:
                result = fn(*args)
            except BaseException as e:  # noqa: BLE001 - handed to the caller, whatever it is
                error = e
            with self._lock:
                if given_up:
                    self.abandoned -= 1
                answers.put((result, error))

        threading.Thread(target=run, name="deadline-call", daemon=True).start()
        try:
            result, error = answers.get(timeout=deadline_s)
        except queue.Empty:
            with self._lock:
                given_up = answers.empty()
                self.abandoned += given_up
            if given_up:
                if on_timeout is not None:
                    on_timeout()
                name = getattr(fn, "__name__", repr(fn))
                raise DeadlineError(f"{name}: no answer within {deadline_s:g} s") from None
            result, error = answers.get()  # it came while the clock struck
        if error is not None:
            raise error
        return result  # type: ignore[return-value]  # R may itself be None


_DEFAULT = DeadlineCaller()


def call_with_deadline(
    fn: Callable[..., R], *args: object, deadline_s: float, on_timeout: Callable[[], object] | None = None
) -> R:
    """Call `fn(*args)` and wait for its result for at most `deadline_s` seconds.

    Args:
        fn: what may hang; it runs in another thread, and on it runs when it is given up.
        args: its arguments.
        deadline_s: seconds, above 0.
        on_timeout: called once when the deadline passed, e.g. ResilientBackend.discard_client.

    Returns:
        What `fn` returned.

    Raises:
        DeadlineError: no answer in time; whether the call had its effect is unknown.
        UnavailableError: MAX_ABANDONED_THREADS calls hang already.
        Exception: what `fn` raised.
    """
    return _DEFAULT.call(fn, *args, deadline_s=deadline_s, on_timeout=on_timeout)
