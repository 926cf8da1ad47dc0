"""What the clients lack and WebHDFS has: space, extended attributes, files written by DataNodes.

And for Arrow what its interface can't say.

Over http.client, not httpx: importing httpx adds 20 MiB to an idle daemon, http.client 9. Nothing here reads proxy
settings of the environment, and every request has a timeout.
"""

import base64
import contextlib
import http.client
import logging
import os
import ssl
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import TypeVar
from urllib.parse import SplitResult, parse_qs, quote, urlencode, urlsplit

import msgspec

from hdfs_fuse import errors
from hdfs_fuse.backend import hadoop_conf
from hdfs_fuse.backend.base import Policies, SpaceUsage
from hdfs_fuse.backend.identity import Login, effective_user, is_kerberos
from hdfs_fuse.backend.java_errors import from_java
from hdfs_fuse.backend.negotiate import LoginUnavailableError, Negotiate

logger = logging.getLogger(__name__)

T = TypeVar("T")

# How long a token is used; dfs.namenode.delegation.token.renew-interval is a day.
_TOKEN_S = 3600.0
# A NameNode answers these in milliseconds; statfs must not wait long for one that does not.
_TIMEOUT_S = 5.0
# A DataNode that writes waits for others, which may be gone, as long as its client does (dfs.client.socket-timeout).
_TRANSFER_TIMEOUT_S = 60.0
# DataNodes report every 3 s (dfs.heartbeat.interval): one that was silent for longer than this, in seconds, may be
# hung, and the NameNode goes on naming it for ten minutes.
_SILENT_S = 7
# DataNodes that are tried before a file is given up.
_PLACES = 10

# GETQUOTAUSAGE of a directory without a quota falls back to a content summary, which walks the whole subtree on the
# NameNode (FSDirStatAndListingOp.getQuotaUsage). A tree that took this long is not asked about again ...
_EXPENSIVE_S = 0.5
# ... and a small one after this while, so that a quota which was set later shows.
_ASK_AGAIN_S = 60.0

# Storage policies by their ids (HdfsConstants.StoragePolicy); a cluster can't have others.
_STORAGE_POLICIES = {
    1: "PROVIDED",
    2: "COLD",
    5: "WARM",
    7: "HOT",
    10: "ONE_SSD",
    12: "ALL_SSD",
    14: "ALL_NVDIMM",
    15: "LAZY_PERSIST",
}
# HdfsConstants.QUOTA_DONT_SET: the quota that the root has from the start.
_NO_QUOTA = (1 << 63) - 1
_USER = "user."
# No NameNode takes more for name and value (FSDirectory, XATTR hard limit), nor its web server a much longer URL.
_MAX_XATTR_BYTES = 32768


class _Wire(msgspec.Struct, rename="camel"):
    """WebHDFS's JSON; keys that are not named are ignored."""


class _QuotaUsage(_Wire):
    space_quota: int = -1
    space_consumed: int = 0
    quota: int = -1
    file_and_directory_count: int = 0

    @property
    def bounds_bytes(self) -> bool:
        return 0 <= self.space_quota < _NO_QUOTA

    @property
    def bounds_names(self) -> bool:
        return 0 <= self.quota < _NO_QUOTA


class _QuotaUsageReply(msgspec.Struct, rename="pascal"):
    quota_usage: _QuotaUsage


class _FsStatus(_Wire):
    capacity: int
    used: int
    remaining: int


class _FsStatusReply(msgspec.Struct, rename="pascal"):
    fs_status: _FsStatus


class _NameSystem(msgspec.Struct, rename="pascal"):
    capacity_total: int
    capacity_used: int
    capacity_remaining: int


class _Jmx(msgspec.Struct):
    beans: list[_NameSystem]


class _FileStatus(_Wire):
    storage_policy: int = 0
    ec_policy: str = ""


class _FileStatusReply(msgspec.Struct, rename="pascal"):
    file_status: _FileStatus


class _XAttr(_Wire):
    name: str
    value: str | None = None  # of an empty one


class _XAttrsReply(msgspec.Struct):
    xattrs: list[_XAttr] = msgspec.field(name="XAttrs")


class _XAttrNamesReply(msgspec.Struct):
    names: str = msgspec.field(name="XAttrNames")  # JSON in a string


class _Location(msgspec.Struct, rename="pascal"):
    location: str


