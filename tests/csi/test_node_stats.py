"""NodeGetVolumeStats on real mounts of a real HDFS: quotas, the cluster, and mounts that are dead or hang."""

import signal
import time
from pathlib import Path

import pytest
from google.protobuf.unknown_fields import UnknownFieldSet
from grpc import StatusCode
from hdfs_csi.pb import csi_pb2 as csi

from tests.csi.driver import DriverProcess
from tests.csi.pods import Pod, children, daemon_pid, kill_daemon
from tests.csi.volumes import CONTENT
from tests.support.local_hdfs import LocalHdfs
from tests.support.processes import ProcessIdentity


def usage(node: DriverProcess, request: csi.NodeGetVolumeStatsRequest) -> dict[int, csi.VolumeUsage]:
    return {found.unit: found for found in node.client.call(request).usage}


def test_quotas_are_the_volume_s_own_figures(
    node: DriverProcess, hdfs: LocalHdfs, area: str, pod: Pod, volume: csi.Volume
) -> None:
    hdfs.webhdfs("PUT", area, "SETQUOTA", namespacequota="10", storagespacequota=str(1 << 30))
    node.client.call(pod.stage(volume))
    node.client.call(pod.publish(volume, readonly=True))
    for path in (pod.target, pod.staging):
        found = usage(node, pod.stats(volume, path))
        assert set(found) == {csi.VolumeUsage.BYTES, csi.VolumeUsage.INODES}
        space, names = found[csi.VolumeUsage.BYTES], found[csi.VolumeUsage.INODES]
        assert (space.total, names.total, names.used, names.available) == (1 << 30, 10, 2, 8)
        # statfs counts in units of 4 KiB.
        assert len(CONTENT) <= space.used < len(CONTENT) + 8192
        assert space.total - space.used - 8192 <= space.available <= space.total - space.used


def test_without_quotas_the_cluster_counts(node: DriverProcess, pod: Pod, volume: csi.Volume) -> None:
    node.client.call(pod.stage(volume))
    node.client.call(pod.publish(volume))
    found = usage(node, pod.stats(volume))
    assert set(found) == {csi.VolumeUsage.BYTES}  # nothing bounds the number of files
    space = found[csi.VolumeUsage.BYTES]
    assert 0 < space.used + space.available <= space.total


def test_paths_where_the_volume_is_not(node: DriverProcess, pod: Pod, volume: csi.Volume, tmp_path: Path) -> None:
    other = csi.Volume(volume_id="other")
    assert node.client.refused(pod.stats(volume))[0] is StatusCode.NOT_FOUND
    node.client.call(pod.stage(volume))
    for request in (
        pod.stats(volume),  # staged, and not published
        pod.stats(volume, tmp_path),
        pod.stats(volume, Path("some/path")),
        pod.stats(volume, Path("/")),
        pod.stats(other, pod.staging),
    ):
        code, message = node.client.refused(request)
        assert (code, "not mounted at" in message) == (StatusCode.NOT_FOUND, True), request
    for request in (
        csi.NodeGetVolumeStatsRequest(volume_path=str(pod.target)),
        csi.NodeGetVolumeStatsRequest(volume_id=volume.volume_id),
    ):
        assert node.client.refused(request)[0] is StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize(("number", "word"), [(signal.SIGKILL, "has ended"), (signal.SIGSTOP, "answer")])
def test_a_dead_or_hung_mount_is_an_error_within_the_deadline(
    node: DriverProcess, pod: Pod, volume: csi.Volume, tmp_path: Path, number: signal.Signals, word: str
) -> None:
    node.client.call(pod.stage(volume))
    node.client.call(pod.publish(volume))
    daemon = ProcessIdentity.of(daemon_pid(tmp_path, pod))
    daemon.send(number)
    try:
        for _ in range(2):
            started = time.monotonic()
            code, message = node.client.refused(pod.stats(volume))
            assert (code, word in message) == (StatusCode.UNAVAILABLE, True), message
            assert time.monotonic() - started < 15
        assert children(node.daemon) <= 1
        # Nobody is kept from removing it.
        node.client.call(pod.unpublish(volume), timeout_s=30)
        node.client.call(pod.unstage(volume), timeout_s=30)
    finally:
        daemon.send(signal.SIGCONT)
    assert daemon.wait_gone(20)


