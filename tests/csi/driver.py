"""The driver's own processes for tests: `hdfs-csi controller` and `hdfs-csi node` on sockets in a directory."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from hdfs_csi.pb import csi_pb2 as csi
from hdfs_fuse.mounter.client import RemoteSupervisor

from tests.csi.client import CsiClient
from tests.support.processes import Daemon
from tests.support.waiting import wait_until

# Importing everything takes 0.5 s on an idle core; a busy machine may need many times that.
START_TIMEOUT_S = 60.0


class DriverProcess:
    """One service of the driver.

    Attributes:
        client: connected to its socket.
        socket: path of the socket.
        daemon: the process.
    """

    def __init__(self, service: str, directory: Path, environment: Mapping[str, str], *options: str) -> None:
        """Describe `hdfs-csi SERVICE OPTIONS`, with socket and log below `directory`."""
        self.socket = str(directory / f"{service}.sock")
        command = [hdfs_csi(), service, "--endpoint", f"unix://{self.socket}", "--log-level", "debug", *options]
        self.daemon = Daemon(service, command, directory / f"{service}.log", {**os.environ, **environment})
        self.client = CsiClient(self.socket)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()
        self.daemon.stop(grace_s=40)

    def start(self) -> None:
        """Start it and wait until it answers Probe."""
        self.daemon.start()
        wait_until(self._answers, f"{self.daemon.name} answers", START_TIMEOUT_S, self.log)

    def restart(self, *, kill: bool = False) -> None:
        """End it, as a crash does or in an orderly way, and start it again."""
        if kill:
            self.daemon.kill()
        else:
            self.daemon.stop(grace_s=40)
        self.start()

    def log(self) -> str:
        """The end of its log."""
        return self.daemon.log_tail(60)

    def _answers(self) -> bool:
        assert self.daemon.running, f"{self.daemon.name} ended:\n{self.log()}"
        if not os.path.exists(self.socket):
            return False
        probed = self.client.start(csi.ProbeRequest(), timeout_s=1.0)
        return probed.exception() is None


class MounterProcess:
    """`hdfs-csi mounter` without privileges, in a mount namespace of its own: it sees no mount that is made later.

    Attributes:
        endpoint: its socket.
        daemon: the process.
    """

    def __init__(
        self, directory: Path, runtime: Path, environment: Mapping[str, str], *, uid: int = 0, endpoint: str = ""
    ) -> None:
        """Describe it, with its socket (if not at `endpoint`) and log in `directory`, those of daemons in `runtime`."""
        self.endpoint = endpoint or f"unix://{directory}/mounter.sock"
        self._path = self.endpoint.removeprefix("unix://")
        place = ["unshare", "--mount", "--propagation", "private", "--"]
        identity = [f"--reuid={uid}", f"--regid={uid}", "--clear-groups"]
        # Who is not root may not even find Python where that stands in root's home.
        kept = "-all,+dac_read_search" if uid else "-all"
        capabilities = [f"--{of}={kept}" for of in ("bounding-set", "inh-caps", "ambient-caps")]
        options = ["--endpoint", self.endpoint, "--runtime-dir", str(runtime), "--log-level", "debug"]
        command = [*place, "setpriv", *identity, *capabilities, "--no-new-privs", "--", hdfs_csi(), "mounter", *options]
        self.daemon = Daemon("mounter", command, directory / "mounter.log", {**os.environ, **environment})

    def start(self) -> None:
        """Start it and wait until it answers."""
        self.daemon.start()
        wait_until(
            lambda: RemoteSupervisor(self._path).problem() == "",
            "the mounter answers",
            START_TIMEOUT_S,
            lambda: self.daemon.log_tail(60),
        )


def hdfs_csi() -> str:
    """The installed command."""
    return str(Path(sys.executable).with_name("hdfs-csi"))


def bounded(
    *command: str, timeout_s: int = 20, directory: Path | None = None, uid: int | None = None, stdin: bytes = b""
) -> subprocess.CompletedProcess[bytes]:
    """Run a command that touches a mount, so that a hung one fails the test instead of hanging it.

    Args:
        command: argv.
        timeout_s: SIGTERM after this, SIGKILL 5 s later.
        directory: where to run it; entered as root, since pytest's directories are for root alone.
        uid: user and group to run it as; None is this process's.
        stdin: what it is told.
    """
    place = [] if directory is None else ["env", "-C", str(directory)]
    identity = [] if uid is None else ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "--"]
    return subprocess.run(
        ["timeout", "-k", "5", str(timeout_s), *place, *identity, *command],
        input=stdin, capture_output=True, check=False,
    )  # fmt: skip
