"""Runs backend calls as somebody else: `python -m tests.contract.another_user CONFIG DIRECTORY`.

A process of its own, since the identity on HDFS is the process's. Prints as JSON what each call raised.
"""

import json
import os
import shutil  # noqa: F401 - the interpreter's files may be out of reach of another user
import sys
from collections.abc import Callable

from hdfs_fuse.backend import connect
from hdfs_fuse.config import MountConfig
from hdfs_fuse.errors import HdfsFuseError

NOBODY = 65534


def main() -> None:
    """Call everything that is forbidden below DIRECTORY, which only its owner may enter."""
    config, directory = MountConfig.from_json(sys.argv[1].encode()), sys.argv[2]
    backend = connect(config)
    if config.uri.startswith("file:"):
        os.setegid(NOBODY)
        os.seteuid(NOBODY)
    calls = {
        "status": lambda: backend.status(f"{directory}/file"),
        "list": lambda: list(backend.list(directory)),
        "open": lambda: backend.client().open(f"{directory}/file"),
        "make_directory": lambda: backend.make_directory(f"{directory}/new", 0o755),
        "delete": lambda: backend.delete(f"{directory}/file", recursive=False),
        "check_write": lambda: backend.check_write(f"{directory}/file"),
        "set_owner": lambda: backend.set_owner(directory, "nobody", None),
    }
    print(json.dumps({name: outcome(call) for name, call in calls.items()}))


def outcome(call: Callable[[], object]) -> str:
    """The name of what `call` raises; empty when it succeeds."""
    try:
        call()
    except HdfsFuseError as e:
        return type(e).__name__
    return ""


if __name__ == "__main__":
    main()
