"""Tests shared by two processes: they take down what they have started, however they are interrupted."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.parallel import LONG, TESTS
from tests.support.waiting import wait_until

Process = subprocess.Popen[str]

CONFTEST = "from tests.conftest import pytest_cmdline_main, pytest_configure, pytest_keyboard_interrupt\n"
# Tells how far it is by empty files, and takes its time to clean up.
TEST = """\
import os
import threading
import time
from pathlib import Path

import pytest


def tell(what):
    Path(f"{os.getpid()}.{what}").touch()


@pytest.fixture(scope="session")
def slow_to_end():
    yield
    while not os.path.exists("may-end"):
        time.sleep(0.01)
    tell("ended")


def test(slow_to_end):
    try:
        tell("started")
        threading.Event().wait()
    finally:
        tell("interrupted")
"""


def at_the_terminal(tests: Process) -> None:
    os.killpg(tests.pid, signal.SIGINT)


def alone(tests: Process) -> None:
    tests.send_signal(signal.SIGINT)


@pytest.mark.parametrize(("interrupt", "status"), [(at_the_terminal, 2), (alone, 2), (Process.kill, -9)])
def test_who_is_interrupted_cleans_up(tmp_path: Path, interrupt: Callable[[Process], None], status: int) -> None:
    (tmp_path / "conftest.py").write_text(CONFTEST, encoding="utf-8")
    for name in ("one", "two"):
        (tmp_path / f"test_{name}.py").write_text(TEST, encoding="utf-8")

    def are(what: str) -> bool:
        return len(list(tmp_path.glob(f"*.{what}"))) == 2

    command = [sys.executable, "-m", "pytest", "-n", "2", "-c", f"{TESTS.parent}/pyproject.toml", "--rootdir", ".", "."]
    with (
        (tmp_path / "log").open("w+b") as log,
        subprocess.Popen(
            command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(TESTS.parent)},
            stdout=log, stderr=log, text=True, start_new_session=True,
        ) as tests,
    ):  # fmt: skip
        try:
            wait_until(lambda: are("started"), "both run", 60, (tmp_path / "log").read_text)
            interrupt(tests)
            wait_until(lambda: are("interrupted"), "both are interrupted", 60, (tmp_path / "log").read_text)
            (tmp_path / "may-end").touch()
            wait_until(lambda: are("ended"), "both have cleaned up", 60, (tmp_path / "log").read_text)
            assert tests.wait(60) == status
        finally:
            tests.kill()


def test_long_files_are_there() -> None:
    assert [name for name in LONG if not (TESTS / name).is_file()] == []
