"""When a failed call is repeated, for how long, and what is logged of it.

Owns no connection and knows no paths: resilient.py tells it what to repeat.
"""

import logging
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception, wait_random_exponential

from hdfs_fuse.errors import BackendError, HdfsFuseError, ShortReadError, UnavailableError

logger = logging.getLogger(__name__)

R = TypeVar("R")

# Waits grow from about 0.1 s to at most 2 s, at random, so that the mounts of a node do not come back in step.
_FIRST_WAIT_S = 0.1
_LONGEST_WAIT_S = 2.0

# What no table names may be a bug that repeats for ever, so it gets two more chances, not the whole budget.
_UNKNOWN_ERRORS = 3

# One incident lasts until this long after its last failure: a dead DataNode fails many reads among good ones.
_INCIDENT_QUIET_S = 30.0


class Retries:
    """Repeats calls within a budget of seconds, and logs one WARNING for each incident."""

    def __init__(
        self,
        budget_s: float,
        settle_s: float,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Set the limits.

        Args:
            budget_s: no repetition starts later than this after the start of the call, in seconds.
            settle_s: the same where fewer bytes came than the file has; a file that was just written gets its
                last block within half a second, one that is still being written may never.
            sleep: waits between attempts; tests pass their own.
            clock: seconds, monotonic; tests pass their own.
        """
        self._budget_s = budget_s
        self._settle_s = min(settle_s, budget_s)
        self._sleep = sleep
        self.clock = clock
        self._lock = threading.Lock()
        self._incident_from: float | None = None
        self._incident_failures = 0
        self._last_failure = 0.0

    def repeat(self, what: str, failure: HdfsFuseError, started: float, attempt: Callable[[], R]) -> R:
        """Repeat a call that failed with `failure`, at once and then with growing waits.

        Args:
            what: operation and path, for the log.
            failure: one of is_transient; how the call failed the first time.
            started: when the call began, on `clock`.
            attempt: the whole call, with what must be made anew.

        Returns:
            What `attempt` returned.

        Raises:
            HdfsFuseError: the last failure when the budget is used up, or the first that no repetition mends.
        """
        self._failed(what, failure)
        if self.clock() - started > self._limit_s(failure):
            raise failure

        unknown_errors = int(type(failure) is BackendError)

        def exhausted(state: RetryCallState) -> bool:
            nonlocal unknown_errors
            error = state.outcome.exception() if state.outcome else None
            if isinstance(error, HdfsFuseError) and is_transient(error):
                self._failed(what, error)
            unknown_errors += type(error) is BackendError
            if unknown_errors >= _UNKNOWN_ERRORS:
                return True
            return self.clock() - started + state.upcoming_sleep > self._limit_s(error)

        retrying = Retrying(
            retry=retry_if_exception(is_transient),
            wait=wait_random_exponential(multiplier=_FIRST_WAIT_S, max=_LONGEST_WAIT_S),
            stop=exhausted,
            sleep=self._sleep,
            reraise=True,
        )
        return retrying(attempt)

    def succeeded(self) -> None:
        """Note that a call came through; cheap while there is no incident."""
        if self._incident_from is None:
            return
        with self._lock:
            if self._incident_from is None or self.clock() - self._last_failure < _INCIDENT_QUIET_S:
                return
            lasted_s = self._last_failure - self._incident_from
            self._incident_from = None
        logger.info("backend calls succeed again: %d failed within %.1f s", self._incident_failures, lasted_s)

    def _limit_s(self, error: BaseException | None) -> float:
        return self._settle_s if isinstance(error, ShortReadError) else self._budget_s

    def _failed(self, what: str, error: HdfsFuseError) -> None:
        now = self.clock()
        with self._lock:
            self._last_failure = now
            self._incident_failures += 1
            if self._incident_from is not None:
                return
            self._incident_from, self._incident_failures = now, 1
        logger.warning("backend call failed, repeating: %s: %s: %s", what, type(error).__name__, error)


def is_transient(error: BaseException) -> bool:
    """Whether the same call may succeed later.

    BackendError itself counts: it is what an unknown client failure becomes, a panic over an expired block token
    among them. Its subclasses, should there be any, do not.
    """
    return isinstance(error, UnavailableError | ShortReadError) or type(error) is BackendError
