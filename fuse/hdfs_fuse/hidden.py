"""Names of files that are there only while something is under way. Mounts do not show them, nor make any for users.

They begin with a dot, so that Hive, Spark and MapReduce pass them by.
"""

import hashlib
import os
import re
import secrets
import time

_HIDDEN = re.compile(r"\.hdfs-csi-[0-9a-f]{32}\.(writing|removed|made|part)")


def is_hidden(name: str) -> bool:
    """Whether the last component of a path is such a name."""
    return name.startswith(".hdfs-csi-") and _HIDDEN.fullmatch(name) is not None


def name_while_writing(name: str) -> str:
    """For the one who writes the file `name`, in the same directory: the same on all nodes, so it keeps others out."""
    return f".hdfs-csi-{hashlib.blake2b(os.fsencode(name), digest_size=16).hexdigest()}.writing"


def name_once_removed() -> str:
    """For a file that is removed and still open."""
    return f".hdfs-csi-{_dated_token()}.removed"


def name_while_made() -> str:
    """For a directory that gets its own name at once, or never."""
    return f".hdfs-csi-{_dated_token()}.made"


def name_of_part() -> str:
    """For what has gone out of a file that then could not go on as it began."""
    return f".hdfs-csi-{_dated_token()}.part"


def _dated_token() -> str:
    """32 hex digits that begin with the time: that of a file says nothing of when it got its hidden name."""
    return f"{time.time_ns() // 1_000_000:012x}{secrets.token_hex(10)}"


def made_ms(name: str) -> int | None:
    """When a hidden name was made, in milliseconds since the epoch; None where the name does not tell it."""
    return None if name.endswith(".writing") else int(name[len(".hdfs-csi-") :][:12], 16)
