"""`hdfs-csi controller` on its socket: bad requests and their exact codes."""

from collections.abc import Callable

import pytest
from grpc import StatusCode
from hdfs_csi.pb import csi_pb2 as csi

from tests.csi.driver import DriverProcess
from tests.csi.volumes import MOUNT, Mode, capability, capacity, create, names, put
from tests.support.local_hdfs import LocalHdfs

# ---- what is refused


LONG = "hdfs://namenode.example.com:8020/" + "long/" * 20

REFUSED: dict[str, tuple[Callable[[str], csi.CreateVolumeRequest], StatusCode, str]] = {
    "no name": (lambda base: create("", base), StatusCode.INVALID_ARGUMENT, "name"),
    "name too long": (lambda base: create("x" * 129, base), StatusCode.INVALID_ARGUMENT, "128"),
    "control character": (lambda base: create("a\0b", base), StatusCode.INVALID_ARGUMENT, "control"),
    "no capability": (lambda base: create("a", base, volume_capabilities=[]), StatusCode.INVALID_ARGUMENT, "missing"),
    "block": (
        lambda base: create(
            "a",
            base,
            volume_capabilities=[
                MOUNT,
                csi.VolumeCapability(
                    block=csi.VolumeCapability.BlockVolume(), access_mode=Mode(mode=Mode.SINGLE_NODE_WRITER)
                ),
            ],
        ),
        StatusCode.INVALID_ARGUMENT,
        "block",
    ),
    "no access type": (
        lambda base: create("a", base, volume_capabilities=[csi.VolumeCapability(access_mode=MOUNT.access_mode)]),
        StatusCode.INVALID_ARGUMENT,
        "access type",
    ),
    "unknown mode": (
        lambda base: create("a", base, volume_capabilities=[capability(Mode.UNKNOWN)]),
        StatusCode.INVALID_ARGUMENT,
        "SINGLE_NODE_WRITER",
    ),
    "disk filesystem": (
        lambda base: create("a", base, volume_capabilities=[capability(Mode.SINGLE_NODE_WRITER, fs_type="ext4")]),
        StatusCode.INVALID_ARGUMENT,
        "ext4",
    ),
    "mount flag": (
        lambda base: create(
            "a", base, volume_capabilities=[capability(Mode.SINGLE_NODE_WRITER, mount_flags=["nolock", "ro"])]
        ),
        StatusCode.INVALID_ARGUMENT,
        "nolock",
    ),
    "negative size": (lambda base: create("a", base, capacity_range=capacity(-1)), StatusCode.INVALID_ARGUMENT, "-1"),
    "limit too low": (lambda base: create("a", base, capacity_range=capacity(2, 1)), StatusCode.OUT_OF_RANGE, "limit"),
    "no uri": (
        lambda _: csi.CreateVolumeRequest(name="a", volume_capabilities=[MOUNT]),
        StatusCode.INVALID_ARGUMENT,
        "uri: missing",
    ),
    "local files": (lambda _: create("a", "file:///etc"), StatusCode.INVALID_ARGUMENT, "hdfs://"),
    "other scheme": (lambda _: create("a", "s3://bucket"), StatusCode.INVALID_ARGUMENT, "s3"),
    "parent": (lambda base: create("a", f"{base}/../x"), StatusCode.INVALID_ARGUMENT, ".."),
    "uri too long": (lambda _: create("a", LONG), StatusCode.INVALID_ARGUMENT, "CSI allows 128"),
    "unknown key": (
        lambda base: create("a", base, parameters={"metadataTTL": "1"}),
        StatusCode.INVALID_ARGUMENT,
        "did you mean 'metadataTtlSeconds'",
    ),
    "bad mode": (lambda base: create("a", base, parameters={"mode": "rwx"}), StatusCode.INVALID_ARGUMENT, "octal"),
    "bad range": (
        lambda base: create("a", base, parameters={"blockSizeBytes": "5"}),
        StatusCode.INVALID_ARGUMENT,
        "blockSizeBytes: given 5",
    ),
    "snapshot": (
        lambda base: create(
            "a",
            base,
            volume_content_source=csi.VolumeContentSource(
                snapshot=csi.VolumeContentSource.SnapshotSource(snapshot_id="s")
            ),
        ),
        StatusCode.NOT_FOUND,
        "snapshot 's'",
    ),
    "mutable": (lambda base: create("a", base, mutable_parameters={"x": "y"}), StatusCode.INVALID_ARGUMENT, "'x'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_requests_are_refused_with_their_code(
    controller: DriverProcess, hdfs: LocalHdfs, area: str, base: str, case: str
) -> None:
    make, expected, words = REFUSED[case]
    code, message = controller.client.refused(make(base))
    assert (code, words in message) == (expected, True), message
    assert names(hdfs, area) == set()


def test_a_file_instead_of_the_base_path(controller: DriverProcess, hdfs: LocalHdfs, area: str) -> None:
    put(hdfs, f"{area}/file", b"")
    for uri in (f"{hdfs.uri}{area}/file", f"{hdfs.uri}{area}/file/below"):
        code, message = controller.client.refused(create("a", uri))
        assert code in {StatusCode.INVALID_ARGUMENT, StatusCode.ALREADY_EXISTS}, message
        assert "file" in message
        controller.client.call(csi.DeleteVolumeRequest(volume_id=f"{uri}#a"))


def test_delete_needs_an_id(controller: DriverProcess) -> None:
    assert controller.client.refused(csi.DeleteVolumeRequest())[0] is StatusCode.INVALID_ARGUMENT


def test_rpcs_that_are_not_advertised_are_unimplemented(controller: DriverProcess) -> None:
    for request in (csi.ControllerPublishVolumeRequest(), csi.ListVolumesRequest(), csi.NodeStageVolumeRequest()):
        assert controller.client.refused(request)[0] is StatusCode.UNIMPLEMENTED
