"""What HDFS has of a volume: its place, quotas, policies; what expanding, modifying and deleting make of them."""

from typing import Any

import pytest
from grpc import StatusCode
from hdfs_csi.pb import csi_pb2 as csi

from tests.csi.driver import DriverProcess
from tests.csi.pods import Pod
from tests.csi.volumes import GIB, MOUNT, Mode, capability, capacity, create, names, put, status
from tests.support.local_hdfs import LocalHdfs

CLAIM = {"csi.storage.k8s.io/pvc/name": "data", "csi.storage.k8s.io/pvc/namespace": "team-a"}
POLICY = "XOR-2-1-1024k"


def quota(hdfs: LocalHdfs, path: str) -> tuple[int, int]:
    """Names and raw bytes; -1 for none."""
    found = hdfs.webhdfs("GET", path, "GETQUOTAUSAGE")["QuotaUsage"]
    return found["quota"], found["spaceQuota"]


def modify(volume: csi.Volume, **parameters: str) -> csi.ControllerModifyVolumeRequest:
    return csi.ControllerModifyVolumeRequest(volume_id=volume.volume_id, mutable_parameters=parameters)


def expand(volume_id: str, required: int = 0, limit: int = 0) -> csi.ControllerExpandVolumeRequest:
    return csi.ControllerExpandVolumeRequest(volume_id=volume_id, capacity_range=capacity(required, limit))


def delete(volume: csi.Volume) -> csi.DeleteVolumeRequest:
    return csi.DeleteVolumeRequest(volume_id=volume.volume_id)


# ---- where


def test_a_path_by_the_claim(controller: DriverProcess, hdfs: LocalHdfs, area: str, base: str) -> None:
    pattern = {"pathPattern": "${pvc.namespace}/${pvc.name}"}
    request = create("pvc-1", base, parameters={**pattern, **CLAIM})
    volume = controller.client.call(request).volume
    assert dict(volume.volume_context)["uri"] == f"{base}/team-a/data"
    assert controller.client.call(request).volume == volume
    assert names(hdfs, f"{area}/volumes/team-a") == {"data"}

    # Another claim of that name, as after its namespace was made anew.
    code, message = controller.client.refused(create("pvc-2", base, parameters={**pattern, **CLAIM}))
    assert (code, "team-a/data" in message) == (StatusCode.ALREADY_EXISTS, True)
    assert names(hdfs, f"{area}/volumes/.hdfs-csi/volumes") == {"pvc-1.json"}

    controller.client.call(delete(volume))
    assert names(hdfs, f"{area}/volumes/team-a") == set()
    assert controller.client.call(create("pvc-2", base, parameters={**pattern, **CLAIM})).volume.volume_id


@pytest.mark.parametrize(
    ("pattern", "claim"),
    [
        ("", "data"),
        ("/absolute", "data"),
        ("../outside", "data"),
        ("a/../../outside", "data"),
        ("${pvc.name}/..", "data"),
        ("a//b", "data"),
        ("a/", "data"),
        (".hdfs-csi/volumes", "data"),
        (".snapshot", "data"),
        ("a:b", "data"),
        ("new\nline", "data"),
        ("${pvc.name}", ".."),
        ("${pvc.name}", "../outside"),
        ("${pvc.name}", "x" * 256),
        ("${pvc.name}", "ü" * 128),
        ("${pvc.uid}", "data"),
        ("$HOME", "data"),
        ("${pvc.name}", ""),
    ],
)
def test_patterns_that_lead_nowhere(
    controller: DriverProcess, hdfs: LocalHdfs, area: str, base: str, pattern: str, claim: str
) -> None:
    parameters = {"pathPattern": pattern, "csi.storage.k8s.io/pvc/name": claim}
    code, message = controller.client.refused(create("pvc-1", base, parameters=parameters))
    assert (code, "pathPattern" in message) == (StatusCode.INVALID_ARGUMENT, True)
    assert names(hdfs, area) == set()