def test_a_pod_s_mount_that_was_left_dead_by_a_repair(
    node: DriverProcess, pod: Pod, volume: csi.Volume, tmp_path: Path
) -> None:
    node.client.call(pod.stage(volume))
    node.client.call(pod.publish(volume))
    kill_daemon(tmp_path, pod)
    node.client.call(pod.stage(volume), timeout_s=60)
    assert node.client.refused(pod.stats(volume))[0] is StatusCode.NOT_FOUND
    assert usage(node, pod.stats(volume, pod.staging))


def test_statistics_survive_a_restart_of_the_node_service(node: DriverProcess, pod: Pod, volume: csi.Volume) -> None:
    node.client.call(pod.stage(volume))
    node.client.call(pod.publish(volume))
    node.restart(kill=True)
    assert usage(node, pod.stats(volume))


def test_an_expanded_volume_says_its_new_size(
    node: DriverProcess, hdfs: LocalHdfs, area: str, pod: Pod, volume: csi.Volume
) -> None:
    hdfs.webhdfs("PUT", area, "SETQUOTA", namespacequota="10", storagespacequota=str(1 << 30))
    node.client.call(pod.stage(volume))
    node.client.call(pod.publish(volume))
    request = csi.NodeExpandVolumeRequest(volume_id=volume.volume_id, volume_path=str(pod.target))
    assert node.client.call(request).capacity_bytes == 1 << 30
    elsewhere = csi.NodeExpandVolumeRequest(volume_id=volume.volume_id, volume_path="/some/path")
    assert node.client.refused(elsewhere)[0] is StatusCode.NOT_FOUND
    for missing in (
        csi.NodeExpandVolumeRequest(volume_id=volume.volume_id),
        csi.NodeExpandVolumeRequest(volume_path=str(pod.target)),
    ):
        assert node.client.refused(missing)[0] is StatusCode.INVALID_ARGUMENT


def condition(response: csi.NodeGetVolumeStatsResponse) -> tuple[bool, str]:
    """The VolumeCondition of CSI 1.12: field 2 of the response, with abnormal (1) and message (2)."""
    fields = UnknownFieldSet(response)
    assert (len(fields), fields[0].field_number) == (1, 2)
    # A message of bytes and a number, as the one that CSI had: Kubernetes' own reads it in tests/e2e/kubernetes.
    abnormal, message = fields[0].data[:2], fields[0].data[2:]
    assert (abnormal[0], message[0]) == (1 << 3, 2 << 3 | 2)
    length, at, shift = 0, 1, 0
    while True:
        length |= (message[at] & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if message[at - 1] < 0x80:
            break
    assert len(message) == at + length
    return bool(abnormal[1]), message[at:].decode()


@pytest.mark.parametrize("node_options", [["--volume-condition"]])
def test_the_condition_of_older_kubelets(
    node: DriverProcess, hdfs: LocalHdfs, area: str, pod: Pod, volume: csi.Volume, tmp_path: Path
) -> None:
    capabilities = node.client.call(csi.NodeGetCapabilitiesRequest()).capabilities
    assert 4 in {int(found.rpc.type) for found in capabilities}
    assert node.client.refused(pod.stats(volume))[0] is StatusCode.NOT_FOUND
    node.client.call(pod.stage(volume))
    node.client.call(pod.publish(volume))
    response = node.client.call(pod.stats(volume))
    assert condition(response) == (False, "the volume is well")
    assert response.usage[0].total > 0

    kill_daemon(tmp_path, pod)
    response = node.client.call(pod.stats(volume))
    abnormal, message = condition(response)
    assert (abnormal, message.startswith("DaemonDead: ")) == (True, True), message
    assert [(found.unit, found.total) for found in response.usage] == [(csi.VolumeUsage.BYTES, 0)]
