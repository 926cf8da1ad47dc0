"""Tests shared by several processes (pytest-xdist, `-n 2`): which runs where, in what order, how they are interrupted.

Each process has fixtures of its own, so an HDFS of its own too. Files are not split, since fixtures of a module are
clusters.
"""

import os
import signal
import sys
from pathlib import Path
from types import FrameType

import pytest

from tests.perf.observe import children_of

TESTS = Path(__file__).parents[1]

# Files that take a minute or more, the longest first: they begin first, so that none runs alone at the end.
LONG = (
    "faults/test_streaming_faults.py",
    "faults/test_writing_faults.py",
    "model/test_fsx.py",
    "mount/test_errnos.py",
    "csi/test_snapshots.py",
    "faults/test_backend_faults.py",
    "mount/test_programs.py",
    "model/test_writing_model.py",
    "csi/test_controller_process.py",
    "model/test_block_cache_model.py",
    "mount/test_hdfs.py",
    "mount/test_kerberos.py",
    "mount/test_streaming.py",
    "csi/test_controller_faults.py",
    "csi/test_provisioning.py",
    "faults/test_high_availability.py",
)


def is_worker(config: pytest.Config) -> bool:
    """Whether this process is one of several that run tests."""
    return hasattr(config, "workerinput")


def is_leader(config: pytest.Config) -> bool:
    """Whether this process only has others run tests."""
    return not is_worker(config) and bool(config.getoption("numprocesses"))


def share_by_files(config: pytest.Config) -> None:
    """Unless asked otherwise, have whole files shared in their order, by processes that are not replaced."""
    if is_leader(config) and config.option.dist == "no":
        config.option.dist = "loadfile"
        config.option.loadscopereorder = False
    if is_leader(config) and config.option.maxworkerrestart is None:
        # One that has crashed ends the tests, as without others: nobody looks whether it has left something behind.
        config.option.maxworkerrestart = "0"


def long_files_first(items: list[pytest.Item]) -> None:
    """Put the tests of the long files first; the others stay in their order."""
    place = {TESTS / name: number for number, name in enumerate(LONG)}
    items.sort(key=lambda item: place.get(item.path, len(LONG)))


def take_interrupts(config: pytest.Config) -> None:
    """Have each process take down what it has started when one interrupts the tests, however long that takes.

    By itself xdist ends processes that take longer than a few seconds, and Ctrl-C at the terminal would reach them too,
    a second time while they clean up.
    """
    if is_worker(config):
        os.setpgid(0, 0)
    elif is_leader(config):
        signal.signal(signal.SIGINT, _interrupt_workers)


def _interrupt_workers(_number: int, _frame: FrameType | None) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.write(sys.stderr.fileno(), b"\nSIGINT: taking everything down; once more to end at once\n")
    for worker in children_of(os.getpid()):
        os.kill(worker, signal.SIGINT)
