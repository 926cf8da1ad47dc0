"""The libhdfs that tests of the pyarrow backend load."""

import os
import subprocess
import sys

from tests.support.libhdfs import libhdfs_environment
from tests.support.local_hdfs import LocalHdfs

# In a process of its own, since a JVM can't be taken out of one again.
SCRIPT = """
import sys
from pyarrow.fs import HadoopFileSystem
host, port, directory = sys.argv[1:]
filesystem = HadoopFileSystem(host, int(port))
data = bytes(range(256)) * 10000
with filesystem.open_output_stream(f"{directory}/file") as file:
    file.write(data)
with filesystem.open_input_file(f"{directory}/file") as file:
    assert file.read() == data
    assert file.read_at(100, 1000) == data[1000:1100]
"""


def test_pyarrow_writes_and_reads_back(hdfs: LocalHdfs, hdfs_dir: str) -> None:
    host, _, port = hdfs.uri.removeprefix("hdfs://").partition(":")
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, host, port, hdfs_dir],
        env={**os.environ, **libhdfs_environment(hdfs)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert hdfs.webhdfs("GET", f"{hdfs_dir}/file", "GETFILESTATUS")["FileStatus"]["length"] == 2560000
