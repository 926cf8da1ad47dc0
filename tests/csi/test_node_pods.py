"""What one pod asks of a volume on its node: a group (fsGroup), to be alone (ReadWriteOncePod), a subPath."""

from pathlib import Path

import pytest
from grpc import StatusCode
from hdfs_csi.pb import csi_pb2 as csi

from tests.csi.driver import DriverProcess, bounded
from tests.csi.pods import Pod, kill_daemon, make_pod, mounts_below, read, write
from tests.csi.volumes import CONTENT, Mode, capability, create, names
from tests.support.local_hdfs import LocalHdfs

GROUP, OTHER_GROUP = "2000", "3000"
ALONE = capability(Mode.SINGLE_NODE_SINGLE_WRITER)
TOGETHER = capability(Mode.SINGLE_NODE_MULTI_WRITER)


def with_group(group: str, mode: Mode.Mode = Mode.SINGLE_NODE_MULTI_WRITER) -> csi.VolumeCapability:
    return capability(mode, volume_mount_group=group)


def shown(path: Path) -> str:
    done = bounded("stat", "--format=%g %a", path.name, directory=path.parent)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode().strip()


# ---- fsGroup


def test_a_group_shows_on_all_files(
    node: DriverProcess, hdfs: LocalHdfs, area: str, pod: Pod, volume: csi.Volume
) -> None:
    hdfs.webhdfs("PUT", f"{area}/data.bin", "SETPERMISSION", permission="604")
    hdfs.webhdfs("PUT", f"{area}/below", "MKDIRS", permission="700")
    for _ in range(2):
        node.client.call(pod.stage(volume, with_group(GROUP)))
        node.client.call(pod.publish(volume, with_group(GROUP)))
    assert [shown(pod.target / name) for name in ("", "data.bin", "below")] == ["2000 777", "2000 664", "2000 770"]
    # A pod with that fsGroup, as a user that HDFS has never heard of.
    command = ["setpriv", "--reuid=1001", "--regid=1001", f"--groups={GROUP}", "--"]
    script = "umask 077; test -r data.bin && test -w data.bin && echo x > new && mkdir dir"
    done = bounded("env", "-C", str(pod.target), *command, "sh", "-ec", script)
    assert done.returncode == 0, done.stderr.decode()
    assert [shown(pod.target / name) for name in ("new", "dir")] == ["2000 660", "2000 770"]
    assert names(hdfs, area) == {"below", "data.bin", "new", "dir"}


def test_another_group_is_refused_while_the_volume_is_mounted(
    node: DriverProcess, pod: Pod, volume: csi.Volume, tmp_path: Path
) -> None:
    node.client.call(pod.stage(volume, with_group(GROUP)))
    code, message = node.client.refused(pod.stage(volume, with_group(OTHER_GROUP)))
    assert (code, GROUP in message) == (StatusCode.ALREADY_EXISTS, True)
    code, message = node.client.refused(pod.publish(volume, with_group(OTHER_GROUP)))
    assert (code, "same fsGroup" in message) == (StatusCode.FAILED_PRECONDITION, True)
    # A pod that asks for none takes what is there; so does the kubelet when it asks again on behalf of such a pod.
    node.client.call(pod.stage(volume, TOGETHER))
    node.client.call(pod.publish(volume, TOGETHER))
    assert shown(pod.target / "data.bin").startswith(GROUP)

    # A repair keeps it.
    kill_daemon(tmp_path, pod)
    node.client.call(pod.publish(volume, TOGETHER), timeout_s=60)
    assert shown(pod.target / "data.bin").startswith(GROUP)


def test_a_group_can_not_be_added_while_the_volume_is_mounted(
    node: DriverProcess, pod: Pod, volume: csi.Volume
) -> None:
    node.client.call(pod.stage(volume))
    assert node.client.refused(pod.stage(volume, with_group(GROUP)))[0] is StatusCode.ALREADY_EXISTS
    assert node.client.refused(pod.publish(volume, with_group(GROUP)))[0] is StatusCode.FAILED_PRECONDITION
    node.client.call(pod.unstage(volume))
    node.client.call(pod.stage(volume, with_group(GROUP)))


def test_a_group_and_the_attribute_gid(node: DriverProcess, pod: Pod, volume: csi.Volume) -> None:
    volume.volume_context.update({"gid": OTHER_GROUP, "umask": "007"})
    code, message = node.client.refused(pod.stage(volume, with_group(GROUP)))
    assert (code, message) == (
        StatusCode.INVALID_ARGUMENT,
        "gid: given 3000, but the pod's fsGroup is 2000; drop one of them",
    )
    assert list(pod.staging.iterdir()) == []
    node.client.call(pod.stage(volume, with_group(OTHER_GROUP)))
    node.client.call(pod.publish(volume, with_group(OTHER_GROUP)))
    assert shown(pod.target / "data.bin") == "3000 660"


