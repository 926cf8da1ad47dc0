"""NodeGetVolumeHealth on real mounts: the cause is named, whatever dies or hangs, within a deadline."""

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from grpc import StatusCode
from hdfs_csi.pb import csi_pb2 as csi

from tests.csi.driver import DriverProcess
from tests.csi.pods import Pod, children, daemon_pid, make_pod
from tests.csi.volumes import CONTENT, put
from tests.support.local_hdfs import LocalHdfs
from tests.support.processes import ProcessIdentity
from tests.support.waiting import wait_until

# Two probes of the mount and the NameNode's answers, on a busy machine.
LONGEST_S = 25.0


@pytest.fixture(scope="module")
def hdfs(nothing_left_behind: None) -> Iterator[LocalHdfs]:
    """A cluster whose daemons the tests here stop and freeze."""
    with LocalHdfs(datanodes=1, properties={"dfs.namenode.safemode.extension": "0"}) as running:
        yield running


@pytest.fixture
def volume(hdfs: LocalHdfs, area: str) -> csi.Volume:
    put(hdfs, f"{area}/data.bin", CONTENT)
    attributes = {"uri": f"{hdfs.uri}{area}", "callDeadlineSeconds": "20"}
    # A question without paths finds a volume by its id, wherever it is mounted on this machine.
    return csi.Volume(volume_id=f"only-here{area}", volume_context=attributes)


@pytest.fixture
def published(node: DriverProcess, pod: Pod, volume: csi.Volume) -> csi.NodeGetVolumeHealthRequest:
    """The question about a volume that is published and well."""
    node.client.call(pod.stage(volume))
    node.client.call(pod.publish(volume))
    question = pod.health(volume)
    assert found(node, question) == (None, "")
    return question


def found(node: DriverProcess, question: csi.NodeGetVolumeHealthRequest) -> tuple[str | None, str]:
    """The one reason, with its status and message."""
    started = time.monotonic()
    health = node.client.call(question).volume_health
    assert time.monotonic() - started < LONGEST_S
    assert health.volume_id == question.volume_id
    if not health.health_statuses:
        return None, ""
    (entry,) = health.health_statuses
    return f"{csi.VolumeHealthErrorType.Name(entry.status)} {entry.reason}", entry.message


def storage(node: DriverProcess, hdfs: LocalHdfs) -> list[str]:
    """What is wrong with the filesystem; those of volumes that are mounted beside these tests are left out."""
    answer = node.client.call(csi.NodeGetStorageHealthRequest())
    return [
        f"{csi.StorageHealthErrorType.Name(entry.status)} {entry.reason}"
        for entry in answer.backend_health
        if hdfs.uri in entry.message
    ]


def test_a_volume_that_is_well(
    node: DriverProcess, hdfs: LocalHdfs, pod: Pod, volume: csi.Volume, published: csi.NodeGetVolumeHealthRequest
) -> None:
    by_id = csi.NodeGetVolumeHealthRequest(volume_id=volume.volume_id)
    staged = csi.NodeGetVolumeHealthRequest(volume_id=volume.volume_id, staging_target_path=str(pod.staging))
    for question in (by_id, staged, published):
        assert found(node, question) == (None, "")
    assert storage(node, hdfs) == []


def test_bad_questions(node: DriverProcess, pod: Pod, volume: csi.Volume) -> None:
    assert node.client.refused(pod.health(volume))[0] is StatusCode.NOT_FOUND
    node.client.call(pod.stage(volume))
    for question, code in (
        (csi.NodeGetVolumeHealthRequest(volume_id="other"), StatusCode.NOT_FOUND),
        (
            csi.NodeGetVolumeHealthRequest(volume_id="other", staging_target_path=str(pod.staging)),
            StatusCode.NOT_FOUND,
        ),
        (csi.NodeGetVolumeHealthRequest(), StatusCode.INVALID_ARGUMENT),
        (csi.NodeGetVolumeHealthRequest(volume_id="x", volume_publish_path="some/path"), StatusCode.INVALID_ARGUMENT),
        (csi.NodeGetVolumeHealthRequest(volume_id="x", staging_target_path="/a/../b"), StatusCode.INVALID_ARGUMENT),
    ):
        assert node.client.refused(question)[0] is code, question


def test_what_is_not_mounted(node: DriverProcess, pod: Pod, volume: csi.Volume) -> None:
    node.client.call(pod.stage(volume))
    reason, message = found(node, pod.health(volume))  # not published
    assert reason == "INACCESSIBLE NotMounted"
    assert str(pod.target) in message


