"""`hdfs-csi node` on its socket, with real mounts of a real HDFS: the life of volumes."""

import contextlib
import os
import tempfile
from pathlib import Path

import pytest
from grpc import StatusCode
from hdfs_csi.pb import csi_pb2 as csi

from tests.csi.driver import DriverProcess, bounded, hdfs_csi
from tests.csi.pods import Pod, daemon_pid, mounts_below, read
from tests.csi.volumes import CONTENT, MOUNT, Mode, capability, put
from tests.support.local_hdfs import LocalHdfs
from tests.support.waiting import wait_until

NOBODY = 65534


# ---- the life of a volume


def test_whole_life_of_a_dynamic_volume(
    controller: DriverProcess, node: DriverProcess, hdfs: LocalHdfs, area: str, pod: Pod, tmp_path: Path
) -> None:
    created = csi.CreateVolumeRequest(
        name="pvc-1", volume_capabilities=[MOUNT], parameters={"uri": f"{hdfs.uri}{area}/volumes", "mode": "0755"}
    )
    volume = controller.client.call(created).volume
    put(hdfs, f"{area}/volumes/pvc-1/data.bin", CONTENT)

    for _ in range(2):
        node.client.call(pod.stage(volume))
    for _ in range(2):
        node.client.call(pod.publish(volume))
    assert read(pod.target / "data.bin") == CONTENT
    assert read(pod.target / "data.bin", uid=NOBODY) == CONTENT
    assert bounded("ls", directory=pod.target, uid=NOBODY).stdout == b"data.bin\n"

    for _ in range(2):
        node.client.call(pod.unpublish(volume))
    assert not pod.target.exists()
    for _ in range(2):
        node.client.call(pod.unstage(volume))
    assert list(pod.staging.iterdir()) == []
    assert mounts_below(tmp_path) == []
    controller.client.call(csi.DeleteVolumeRequest(volume_id=volume.volume_id))
    assert (
        hdfs.webhdfs("GET", f"{area}/volumes", "LISTSTATUS")["FileStatuses"]["FileStatus"][0]["pathSuffix"]
        == ".hdfs-csi"
    )


def test_whole_life_of_a_static_volume(
    controller: DriverProcess, node: DriverProcess, hdfs: LocalHdfs, area: str, pod: Pod, volume: csi.Volume
) -> None:
    node.client.call(pod.stage(volume))
    node.client.call(pod.publish(volume, readonly=True))
    assert read(pod.target / "data.bin", uid=NOBODY) == CONTENT
    node.client.call(pod.unpublish(volume))
    node.client.call(pod.unstage(volume))

    # An administrator's mistake: the data of a volume that nobody made stays.
    controller.client.call(csi.DeleteVolumeRequest(volume_id=volume.volume_id))
    assert hdfs.webhdfs("GET", f"{area}/data.bin", "GETFILESTATUS")["FileStatus"]["length"] == len(CONTENT)


def test_a_volume_that_is_read_by_java_s_client(
    node_with_java: DriverProcess, pod: Pod, volume: csi.Volume, tmp_path: Path
) -> None:
    node = node_with_java
    volume.volume_context["backend"] = "pyarrow"
    reading = capability(Mode.MULTI_NODE_READER_ONLY)  # which is all that this client does
    node.client.call(pod.stage(volume, reading))
    node.client.call(pod.publish(volume, reading))
    assert "libjvm.so" in Path(f"/proc/{daemon_pid(tmp_path, pod)}/maps").read_text(encoding="utf-8")
    assert read(pod.target / "data.bin", uid=NOBODY) == CONTENT
    assert bounded("ls", directory=pod.target, uid=NOBODY).stdout == b"data.bin\n"
    node.client.call(pod.unpublish(volume))
    node.client.call(pod.unstage(volume))
    assert mounts_below(tmp_path) == []


def test_attributes_reach_the_mount(
    node: DriverProcess, hdfs: LocalHdfs, area: str, pod: Pod, volume: csi.Volume
) -> None:
    hdfs.webhdfs("PUT", f"{area}/data.bin", "SETPERMISSION", permission="644")
    volume.volume_context.update({"uid": "1234", "gid": "2345", "umask": "044"})
    node.client.call(pod.stage(volume))
    node.client.call(pod.publish(volume))
    assert bounded("stat", "--format=%u %g %a", str(pod.target / "data.bin")).stdout == b"1234 2345 600\n"


