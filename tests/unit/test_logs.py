"""What a log line of a daemon says."""

import json
import os
import re
import subprocess
import sys


def test_lines_name_the_volume() -> None:
    code = (
        "import logging; from hdfs_fuse.logs import log_to_stderr; log_to_stderr(); logging.warning('first')\n"
        "log_to_stderr('hdfs://nn#pvc-100%'); logging.warning('second')"
    )
    lines = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stderr.splitlines()
    assert len(lines) == 2
    assert re.search(r" WARNING hdfs-fuse\[\d+\] root: first$", lines[0])
    assert re.search(r" WARNING hdfs-fuse\[\d+\] hdfs://nn#pvc-100% root: second$", lines[1])


def test_lines_as_json() -> None:
    code = (
        "import logging; from hdfs_fuse.logs import log_to_stderr; log_to_stderr('pvc-1'); logging.error('a path=/b')"
    )
    environment = {**os.environ, "HDFS_FUSE_LOG_FORMAT": "json"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, check=True, capture_output=True, text=True)
    line = json.loads(done.stderr)
    assert (line["level"], line["volume_id"], line["path"], line["message"]) == ("ERROR", "pvc-1", "/b", "a path=/b")