def test_no_volume_is_inside_of_another(controller: DriverProcess, hdfs: LocalHdfs, area: str, base: str) -> None:
    outer = create("pvc-1", base, parameters={"pathPattern": "team/${pv.name}"})
    volume = controller.client.call(outer).volume
    for pattern in ("team/pvc-1/${pv.name}", "team/pvc-1/deep/${pv.name}"):
        code, message = controller.client.refused(create("pvc-2", base, parameters={"pathPattern": pattern}))
        assert (code, "#pvc-1" in message) == (StatusCode.ALREADY_EXISTS, True)
    # Nor around one.
    assert controller.client.refused(create("pvc-2", base, parameters={"pathPattern": "team"}))[0] is (
        StatusCode.ALREADY_EXISTS
    )
    assert names(hdfs, f"{area}/volumes/.hdfs-csi/volumes") == {"pvc-1.json"}
    controller.client.call(delete(volume))


def test_unicode_in_a_path(controller: DriverProcess, hdfs: LocalHdfs, area: str, base: str) -> None:
    volume = controller.client.call(create("pvc-1", base, parameters={"pathPattern": "données/${pv.name}"})).volume
    assert names(hdfs, f"{area}/volumes/données") == {"pvc-1"}
    controller.client.call(delete(volume))


def test_a_directory_that_became_another_one_stays(
    controller: DriverProcess, hdfs: LocalHdfs, area: str, base: str
) -> None:
    volume = controller.client.call(create("pvc-1", base)).volume
    hdfs.webhdfs("DELETE", f"{area}/volumes/pvc-1", "DELETE")
    hdfs.webhdfs("PUT", f"{area}/volumes/pvc-1/precious", "MKDIRS")
    controller.client.call(delete(volume))
    assert names(hdfs, f"{area}/volumes/pvc-1") == {"precious"}
    assert names(hdfs, f"{area}/volumes/.hdfs-csi/volumes") == set()


# ---- how much


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({}, (-1, GIB)),  # the local HDFS has one replica of each block
        ({"replication": "3"}, (-1, 3 * GIB)),
        ({"erasureCodingPolicy": POLICY}, (-1, GIB * 3 // 2)),
        ({"maxFiles": "10"}, (11, GIB)),
        ({"quota": "none", "maxFiles": "1"}, (2, -1)),
        ({"quota": "none"}, (-1, -1)),
    ],
)
def test_the_size_is_a_quota(
    controller: DriverProcess,
    hdfs: LocalHdfs,
    area: str,
    base: str,
    parameters: dict[str, str],
    expected: tuple[int, int],
) -> None:
    hdfs.webhdfs("PUT", "/", "ENABLEECPOLICY", ecpolicy=POLICY)
    volume = controller.client.call(create("pvc-1", base, capacity_range=capacity(GIB), parameters=parameters)).volume
    assert volume.capacity_bytes == GIB
    assert quota(hdfs, f"{area}/volumes/pvc-1") == expected


def test_a_pod_sees_the_size_of_its_claim(controller: DriverProcess, node: DriverProcess, base: str, pod: Pod) -> None:
    request = create("pvc-1", base, capacity_range=capacity(GIB), parameters={"replication": "3"})
    volume = controller.client.call(request).volume
    node.client.call(pod.stage(volume))
    node.client.call(pod.publish(volume))
    answer = node.client.call(csi.NodeGetVolumeStatsRequest(volume_id=volume.volume_id, volume_path=str(pod.target)))
    (used,) = (usage for usage in answer.usage if usage.unit == csi.VolumeUsage.BYTES)
    assert (used.total, used.used) == (GIB, 0)
    node.client.call(pod.unpublish(volume))
    node.client.call(pod.unstage(volume))


def test_what_a_pod_writes_has_the_parameters_of_its_class(
    controller: DriverProcess, node: DriverProcess, hdfs: LocalHdfs, area: str, base: str, pod: Pod
) -> None:
    parameters = {"replication": "2", "hdfsBlockSizeBytes": "1Mi"}
    # Room for sixteen files that are being written; of the usual block size not even for one.
    request = create("pvc-1", base, capacity_range=capacity(16 << 20), parameters=parameters)
    volume = controller.client.call(request).volume
    node.client.call(pod.stage(volume))
    node.client.call(pod.publish(volume))
    for name, content in (("small", b"x"), ("long", bytes(3 << 20))):
        (pod.target / name).write_bytes(content)
        found = status(hdfs, f"{area}/volumes/pvc-1/{name}")
        assert found is not None
        assert (found["replication"], found["blockSize"], found["length"]) == (2, 1 << 20, len(content))
    node.client.call(pod.unpublish(volume))
    node.client.call(pod.unstage(volume))


