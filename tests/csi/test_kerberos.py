"""The driver on a cluster with Kerberos: the secrets of a claim say who makes its directory and who uses it."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from grpc import StatusCode
from hdfs_csi.pb import csi_pb2 as csi
from hdfs_fuse.backend import connect
from hdfs_fuse.config import MountConfig
from hdfs_fuse.errors import UnavailableError, UnsupportedError

from tests.csi.driver import DriverProcess
from tests.csi.nodes import running_node
from tests.csi.pods import Pod, read, write
from tests.csi.volumes import GIB, MOUNT, Mode, capability, capacity, changed, create, names
from tests.support.local_hdfs import KerberosHdfs, LocalHdfsError

MIB = 1 << 20


@pytest.fixture(scope="module")
def hdfs(nothing_left_behind: None) -> Iterator[KerberosHdfs]:
    with KerberosHdfs(protection="privacy") as running:
        yield running


@pytest.fixture
def controller(hdfs: KerberosHdfs) -> Iterator[DriverProcess]:
    with (
        tempfile.TemporaryDirectory(prefix="hdfs-csi-") as directory,
        DriverProcess("controller", Path(directory), hdfs.environment) as running,
    ):
        yield running


@pytest.fixture
def node(hdfs: KerberosHdfs, tmp_path: Path) -> Iterator[DriverProcess]:
    with running_node(hdfs.environment, tmp_path) as running:
        yield running


def test_a_claim_from_its_directory_to_its_end(
    hdfs: KerberosHdfs, controller: DriverProcess, node: DriverProcess, base: str, area: str, pod: Pod
) -> None:
    administrator, user = hdfs.secret("hdfs"), hdfs.secret("alice")
    asked = create(
        "claim", base, capacity_range=capacity(512 * MIB), secrets=administrator, parameters={"owner": "alice"}
    )
    volume = controller.client.call(asked).volume
    assert controller.client.call(asked).volume == volume

    # alice writes, within the quota.
    node.client.call(changed(pod.stage(volume), secrets=user))
    node.client.call(pod.publish(volume))
    content = os.urandom(3 * MIB)
    write(pod.target / "file", content)
    assert read(pod.target / "file") == content
    usage = node.client.call(pod.stats(volume)).usage
    assert {entry.unit: entry.total for entry in usage}[csi.VolumeUsage.BYTES] == 512 * MIB
    assert hdfs.webhdfs("GET", f"{area}/volumes/claim/file", "GETFILESTATUS")["FileStatus"]["owner"] == "alice"

    # It grows, and is asked about.
    grown = csi.ControllerExpandVolumeRequest(
        volume_id=volume.volume_id, capacity_range=capacity(GIB), volume_capability=MOUNT, secrets=administrator
    )
    assert controller.client.call(grown).capacity_bytes == GIB

    # A snapshot, and what is made from it.
    taken = controller.client.call(
        csi.CreateSnapshotRequest(source_volume_id=volume.volume_id, name="snap", secrets=administrator)
    ).snapshot
    write(pod.target / "file", b"changed")
    source = csi.VolumeContentSource(snapshot=csi.VolumeContentSource.SnapshotSource(snapshot_id=taken.snapshot_id))
    readers = [capability(Mode.MULTI_NODE_READER_ONLY)]
    view = controller.client.call(
        create("view", base, volume_content_source=source, volume_capabilities=readers, secrets=administrator)
    ).volume
    assert view.content_source == source
    for request in (
        csi.DeleteVolumeRequest(volume_id=view.volume_id, secrets=administrator),
        csi.DeleteSnapshotRequest(snapshot_id=taken.snapshot_id, secrets=administrator),
    ):
        controller.client.call(request)

    node.client.call(pod.unpublish(volume))
    node.client.call(pod.unstage(volume))
    assert hdfs.fetch(f"{area}/volumes/claim") == {"file": b"changed"}
    controller.client.call(csi.DeleteVolumeRequest(volume_id=volume.volume_id, secrets=administrator))
    assert "claim" not in names(hdfs, f"{area}/volumes")


def test_a_keytab_of_the_controllers_own(hdfs: KerberosHdfs, base: str, area: str) -> None:
    """The Kerberos library's environment, for requests that have no secret."""
    keytab = {"KRB5_CLIENT_KTNAME": str(hdfs.keytab("hdfs")), "KRB5CCNAME": "MEMORY:controller"}
    with (
        tempfile.TemporaryDirectory(prefix="hdfs-csi-") as directory,
        DriverProcess("controller", Path(directory), {**hdfs.environment, **keytab}) as controller,
    ):
        volume = controller.client.call(create("claim", base, capacity_range=capacity(GIB))).volume
        assert names(hdfs, f"{area}/volumes") >= {"claim"}
        assert controller.client.call(csi.GetCapacityRequest(parameters={"uri": base})).available_capacity > 0
        controller.client.call(csi.DeleteVolumeRequest(volume_id=volume.volume_id))
    assert "claim" not in names(hdfs, f"{area}/volumes")


