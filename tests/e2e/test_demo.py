"""`make demo`, with less data: that it works, and that it leaves nothing however it ends."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.leftovers import fuse_mounts_below, processes_staying_with
from tests.support.processes import running

COMMAND = (sys.executable, "-m", "tests.e2e.demo", "--images", "100", "--big-mib", "32")
MARK = "HDFS_CSI_TEST_DEMO"


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return {**os.environ, "TMPDIR": str(tmp_path), MARK: str(tmp_path), "KEEP": "0"}


def nothing_is_left(tmp_path: Path) -> None:
    assert processes_staying_with(MARK, str(tmp_path)) == []
    assert fuse_mounts_below(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def test_the_demo_shows_a_volume_read_cold_and_warm(environment: dict[str, str], tmp_path: Path) -> None:
    done = subprocess.run(COMMAND, check=False, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 bytes came from HDFS" in done.stdout
    assert "read from HDFS and compared" in done.stdout
    for what in ("cold, from HDFS", "again, page cache", "new pod, block cache"):
        assert re.search(rf"{what}.*/s", done.stdout)
    assert "nothing is left mounted or running" in done.stdout
    nothing_is_left(tmp_path)


def test_a_demo_that_is_interrupted_takes_everything_down(environment: dict[str, str], tmp_path: Path) -> None:
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
    nothing_is_left(tmp_path)
