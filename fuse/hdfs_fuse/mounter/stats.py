"""Reading a daemon's statistics."""

import json
import socket
from typing import Any

from hdfs_fuse.errors import MountError

_TIMEOUT_S = 5.0


def fetch(path: str) -> dict[str, Any]:
    """The statistics that the daemon offers at the unix socket `path`; names and meanings in hdfs_fuse.metrics.

    Raises:
        MountError: the daemon does not answer.
    """
    data = b""
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(_TIMEOUT_S)
            connection.connect(path)
            while chunk := connection.recv(65536):
                data += chunk
        return json.loads(data)  # type: ignore[no-any-return]
    except (OSError, ValueError) as e:
        raise MountError(f"no statistics from {path}: {e}; the daemon may be dead, or another user's") from e