class _LiveNode(_Wire):
    info_addr: str = ""
    info_secure_addr: str = ""
    xferaddr: str = ""
    last_contact: int = 0

    def may_be_at(self, name: str, host: str, port: int) -> bool:
        """Whether a redirect to `host:port` may mean its web server.

        The NameNode tells that by IP address, and redirects go to names.

        Args:
            name: what the NameNode calls it, `HOST:PORT`.
            host: in small letters, as of a URL.
            port: of the web server.
        """
        servers = [address.rpartition(":") for address in (self.info_addr, self.info_secure_addr)]
        known_host = name.rpartition(":")[0].lower()
        return any(own_port == str(port) and host in (ip, known_host) for ip, _, own_port in servers)


class _NameNodeInfo(msgspec.Struct, rename="pascal"):
    live_nodes: str  # JSON in a string: name -> _LiveNode


class _NameNodeInfoJmx(msgspec.Struct):
    beans: list[_NameNodeInfo]


class _Boolean(msgspec.Struct):
    boolean: bool


class _RemoteException(_Wire):
    message: str = ""
    java_class_name: str = ""


class _RemoteExceptionReply(msgspec.Struct, rename="pascal"):
    remote_exception: _RemoteException


class _RefusedError(errors.UnsupportedError):
    """A web server does not let somebody in."""


