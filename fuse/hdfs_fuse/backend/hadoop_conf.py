"""Hadoop's configuration as a client needs it: where it is read from, which filesystem is meant, where WebHDFS is.

Read-only, and small: `core-site.xml` and `hdfs-site.xml`, no variable expansion and no XInclude, as the native client
reads them (hdfs-native rust/src/common/config.rs), so that both see the same values.
"""

import os
import re
import xml.etree.ElementTree as ET
from collections.abc import Mapping

from hdfs_fuse.config import Location, MountConfig, split_uri
from hdfs_fuse.errors import InvalidArgumentError

# HdfsClientConfigKeys.DFS_NAMENODE_RPC_PORT_DEFAULT and DFS_NAMENODE_HTTP_PORT_DEFAULT, ..._HTTPS_PORT_DEFAULT
RPC_PORT, HTTP_PORT, HTTPS_PORT = 8020, 9870, 9871

_FILES = ("core-site.xml", "hdfs-site.xml")


def conf_dir(config: MountConfig) -> str | None:
    """The folder of the configuration files: the mount's own, HADOOP_CONF_DIR, or HADOOP_HOME/etc/hadoop."""
    if config.hadoop_conf_dir:
        return config.hadoop_conf_dir
    if from_environment := os.environ.get("HADOOP_CONF_DIR"):
        return from_environment
    if home := os.environ.get("HADOOP_HOME"):
        return os.path.join(home, "etc", "hadoop")
    return None


def read_properties(config: MountConfig) -> dict[str, str]:
    """What the files say, overridden by what the mount says.

    Raises:
        InvalidArgumentError: a configured folder that is not there, or malformed XML.
    """
    properties: dict[str, str] = {}
    folder = conf_dir(config)
    if folder is not None:
        if config.hadoop_conf_dir and not os.path.isdir(folder):
            raise InvalidArgumentError(f"hadoop_conf_dir: {folder!r} is no directory")
        for name in _FILES:
            path = os.path.join(folder, name)
            if os.path.exists(path):
                properties.update(_read_file(path))
    properties.update(config.hadoop_properties)
    return properties


def _read_file(path: str) -> dict[str, str]:
    try:
        with open(path, "rb") as file:
            return parse(file.read())
    except (ValueError, OSError) as e:
        raise InvalidArgumentError(f"Hadoop configuration {path!r}: {e}") from e


def parse(data: str | bytes) -> dict[str, str]:
    """The properties in the content of a configuration file.

    Raises:
        ValueError: no XML, or none of Hadoop.
    """
    try:
        root = ET.fromstring(data)  # noqa: S314 - who may bring a file says what it may hold
    except ET.ParseError as e:
        raise ValueError(str(e)) from e
    if root.tag != "configuration":
        raise ValueError(f"the first element is <{root.tag}>, not <configuration>")
    found = {}
    for entry in root.iter("property"):
        name, value = entry.findtext("name"), entry.findtext("value")
        if name and value is not None:
            found[name.strip()] = value.strip()
    return found


def whole_number(properties: Mapping[str, str], key: str) -> int | None:
    """A property as a number, which may end with k, m, g, t, p or e (TraditionalBinaryPrefix); None without it.

    Raises:
        InvalidArgumentError: something else stands there.
    """
    text = properties.get(key, "").strip()
    if not text:
        return None
    match = re.fullmatch(r"([0-9]{1,19})([kmgtpe]?)", text.lower())
    if not match:
        # Without the value: it may come from a secret.
        raise InvalidArgumentError(f"{key}: accepted is a number, also with k, m, g, t, p or e")
    return int(match[1]) << 10 * (" kmgtpe".index(match[2]) if match[2] else 0)


def resolve_location(config: MountConfig, properties: Mapping[str, str]) -> Location:
    """The filesystem and path that the mount means, with the authority filled in.

    `hdfs:///path` takes its authority from fs.defaultFS, and a host without a port that is no configured
    nameservice gets the NameNode's default port, as Hadoop's own client does.

    Raises:
        InvalidArgumentError: no authority given and fs.defaultFS missing, malformed or of another scheme.
    """
    location = split_uri(config.uri)
    if location.scheme != "hdfs":
        return location
    authority = location.authority or _default_authority(config, properties)
    if not _has_port(authority) and not namenode_ids(authority, properties):
        authority = f"{authority}:{RPC_PORT}"
    return Location(location.scheme, authority, location.path)


def _default_authority(config: MountConfig, properties: Mapping[str, str]) -> str:
    default = properties.get("fs.defaultFS") or properties.get("fs.default.name")
    if not default:
        where = conf_dir(config) or "no configuration folder (hadoop_conf_dir or HADOOP_CONF_DIR)"
        raise InvalidArgumentError(
            f"uri {config.uri!r} names no host and fs.defaultFS is not configured: looked in {where}"
        )
    try:
        location = split_uri(default)
    except InvalidArgumentError:
        location = None
    if location is None or location.scheme != "hdfs" or not location.authority:
        # Without what it is: it may come from a secret.
        raise InvalidArgumentError(
            f"uri {config.uri!r} names no host, and fs.defaultFS is no help: hdfs://host:port is needed there"
        )
    return location.authority


def namenode_ids(nameservice: str, properties: Mapping[str, str]) -> tuple[str, ...]:
    """The NameNodes of a nameservice; empty when it is none that the configuration knows."""
    ids = properties.get(f"dfs.ha.namenodes.{nameservice}", "")
    return tuple(part.strip() for part in ids.split(",") if part.strip())


def webhdfs_addresses(authority: str, properties: Mapping[str, str]) -> list[str]:
    """Base URLs `http://host:port` of the NameNodes' web servers, in configured order.

    Args:
        authority: resolved: `host:port` or a nameservice.
        properties: the configuration.
    """
    https = properties.get("dfs.http.policy", "HTTP_ONLY") == "HTTPS_ONLY"
    scheme, port = ("https", HTTPS_PORT) if https else ("http", HTTP_PORT)
    key, rpc_key = f"dfs.namenode.{scheme}-address", "dfs.namenode.rpc-address"
    ids = namenode_ids(authority, properties)
    if ids:
        rpc_hosts = [_host(properties.get(f"{rpc_key}.{authority}.{n}", "")) for n in ids]
        configured = [properties.get(f"{key}.{authority}.{n}", "") for n in ids]
    else:
        # A configured address belongs to this NameNode only when its RPC address does: one client configuration may
        # serve several clusters.
        rpc_hosts = [_host(authority)]
        same = properties.get(rpc_key) in (None, authority)
        default = properties.get("fs.defaultFS", "")
        same = same and default.removeprefix("hdfs://").rstrip("/") in ("", authority)
        configured = [properties.get(key, "") if same else ""]
    addresses = []
    for rpc_host, address in zip(rpc_hosts, configured, strict=True):
        host, _, own_port = address.rpartition(":") if _has_port(address) else (address, "", "")
        if host in ("", "0.0.0.0"):  # noqa: S104 - the server's wildcard says nothing of its name
            host = rpc_host
        if host:
            addresses.append(f"{scheme}://{host}:{own_port or port}")
    return addresses


def encrypts_transfers(properties: Mapping[str, str]) -> bool:
    """Whether the content of files goes between clients and DataNodes encrypted only."""
    protection = properties.get("dfs.data.transfer.protection", "").strip().lower()
    return protection == "privacy" or properties.get("dfs.encrypt.data.transfer", "false").strip() == "true"


def _has_port(authority: str) -> bool:
    return ":" in authority.rpartition("]")[2]


def _host(authority: str) -> str:
    return authority.rpartition(":")[0] if _has_port(authority) else authority
