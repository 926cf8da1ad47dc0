"""Deadlines on blocking calls."""

import threading
from collections.abc import Iterator

import pytest
from hdfs_fuse.backend.deadline import DeadlineCaller, call_with_deadline
from hdfs_fuse.errors import DeadlineError, NotFoundError, UnavailableError

SOON_S = 0.02


@pytest.fixture
def hang() -> Iterator[threading.Event]:
    """What a hanging call waits for; the threads end with the test."""
    event = threading.Event()
    before = set(threading.enumerate())
    yield event
    event.set()
    for thread in set(threading.enumerate()) - before:
        thread.join(10)


def test_the_result_comes_through() -> None:
    assert call_with_deadline(divmod, 7, 2, deadline_s=10) == (3, 1)
    assert call_with_deadline(lambda: None, deadline_s=10) is None


def test_what_the_call_raises_comes_through() -> None:
    def fail() -> None:
        raise NotFoundError("x")

    with pytest.raises(NotFoundError):
        call_with_deadline(fail, deadline_s=10)
    with pytest.raises(SystemExit):
        call_with_deadline(exit, 3, deadline_s=10)


def test_a_call_that_hangs_is_given_up(hang: threading.Event) -> None:
    given_up: list[str] = []
    with pytest.raises(DeadlineError, match="no answer within"):
        call_with_deadline(hang.wait, deadline_s=SOON_S, on_timeout=lambda: given_up.append("once"))
    assert given_up == ["once"]


def test_calls_that_hang_are_bounded_and_end(hang: threading.Event) -> None:
    caller = DeadlineCaller(max_abandoned=2)
    for _ in range(2):
        with pytest.raises(DeadlineError):
            caller.call(hang.wait, deadline_s=SOON_S)
    assert caller.abandoned == 2
    with pytest.raises(UnavailableError, match="still hang"):
        caller.call(divmod, 1, 1, deadline_s=10)
    hang.set()
    for thread in threading.enumerate():
        if thread.name == "deadline-call":
            thread.join(10)
    assert caller.abandoned == 0
    assert caller.call(divmod, 7, 2, deadline_s=10) == (3, 1)
