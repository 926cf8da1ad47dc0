"""Bounded waiting."""

import time
from collections.abc import Callable


def wait_until(
    condition: Callable[[], bool], what: str, timeout_s: float = 30.0, explain: Callable[[], str] = str
) -> None:
    """Ask `condition` again and again until it holds.

    Args:
        condition: what to wait for.
        what: its name in the failure.
        timeout_s: for how long.
        explain: more for the failure.
    """
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout_s:g} s: {what}\n{explain()}"
        time.sleep(0.02)
