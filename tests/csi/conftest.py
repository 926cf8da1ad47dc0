"""Fixtures of the CSI tests: the driver's processes, and paths as a kubelet would make them."""

import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from hdfs_csi.pb import csi_pb2 as csi

from tests.csi.driver import DriverProcess, MounterProcess
from tests.csi.nodes import running_node
from tests.csi.pods import Pod, make_pod
from tests.csi.volumes import CONTENT, names, put
from tests.support.libhdfs import libhdfs_environment
from tests.support.local_hdfs import LocalHdfs


@pytest.fixture(scope="session")
def socket_directory() -> Iterator[Path]:
    """A short path: a socket's may have 107 bytes, and pytest's own paths are long."""
    with tempfile.TemporaryDirectory(prefix="hdfs-csi-") as directory:
        yield Path(directory)


@pytest.fixture
def area(hdfs: LocalHdfs) -> Iterator[str]:
    """Path of an empty HDFS directory of this test alone, writable by everybody; short, as volume ids need it."""
    path = f"/csi-{uuid.uuid4().hex[:8]}"
    hdfs.webhdfs("PUT", path, "MKDIRS", permission="777")
    yield path
    listed = hdfs.webhdfs("GET", "/", "GETSNAPSHOTTABLEDIRECTORYLIST")["SnapshottableDirectoryList"]
    for entry in listed or []:
        directory = f"{entry['parentFullPath'].rstrip('/')}/{entry['dirStatus']['pathSuffix']}"
        if directory.startswith(f"{path}/"):
            for name in names(hdfs, f"{directory}/.snapshot"):
                hdfs.webhdfs("DELETE", directory, "DELETESNAPSHOT", snapshotname=name)
    hdfs.webhdfs("DELETE", path, "DELETE", recursive="true")


@pytest.fixture
def base(hdfs: LocalHdfs, area: str) -> str:
    """URI of a base path that is not there yet."""
    return f"{hdfs.uri}{area}/volumes"


@pytest.fixture(scope="session")
def controller(hdfs: LocalHdfs, socket_directory: Path) -> Iterator[DriverProcess]:
    """A running `hdfs-csi controller`, shared by all tests."""
    with DriverProcess("controller", socket_directory, hdfs.environment) as running:
        yield running


@pytest.fixture
def listing_controller(hdfs: LocalHdfs, base: str) -> Iterator[DriverProcess]:
    """A controller of this test alone, which lists what is below `base`."""
    with (
        tempfile.TemporaryDirectory(prefix="hdfs-csi-") as directory,
        DriverProcess("controller", Path(directory), hdfs.environment, "--base-uri", base) as running,
    ):
        yield running


@pytest.fixture
def node_options() -> list[str]:
    """More options of `node`; tests parametrize it."""
    return []


@pytest.fixture
def supervised_by() -> str:
    """Which process keeps the daemons of `node`: itself, or "mounter"; tests parametrize it."""
    return "node"


@pytest.fixture
def mounter(hdfs: LocalHdfs, tmp_path: Path) -> Iterator[MounterProcess]:
    """A running `hdfs-csi mounter` without privileges."""
    with tempfile.TemporaryDirectory(prefix="hdfs-csi-") as directory:
        process = MounterProcess(Path(directory), tmp_path / "run", hdfs.environment)
        process.start()
        try:
            yield process
        finally:
            process.daemon.stop(grace_s=40)
            print(process.daemon.log_tail(60))


@pytest.fixture
def node(
    hdfs: LocalHdfs, tmp_path: Path, node_options: list[str], supervised_by: str, request: pytest.FixtureRequest
) -> Iterator[DriverProcess]:
    """A running `hdfs-csi node` of this test alone; what it left mounted is removed afterwards."""
    if supervised_by == "mounter":
        mounter: MounterProcess = request.getfixturevalue("mounter")
        node_options = [*node_options, "--mounter-endpoint", mounter.endpoint]
    with running_node(hdfs.environment, tmp_path, *node_options) as running:
        yield running


@pytest.fixture
def second_node(hdfs: LocalHdfs, tmp_path: Path) -> Iterator[DriverProcess]:
    """Another node of the cluster, whose directories are below `tmp_path / "second"`."""
    with running_node(hdfs.environment, tmp_path / "second") as running:
        yield running


@pytest.fixture
def node_with_little_room(hdfs: LocalHdfs, tmp_path: Path) -> Iterator[DriverProcess]:
    """`node`, whose pods may stage a megabyte."""
    environment = {**hdfs.environment, "HDFS_CSI_STAGING_SIZE_BYTES": "1000000"}
    with running_node(environment, tmp_path) as running:
        yield running


@pytest.fixture
def node_with_java(hdfs: LocalHdfs, tmp_path: Path) -> Iterator[DriverProcess]:
    """`node`, whose daemons find a JVM and libhdfs."""
    with running_node(libhdfs_environment(hdfs), tmp_path) as running:
        yield running


@pytest.fixture
def pod(tmp_path: Path) -> Pod:
    """Paths of one volume on a node."""
    return make_pod(tmp_path)


@pytest.fixture
def volume(hdfs: LocalHdfs, area: str) -> csi.Volume:
    """A static volume: an existing path with one file in it, in small blocks."""
    put(hdfs, f"{area}/data.bin", CONTENT)
    return csi.Volume(volume_id="my-data", volume_context={"uri": f"{hdfs.uri}{area}", "blockSizeBytes": "64Ki"})