def test_no_size_is_no_quota(controller: DriverProcess, hdfs: LocalHdfs, area: str, base: str) -> None:
    assert controller.client.call(create("pvc-1", base)).volume.capacity_bytes == 0
    assert quota(hdfs, f"{area}/volumes/pvc-1") == (-1, -1)


def test_expanding(controller: DriverProcess, hdfs: LocalHdfs, area: str, base: str) -> None:
    request = create("pvc-1", base, capacity_range=capacity(GIB), parameters={"replication": "2"})
    volume_id = controller.client.call(request).volume.volume_id
    for required, limit, expected in (
        (3 * GIB, 0, 3),
        (3 * GIB, 0, 3),
        (GIB, 0, 3),
        (0, 4 * GIB, 4),
        (GIB, 5 * GIB, 4),
    ):
        answer = controller.client.call(expand(volume_id, required, limit))
        assert (answer.capacity_bytes, answer.node_expansion_required) == (expected * GIB, False)
        assert quota(hdfs, f"{area}/volumes/pvc-1") == (-1, 2 * expected * GIB)
    code, message = controller.client.refused(expand(volume_id, GIB, 2 * GIB))
    assert (code, "do not shrink" in message) == (StatusCode.OUT_OF_RANGE, True)
    assert controller.client.call(csi.ControllerGetVolumeRequest(volume_id=volume_id)).volume.capacity_bytes == 4 * GIB


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (expand("", GIB), StatusCode.INVALID_ARGUMENT),
        (expand("my-data"), StatusCode.NOT_FOUND),
        (expand("hdfs://127.0.0.1:1/a#b", 0), StatusCode.INVALID_ARGUMENT),
        (expand("hdfs://127.0.0.1:1/a#b", -1), StatusCode.INVALID_ARGUMENT),
        (expand("hdfs://127.0.0.1:1/a#b", 2, 1), StatusCode.OUT_OF_RANGE),
        (expand("x" * 129, GIB), StatusCode.INVALID_ARGUMENT),
        (csi.ControllerModifyVolumeRequest(), StatusCode.INVALID_ARGUMENT),
        (csi.ControllerModifyVolumeRequest(volume_id="my-data"), StatusCode.NOT_FOUND),
        (csi.ControllerGetVolumeRequest(), StatusCode.INVALID_ARGUMENT),
        (csi.ControllerGetVolumeRequest(volume_id="my-data"), StatusCode.NOT_FOUND),
        (csi.ControllerGetVolumeHealthRequest(), StatusCode.INVALID_ARGUMENT),
        (csi.ControllerGetVolumeHealthRequest(volume_id="my-data"), StatusCode.NOT_FOUND),
    ],
)
def test_what_is_refused(controller: DriverProcess, request_: Any, expected: StatusCode) -> None:
    assert controller.client.refused(request_)[0] is expected


def test_volumes_that_are_not_there(controller: DriverProcess, base: str) -> None:
    for request in (
        expand(f"{base}#gone", GIB),
        csi.ControllerModifyVolumeRequest(volume_id=f"{base}#gone"),
        csi.ControllerGetVolumeRequest(volume_id=f"{base}#gone"),
        csi.ControllerGetVolumeHealthRequest(volume_id=f"{base}#gone"),
    ):
        assert controller.client.refused(request)[0] is StatusCode.NOT_FOUND


