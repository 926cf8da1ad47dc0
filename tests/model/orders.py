"""What model tests ask of a driver's real processes: orders that are sent together, and what a kill cuts short.

Owns the two processes and the way to their answers; knows nothing of what an order means.
"""

import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.message import Message
from grpc import StatusCode

from tests.csi.driver import DriverProcess
from tests.perf.observe import children_of
from tests.support.leftovers import processes_with
from tests.support.local_hdfs import LocalHdfs
from tests.support.processes import ProcessIdentity
from tests.support.waiting import wait_until

# Whoever gets one of these asks again (CSI Error Scheme; isFinalError of the external-provisioner).
NOT_FINAL = {StatusCode.ABORTED, StatusCode.UNAVAILABLE, StatusCode.DEADLINE_EXCEEDED}
REPEAT_S = 150.0
# Of a call that was not made before.
_USUAL_S = 0.5

# argv: path, and how much of standard input is stored by fsync before the rest is stored by close. Exits 1 where a call
# fails; what was acknowledged stands on standard output.
_WRITE = """
import os, sys
path, length = sys.argv[1], int(sys.argv[2])
synced, last = sys.stdin.buffer.read(length), sys.stdin.buffer.read()
try:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    if synced:
        os.write(fd, synced)
        os.fsync(fd)
        print("synced", flush=True)
    os.write(fd, last)
    os.close(fd)
    print("closed", flush=True)
except OSError as e:
    sys.exit(f"{path}: {e}")
"""


@dataclass(frozen=True)
class Outcome:
    """How one attempt ended.

    Attributes:
        answer: the response, where the code is OK.
        message: where it is not.
    """

    code: StatusCode
    answer: Any = None
    message: str = ""


@dataclass(eq=False)
class Order:
    """Something that a CO or a pod wants, until it has it.

    Attributes:
        kind: name of the RPC, or what a pod does.
        service: the process whose loss concerns it.
        about: what it changes, as names of the model's.
        keeps: what must be there until it is done.
        reads: what must not change while it is sent.
        send: one attempt.
        done: the model learns from the final answer.
        expected: that is final.
    """

    kind: str
    service: str
    about: frozenset[str]
    keeps: frozenset[str]
    send: Callable[[], Outcome]
    done: Callable[[Any], None]
    expected: StatusCode = StatusCode.OK
    reads: frozenset[str] = frozenset()

    def conflicts(self, other: "Order") -> bool:
        """Whether one must not be sent before the other is done."""
        return bool(self.about & (other.about | other.keeps) or self.keeps & other.about)

    def disturbs(self, other: "Order") -> bool:
        """Whether the two must not be sent together."""
        return self.conflicts(other) or bool(self.about & other.reads or self.reads & other.about)

    def repeat(self) -> Outcome:
        """Ask until the answer is final, undisturbed."""
        last: list[Outcome] = []

        def is_final() -> bool:
            last[:] = [self.send()]
            return self.check(last[0])

        wait_until(is_final, f"{self.kind} has a final answer", REPEAT_S, lambda: str(last))
        return last[0]

    def check(self, outcome: Outcome) -> bool:
        """Whether the answer is final; one that is neither that nor asks to come again is a fault."""
        is_final = outcome.code is self.expected
        assert is_final or outcome.code in NOT_FINAL, f"{self.kind}: {outcome}"
        return is_final


@dataclass(frozen=True)
class Moment:
    """When orders are sent, and what happens meanwhile.

    Attributes:
        waits: for others, to be sent together with them.
        is_twice: whether the last of them is sent twice at once.
        victim: process that is killed: "driver", "daemon", "uploader" or nobody.
        per_mille: how far into the time that such a call usually takes.
        is_repeated: whether what was cut short is repeated at once.
    """

    waits: bool
    is_twice: bool
    victim: str
    per_mille: int
    is_repeated: bool


UNDISTURBED = Moment(waits=False, is_twice=False, victim="", per_mille=0, is_repeated=True)


