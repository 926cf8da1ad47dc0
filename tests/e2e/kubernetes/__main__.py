"""`make e2e`: a real Kubernetes on this machine, a real HDFS beside it, the chart, its tests, and all of it taken down.

python -m tests.e2e.kubernetes            all steps; KEEP=1 leaves the cluster up
python -m tests.e2e.kubernetes build      binaries and images
python -m tests.e2e.kubernetes up | down  the cluster
python -m tests.e2e.kubernetes test -k disruption -x
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console

from tests.e2e.kubernetes import binaries, images
from tests.support.cache import SetupError, cache_dir
from tests.support.signals import exit_on, handle_signals

_CLUSTER = Path(__file__).parent / "cluster"


def main(arguments: Sequence[str]) -> int:
    """Run one step, or all of them; returns the exit status."""
    step, *options = [*arguments] or ["all"]
    try:
        match step:
            case "build":
                build()
            case "up" | "down":
                _script(step)
            case "test":
                return test(options)
            case "all":
                return run_all(options)
            case _:
                print(__doc__, file=sys.stderr)
                return 2
    except SetupError as e:
        print(e, file=sys.stderr)
        return 1
    return 0


def run_all(options: Sequence[str]) -> int:
    """From nothing to green and back to nothing, with the time of each step."""
    took: list[tuple[str, float]] = []

    def timed(name: str, action: Callable[[], int | None]) -> int:
        print(f"--- {name}", file=sys.stderr, flush=True)
        started = time.monotonic()
        status = action() or 0
        took.append((name, time.monotonic() - started))
        return status

    handle_signals(exit_on(Console(stderr=True)))
    timed("binaries", binaries.build)
    timed("images", images.build)
    try:
        timed("cluster up", lambda: _script("up"))
        status = timed("tests", lambda: test(options))
    finally:
        handle_signals(signal.SIG_IGN)  # a second Ctrl-C would leave the rest behind
        if os.environ.get("KEEP"):
            print(f"the cluster stays up: {_CLUSTER}/inside.sh kubectl get pods -A", file=sys.stderr)
        else:
            timed("cluster down", lambda: _script("down"))
    for name, seconds in took:
        print(f"{name:14} {seconds:6.0f} s", file=sys.stderr)
    return status


def build() -> None:
    """Binaries and images, as far as the cache has none."""
    binaries.build()
    images.build()


def test(options: Sequence[str]) -> int:
    """The tests of this folder, inside of the cluster; returns pytest's exit status."""
    home = cache_dir() / "kubernetes"
    pytest = [
        sys.executable,
        "-m",
        "pytest",
        "--durations=0",
        "--durations-min=5",
        *options,
        str(Path(__file__).parent),
    ]
    command = [str(_CLUSTER / "inside.sh"), "env", f"HDFS_CSI_E2E={home}", *pytest]
    return subprocess.run(command, env=_environment(), check=False).returncode


def _script(name: str) -> None:
    done = subprocess.run([str(_CLUSTER / f"{name}.sh")], env=_environment(), check=False)
    if done.returncode:
        raise SetupError(f"the cluster does not go {name}")


def _environment() -> dict[str, str]:
    return {**os.environ, "HDFS_CSI_CACHE": str(cache_dir())}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
