"""What an instance is made of on disk and on the network: ports, configuration, and the file that describes it."""

import contextlib
import socket
from collections.abc import Mapping
from pathlib import Path

import msgspec

from tests.support.processes import ProcessIdentity

# Loopback: nothing outside of this machine reaches an instance that is not told otherwise.
HOST = "127.0.0.1"
MIB = 1 << 20

# Users that need not exist on this machine, and their groups. "dr.who" is who an anonymous web request comes from.
GROUPS = {"alice": "data", "bob": "other", "dr.who": ""}

_STATE = "local-hdfs.json"


class Ports(msgspec.Struct, frozen=True):
    """Where the daemons listen: address and ports; a DataNode has three: data transfer, http, ipc."""

    host: str
    namenode_rpc: int
    namenode_http: int
    datanodes: list[tuple[int, int, int]]


class State(msgspec.Struct, frozen=True):
    """What another process needs to take over an instance; kept in its directory.

    Attributes:
        owner: whoever wrote this last.
        ports: of all daemons.
        daemons: the processes by name; one that was ended on purpose is missing.
    """

    owner: ProcessIdentity
    ports: Ports
    daemons: dict[str, ProcessIdentity]

    def write(self, directory: Path) -> None:
        """Replace the file, whole or not at all."""
        path = directory / _STATE
        path.with_suffix(".new").write_bytes(msgspec.json.encode(self))
        path.with_suffix(".new").rename(path)

    @classmethod
    def read(cls, directory: Path) -> "State | None":
        """What `write` wrote; None when nothing is there."""
        try:
            return msgspec.json.decode((directory / _STATE).read_bytes(), type=cls)
        except FileNotFoundError:
            return None


def reserve_ports(host: str, datanodes: int) -> tuple[Ports, contextlib.ExitStack]:
    """Choose free ports, and keep others from taking them until the stack is closed.

    A socket that is bound but does not listen keeps the port from every other choice of a free one, while the
    daemon's explicit bind succeeds, since both set SO_REUSEADDR (inet_csk_get_port in the kernel; Java sets it
    on every server socket).
    """
    with contextlib.ExitStack() as sockets:
        numbers = []
        for _ in range(2 + 3 * datanodes):
            reservation = sockets.enter_context(socket.socket())
            reservation.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            reservation.bind((host, 0))
            numbers.append(reservation.getsockname()[1])
        triples = [(numbers[i], numbers[i + 1], numbers[i + 2]) for i in range(2, len(numbers), 3)]
        return Ports(host, numbers[0], numbers[1], triples), sockets.pop_all()
    raise AssertionError  # an ExitStack may swallow exceptions, but sockets do not


def core_properties(ports: Ports, directory: Path) -> dict[str, str]:
    """core-site.xml."""
    return {
        "fs.defaultFS": f"hdfs://{ports.host}:{ports.namenode_rpc}",
        "hadoop.tmp.dir": f"{directory}/tmp",
        "hadoop.user.group.static.mapping.overrides": "".join(f"{user}={group};" for user, group in GROUPS.items()),
    }


def hdfs_properties(
    ports: Ports, directory: Path, block_size_bytes: int, overrides: Mapping[str, str]
) -> dict[str, str]:
    """hdfs-site.xml."""
    defaults = {
        "dfs.namenode.rpc-address": f"{ports.host}:{ports.namenode_rpc}",
        # Of these two dfs.http.policy chooses.
        "dfs.namenode.http-address": f"{ports.host}:{ports.namenode_http}",
        "dfs.namenode.https-address": f"{ports.host}:{ports.namenode_http}",
        "dfs.namenode.name.dir": f"{directory}/namenode",
        "dfs.blocksize": str(block_size_bytes),
        "dfs.replication": str(min(3, len(ports.datanodes))),
        "dfs.namenode.fs-limits.min-block-size": "4096",
        "dfs.permissions.enabled": "true",
        "dfs.permissions.superusergroup": "root",
        "dfs.namenode.acls.enabled": "true",
        # A dead DataNode is noticed after 2 x recheck + 10 x heartbeat: 12 s instead of 10 min 30 s.
        "dfs.heartbeat.interval": "1",
        "dfs.namenode.heartbeat.recheck-interval": "1000",
        "dfs.namenode.redundancy.interval.seconds": "1s",
        "dfs.namenode.safemode.extension": "0",
        # The NameNode enters safe mode when its own disk has less than this free (100 MB by default).
        "dfs.namenode.resource.du.reserved": str(16 * MIB),
    }
    return {**defaults, **overrides}


def datanode_properties(ports: Ports, directory: Path, index: int) -> dict[str, str]:
    """What only this DataNode is told."""
    transfer, http, ipc = ports.datanodes[index]
    return {
        # WebHDFS redirects to this name, by default the machine's own, which need not mean loopback.
        "dfs.datanode.hostname": ports.host,
        "dfs.datanode.address": f"{ports.host}:{transfer}",
        "dfs.datanode.http.address": f"{ports.host}:{http}",
        "dfs.datanode.https.address": f"{ports.host}:{http}",
        "dfs.datanode.ipc.address": f"{ports.host}:{ipc}",
        "dfs.datanode.data.dir": f"{directory}/datanode{index}",
    }