@dataclass
class Processes:
    """A controller and a node, and what they start.

    Attributes:
        directory: of the node.
        mark: an environment variable that they have handed down to all they started.
        usual_s: how long each kind of order took, when nothing disturbed it.
    """

    hdfs: LocalHdfs
    controller: DriverProcess
    node: DriverProcess
    directory: Path
    mark: tuple[str, str]
    pool: ThreadPoolExecutor
    usual_s: dict[str, float] = field(default_factory=dict)

    def service(self, name: str) -> DriverProcess:
        """The process of that name; what pods do concerns the node."""
        return self.controller if name == "controller" else self.node

    def rpc(self, service: str, request: Message) -> Callable[[], Outcome]:
        """One attempt at a call."""
        client = self.service(service).client

        def send() -> Outcome:
            call = client.start(request)
            error = call.exception()
            if error is None:
                return Outcome(StatusCode.OK, call.result())
            assert isinstance(error, grpc.RpcError), error
            return Outcome(call.code(), message=call.details() or "")

        return send

    def send(self, orders: Sequence[Order], moment: Moment) -> list[list[Outcome]]:
        """Send all at once, kill whom `moment` says, and wait for the answers.

        Returns:
            One list for each order: of its attempts.
        """
        started = time.monotonic()
        calls = [[self.pool.submit(order.send)] for order in orders]
        if moment.is_twice and orders[-1].service != "pod":
            calls[-1].append(self.pool.submit(orders[-1].send))
        if moment.victim:
            usual_s = self.usual_s.get(orders[-1].kind, _USUAL_S)
            wait([call for attempts in calls for call in attempts], usual_s * moment.per_mille / 1000)
            self._kill(moment, {order.service for order in orders})
        outcomes = [[call.result() for call in attempts] for attempts in calls]
        if not moment.victim and len(orders) == 1:
            self.usual_s[orders[0].kind] = time.monotonic() - started
        return outcomes

    def _kill(self, moment: Moment, services: set[str]) -> None:
        if moment.victim == "driver":
            for process in {id(p): p for p in map(self.service, services)}.values():
                process.restart(kill=True)
            return
        program = "hdfs-fuse hdfs:" if moment.victim == "daemon" else "hdfs_fuse.upload.uploader"
        if found := self.others(program):
            victim = random.Random(moment.per_mille).choice(found)
            helpers = [ProcessIdentity.of(pid) for pid in children_of(victim.pid)]
            victim.send(signal.SIGKILL)
            # An uploader may give a file its name yet: nothing is sure before it has ended.
            assert all(helper.wait_gone(30) for helper in helpers), self.describe()

    def others(self, program: str = "") -> list[ProcessIdentity]:
        """What the two have started, and still runs: all but what they fork daemons from, or those of one program."""
        lines = [line for line in processes_with(*self.mark) if program in line and "fork server" not in line]
        pids = [int(line.partition(":")[0]) for line in lines]
        own = [process.daemon.identity for process in (self.controller, self.node)]
        found = []
        for pid in sorted(pids):
            try:
                identity = ProcessIdentity.of(pid)
            except ProcessLookupError:
                continue
            if identity not in own and identity.alive():
                found.append(identity)
        return found

    def describe(self) -> str:
        """What the two have started, for messages."""
        return "\n".join(processes_with(*self.mark))


def write(path: Path, synced: bytes, last: bytes) -> Outcome:
    """Replace a file as a pod does; the answer is what was acknowledged, in words, and the error of what was not."""
    command = [sys.executable, "-S", "-E", "-c", _WRITE, path.name, str(len(synced))]
    done = subprocess.run(
        ["timeout", "-k", "5", "60", "env", "-C", str(path.parent), *command],
        input=synced + last, capture_output=True, check=False,
    )  # fmt: skip
    return Outcome(StatusCode.OK, (done.stdout.decode().split(), done.stderr.decode(errors="replace")), "")
