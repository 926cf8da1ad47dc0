"""A real HDFS on this machine: one NameNode and a few DataNodes, for tests, demo and benchmark.

    with LocalHdfs(datanodes=1) as hdfs:
        client = hdfs_native.Client(hdfs.uri)

or, to keep one running: `python -m tests.support.local_hdfs up`, later `down`. Any number of instances run side
by side: each has its own ports and its own directory. HaHdfs has two NameNodes, KerberosHdfs a KDC,
HaKerberosHdfs both. This package knows the daemons of a cluster; Java, jars and command lines are hadoop.py's, and
processes are processes.py's.
"""

from tests.support.local_hdfs.cluster import LocalHdfs, LocalHdfsError
from tests.support.local_hdfs.ha import HaHdfs
from tests.support.local_hdfs.kerberos import HaKerberosHdfs, KerberosHdfs

__all__ = ["HaHdfs", "HaKerberosHdfs", "KerberosHdfs", "LocalHdfs", "LocalHdfsError"]
