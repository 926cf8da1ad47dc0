"""Fixtures of all tests: a real HDFS, and the check that nothing is left behind."""

import os
import re
import signal
import uuid
from collections.abc import Iterator

import hypothesis
import pytest

from tests.support import parallel
from tests.support.daemons import FORKS
from tests.support.leftovers import fuse_mounts_below, processes_staying_with
from tests.support.local_hdfs import LocalHdfs

# As the environment has it (CI), but no example fails for being slow: the machine is busy with other tests.
hypothesis.settings.register_profile("patient", parent=hypothesis.settings(), deadline=None)
hypothesis.settings.load_profile("patient")


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    parallel.share_by_files(config)


def pytest_configure(config: pytest.Config) -> None:
    parallel.take_interrupts(config)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if parallel.is_worker(config):
        parallel.long_files_first(items)


def pytest_keyboard_interrupt() -> None:
    # What has been started is taken down now: a second Ctrl-C would leave the rest behind.
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@pytest.fixture(scope="session", autouse=True)
def nothing_left_behind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Fail the session when FUSE mounts or processes of the tests outlive all other fixtures.

    Tests mount below their `tmp_path` only: mounts elsewhere may be those of a demo or another session.
    """
    mark = "HDFS_CSI_TEST_SESSION", str(uuid.uuid4())
    # Handed down to every process that a test starts, so that one whose parent has ended is still found.
    os.environ.update([mark])
    yield
    del os.environ[mark[0]]
    FORKS.close()
    mounts = fuse_mounts_below(tmp_path_factory.getbasetemp())
    processes = processes_staying_with(*mark)
    assert not mounts, f"mounts left behind: {mounts}"
    assert not processes, f"processes left behind: {processes}"


@pytest.fixture(scope="session")
def hdfs(nothing_left_behind: None) -> Iterator[LocalHdfs]:
    """A real HDFS of one DataNode, started by the first test that asks for it and shared by all.

    Tests that stop or freeze its daemons make one of their own. Without Java or Maven this fails, and says how to
    get them: tests against a real HDFS are not skipped.
    """
    with LocalHdfs(datanodes=1, properties={"fs.trash.interval": "60"}) as running:
        yield running


@pytest.fixture
def hdfs_dir(hdfs: LocalHdfs, request: pytest.FixtureRequest) -> Iterator[str]:
    """The path of an empty HDFS directory of this test alone, writable by everybody; removed afterwards."""
    path = f"/tests/{re.sub(r'[^A-Za-z0-9]+', '-', request.node.name)[:60]}-{uuid.uuid4().hex[:8]}"
    hdfs.webhdfs("PUT", path, "MKDIRS", permission="777")
    yield path
    hdfs.webhdfs("DELETE", path, "DELETE", recursive="true")