def test_safe_mode_shows_in_the_health_of_a_volume(
    hdfs: KerberosHdfs, node: DriverProcess, area: str, pod: Pod
) -> None:
    volume = csi.Volume(volume_id=f"only-here{area}", volume_context={"uri": f"{hdfs.uri}{area}"})
    node.client.call(changed(pod.stage(volume), secrets=hdfs.secret("alice")))
    node.client.call(pod.publish(volume))
    assert not node.client.call(pod.health(volume)).volume_health.health_statuses
    hdfs.dfsadmin("-safemode", "enter")
    try:
        (found,) = node.client.call(pod.health(volume)).volume_health.health_statuses
        assert found.reason == "NameNodeSafeMode"
    finally:
        hdfs.dfsadmin("-safemode", "leave")


@pytest.fixture
def config(hdfs: KerberosHdfs, monkeypatch: pytest.MonkeyPatch) -> MountConfig:
    """For this process, which acts as alice and trusts the web servers."""
    monkeypatch.setenv("KRB5_CLIENT_KTNAME", str(hdfs.keytab("alice")))
    monkeypatch.setenv("KRB5CCNAME", "MEMORY:alice")
    monkeypatch.setenv("SSL_CERT_FILE", str(hdfs.certificate))
    return MountConfig(uri=hdfs.uri, hadoop_conf_dir=str(hdfs.conf_dir))


def test_the_second_way_of_storing_a_file(hdfs: KerberosHdfs, area: str, config: MountConfig) -> None:
    backend, content = connect(config), os.urandom(3 * MIB)
    backend.put(f"{area}/file", iter([content[:MIB], content[MIB:]]), len(content), 0o640, alone=False)
    backend.extend(f"{area}/file", iter([b"more"]), 4)
    assert hdfs.fetch(area) == {"file": content + b"more"}
    assert backend.space(area).capacity_bytes > 0
    backend.close()


def test_what_is_still_being_written_is_read(area: str, config: MountConfig) -> None:
    """Its last block over WebHDFS."""
    backend, content = connect(config), os.urandom(MIB)
    writer = backend.create(f"{area}/growing", mode=0o640, overwrite=False)
    writer.write(content)
    writer.sync()
    assert backend.open(f"{area}/growing").read(0, MIB) == content
    writer.close()
    backend.close()


def test_content_does_not_go_over_http_where_transfers_are_encrypted(area: str, config: MountConfig) -> None:
    plain = {"dfs.http.policy": "HTTP_ONLY"}
    backend = connect(msgspec.structs.replace(config, hadoop_properties=plain))
    with pytest.raises(UnsupportedError, match="HTTPS_ONLY"):
        backend.put(f"{area}/file", iter([b"content"]), 7, 0o640, alone=False)
    backend.close()


def test_a_web_server_whose_certificate_nobody_knows(
    area: str, config: MountConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE")
    backend = connect(msgspec.structs.replace(config, call_deadline_s=2.0))
    with pytest.raises(UnavailableError, match=r"certificate verify failed.*SSL_CERT_FILE"):
        backend.space(area)
    backend.close()


def test_who_may_not_administer(hdfs: KerberosHdfs, controller: DriverProcess, base: str, area: str) -> None:
    """Quotas are the superuser's: nothing is left of what alice began."""
    refused = controller.client.start(create("claim", base, capacity_range=capacity(MIB), secrets=hdfs.secret("alice")))
    assert refused.code() is StatusCode.PERMISSION_DENIED, refused.details()
    assert "claim" not in names(hdfs, f"{area}/volumes")


def test_without_a_secret(hdfs: KerberosHdfs, controller: DriverProcess, base: str, area: str) -> None:
    refused = controller.client.start(create("claim", base))
    assert refused.code() is StatusCode.UNAUTHENTICATED, refused.details()
    assert "redential" in refused.details()
    with pytest.raises(LocalHdfsError, match="FileNotFound"):
        names(hdfs, f"{area}/volumes")


def test_keys_that_are_not_the_principals(hdfs: KerberosHdfs, node: DriverProcess, area: str, pod: Pod) -> None:
    volume = csi.Volume(volume_id="static", volume_context={"uri": f"{hdfs.uri}{area}"})
    wrong = {**hdfs.secret("alice"), "keytab": hdfs.secret("bob")["keytab"]}
    refused = node.client.start(changed(pod.stage(volume), secrets=wrong))
    assert refused.code() is StatusCode.UNAUTHENTICATED, refused.details()
    assert "redential" in refused.details()
