"""What the NameNodes say of themselves and of the cluster: over their web servers, which need no identity on HDFS."""

import contextlib
import http.client
from dataclasses import dataclass
from typing import TypeVar
from urllib.parse import urlsplit

import msgspec

from hdfs_fuse.backend import hadoop_conf
from hdfs_fuse.backend.webhdfs import connect_web
from hdfs_fuse.config import MountConfig
from hdfs_fuse.errors import UnavailableError, UnsupportedError

T = TypeVar("T")

_QUERY = "/jmx?qry=Hadoop:service=NameNode,name="


@dataclass(frozen=True, slots=True)
class NameNodeState:
    """What a NameNode says.

    Attributes:
        address: its web server.
        role: "active", or else "standby", "observer" or "initializing".
        in_safe_mode: whether it refuses changes.
        live_datanodes: DataNodes that it has heard of lately.
    """

    address: str
    role: str
    in_safe_mode: bool
    live_datanodes: int


class _Status(msgspec.Struct, rename="pascal"):
    state: str


class _StatusReply(msgspec.Struct):
    beans: list[_Status]


class _System(msgspec.Struct, rename="pascal"):
    num_live_data_nodes: int
    state: str = msgspec.field(name="FSState")


class _SystemReply(msgspec.Struct):
    beans: list[_System]


def ask(config: MountConfig, *, deadline_s: float) -> NameNodeState:
    """Ask the NameNodes of a mount's filesystem, one after the other, until one says that it is active.

    Args:
        config: the mount; its identity does not matter.
        deadline_s: for the connection to each NameNode, and for each of two answers.

    Returns:
        The state of the active one, else of the first that answers.

    Raises:
        UnavailableError: none answers.
        UnsupportedError: one answers something else: it is another web server, or asks for Kerberos.
        InvalidArgumentError: the configuration does not say which filesystem.
    """
    properties = hadoop_conf.read_properties(config)
    location = hadoop_conf.resolve_location(config, properties)
    answers: list[NameNodeState] = []
    silent: list[str] = []
    for address in hadoop_conf.webhdfs_addresses(location.authority, properties):
        try:
            state = _state(address, deadline_s)
        except (OSError, http.client.HTTPException) as e:
            silent.append(f"{address}: {e or type(e).__name__}")
            continue
        if state.role == "active":
            return state
        answers.append(state)
    if answers:
        return answers[0]
    raise UnavailableError("; ".join(silent))


def _state(address: str, deadline_s: float) -> NameNodeState:
    status = _get(address, "NameNodeStatus", _StatusReply, deadline_s)
    system = _get(address, "FSNamesystemState", _SystemReply, deadline_s)
    if not (status.beans and system.beans):
        raise UnsupportedError(f"{address}: no web server of a NameNode")
    bean = system.beans[0]
    return NameNodeState(address, status.beans[0].state, bean.state != "Operational", bean.num_live_data_nodes)


def _get(address: str, bean: str, reply: type[T], deadline_s: float) -> T:
    parts = urlsplit(address)
    with contextlib.closing(connect_web(parts.scheme, parts.netloc, deadline_s)) as connection:
        connection.request("GET", f"{_QUERY}{bean}")
        body = connection.getresponse().read()
    try:
        return msgspec.json.decode(body, type=reply)
    except msgspec.MsgspecError as e:
        raise UnsupportedError(f"{address}: unexpected answer") from e