def test_capacity_is_what_fits(controller: DriverProcess, hdfs: LocalHdfs, area: str, base: str) -> None:
    def available(**parameters: str) -> int:
        answer = controller.client.call(csi.GetCapacityRequest(parameters={"uri": base, **parameters}))
        assert answer.maximum_volume_size.value == answer.available_capacity
        return int(answer.available_capacity)

    in_cluster = available()  # nothing of the base path is there yet
    assert in_cluster > 0
    assert available(replication="4") < in_cluster // 3
    hdfs.webhdfs("PUT", f"{area}/volumes", "MKDIRS")
    hdfs.webhdfs("PUT", f"{area}/volumes", "SETQUOTA", storagespacequota=str(12 << 20))
    assert (available(), available(replication="3")) == (12 << 20, 4 << 20)
    block = csi.VolumeCapability(
        block=csi.VolumeCapability.BlockVolume(), access_mode=Mode(mode=Mode.SINGLE_NODE_WRITER)
    )
    request = csi.GetCapacityRequest(parameters={"uri": base}, volume_capabilities=[block])
    assert controller.client.call(request).available_capacity == 0
    assert controller.client.refused(csi.GetCapacityRequest())[0] is StatusCode.INVALID_ARGUMENT


# ---- which kind


def test_policies(controller: DriverProcess, hdfs: LocalHdfs, area: str, base: str) -> None:
    hdfs.webhdfs("PUT", "/", "ENABLEECPOLICY", ecpolicy=POLICY)
    kinds = {"erasureCodingPolicy": POLICY, "storagePolicy": "ALL_SSD"}
    controller.client.call(create("pvc-1", base, parameters=kinds))
    found = status(hdfs, f"{area}/volumes/pvc-1")
    assert found is not None
    assert (found["ecPolicy"], found["storagePolicy"]) == (POLICY, 12)
    for key in kinds:
        code, message = controller.client.refused(create("pvc-2", base, parameters={key: "NONSENSE"}))
        assert (code, key in message, "NONSENSE" in message) == (StatusCode.INVALID_ARGUMENT, True, True)
    assert names(hdfs, f"{area}/volumes/.hdfs-csi/volumes") == {"pvc-1.json"}
    assert names(hdfs, f"{area}/volumes/.hdfs-csi/making") == set()


def test_modifying(controller: DriverProcess, hdfs: LocalHdfs, area: str, base: str) -> None:
    request = create("pvc-1", base, capacity_range=capacity(GIB))
    volume = controller.client.call(request).volume
    directory = f"{area}/volumes/pvc-1"
    hdfs.webhdfs("PUT", f"{directory}/deep/er", "MKDIRS")
    put(hdfs, f"{directory}/deep/er/file", b"x")
    for _ in range(2):
        controller.client.call(modify(volume, replication="2", storagePolicy="COLD"))
        found, file = status(hdfs, directory), status(hdfs, f"{directory}/deep/er/file")
        assert found is not None
        assert file is not None
        assert (found["storagePolicy"], file["replication"], quota(hdfs, directory)) == (2, 2, (-1, 2 * GIB))
    changed = controller.client.call(csi.ControllerGetVolumeRequest(volume_id=volume.volume_id)).volume
    assert changed.volume_context["replication"] == "2"
    for parameters in ({"mode": "0700"}, {"replication": "0"}, {"replicaton": "2"}, {"uri": "hdfs://elsewhere/"}):
        code, message = controller.client.refused(modify(volume, **parameters))
        assert (code, next(iter(parameters)) in message) == (StatusCode.INVALID_ARGUMENT, True)
    # And when it is made.
    made = create("pvc-2", base, capacity_range=capacity(GIB), mutable_parameters={"replication": "2"})
    assert controller.client.call(made).volume.volume_context["replication"] == "2"
    assert quota(hdfs, f"{area}/volumes/pvc-2") == (-1, 2 * GIB)


# ---- the end


def test_trash(controller: DriverProcess, hdfs: LocalHdfs, area: str, base: str) -> None:
    volume = controller.client.call(create("pvc-1", base, parameters={"onDelete": "trash"})).volume
    put(hdfs, f"{area}/volumes/pvc-1/file", b"kept for a while")
    controller.client.call(delete(volume))
    controller.client.call(delete(volume))
    assert names(hdfs, f"{area}/volumes") == {".hdfs-csi"}
    trash = hdfs.webhdfs("GET", area, "GETTRASHROOT")["Path"]
    assert names(hdfs, f"{trash}/Current{area}/volumes/pvc-1") == {"file"}