def test_several_pods_share_one_mount(node: DriverProcess, pod: Pod, volume: csi.Volume, tmp_path: Path) -> None:
    other = Pod(pod.staging, pod.target.with_name("other"))
    node.client.call(pod.stage(volume))
    node.client.call(pod.publish(volume))
    node.client.call(other.publish(volume, readonly=True))
    assert len({mount.device for mount in mounts_below(tmp_path)}) == 1

    node.client.call(pod.unpublish(volume))
    assert read(other.target / "data.bin") == CONTENT
    node.client.call(other.unpublish(volume))
    node.client.call(pod.unstage(volume))


def test_a_file_that_is_open_does_not_keep_the_volume(
    node: DriverProcess, pod: Pod, volume: csi.Volume, tmp_path: Path
) -> None:
    node.client.call(pod.stage(volume))
    node.client.call(pod.publish(volume))
    pid = daemon_pid(tmp_path, pod)
    left_open = os.open(pod.target / "data.bin", os.O_RDONLY)
    try:
        node.client.call(pod.unpublish(volume), timeout_s=30)
        node.client.call(pod.unstage(volume), timeout_s=30)
        assert mounts_below(tmp_path) == []
        wait_until(lambda: not os.path.exists(f"/proc/{pid}"), "the daemon has ended")
        with pytest.raises(OSError, match="not connected"):
            os.read(left_open, 1)
    finally:
        with contextlib.suppress(OSError):
            os.close(left_open)


def test_paths_through_a_symlink(node: DriverProcess, pod: Pod, volume: csi.Volume, tmp_path: Path) -> None:
    # /var/lib/kubelet is a symlink on some nodes; mountinfo has the name behind it.
    (tmp_path / "link").symlink_to(tmp_path)
    linked = Pod(tmp_path / "link" / "plugins" / "globalmount", tmp_path / "link" / "pods" / "volume" / "mount")
    for _ in range(2):
        node.client.call(linked.stage(volume))
        node.client.call(linked.publish(volume))
    assert len(mounts_below(tmp_path)) == 2
    node.client.call(linked.unpublish(volume))
    node.client.call(linked.unstage(volume))
    assert mounts_below(tmp_path) == []


# ---- the rest


def test_the_node_says_who_it_is(node: DriverProcess) -> None:
    info = node.client.call(csi.NodeGetInfoRequest())
    assert (info.node_id, info.max_volumes_per_node, info.HasField("accessible_topology")) == ("node-1", 0, False)
    capabilities = node.client.call(csi.NodeGetCapabilitiesRequest()).capabilities
    rpc = csi.NodeServiceCapability.RPC
    assert {c.rpc.type for c in capabilities} == {
        rpc.STAGE_UNSTAGE_VOLUME,
        rpc.GET_VOLUME_STATS,
        rpc.GET_VOLUME_HEALTH,
        rpc.GET_STORAGE_HEALTH,
        rpc.SINGLE_NODE_MULTI_WRITER,
        rpc.VOLUME_MOUNT_GROUP,
        rpc.EXPAND_VOLUME,
    }
    assert node.client.call(csi.ProbeRequest()).ready.value
    assert node.client.call(csi.GetPluginInfoRequest()).name == "hdfs.csi.dev"
    for request in (csi.ControllerPublishVolumeRequest(), csi.CreateVolumeRequest()):
        assert node.client.refused(request)[0] is StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], b"Missing option '--node-id'"),
        (["--node-id", "x" * 257], b"256 bytes"),
        (["--node-id", "n", "--driver-name", "-bad-"], b"driver name"),
        (["--node-id", "n", "--endpoint", "tcp://0.0.0.0:1"], b"unix:///path/to/csi.sock"),
        (["--node-id", "n", "--endpoint", "unix:///no/such/dir/csi.sock"], b"is no directory"),
        (["--node-id", "n", "--endpoint", "unix:///" + "x" * 120], b"107 bytes"),
        (["--node-id", "n", "--cache-dir", "relative"], b"absolute path"),
        (["--node-id", "n", "--staging-dir", ""], b"absolute path"),
        (["--node-id", "n", "--staging-dir", "relative"], b"absolute path"),
        (["--node-id", "n", "--hadoop-conf-dir", "/no/such/dir"], b"does not exist"),
    ],
)
def test_options_that_can_not_work(tmp_path: Path, options: list[str], message: bytes) -> None:
    with tempfile.TemporaryDirectory(prefix="hdfs-csi-") as directory:
        defaults = ["--endpoint", f"unix://{directory}/csi.sock", "--runtime-dir", str(tmp_path)]
        done = bounded(hdfs_csi(), "node", *defaults, *options, timeout_s=60)
    assert done.returncode in {1, 2}
    assert message in done.stderr
    assert b"Traceback" not in done.stderr
