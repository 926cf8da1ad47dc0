"""Requests for volumes, and what HDFS says of them."""

import getpass
from typing import Any

import hdfs_native
import httpx
from hdfs_csi.pb import csi_pb2 as csi

from tests.support.local_hdfs import LocalHdfs, LocalHdfsError

Mode = csi.VolumeCapability.AccessMode
GIB = 1 << 30

# Longer than a block of the cache's smallest size, so that more than one request is needed.
CONTENT = bytes(range(256)) * 1024

# What Kubernetes makes of ReadWriteOnce.
MOUNT = csi.VolumeCapability(
    mount=csi.VolumeCapability.MountVolume(),
    access_mode=csi.VolumeCapability.AccessMode(mode=csi.VolumeCapability.AccessMode.SINGLE_NODE_WRITER),
)


def create(name: str, uri: str, **details: Any) -> csi.CreateVolumeRequest:
    parameters = {"uri": uri, **details.pop("parameters", {})}
    return csi.CreateVolumeRequest(name=name, **{"volume_capabilities": [MOUNT], **details}, parameters=parameters)


def capacity(required: int = 0, limit: int = 0) -> csi.CapacityRange:
    return csi.CapacityRange(required_bytes=required, limit_bytes=limit)


def capability(mode: Mode.Mode, **mount: Any) -> csi.VolumeCapability:
    return csi.VolumeCapability(mount=csi.VolumeCapability.MountVolume(**mount), access_mode=Mode(mode=mode))


def status(hdfs: LocalHdfs, path: str) -> dict[str, Any] | None:
    try:
        return dict(hdfs.webhdfs("GET", path, "GETFILESTATUS")["FileStatus"])
    except LocalHdfsError as e:
        if "FileNotFoundException" in str(e):
            return None
        raise


def names(hdfs: LocalHdfs, path: str) -> set[str]:
    return {entry["pathSuffix"] for entry in hdfs.webhdfs("GET", path, "LISTSTATUS")["FileStatuses"]["FileStatus"]}


def put(hdfs: LocalHdfs, path: str, data: bytes) -> None:
    """Write a file that everybody may read; parents must exist, a file that is there is replaced."""
    client = hdfs_native.Client(hdfs.uri)
    with client.create(path, hdfs_native.WriteOptions(permission=0o644, overwrite=True, create_parent=False)) as file:
        file.write(data)


def read_file(hdfs: LocalHdfs, path: str) -> bytes:
    """The whole content of a file as hdfs-native reads it: without the last block, while that is being completed."""
    with hdfs_native.Client(hdfs.uri).read(path) as file:
        return bytes(file.read())


def read_at_once(hdfs: LocalHdfs, path: str) -> bytes:
    """The whole content of a file as a DataNode's own client reads it, also while it is being completed."""
    url = f"{hdfs.namenode_http}/webhdfs/v1{path}"
    query = {"op": "OPEN", "user.name": getpass.getuser()}
    answer = httpx.get(url, params=query, follow_redirects=True, trust_env=False)
    answer.raise_for_status()
    return answer.content


def changed(request: Any, field: str = "", **values: Any) -> Any:
    copy = type(request)()
    copy.CopyFrom(request)
    if field:
        copy.ClearField(field)
    for name in values:
        copy.ClearField(name)
    copy.MergeFrom(type(request)(**values))
    return copy