class WebHdfs:
    """WebHDFS of one filesystem, under one identity. Safe in any number of threads; keeps no connection."""

    def __init__(
        self, addresses: Sequence[str], negotiate: Negotiate | None = None, *, is_private: bool = False
    ) -> None:
        """Take the NameNodes' base URLs; the first that is active answers.

        Args:
            addresses: `http://host:port` or `https://host:port` (hadoop_conf.webhdfs_addresses).
            negotiate: who asks, under Kerberos; None is the process's user, by name alone.
            is_private: whether content of files may only go over HTTPS.
        """
        self._addresses = tuple(addresses)
        self._negotiate = negotiate
        self._is_private = is_private
        self._token: str | None = None
        self._token_until_s = 0.0
        self._lock = threading.Lock()
        self._no_quota_until: dict[str, float] = {}

    def space(self, path: str) -> SpaceUsage:
        """The quotas set on `path` itself, in raw bytes (replicas count), else the cluster's capacity.

        Args:
            path: a directory.

        Raises:
            UnavailableError: no NameNode's web server answers; the message names those tried.
            UnsupportedError: they answer, but not this, or not this identity (no WebHDFS; Kerberos).
            AuthenticationError: there is no ticket.
            NotFoundError, PermissionDeniedError.
        """
        space = self._cluster_space()
        quota = self._quota(path)
        if quota is not None and quota.bounds_bytes:
            free = max(0, quota.space_quota - quota.space_consumed)
            space = SpaceUsage(quota.space_quota, quota.space_consumed, min(free, space.free_bytes))
        if quota is not None and quota.bounds_names:
            space = replace(space, max_names=quota.quota, used_names=quota.file_and_directory_count)
        return space

    def make_directory(self, path: str, mode: int) -> None:
        """See base.Backend; parents that are missing get 0o755."""
        parent = path.rpartition("/")[0]
        try:
            self.get(path, "GETFILESTATUS", msgspec.Raw)
        except errors.NotFoundError:
            if parent:
                self._make_parents(parent)
        # MKDIRS leaves a directory that is there as it is, and refuses a file.
        self.call("PUT", path, {"op": "MKDIRS", "permission": f"{mode:o}"})

    def _make_parents(self, parent: str) -> None:
        try:
            self.call("PUT", parent, {"op": "MKDIRS", "permission": "755"})
        except errors.AlreadyExistsError as e:
            raise errors.NotDirectoryError(f"{parent}: is a file") from e

    def set_owner(self, path: str, owner: str | None, group: str | None) -> None:
        """See base.Backend."""
        parameters = {"op": "SETOWNER", "owner": owner or "", "group": group or ""}
        self.call("PUT", path, {name: value for name, value in parameters.items() if value})

    def put(self, path: str, chunks: Iterator[bytes], length_bytes: int, mode: int, *, replication: int | None) -> None:
        """Write a file with the Java client of a DataNode, which recovers from DataNodes that fail; see base.Backend.

        That DataNode has the first replica (BlockPlacementPolicyDefault: a writer's own), so with `replication` 1 no
        other one takes part.

        Not a DataNode that the NameNode has not heard of for a while, nor one that refuses the connection.
        """
        parameters = {"op": "CREATE", "overwrite": "true", "permission": f"{mode:o}"}
        if replication is not None:
            parameters["replication"] = str(replication)
        self._send("PUT", path, parameters, chunks, length_bytes)

    def extend(self, path: str, chunks: Iterator[bytes], length_bytes: int) -> None:
        """Append to a file with the Java client of a DataNode; see base.Backend."""
        self._send("POST", path, {"op": "APPEND"}, chunks, length_bytes)

    def _send(
        self, method: str, path: str, parameters: Mapping[str, str], chunks: Iterator[bytes], length_bytes: int
    ) -> None:
        live = self._live_nodes()
        excluded = {node.xferaddr for node in live.values() if node.last_contact > _SILENT_S}
        failure = errors.UnavailableError(f"{path}: no DataNode takes it over WebHDFS")
        for _ in range(_PLACES):
            query = {"excludedatanodes": ",".join(sorted(excluded))} if excluded else {}
            target = self._datanode(method, path, {**parameters, **query})
            connection = connect_web(target.scheme, target.netloc, _TRANSFER_TIMEOUT_S)
            with contextlib.closing(connection):
                try:
                    connection.connect()
                except OSError as e:
                    failure = errors.UnavailableError(f"WebHDFS of DataNode {target.netloc}: {e}")
                    host, port = connection.host, connection.port
                    found = {node.xferaddr for name, node in live.items() if node.may_be_at(name, host, port)}
                    excluded |= found or {host}
                    continue
                _upload(connection, method, f"{target.path}?{target.query}", chunks, length_bytes)
                return
        raise failure

    def read(self, path: str, start: int, stop: int) -> bytes:
        """Bytes [start, stop) of a file that may be being written; fewer where less of it is there.

        Raises:
            NotFoundError, PermissionDeniedError. InvalidArgumentError: the file ends before `start`.
        """
        location = self._datanode("GET", path, {"op": "OPEN", "offset": str(start), "length": str(stop - start)})
        return _ask(f"{location.scheme}://{location.netloc}", "GET", f"{location.path}?{location.query}")

    def _datanode(self, method: str, path: str, parameters: Mapping[str, str]) -> SplitResult:
        """The URL of the DataNode that an operation on content goes on with."""
        if self._is_private and not all(address.startswith("https:") for address in self._addresses):
            raise errors.UnsupportedError(
                f"{path}: block transfers are encrypted, and WebHDFS is not unless dfs.http.policy is HTTPS_ONLY"
            )
        # Under Kerberos the NameNode makes a token for the DataNode, and keeps it for a day, unless it is brought one.
        token = self._token if time.monotonic() < self._token_until_s else None
        query = {**parameters, "noredirect": "true", **({} if token is None else {"delegation": token})}
        try:
            location = urlsplit(_decode(self.call(method, path, query), _Location).location)
        except (errors.AuthenticationError, errors.UnsupportedError):
            if token is None:
                raise
            self._token_until_s = 0.0
            return self._datanode(method, path, parameters)
        if token is None and self._negotiate is not None:
            self._token = parse_qs(location.query).get("delegation", [None])[0]
            self._token_until_s = time.monotonic() + _TOKEN_S
        return location

    def _live_nodes(self) -> dict[str, _LiveNode]:
        """DataNodes by what the NameNode calls them, `HOST:PORT` (NameNodeMXBean); none where it does not tell."""
        try:
            reply = self._request("GET", "/jmx?qry=Hadoop:service=NameNode,name=NameNodeInfo", self._negotiate)
            return msgspec.json.decode(_decode(reply, _NameNodeInfoJmx).beans[0].live_nodes, type=dict[str, _LiveNode])
        except (errors.HdfsFuseError, msgspec.MsgspecError, IndexError) as e:
            logger.info("DataNodes are not known: %s", e)
            return {}

    def check_write(self, path: str) -> None:
        """See base.Backend."""
        self.call("GET", path, {"op": "CHECKACCESS", "fsaction": "-w-"})

    def xattrs(self, path: str) -> dict[str, bytes]:
        """See base.Backend."""
        reply = _decode(self.call("GET", path, {"op": "GETXATTRS", "encoding": "base64"}), _XAttrsReply)
        # XAttrCodec.encodeValue puts "0s" before base64.
        found = {xattr.name: base64.b64decode((xattr.value or "0s")[2:]) for xattr in reply.xattrs}
        return {name: value for name, value in found.items() if name.startswith(_USER)}

    def xattr_names(self, path: str) -> Sequence[str]:
        """See base.Backend."""
        names = _decode(self.get(path, "LISTXATTRS", _XAttrNamesReply).names.encode(), list[str])
        return [name for name in names if name.startswith(_USER)]

    def set_xattr(self, path: str, name: str, value: bytes) -> None:
        """See base.Backend."""
        if len(value) > _MAX_XATTR_BYTES:
            raise errors.TooLargeError(f"{path}: {name} has {len(value)} bytes, HDFS takes {_MAX_XATTR_BYTES}")
        encoded = "0s" + base64.b64encode(value).decode()
        parameters = {"op": "SETXATTR", "xattr.name": name, "xattr.value": encoded, "flag": "CREATE,REPLACE"}
        self.call("PUT", path, parameters)

    def remove_xattr(self, path: str, name: str) -> None:
        """See base.Backend."""
        self.call("PUT", path, {"op": "REMOVEXATTR", "xattr.name": name})

    def policies(self, path: str) -> Policies:
        """See base.Backend."""
        found = self.get(path, "GETFILESTATUS", _FileStatusReply).file_status
        return Policies(_STORAGE_POLICIES.get(found.storage_policy, ""), found.ec_policy)

    def delete(self, path: str, *, recursive: bool) -> bool:
        """See base.Backend."""
        parameters = {"op": "DELETE", "recursive": "true" if recursive else "false"}
        return _decode(self.call("DELETE", path, parameters), _Boolean).boolean

    def _cluster_space(self) -> SpaceUsage:
        try:
            status = self.get("/", "GETSTATUS", _FsStatusReply).fs_status
        except (errors.InvalidArgumentError, errors.UnsupportedError):
            # NameNodes before 3.4 have no GETSTATUS; every one publishes this bean (FSNamesystemMBean).
            target = "/jmx?qry=Hadoop:service=NameNode,name=FSNamesystemState"
            beans = _decode(self._request("GET", target, self._negotiate), _Jmx).beans
            if not beans:
                raise errors.UnsupportedError("the NameNode publishes no capacity") from None
            return SpaceUsage(beans[0].capacity_total, beans[0].capacity_used, beans[0].capacity_remaining)
        return SpaceUsage(status.capacity, status.used, status.remaining)

    def _quota(self, path: str) -> _QuotaUsage | None:
        with self._lock:
            if self._no_quota_until.get(path, 0.0) > time.monotonic():
                return None
        started = time.monotonic()
        try:
            usage = self.get(path, "GETQUOTAUSAGE", _QuotaUsageReply).quota_usage
        except LoginUnavailableError:
            return None
        except (errors.InvalidArgumentError, errors.UnsupportedError, errors.UnavailableError):
            usage = None  # no such operation before 2.8; or the walk outlasted the timeout
        if usage is not None and (usage.bounds_bytes or usage.bounds_names):
            return usage
        now = time.monotonic()
        expensive = now - started > _EXPENSIVE_S
        with self._lock:
            self._no_quota_until[path] = float("inf") if expensive else now + _ASK_AGAIN_S
        if expensive:
            logger.info("no quota on %s, which took %.1f s to find out: not asking again", path, now - started)
        return None

    def get(self, path: str, operation: str, reply: type[T]) -> T:
        """The answer to a GET without parameters, of type `reply`; raises as `call`."""
        return _decode(self.call("GET", path, {"op": operation}), reply)

    def call(self, method: str, path: str, parameters: Mapping[str, str]) -> bytes:
        """One operation on the active NameNode, and its answer.

        Args:
            method: GET, PUT, POST or DELETE.
            path: absolute, in HDFS.
            parameters: of the query; `op` is one of them.

        Raises:
            UnavailableError: no NameNode's web server answers; the message names those tried.
            UnsupportedError: they answer, but not this, or not this identity (no WebHDFS; Kerberos).
            AuthenticationError: there is no ticket.
            HdfsFuseError: what HDFS has thrown (java_errors.from_java).
        """
        try:
            # Under Kerberos the ticket or a token says who asks, and a name that is not the principal's is refused.
            identity = {"user.name": effective_user()} if self._negotiate is None else {}
            query = urlencode({**parameters, **identity})
            target = f"/webhdfs/v1{quote(path)}?{query}"
        except UnicodeEncodeError as e:
            raise errors.InvalidArgumentError(f"{path!r}: HDFS names are UTF-8") from e
        return self._request(method, target, None if "delegation" in parameters else self._negotiate)

    def _request(self, method: str, target: str, negotiate: Negotiate | None) -> bytes:
        """Ask one NameNode after the other until one that is active has answered."""
        failure: errors.HdfsFuseError = errors.UnavailableError(
            "no WebHDFS address is known: set dfs.namenode.http-address"
        )
        for address in self._addresses:
            try:
                return _ask(address, method, target, negotiate)
            except (errors.StartingError, LoginUnavailableError):
                raise  # the active one has answered; all have the same KDC
            except errors.UnavailableError as e:
                failure = e
        raise failure


