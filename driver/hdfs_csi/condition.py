"""The volume condition of CSI before 1.13, as kubelets of those versions read it.

CSI 1.13 took it out of its messages, in favour of NodeGetVolumeHealth, which such kubelets do not know. On the wire
nothing else took its place, so it can still be told to them.
"""

from typing import cast

from hdfs_csi.health import Problem
from hdfs_csi.pb import csi_pb2 as csi

# NodeServiceCapability.RPC.Type.VOLUME_CONDITION in csi.proto 1.12.
CAPABILITY = cast("csi.NodeServiceCapability.RPC.Type", 4)

# NodeGetVolumeStatsResponse.volume_condition, and in VolumeCondition abnormal and message (csi.proto 1.12).
_CONDITION, _ABNORMAL, _MESSAGE = 2, 1, 2
_VARINT, _LENGTH_DELIMITED = 0, 2


def add(response: csi.NodeGetVolumeStatsResponse, problem: Problem | None) -> None:
    """Say in `response` whether the volume is well."""
    abnormal = problem is not None
    text = f"{problem.reason}: {problem.message}" if problem is not None else "the volume is well"
    message = text.encode()
    content = _tag(_ABNORMAL, _VARINT) + bytes([abnormal]) + _tag(_MESSAGE, _LENGTH_DELIMITED) + _sized(message)
    response.MergeFromString(_tag(_CONDITION, _LENGTH_DELIMITED) + _sized(content))


def _tag(field: int, kind: int) -> bytes:
    return bytes([field << 3 | kind])


def _sized(content: bytes) -> bytes:
    """With its length in front, as a varint."""
    length, prefix = len(content), bytearray()
    while length > 0x7F:
        prefix.append(length & 0x7F | 0x80)
        length >>= 7
    return bytes([*prefix, length]) + content
