"""Volumes with `podUser` on `hdfs-csi node`, with real mounts: each pod has its own mount, under its own user."""

import signal
from pathlib import Path

import pytest
from grpc import StatusCode
from hdfs_csi.pb import csi_pb2 as csi

from tests.csi.driver import DriverProcess, bounded
from tests.csi.pods import Pod, mounts_below, read, serving_pid, write
from tests.csi.volumes import CONTENT, MOUNT, Mode, capability, changed, status
from tests.support.local_hdfs import LocalHdfs
from tests.support.processes import ProcessIdentity

ALONE = capability(Mode.SINGLE_NODE_SINGLE_WRITER)


@pytest.fixture
def volume(volume: csi.Volume, area: str) -> csi.Volume:
    volume.volume_id += area  # a question without a path finds a volume by its id, wherever it is mounted
    volume.volume_context["podUser"] = "${serviceAccount.name}"
    return volume


@pytest.fixture
def other(pod: Pod, tmp_path: Path) -> Pod:
    """A second pod of the volume."""
    (tmp_path / "pods" / "other").mkdir()
    return Pod(pod.staging, tmp_path / "pods" / "other" / "mount")


def publish(
    pod: Pod, volume: csi.Volume, account: str, capability: csi.VolumeCapability = MOUNT, *, readonly: bool = False
) -> csi.NodePublishVolumeRequest:
    """What the kubelet sends for a pod with that service account, where CSIDriver has `podInfoOnMount`."""
    info = {"pod.name": "trainer-0", "pod.namespace": "research", "serviceAccount.name": account, "ephemeral": "false"}
    context = {**volume.volume_context, **{f"csi.storage.k8s.io/{key}": value for key, value in info.items()}}
    request = pod.publish(volume, capability, readonly=readonly)
    request.volume_context.update(context)
    return request


def owner(hdfs: LocalHdfs, path: str) -> str:
    there = status(hdfs, path)
    assert there is not None
    return str(there["owner"])


def inline_folders(directory: Path) -> list[Path]:
    folder = directory / "run" / "inline"
    return list(folder.iterdir()) if folder.exists() else []


def test_each_pod_is_its_own_user(
    node: DriverProcess, hdfs: LocalHdfs, area: str, pod: Pod, other: Pod, volume: csi.Volume, tmp_path: Path
) -> None:
    for _ in range(2):
        node.client.call(pod.stage(volume))
    assert mounts_below(tmp_path) == []  # each pod brings its own
    staged = changed(pod.health(volume), "volume_publish_path")
    assert not node.client.call(staged).volume_health.health_statuses
    for _ in range(2):
        node.client.call(publish(pod, volume, "alice"))
        node.client.call(publish(other, volume, "bob"))
    assert len({mount.device for mount in mounts_below(tmp_path)}) == 2

    for mine, name in ((pod, "alice"), (other, "bob")):
        write(mine.target / f"of-{name}", CONTENT)
        assert bounded("mkdir", "-m", "700", f"private-{name}", directory=mine.target).returncode == 0
        write(mine.target / f"private-{name}" / "file", CONTENT)
        assert {owner(hdfs, f"{area}/{path}") for path in (f"of-{name}", f"private-{name}/file")} == {name}
    for mine, name in ((pod, "bob"), (other, "alice")):
        assert read(mine.target / f"of-{name}") == CONTENT
        for command in (("ls", f"private-{name}"), ("cat", f"private-{name}/file"), ("rmdir", f"private-{name}")):
            done = bounded(*command, directory=mine.target)
            assert (done.returncode == 0, b"Permission denied" in done.stderr) == (False, True), done

    for mine in (pod, other):
        assert node.client.call(mine.stats(volume)).usage[0].total > 0
        assert not node.client.call(mine.health(volume)).volume_health.health_statuses
    node.client.call(pod.unpublish(volume))
    assert read(other.target / "of-bob") == CONTENT
    node.client.call(other.unpublish(volume))
    node.client.call(pod.unstage(volume))
    assert (mounts_below(tmp_path), inline_folders(tmp_path), list(pod.staging.iterdir())) == ([], [], [])


def test_without_a_word_of_the_pod_it_is_refused(
    node: DriverProcess, pod: Pod, volume: csi.Volume, tmp_path: Path
) -> None:
    node.client.call(pod.stage(volume))
    code, message = node.client.refused(pod.publish(volume))
    assert (code, "podInfoOnMount: true" in message) == (StatusCode.FAILED_PRECONDITION, True)
    assert (mounts_below(tmp_path), inline_folders(tmp_path), pod.target.exists()) == ([], [], False)
    # One who was somebody else before is not, at the same place.
    node.client.call(publish(pod, volume, "alice"))
    assert node.client.refused(publish(pod, volume, "bob"))[0] is StatusCode.ALREADY_EXISTS