def connect_webhdfs(authority: str, properties: Mapping[str, str], login: Login | None = None) -> WebHdfs:
    """WebHDFS as Hadoop's configuration has it.

    Args:
        authority: resolved: `host:port` or a nameservice.
        properties: the configuration.
        login: who acts under Kerberos; None for the ticket cache of the process.
    """
    addresses = hadoop_conf.webhdfs_addresses(authority, properties)
    negotiate = Negotiate(login) if is_kerberos(properties) else None
    return WebHdfs(addresses, negotiate, is_private=hadoop_conf.encrypts_transfers(properties))


def connect_web(scheme: str, netloc: str, timeout_s: float) -> http.client.HTTPConnection:
    """A connection to a web server of HDFS, which is opened when it is needed; `scheme` is http or https."""
    parts = urlsplit(f"//{netloc}")
    host = parts.hostname or ""
    if scheme == "https":
        return http.client.HTTPSConnection(host, parts.port, timeout=timeout_s, context=_tls())
    return http.client.HTTPConnection(host, parts.port, timeout=timeout_s)


def _tls() -> ssl.SSLContext:
    """What this process trusts: the system's authorities, as far as SSL_CERT_FILE and SSL_CERT_DIR name no others.

    Reading a hundred certificates takes 40 ms, too long for each request. They get replaced, and mounts live for long.
    """
    return _read_certificates(int(time.monotonic() // 3600), os.environ.get("SSL_CERT_FILE"))


@lru_cache(maxsize=1)
def _read_certificates(_hour: int, _file: str | None) -> ssl.SSLContext:
    return ssl.create_default_context()


def _ask(address: str, method: str, target: str, negotiate: Negotiate | None = None) -> bytes:
    parts = urlsplit(address)
    headers = {"Accept": "application/json"}
    if negotiate is not None:
        headers["Authorization"] = negotiate.authorization(parts.hostname or "")
    connection = connect_web(parts.scheme, parts.netloc, _TIMEOUT_S)
    try:
        connection.request(method, target, headers=headers)
        return _answer(connection, address)
    except _RefusedError as e:
        if negotiate is None:
            hint = "if that asks for Kerberos, hadoop.security.authentication in core-site.xml has to say so"
        else:
            negotiate.forget()  # its key may be another one since
            hint = "it refuses the ticket"
        raise errors.UnsupportedError(f"{e}; {hint}") from e
    except ssl.SSLCertVerificationError as e:
        raise errors.UnavailableError(
            f"WebHDFS at {address}: {e}; SSL_CERT_FILE names the certificates to trust"
        ) from e
    except (OSError, http.client.HTTPException) as e:
        raise errors.UnavailableError(
            f"WebHDFS at {address}: {e or type(e).__name__}; the address comes from dfs.namenode.{parts.scheme}-address"
        ) from e
    finally:
        connection.close()


def _upload(
    connection: http.client.HTTPConnection, method: str, target: str, chunks: Iterator[bytes], length_bytes: int
) -> None:
    address = f"{connection.host}:{connection.port}"
    headers = {"Content-Type": "application/octet-stream", "Content-Length": str(length_bytes)}
    try:
        connection.request(method, target, body=chunks, headers=headers)
        _answer(connection, address)
    except (OSError, http.client.HTTPException) as e:
        raise errors.UnavailableError(f"WebHDFS of DataNode {address}: {e or type(e).__name__}") from e


def _answer(connection: http.client.HTTPConnection, address: str) -> bytes:
    response = connection.getresponse()
    status, body = response.status, response.read()
    if status in (http.HTTPStatus.OK, http.HTTPStatus.CREATED):
        return body
    try:
        remote = msgspec.json.decode(body, type=_RemoteExceptionReply).remote_exception
    except msgspec.MsgspecError as e:
        if status in (http.HTTPStatus.UNAUTHORIZED, http.HTTPStatus.FORBIDDEN):  # not HDFS, which says so in JSON
            raise _RefusedError(f"WebHDFS at {address}: {status} {response.reason}") from e
        raise errors.UnsupportedError(f"WebHDFS at {address}: unexpected answer, HTTP status {status}") from e
    raise from_java(remote.java_class_name, remote.message)


def _decode(body: bytes, reply: type[T]) -> T:
    try:
        return msgspec.json.decode(body, type=reply)
    except msgspec.MsgspecError as e:
        raise errors.UnsupportedError(f"WebHDFS: unexpected answer: {e}") from e
