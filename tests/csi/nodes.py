"""A node of the cluster for tests: `hdfs-csi node` with directories of its own, and the end of what it left mounted."""

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.csi.driver import DriverProcess
from tests.csi.pods import mounts_below, remove_mount


@contextmanager
def running_node(environment: Mapping[str, str], directory: Path, *more: str) -> Iterator[DriverProcess]:
    """Start a node whose directories are below `directory`; nothing stays mounted there.

    Args:
        environment: beside this process's own.
        directory: for `run`, `cache` and `staging`.
        more: options.
    """
    with tempfile.TemporaryDirectory(prefix="hdfs-csi-") as sockets:
        options = [
            "--node-id",
            "node-1",
            "--runtime-dir",
            str(directory / "run"),
            "--cache-dir",
            str(directory / "cache"),
            "--staging-dir",
            str(directory / "staging"),
            *more,
        ]
        process = DriverProcess("node", Path(sockets), environment, *options)
        process.start()
        try:
            yield process
        finally:
            _clean_up(process, directory)


def _clean_up(process: DriverProcess, directory: Path) -> None:
    """Remove what a test left mounted, without asking the driver, which may be what is broken."""
    for mount in mounts_below(directory):
        remove_mount(mount)
    process.__exit__()
    print(process.log())  # shown when the test failed
