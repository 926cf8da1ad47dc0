"""Ways to reach the data: one Protocol (base.py), an adapter per client, and a resilient wrapper around them."""

from hdfs_fuse.backend.base import Backend, FileKind, FileReader, FileStatus, Policies, SpaceUsage
from hdfs_fuse.backend.connect import cluster_id, connect, resolve
from hdfs_fuse.backend.deadline import call_with_deadline
from hdfs_fuse.backend.identity import client_environment, effective_user
from hdfs_fuse.backend.resilient import ResilientBackend, ResilientReader

__all__ = [
    "Backend",
    "FileKind",
    "FileReader",
    "FileStatus",
    "Policies",
    "ResilientBackend",
    "ResilientReader",
    "SpaceUsage",
    "call_with_deadline",
    "client_environment",
    "cluster_id",
    "connect",
    "effective_user",
    "resolve",
]
