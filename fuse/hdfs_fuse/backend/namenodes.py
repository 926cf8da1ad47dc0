"""What the NameNodes say of themselves and of the cluster, over their web servers: whoever has a ticket may ask."""

import contextlib
import http.client
from dataclasses import dataclass
from typing import TypeVar
from urllib.parse import urlsplit

import msgspec

from hdfs_fuse.backend import hadoop_conf
from hdfs_fuse.backend.identity import is_kerberos, log_in
from hdfs_fuse.backend.negotiate import Negotiate
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
        config: the mount; its identity matters only where the web servers ask for Kerberos.
        deadline_s: for the connection to each NameNode, and for each of two answers.

    Returns:
        The state of the active one, else of the first that answers.

    Raises:
        UnavailableError: none answers.
        UnsupportedError: one answers something else: it is another web server, or asks for Kerberos, and the mount has
            a krb5.conf of its own, which would hold for this whole process.
        AuthenticationError: it asks for Kerberos, and there is no ticket.
        InvalidArgumentError: the configuration does not say which filesystem.
    """
    properties = hadoop_conf.read_properties(config)
    location = hadoop_conf.resolve_location(config, properties)
    negotiate = _negotiate(config) if is_kerberos(properties) else None
    answers: list[NameNodeState] = []
    silent: list[str] = []
    for address in hadoop_conf.webhdfs_addresses(location.authority, properties):
        try:
            state = _state(address, negotiate, deadline_s)
        except (OSError, http.client.HTTPException) as e:
            silent.append(f"{address}: {e or type(e).__name__}")
            continue
        if state.role == "active":
            return state
        answers.append(state)
    if answers:
        return answers[0]
    raise UnavailableError("; ".join(silent))


def _negotiate(config: MountConfig) -> Negotiate | None:
    if config.kerberos is None:
        return Negotiate(None)
    return Negotiate(log_in(config.kerberos)) if config.kerberos.krb5_conf is None else None


def _state(address: str, negotiate: Negotiate | None, deadline_s: float) -> NameNodeState:
    status = _get(address, "NameNodeStatus", _StatusReply, negotiate, deadline_s)
    system = _get(address, "FSNamesystemState", _SystemReply, negotiate, deadline_s)
    if not (status.beans and system.beans):
        raise UnsupportedError(f"{address}: no web server of a NameNode")
    bean = system.beans[0]
    return NameNodeState(address, status.beans[0].state, bean.state != "Operational", bean.num_live_data_nodes)


def _get(address: str, bean: str, reply: type[T], negotiate: Negotiate | None, deadline_s: float) -> T:
    status, body = _ask(address, bean, {}, deadline_s)
    if status == http.HTTPStatus.UNAUTHORIZED and negotiate is not None:  # many clusters let everybody see these
        host = urlsplit(address).hostname or ""
        _, body = _ask(address, bean, {"Authorization": negotiate.authorization(host)}, deadline_s)
    try:
        return msgspec.json.decode(body, type=reply)
    except msgspec.MsgspecError as e:
        raise UnsupportedError(f"{address}: unexpected answer") from e


def _ask(address: str, bean: str, headers: dict[str, str], deadline_s: float) -> tuple[int, bytes]:
    parts = urlsplit(address)
    with contextlib.closing(connect_web(parts.scheme, parts.netloc, deadline_s)) as connection:
        connection.request("GET", f"{_QUERY}{bean}", headers=headers)
        response = connection.getresponse()
        return response.status, response.read()
