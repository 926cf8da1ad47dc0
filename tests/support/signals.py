"""Ending on a signal as on an error, so that all that was started is taken down: demo, benchmark, cluster of tests."""

import os
import signal
import sys
from collections.abc import Callable
from types import FrameType

from rich.console import Console

Handler = Callable[[int, FrameType | None], object] | signal.Handlers

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def handle_signals(handler: Handler) -> None:
    """Have `handler` take the signals that ask a program to end."""
    for number in _SIGNALS:
        signal.signal(number, handler)


def exit_on(console: Console) -> Handler:
    """A handler that says so on `console` and exits with the status that a shell gives for the signal."""

    def end(number: int, _frame: FrameType | None) -> None:
        # Not through `console`'s own buffer, which a line may be in that is just being printed.
        os.write(console.file.fileno(), f"\n{signal.Signals(number).name}: taking everything down\n".encode())
        sys.exit(128 + number)

    return end
