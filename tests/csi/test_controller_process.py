"""`hdfs-csi controller` as a process: identities, servers that do not answer, its socket, its end."""

import contextlib
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from grpc import StatusCode
from hdfs_csi.pb import csi_pb2 as csi

from tests.csi.driver import DriverProcess, bounded, hdfs_csi
from tests.csi.volumes import create, names, status
from tests.support.local_hdfs import LocalHdfs

# ---- identities and servers


@contextlib.contextmanager
def another_controller(hdfs: LocalHdfs, *options: str, **environment: str) -> Iterator[DriverProcess]:
    with (
        tempfile.TemporaryDirectory(prefix="hdfs-csi-") as directory,
        DriverProcess("controller", Path(directory), {**hdfs.environment, **environment}, *options) as running,
    ):
        yield running


def test_who_is_no_superuser_may_not_give_directories_away(hdfs: LocalHdfs, area: str, base: str) -> None:
    with another_controller(hdfs, HADOOP_USER_NAME="alice") as controller:
        volume = controller.client.call(create("mine", base)).volume
        made = status(hdfs, f"{area}/volumes/mine")
        assert made is not None
        assert made["owner"] == "alice"

        code, message = controller.client.refused(create("other", base, parameters={"owner": "bob"}))
        assert code is StatusCode.PERMISSION_DENIED
        assert "superuser" in message
        # Nothing is left of what could not be made, so that a corrected StorageClass works.
        assert names(hdfs, f"{area}/volumes") == {".hdfs-csi", "mine"}
        controller.client.call(create("other", base, parameters={"group": "data"}))
        controller.client.call(csi.DeleteVolumeRequest(volume_id=volume.volume_id))

    with another_controller(hdfs, HADOOP_USER_NAME="bob") as controller:
        code, _ = controller.client.refused(create("third", base))
        assert code is StatusCode.PERMISSION_DENIED
        code, _ = controller.client.refused(csi.DeleteVolumeRequest(volume_id=f"{base}#other"))
        assert code is StatusCode.PERMISSION_DENIED
    assert names(hdfs, f"{area}/volumes") == {".hdfs-csi", "other"}


def test_a_namenode_that_does_not_answer_is_unavailable_in_time() -> None:
    with LocalHdfs(datanodes=1) as hdfs, another_controller(hdfs, "--hdfs-deadline-seconds", "3") as controller:
        base = f"{hdfs.uri}/volumes"
        volume = controller.client.call(create("pvc-1", base)).volume

        for fault, mend in ((hdfs.pause_namenode, hdfs.resume_namenode), (hdfs.kill_namenode, hdfs.start_namenode)):
            fault()
            try:
                for request in (create("pvc-2", base), csi.DeleteVolumeRequest(volume_id=volume.volume_id)):
                    code, message = controller.client.refused(request, timeout_s=15)
                    assert code is StatusCode.UNAVAILABLE, message
                    assert hdfs.uri.removeprefix("hdfs://") in message
                # Identity asks nothing of HDFS: a restart would not mend it.
                assert controller.client.call(csi.ProbeRequest(), timeout_s=5).ready.value
            finally:
                mend()
        controller.client.call(create("pvc-2", base))
        controller.client.call(csi.DeleteVolumeRequest(volume_id=volume.volume_id))


def test_one_operation_a_volume_at_a_time(base: str) -> None:
    with LocalHdfs(datanodes=1) as hdfs, another_controller(hdfs, "--hdfs-deadline-seconds", "20") as controller:
        uri = f"{hdfs.uri}/volumes"
        hdfs.pause_namenode()
        try:
            running, message = controller.client.hold(create("pvc-1", uri))
            assert "pvc-1" in message
            code, _ = controller.client.refused(csi.DeleteVolumeRequest(volume_id=f"{uri}#pvc-1"))
            assert code is StatusCode.ABORTED
        finally:
            hdfs.resume_namenode()
        assert running.result().volume.volume_id == f"{uri}#pvc-1"
        controller.client.call(csi.DeleteVolumeRequest(volume_id=f"{uri}#pvc-1"))


def test_identity(controller: DriverProcess) -> None:
    info = controller.client.call(csi.GetPluginInfoRequest())
    assert (info.name, info.vendor_version.count(".")) == ("hdfs.csi.dev", 2)
    kinds = csi.PluginCapability
    service = kinds.Service(type=kinds.Service.CONTROLLER_SERVICE)
    expansion = kinds.VolumeExpansion(type=kinds.VolumeExpansion.ONLINE)
    offered = controller.client.call(csi.GetPluginCapabilitiesRequest()).capabilities
    assert list(offered) == [kinds(service=service), kinds(volume_expansion=expansion)]


def test_the_socket_is_for_its_owner_and_outlived_by_nothing(hdfs: LocalHdfs) -> None:
    with another_controller(hdfs) as controller:
        assert stat.S_IMODE(os.stat(controller.socket).st_mode) == 0o600
        second = bounded(hdfs_csi(), "controller", "--endpoint", f"unix://{controller.socket}", timeout_s=30)
        assert second.returncode == 1
        assert b"another process listens" in second.stderr

        controller.daemon.kill()
        assert os.path.exists(controller.socket)
        controller.start()  # over the socket that the dead one left

        controller.daemon.stop(grace_s=30)
        assert not os.path.exists(controller.socket)


def test_sigterm_lets_running_calls_end() -> None:
    with LocalHdfs(datanodes=1) as hdfs, another_controller(hdfs) as controller:
        uri = f"{hdfs.uri}/volumes"
        hdfs.pause_namenode()
        try:
            running, _ = controller.client.hold(create("pvc-1", uri))
            controller.daemon.terminate_nowait()
        finally:
            hdfs.resume_namenode()
        assert running.result().volume.volume_id == f"{uri}#pvc-1"
        controller.daemon.stop(grace_s=30)


def test_secrets_are_never_logged(controller: DriverProcess, base: str) -> None:
    site = "<configuration><property><name>my.key</name><value>hunter2</value></property></configuration>"
    secrets = {"core-site.xml": site}
    controller.client.call(create("pvc-s", base, secrets=secrets))
    controller.client.refused(create("pvc-s", base, secrets=secrets, parameters={"nope": "1"}))
    controller.client.refused(create("pvc-s", base, secrets={"password": "hunter2"}))
    log = controller.daemon.log.read_text(encoding="utf-8")
    assert 'name: "pvc-s"' in log
    assert "***stripped***" in log
    assert "hunter2" not in log
