"""`hdfs-csi controller` on its socket, against a real HDFS: the life of volumes, and each error's exact code."""

import json
from typing import Any

import pytest
from grpc import StatusCode
from hdfs_csi.pb import csi_pb2 as csi

from tests.csi.driver import DriverProcess
from tests.csi.volumes import GIB, MOUNT, Mode, capability, capacity, create, names, put, read_file, status
from tests.support.local_hdfs import LocalHdfs

# ---- the life of a volume


def test_a_volume_is_a_directory_that_comes_and_goes(
    controller: DriverProcess, hdfs: LocalHdfs, area: str, base: str
) -> None:
    request = create("pvc-1", base, capacity_range=capacity(GIB), parameters={"mode": "0750", "user": "alice"})
    volume = controller.client.call(request).volume

    assert volume.volume_id == f"{base}#pvc-1"
    assert volume.capacity_bytes == GIB
    assert dict(volume.volume_context) == {"uri": f"{base}/pvc-1", "user": "alice"}
    made = status(hdfs, f"{area}/volumes/pvc-1")
    assert made is not None
    assert (made["type"], made["permission"]) == ("DIRECTORY", "750")

    hdfs.webhdfs("PUT", f"{area}/volumes/pvc-1/deep/er", "MKDIRS")
    controller.client.call(csi.DeleteVolumeRequest(volume_id=volume.volume_id))

    assert names(hdfs, f"{area}/volumes") == {".hdfs-csi"}
    assert names(hdfs, f"{area}/volumes/.hdfs-csi/volumes") == set()


def test_the_record_is_json_for_the_controller_alone(
    controller: DriverProcess, hdfs: LocalHdfs, area: str, base: str
) -> None:
    controller.client.call(create("pvc-r", base, capacity_range=capacity(GIB)))

    records = f"{area}/volumes/.hdfs-csi/volumes"
    written = json.loads(read_file(hdfs, f"{records}/pvc-r.json"))
    assert (written["name"], written["path"], written["capacityBytes"]) == ("pvc-r", f"{area}/volumes/pvc-r", GIB)
    assert names(hdfs, records) == {"pvc-r.json"}
    for path, mode in ((records, "700"), (f"{records}/pvc-r.json", "600"), (f"{area}/volumes/.hdfs-csi", "700")):
        found = status(hdfs, path)
        assert found is not None
        assert found["permission"] == mode


