"""What the NameNodes say of themselves and of the cluster, over their web servers."""

import contextlib
import http.client
import threading
import weakref
from dataclasses import dataclass
from typing import TypeVar
from urllib.parse import urlsplit

import msgspec

from hdfs_fuse.backend import hadoop_conf
from hdfs_fuse.backend.identity import is_kerberos, log_in
from hdfs_fuse.backend.negotiate import Negotiate
from hdfs_fuse.backend.webhdfs import connect_web
from hdfs_fuse.config import Kerberos, MountConfig
from hdfs_fuse.errors import HdfsFuseError, UnavailableError, UnsupportedError

T = TypeVar("T")

_QUERY = "/jmx?qry=Hadoop:service=NameNode,name="
# Of mounts that are asked about again and again: one login, as long as somebody else remembers the keytab.
_identities: "weakref.WeakKeyDictionary[Kerberos, Negotiate]" = weakref.WeakKeyDictionary()
_lock = threading.Lock()


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
        deadline_s: for the connection to each NameNode, and for each of two answers, or three with a ticket.

    Returns:
        The state of the active one, else of the first that answers.

    Raises:
        UnavailableError: none answers.
        UnsupportedError: one answers something else: it is another web server, or asks for Kerberos, and there is no
            ticket, or the mount has a krb5.conf of its own, which would hold for this whole process.
        InvalidArgumentError: the configuration does not say which filesystem.
    """
    properties = hadoop_conf.read_properties(config)
    location = hadoop_conf.resolve_location(config, properties)
    negotiate = _negotiate(config.kerberos) if is_kerberos(properties) else None
    answers: list[NameNodeState] = []
    failures: list[UnsupportedError] = []
    silent: list[str] = []
    for address in hadoop_conf.webhdfs_addresses(location.authority, properties):
        try:
            state = _state(address, negotiate, deadline_s)
        except UnsupportedError as e:
            failures.append(e)
        except (OSError, http.client.HTTPException) as e:
            silent.append(f"{address}: {e or type(e).__name__}")
        else:
            if state.role == "active":
                return state
            answers.append(state)
    if answers:
        return answers[0]
    raise failures[0] if failures else UnavailableError("; ".join(silent))


def _negotiate(kerberos: Kerberos | None) -> Negotiate | None:
    """Who asks under Kerberos; None where the login of a mount would hold for this whole process."""
    if kerberos is None:
        return Negotiate(None)
    if kerberos.krb5_conf is not None:
        return None
    with _lock:
        known = _identities.get(kerberos)
        if known is None:
            known = _identities[kerberos] = Negotiate(log_in(kerberos))
        return known


def _state(address: str, negotiate: Negotiate | None, deadline_s: float) -> NameNodeState:
    code, body = _ask(address, "NameNodeStatus", None, deadline_s)
    if code != http.HTTPStatus.UNAUTHORIZED:  # many clusters let everybody see these
        negotiate = None
    elif negotiate is None:
        raise UnsupportedError(f"{address}: asks for Kerberos")
    else:
        _, body = _ask(address, "NameNodeStatus", negotiate, deadline_s)
    status = _decode(address, body, _StatusReply)
    system = _decode(address, _ask(address, "FSNamesystemState", negotiate, deadline_s)[1], _SystemReply)
    if not (status.beans and system.beans):
        raise UnsupportedError(f"{address}: no web server of a NameNode")
    bean = system.beans[0]
    return NameNodeState(address, status.beans[0].state, bean.state != "Operational", bean.num_live_data_nodes)


def _decode(address: str, body: bytes, reply: type[T]) -> T:
    try:
        return msgspec.json.decode(body, type=reply)
    except msgspec.MsgspecError as e:
        raise UnsupportedError(f"{address}: unexpected answer") from e


def _ask(address: str, bean: str, negotiate: Negotiate | None, deadline_s: float) -> tuple[int, bytes]:
    parts = urlsplit(address)
    headers = {}
    if negotiate is not None:
        try:
            headers["Authorization"] = negotiate.authorization(parts.hostname or "")
        except HdfsFuseError as e:  # which says nothing of the NameNode
            raise UnsupportedError(f"{address}: asks for Kerberos: {e}") from e
    with contextlib.closing(connect_web(parts.scheme, parts.netloc, deadline_s)) as connection:
        connection.request("GET", f"{_QUERY}{bean}", headers=headers)
        response = connection.getresponse()
        return response.status, response.read()