@pytest.mark.parametrize("kill", [False, True])
def test_restarts_and_repairs(
    node: DriverProcess, hdfs: LocalHdfs, area: str, pod: Pod, volume: csi.Volume, tmp_path: Path, kill: bool
) -> None:
    node.client.call(pod.stage(volume))
    node.client.call(publish(pod, volume, "alice"))
    if kill:
        daemon = ProcessIdentity.of(serving_pid(tmp_path, pod.target.parent))
        daemon.send(signal.SIGKILL)
        assert daemon.wait_gone(10)
    node.restart(kill=kill)
    node.client.call(publish(pod, volume, "alice"), timeout_s=60)
    write(pod.target / "new", b"x")
    assert owner(hdfs, f"{area}/new") == "alice"
    node.restart(kill=kill)
    node.client.call(pod.unpublish(volume))
    node.client.call(pod.unstage(volume))
    assert (mounts_below(tmp_path), inline_folders(tmp_path)) == ([], [])


def test_what_pods_ask_for(node: DriverProcess, pod: Pod, other: Pod, volume: csi.Volume, tmp_path: Path) -> None:
    groups = [capability(Mode.SINGLE_NODE_MULTI_WRITER, volume_mount_group=group) for group in ("2000", "3000")]
    node.client.call(pod.stage(volume, groups[0]))
    node.client.call(pod.stage(volume, groups[1]))
    node.client.call(publish(pod, volume, "alice", groups[0]))
    node.client.call(publish(other, volume, "bob", groups[1], readonly=True))
    shown = [bounded("stat", "--format=%g", ".", directory=mine.target).stdout for mine in (pod, other)]
    assert shown == [b"2000\n", b"3000\n"]
    assert b"Read-only file system" in bounded("touch", "new", directory=other.target).stderr
    node.client.call(other.unpublish(volume))
    # One pod at a time.
    assert node.client.refused(publish(other, volume, "bob", ALONE))[0] is StatusCode.FAILED_PRECONDITION
    node.client.call(pod.unpublish(volume))
    for _ in range(2):
        node.client.call(publish(other, volume, "bob", ALONE))
    node.client.call(other.unpublish(volume))
    node.client.call(pod.unstage(volume))
    # What is staged for readers is not writable for one.
    node.client.call(pod.stage(volume, capability(Mode.MULTI_NODE_READER_ONLY)))
    assert node.client.refused(publish(pod, volume, "alice"))[0] is StatusCode.FAILED_PRECONDITION
    assert (mounts_below(tmp_path), inline_folders(tmp_path)) == ([], [])


def test_a_secret_that_was_forgotten(
    node: DriverProcess, hdfs: LocalHdfs, area: str, pod: Pod, other: Pod, volume: csi.Volume
) -> None:
    address = hdfs.uri.removeprefix("hdfs://")
    properties = {"dfs.ha.namenodes.lab": "nn1", "dfs.namenode.rpc-address.lab.nn1": address}
    entries = "".join(f"<property><name>{k}</name><value>{v}</value></property>" for k, v in properties.items())
    secret = {"hdfs-site.xml": f"<configuration>{entries}</configuration>"}
    volume.volume_context["uri"] = f"hdfs://lab{area}"
    node.client.call(changed(pod.stage(volume), secrets=secret))
    node.client.call(publish(pod, volume, "alice"))
    assert read(pod.target / "data.bin") == CONTENT
    node.restart()
    node.client.call(publish(pod, volume, "alice"))
    code, message = node.client.refused(publish(other, volume, "bob"))
    assert (code, "node-publish-secret-name" in message) == (StatusCode.FAILED_PRECONDITION, True)
    node.client.call(changed(publish(other, volume, "bob"), secrets=secret))
    assert read(other.target / "data.bin") == CONTENT


def test_an_inline_volume(node: DriverProcess, hdfs: LocalHdfs, area: str, pod: Pod, volume: csi.Volume) -> None:
    volume.volume_context["readOnly"] = "false"
    request = publish(pod, volume, "alice")
    request.volume_context["csi.storage.k8s.io/ephemeral"] = "true"
    node.client.call(changed(request, "staging_target_path"))
    write(pod.target / "new", b"x")
    assert owner(hdfs, f"{area}/new") == "alice"
    node.client.call(pod.unpublish(volume))