# ---- lists and health


def test_lists_come_in_pages(listing_controller: DriverProcess, base: str) -> None:
    assert list(listing_controller.client.call(csi.ListVolumesRequest()).entries) == []
    volumes = [listing_controller.client.call(create(f"pvc-{number}", base)).volume for number in range(5)]
    assert [entry.volume for entry in listing_controller.client.call(csi.ListVolumesRequest()).entries] == volumes

    seen, token = [], ""
    while True:
        page = listing_controller.client.call(csi.ListVolumesRequest(max_entries=2, starting_token=token))
        seen += [entry.volume.volume_id for entry in page.entries]
        if not page.next_token:
            break
        token = page.next_token
        listing_controller.client.call(csi.DeleteVolumeRequest(volume_id=token))  # the place stays
    assert seen == [volume.volume_id for volume in volumes]

    assert listing_controller.client.refused(csi.ListVolumesRequest(starting_token="nonsense"))[0] is StatusCode.ABORTED
    assert listing_controller.client.refused(csi.ListVolumesRequest(max_entries=-1))[0] is StatusCode.INVALID_ARGUMENT


def test_a_volume_whose_directory_is_gone_is_sick(
    listing_controller: DriverProcess, hdfs: LocalHdfs, area: str, base: str
) -> None:
    volumes = [listing_controller.client.call(create(f"pvc-{number}", base)).volume for number in range(3)]
    well = csi.ControllerGetVolumeHealthRequest(volume_id=volumes[0].volume_id)
    assert list(listing_controller.client.call(well).volume_health.health_statuses) == []
    hdfs.webhdfs("DELETE", f"{area}/volumes/pvc-1", "DELETE")
    hdfs.webhdfs("DELETE", f"{area}/volumes/pvc-2", "DELETE")
    hdfs.webhdfs("PUT", f"{area}/volumes/pvc-2", "MKDIRS")
    sick = listing_controller.client.call(csi.ControllerListVolumeHealthRequest()).entries
    assert [entry.volume_id for entry in sick] == [volume.volume_id for volume in volumes[1:]]
    for entry in sick:
        (found,) = entry.health_statuses
        assert (found.status, found.reason) == (csi.VolumeHealthErrorType.INACCESSIBLE, "DirectoryMissing")
        assert f"{area}/volumes/pvc-" in found.message


def test_without_base_paths_nothing_is_listed(controller: DriverProcess) -> None:
    offered = controller.client.call(csi.ControllerGetCapabilitiesRequest()).capabilities
    kinds = {capability.rpc.type for capability in offered}
    kind = csi.ControllerServiceCapability.RPC
    assert kind.EXPAND_VOLUME in kinds
    assert not kinds & {kind.LIST_VOLUMES, kind.LIST_SNAPSHOTS, kind.LIST_VOLUME_HEALTH}


# ---- who may


def test_a_controller_that_is_no_superuser(hdfs: LocalHdfs, area: str, base: str, socket_directory: Any) -> None:
    directory = socket_directory / "alice"
    directory.mkdir(exist_ok=True)
    with DriverProcess("controller", directory, {**hdfs.environment, "HADOOP_USER_NAME": "alice"}) as alices:
        code, message = alices.client.refused(create("pvc-1", base, capacity_range=capacity(GIB)))
        assert (code, "quota: none" in message) == (StatusCode.PERMISSION_DENIED, True)
        assert names(hdfs, f"{area}/volumes/.hdfs-csi/volumes") == set()
        made = create("pvc-1", base, capacity_range=capacity(GIB), parameters={"quota": "none"})
        volume = alices.client.call(made).volume
        assert volume.capacity_bytes == GIB
        alices.client.call(delete(volume))
    assert names(hdfs, f"{area}/volumes") == {".hdfs-csi"}


def test_a_volume_may_be_for_readers_and_writers(controller: DriverProcess, base: str) -> None:
    reader = capability(Mode.MULTI_NODE_READER_ONLY)
    assert controller.client.call(create("pvc-1", base, volume_capabilities=[reader, MOUNT])).volume.volume_id