@pytest.mark.parametrize(
    ("number", "reason"),
    [(signal.SIGKILL, "INACCESSIBLE DaemonDead"), (signal.SIGSTOP, "INACCESSIBLE DaemonHung")],
)
def test_a_daemon_that_died_or_hangs(
    node: DriverProcess,
    hdfs: LocalHdfs,
    pod: Pod,
    published: csi.NodeGetVolumeHealthRequest,
    tmp_path: Path,
    number: signal.Signals,
    reason: str,
) -> None:
    daemon = ProcessIdentity.of(daemon_pid(tmp_path, pod))
    daemon.send(number)
    try:
        got, message = found(node, published)
        assert (got, "end the pods" in message) == (reason, True), message
        assert storage(node, hdfs) == []
    finally:
        daemon.send(signal.SIGCONT)


@pytest.mark.parametrize("kill", [True, False])
def test_a_namenode_that_is_gone_or_hangs(
    node: DriverProcess, hdfs: LocalHdfs, published: csi.NodeGetVolumeHealthRequest, kill: bool
) -> None:
    if kill:
        hdfs.kill_namenode()
    else:
        hdfs.pause_namenode()
    try:
        for _ in range(2):
            reason, message = found(node, published)
            assert (reason, hdfs.namenode_http in message) == ("INACCESSIBLE NameNodeUnreachable", True), message
        assert children(node.daemon) <= 1  # what waits for the answer of the mount can't be killed
        # Asks the mounts of other tests too, and may leave questions to them behind.
        assert storage(node, hdfs) == ["STORAGE_UNREACHABLE NameNodeUnreachable"]
    finally:
        if kill:
            hdfs.mend()
        else:
            hdfs.resume_namenode()
    wait_until(lambda: found(node, published) == (None, ""), "the volume is well again", 60)
    wait_until(lambda: not children(node.daemon), "nobody waits any more", 120)


def test_safe_mode(node: DriverProcess, hdfs: LocalHdfs, published: csi.NodeGetVolumeHealthRequest) -> None:
    hdfs.dfsadmin("-safemode", "enter")
    try:
        reason, message = found(node, published)
        assert (reason, "dfsadmin -safemode" in message) == ("DEGRADED NameNodeSafeMode", True), message
        assert storage(node, hdfs) == ["STORAGE_DEGRADED NameNodeSafeMode"]
    finally:
        hdfs.dfsadmin("-safemode", "leave")
    assert found(node, published) == (None, "")


def test_no_datanodes(node: DriverProcess, hdfs: LocalHdfs, published: csi.NodeGetVolumeHealthRequest) -> None:
    hdfs.kill_datanode(0)
    try:
        hdfs.wait_live_datanodes(0)
        reason, message = found(node, published)
        assert (reason, "dfsadmin -report" in message) == ("INACCESSIBLE NoDataNodes", True), message
        assert storage(node, hdfs) == ["STORAGE_UNREACHABLE NoDataNodes"]
    finally:
        hdfs.mend()
    assert found(node, published) == (None, "")


def test_permission_and_a_path_that_is_gone(
    node: DriverProcess, hdfs: LocalHdfs, area: str, pod: Pod, volume: csi.Volume
) -> None:
    volume.volume_context.update({"user": "bob", "metadataTtlSeconds": "0"})
    node.client.call(pod.stage(volume))
    node.client.call(pod.publish(volume))
    hdfs.webhdfs("PUT", area, "SETPERMISSION", permission="700")
    reason, message = found(node, pod.health(volume))
    assert (reason, "refuses bob" in message) == ("INACCESSIBLE PermissionDenied", True), message
    assert storage(node, hdfs) == []  # of one volume only
    hdfs.webhdfs("DELETE", area, "DELETE", recursive="true")
    reason, message = found(node, pod.health(volume))
    assert (reason, area in message) == ("INACCESSIBLE DirectoryGone", True), message


def test_two_volumes_of_one_id(
    node: DriverProcess, hdfs: LocalHdfs, area: str, pod: Pod, volume: csi.Volume, tmp_path: Path
) -> None:
    # As two drivers of a node may have them.
    hdfs.webhdfs("PUT", f"{area}/below", "MKDIRS")
    attributes = {"uri": f"{hdfs.uri}{area}/below", "metadataTtlSeconds": "0"}
    other, its_pod = csi.Volume(volume_id=volume.volume_id, volume_context=attributes), make_pod(tmp_path / "other")
    for who, what in ((pod, volume), (its_pod, other)):
        node.client.call(who.stage(what))
        node.client.call(who.publish(what))
    hdfs.webhdfs("DELETE", f"{area}/below", "DELETE")
    assert found(node, pod.health(volume)) == (None, "")
    reason, message = found(node, its_pod.health(other))
    assert (reason, f"{area}/below" in message) == ("INACCESSIBLE DirectoryGone", True), message
