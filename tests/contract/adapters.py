"""The adapters under the contract suite: how each is made, and how a test puts files behind its back."""

import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest
from hdfs_fuse.backend import ResilientBackend, connect, resolve
from hdfs_fuse.backend.base import Backend
from hdfs_fuse.config import MountConfig
from hdfs_native import Client, WriteOptions

from tests.support.fake_backend import FakeFilesystem
from tests.support.libhdfs import libhdfs_environment
from tests.support.local_hdfs import LocalHdfs

ADAPTERS = ("hdfs-native", "pyarrow-hdfs", "local", "pyarrow-local", "fake")


@dataclass(frozen=True)
class Adapter:
    """One backend with a directory to play in.

    Attributes:
        name: one of ADAPTERS.
        backend: the adapter itself, without retries.
        root: an empty directory.
        put_all: creates or replaces files from outside.
        make_directories: creates empty directories from outside.
        config: of the mount; None for the fake.
    """

    name: str
    backend: Backend
    root: str
    put_all: Callable[[Mapping[str, bytes]], None]
    make_directories: Callable[[Sequence[str]], None]
    config: MountConfig | None

    def put(self, path: str, data: bytes) -> None:
        """Create or replace a file from outside."""
        self.put_all({path: data})

    @property
    def is_hdfs(self) -> bool:
        """Whether HDFS's rules hold: names are UTF-8 without a colon, quotas exist."""
        return self.name in ("hdfs-native", "pyarrow-hdfs")

    @property
    def is_exact(self) -> bool:
        """Whether mode and owner are the real ones."""
        return not self.name.startswith("pyarrow")


def make_adapter(name: str, request: pytest.FixtureRequest) -> Adapter:
    """Make an adapter; HDFS is started only for those that use it."""
    if name == "fake":
        return _fake()
    backend: Literal["pyarrow", "hdfs-native"] = "pyarrow" if name.startswith("pyarrow") else "hdfs-native"
    if name.endswith("local"):
        root = request.getfixturevalue("tmp_path")
        config = MountConfig(uri=f"file://{root}", backend=backend)
        return Adapter(name, connect(config).client(), str(root), _put_local, _make_local, config)
    hdfs = request.getfixturevalue("hdfs")
    assert isinstance(hdfs, LocalHdfs)
    config = MountConfig(uri=hdfs.uri, backend=backend, hadoop_conf_dir=str(hdfs.conf_dir))
    with pytest.MonkeyPatch.context() as patch:
        if backend == "pyarrow":
            # Read once, when the first of these starts the JVM of this process.
            for key, value in libhdfs_environment(hdfs).items():
                patch.setenv(key, value)
        made = connect(config).client()
    client = Client(resolve(config).filesystem)
    return Adapter(
        name,
        made,
        request.getfixturevalue("hdfs_dir"),
        lambda files: _put_hdfs(client, files),
        lambda paths: _make_hdfs(client, paths),
        config,
    )


def _fake() -> Adapter:
    disk = FakeFilesystem()
    disk.make_directory("/root")

    def put_all(files: Mapping[str, bytes]) -> None:
        for path, data in files.items():
            disk.put(path, data)

    def make_directories(paths: Sequence[str]) -> None:
        for path in paths:
            disk.make_directory(path)

    return Adapter("fake", disk.client(), "/root", put_all, make_directories, None)


def resilient(backend: Backend) -> ResilientBackend:
    """`backend` behind retries, as `connect` puts it."""
    return ResilientBackend(lambda: backend, budget_s=10, deadline_s=20)


def _put_local(files: Mapping[str, bytes]) -> None:
    for path, data in files.items():
        # A new file each time: a replaced one is another inode, as in HDFS.
        descriptor, temporary = tempfile.mkstemp(dir=Path(path).parent)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        Path(temporary).chmod(0o644)
        Path(temporary).rename(path)


def _make_local(paths: Sequence[str]) -> None:
    for path in paths:
        Path(path).mkdir()


def _put_hdfs(client: Client, files: Mapping[str, bytes]) -> None:
    def put(item: tuple[str, bytes]) -> None:
        with client.create(item[0], WriteOptions(overwrite=True, permission=0o644)) as file:
            if item[1]:
                file.write(item[1])

    # Each takes 0.4 s, in which the client sleeps.
    with ThreadPoolExecutor(16) as pool:
        for _ in pool.map(put, files.items()):
            pass


def _make_hdfs(client: Client, paths: Sequence[str]) -> None:
    for path in paths:
        client.mkdirs(path)