@pytest.mark.parametrize("group", ["staff", "-1", "4294967295", "1_000", "٣", "99999999999"])
def test_what_is_no_group(node: DriverProcess, pod: Pod, volume: csi.Volume, group: str) -> None:
    for request in (pod.stage(volume, with_group(group)), pod.publish(volume, with_group(group))):
        code, message = node.client.refused(request)
        assert (code, "volume_mount_group" in message) == (StatusCode.INVALID_ARGUMENT, True)


# ---- ReadWriteOncePod


def test_a_volume_for_one_pod(
    controller: DriverProcess, node: DriverProcess, base: str, pod: Pod, tmp_path: Path
) -> None:
    other = Pod(pod.staging, pod.target.with_name("other"))
    volume = controller.client.call(create("alone", base, volume_capabilities=[ALONE])).volume
    node.client.call(pod.stage(volume, ALONE))
    for _ in range(2):
        node.client.call(pod.publish(volume, ALONE))
    code, message = node.client.refused(other.publish(volume, ALONE))
    assert (code, str(pod.target) in message) == (StatusCode.FAILED_PRECONDITION, True)
    assert not other.target.exists()
    assert node.client.refused(pod.publish(volume, ALONE, readonly=True))[0] is StatusCode.ALREADY_EXISTS

    node.restart(kill=True)  # remembers nothing
    assert node.client.refused(other.publish(volume, ALONE))[0] is StatusCode.FAILED_PRECONDITION
    node.client.call(pod.publish(volume, ALONE))
    write(pod.target / "file", b"x")
    node.client.call(pod.unpublish(volume))
    node.client.call(other.publish(volume, ALONE))
    assert read(other.target / "file") == b"x"
    node.client.call(other.unpublish(volume))
    node.client.call(pod.unstage(volume))
    assert mounts_below(tmp_path) == []


@pytest.mark.parametrize("mode", [TOGETHER, capability(Mode.SINGLE_NODE_WRITER)])
def test_a_volume_for_many_pods_of_a_node(
    controller: DriverProcess, node: DriverProcess, base: str, pod: Pod, mode: csi.VolumeCapability
) -> None:
    other = Pod(pod.staging, pod.target.with_name("other"))
    volume = controller.client.call(create("together", base, volume_capabilities=[mode])).volume
    node.client.call(pod.stage(volume, mode))
    node.client.call(pod.publish(volume, mode))
    node.client.call(other.publish(volume, mode))
    write(pod.target / "file", b"x")
    assert read(other.target / "file") == b"x"


# ---- subPath


@pytest.mark.parametrize("mode", [TOGETHER, ALONE])
def test_a_sub_path_is_bound_as_the_kubelet_does(
    node: DriverProcess,
    hdfs: LocalHdfs,
    area: str,
    pod: Pod,
    volume: csi.Volume,
    tmp_path: Path,
    mode: csi.VolumeCapability,
) -> None:
    node.client.call(pod.stage(volume, mode))
    node.client.call(pod.publish(volume, mode))
    assert bounded("mkdir", "run-1", directory=pod.target).returncode == 0
    sub_path = tmp_path / "volume-subpaths"
    sub_path.mkdir()
    # The kubelet opens the directory and binds that, so that nobody can replace it by a symlink in between.
    assert bounded("mount", "--bind", str(pod.target / "run-1"), str(sub_path)).returncode == 0
    write(sub_path / "checkpoint", CONTENT, uid=65534)
    assert read(pod.target / "run-1" / "checkpoint") == CONTENT
    assert names(hdfs, f"{area}/run-1") == {"checkpoint"}
    node.client.call(pod.publish(volume, mode))  # the container is started again

    assert bounded("umount", str(sub_path)).returncode == 0
    node.client.call(pod.unpublish(volume))
    node.client.call(pod.unstage(volume))
    assert mounts_below(tmp_path) == []


def test_a_sub_path_that_is_left_behind_does_not_keep_the_volume_from_leaving(
    node: DriverProcess, pod: Pod, volume: csi.Volume, tmp_path: Path
) -> None:
    second = make_pod(tmp_path / "second")
    second = Pod(pod.staging, second.target)
    node.client.call(pod.stage(volume, ALONE))
    node.client.call(pod.publish(volume, ALONE))
    assert bounded("mkdir", "run-1", directory=pod.target).returncode == 0
    sub_path = tmp_path / "volume-subpaths"
    sub_path.mkdir()
    assert bounded("mount", "--bind", str(pod.target / "run-1"), str(sub_path)).returncode == 0
    node.client.call(pod.unpublish(volume))
    # It is no publication of its own.
    node.client.call(second.publish(volume, ALONE))
    node.client.call(second.unpublish(volume))
    node.client.call(pod.unstage(volume))
    assert [mount.point for mount in mounts_below(tmp_path)] == [str(sub_path)]
    assert bounded("umount", str(sub_path)).returncode == 0