def test_each_call_may_come_twice(controller: DriverProcess, hdfs: LocalHdfs, area: str, base: str) -> None:
    request = create("pvc-2", base, capacity_range=capacity(GIB), parameters={"mode": "0700"})
    first = controller.client.call(request).volume
    hdfs.webhdfs("PUT", f"{area}/volumes/pvc-2/kept", "MKDIRS")

    assert controller.client.call(request).volume == first
    assert status(hdfs, f"{area}/volumes/pvc-2/kept")
    # A limit that admits what is there is compatible; so are keys that Kubernetes adds.
    again = create(
        "pvc-2",
        base,
        capacity_range=capacity(GIB // 2, 2 * GIB),
        parameters={"mode": "0700", "csi.storage.k8s.io/pvc/name": "claim"},
    )
    assert controller.client.call(again).volume == first

    for _ in range(2):
        controller.client.call(csi.DeleteVolumeRequest(volume_id=first.volume_id))
    assert status(hdfs, f"{area}/volumes/pvc-2") is None


def test_a_volume_of_the_same_name_must_be_the_same(controller: DriverProcess, base: str) -> None:
    controller.client.call(create("pvc-3", base, capacity_range=capacity(GIB, GIB)))

    for other in (
        create("pvc-3", base, capacity_range=capacity(2 * GIB)),
        create("pvc-3", base, capacity_range=capacity(0, GIB // 2)),
        create("pvc-3", base, capacity_range=capacity(GIB), parameters={"mode": "0700"}),
    ):
        code, message = controller.client.refused(other)
        assert code is StatusCode.ALREADY_EXISTS
        assert "pvc-3" in message


def test_a_directory_that_is_cut_short_is_finished(
    controller: DriverProcess, hdfs: LocalHdfs, area: str, base: str
) -> None:
    request = create("pvc-4", base, parameters={"owner": "alice", "group": "data"})
    volume = controller.client.call(request).volume
    # As if the controller had died between writing the record and making the directory.
    hdfs.webhdfs("DELETE", f"{area}/volumes/pvc-4", "DELETE")

    assert controller.client.call(request).volume == volume
    made = status(hdfs, f"{area}/volumes/pvc-4")
    assert made is not None
    assert (made["owner"], made["group"]) == ("alice", "data")


def test_retain_keeps_the_directory(controller: DriverProcess, hdfs: LocalHdfs, area: str, base: str) -> None:
    volume = controller.client.call(create("pvc-5", base, parameters={"onDelete": "retain"})).volume
    controller.client.call(csi.DeleteVolumeRequest(volume_id=volume.volume_id))

    assert names(hdfs, f"{area}/volumes") == {".hdfs-csi", "pvc-5"}
    assert names(hdfs, f"{area}/volumes/.hdfs-csi/volumes") == set()


@pytest.mark.parametrize("name", ["a/b", "..", ".", ".hdfs-csi", "../../escape", "für immer", "x" * 128, "-", "a:b"])
def test_any_name_that_csi_allows_stays_below_the_base_path(
    controller: DriverProcess, hdfs: LocalHdfs, area: str, base: str, name: str
) -> None:
    volume = controller.client.call(create(name, base)).volume

    assert len(volume.volume_id.encode()) <= 128
    (directory,) = names(hdfs, f"{area}/volumes") - {".hdfs-csi"}
    assert volume.volume_context["uri"] == f"{base}/{directory}"
    assert names(hdfs, area) == {"volumes"}
    controller.client.call(csi.DeleteVolumeRequest(volume_id=volume.volume_id))
    assert names(hdfs, f"{area}/volumes") == {".hdfs-csi"}


# ---- what is never deleted


def test_a_directory_that_was_there_is_not_taken(
    controller: DriverProcess, hdfs: LocalHdfs, area: str, base: str
) -> None:
    hdfs.webhdfs("PUT", f"{area}/volumes/pvc-6/precious", "MKDIRS")

    code, message = controller.client.refused(create("pvc-6", base))
    assert code is StatusCode.ALREADY_EXISTS
    assert "not made by this driver" in message
    controller.client.call(csi.DeleteVolumeRequest(volume_id=f"{base}#pvc-6"))
    assert status(hdfs, f"{area}/volumes/pvc-6/precious")


@pytest.mark.parametrize("volume_id", ["my-data", "{base}", "{base}/pvc-7", "{base}#", "{base}#..", "{base}#a/b", "#"])
def test_ids_that_were_never_given_delete_nothing(
    controller: DriverProcess, hdfs: LocalHdfs, area: str, base: str, volume_id: str
) -> None:
    hdfs.webhdfs("PUT", f"{area}/volumes/pvc-7", "MKDIRS")
    controller.client.call(csi.DeleteVolumeRequest(volume_id=volume_id.format(base=base)))
    assert names(hdfs, f"{area}/volumes") == {"pvc-7"}


@pytest.mark.parametrize(
    "path", ["{dir}", "{dir}/volumes", "/", "{dir}/volumes/../other", "{dir}/volumes/.hdfs-csi", "x"]
)
def test_a_record_that_names_another_place_deletes_nothing(
    controller: DriverProcess, hdfs: LocalHdfs, area: str, base: str, path: str
) -> None:
    volume = controller.client.call(create("pvc-8", base)).volume
    hdfs.webhdfs("PUT", f"{area}/other", "MKDIRS")
    record = f"{area}/volumes/.hdfs-csi/volumes/pvc-8.json"
    content = json.loads(read_file(hdfs, record)) | {"path": path.format(dir=area)}
    put(hdfs, record, json.dumps(content).encode())

    code, message = controller.client.refused(csi.DeleteVolumeRequest(volume_id=volume.volume_id))
    assert code is StatusCode.INTERNAL
    assert "pvc-8.json" in message
    assert names(hdfs, area) == {"volumes", "other"}
    assert names(hdfs, f"{area}/volumes") == {".hdfs-csi", "pvc-8"}


def test_a_base_path_that_is_gone_counts_as_deleted(
    controller: DriverProcess, hdfs: LocalHdfs, area: str, base: str
) -> None:
    volume = controller.client.call(create("pvc-9", base)).volume
    hdfs.webhdfs("DELETE", f"{area}/volumes", "DELETE", recursive="true")
    controller.client.call(csi.DeleteVolumeRequest(volume_id=volume.volume_id))


# ---- ValidateVolumeCapabilities


def validate(volume_id: str, *capabilities: csi.VolumeCapability, **details: Any) -> Any:
    return csi.ValidateVolumeCapabilitiesRequest(volume_id=volume_id, volume_capabilities=capabilities, **details)


def test_capabilities_of_a_volume(controller: DriverProcess, base: str) -> None:
    volume = controller.client.call(create("pvc-v", base)).volume
    shared = capability(Mode.MULTI_NODE_MULTI_WRITER)

    answer = controller.client.call(validate(volume.volume_id, MOUNT, shared, volume_context=volume.volume_context))
    assert list(answer.confirmed.volume_capabilities) == [MOUNT, shared]

    block = csi.VolumeCapability(block=csi.VolumeCapability.BlockVolume(), access_mode=MOUNT.access_mode)
    for refused, word in (
        (validate(volume.volume_id, MOUNT, block), "block"),
        (validate(volume.volume_id, MOUNT, volume_context={"uri": "hdfs://other/x"}), "volume_context"),
        (validate(volume.volume_id, MOUNT, parameters={"uri": base, "mode": "0700"}), "parameters"),
    ):
        answer = controller.client.call(refused)
        assert not answer.HasField("confirmed")
        assert word in answer.message


def test_capabilities_of_a_static_volume(controller: DriverProcess, hdfs: LocalHdfs, area: str) -> None:
    there = {"uri": f"{hdfs.uri}{area}"}
    assert controller.client.call(validate("my-data", MOUNT, volume_context=there)).HasField("confirmed")

    put(hdfs, f"{area}/file", b"")
    for request, code in (
        (validate("my-data", MOUNT, volume_context={"uri": f"{there['uri']}/missing"}), StatusCode.NOT_FOUND),
        (validate("my-data", MOUNT, volume_context={"uri": f"{there['uri']}/file"}), StatusCode.INVALID_ARGUMENT),
        (validate("my-data", MOUNT, volume_context=there | {"urii": "x"}), StatusCode.INVALID_ARGUMENT),
        (validate("my-data", MOUNT), StatusCode.NOT_FOUND),
        (validate("my-data"), StatusCode.INVALID_ARGUMENT),
        (validate("", MOUNT), StatusCode.INVALID_ARGUMENT),
        (validate("x" * 129, MOUNT), StatusCode.INVALID_ARGUMENT),
        (validate(f"{hdfs.uri}{area}#gone", MOUNT), StatusCode.NOT_FOUND),
    ):
        assert controller.client.refused(request)[0] is code
