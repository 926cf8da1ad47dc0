"""`make demo`, with less data: that it works, and that it leaves nothing however it ends."""

import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.leftovers import fuse_mounts_below, processes_staying_with
from tests.support.processes import running

COMMAND = (sys.executable, "-m", "tests.e2e.demo", "--images", "100", "--big-mib", "32")
MARK = "HDFS_CSI_TEST_DEMO"


@pytest.fixture
def directory() -> Iterator[Path]:
    """A short path: a socket's may have 107 bytes, and pytest's own paths are long."""
    with tempfile.TemporaryDirectory(prefix="hdfs-csi-") as made:
        yield Path(made)


@pytest.fixture
def environment(directory: Path) -> dict[str, str]:
    return {**os.environ, "TMPDIR": str(directory), MARK: str(directory), "KEEP": "0"}


def nothing_is_left(directory: Path) -> None:
    assert processes_staying_with(MARK, str(directory)) == []
    assert fuse_mounts_below(directory) == []
    assert list(directory.iterdir()) == []


def test_the_demo_shows_a_volume_read_cold_and_warm(environment: dict[str, str], directory: Path) -> None:
    done = subprocess.run(COMMAND, check=False, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 bytes came from HDFS" in done.stdout
    assert "read from HDFS and compared" in done.stdout
    for what in ("cold, from HDFS", "again, page cache", "new pod, block cache"):
        assert re.search(rf"{what}.*/s", done.stdout)
    assert "nothing is left mounted or running" in done.stdout
    nothing_is_left(directory)


def test_a_demo_that_is_interrupted_takes_everything_down(environment: dict[str, str], directory: Path) -> None:
    environment["KEEP"] = "1"
    with running(COMMAND, environment) as demo:
        assert demo.stdout is not None
        said = ""
        for line in demo.stdout:
            said += line
            if "To end it" in line and said.count("To end it") == 1:
                demo.send_signal(signal.SIGINT)
        assert demo.wait(120) == 0, said
    assert "Everything stays up" in said
    nothing_is_left(directory)
