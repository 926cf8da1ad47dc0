"""Secrets in requests to both services, with a real HDFS and real mounts: what they do, and that they show nowhere."""

import contextlib
import os
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from grpc import StatusCode
from hdfs_csi.pb import csi_pb2 as csi

from tests.csi.driver import DriverProcess, bounded
from tests.csi.pods import Pod, daemon_pid, kill_daemon, mounts_below, read, serving_pid, write
from tests.csi.volumes import CONTENT, capacity, changed, create, names, put, read_at_once, status
from tests.support.local_hdfs import LocalHdfs
from tests.support.processes import Daemon
from tests.support.waiting import wait_until

SENTINEL = "hunter2"
# Reads its arguments' content all at once, and has the kernel forget it.
READ_AT_ONCE = """
import os, sys, threading
together = threading.Barrier(len(sys.argv) - 1)
def read(name):
    together.wait()
    with open(name, "rb") as file:
        assert len(file.read()) == 1000
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
threads = [threading.Thread(target=read, args=[name]) for name in sys.argv[1:]]
for thread in threads: thread.start()
for thread in threads: thread.join()
"""
# A nameservice that no configuration of the driver knows.
LAB = "hdfs://lab"


def xml(properties: Mapping[str, str]) -> str:
    entries = "".join(f"<property><name>{k}</name><value>{v}</value></property>" for k, v in properties.items())
    return f"<configuration>{entries}</configuration>"


@pytest.fixture
def services(request: pytest.FixtureRequest, supervised_by: str) -> list[Daemon]:
    """The processes of the driver on a node."""
    names = ["node"] if supervised_by == "node" else ["node", "mounter"]
    return [request.getfixturevalue(name).daemon for name in names]


@pytest.fixture
def secret(hdfs: LocalHdfs) -> dict[str, str]:
    """What says where the nameservice is."""
    return {
        "core-site.xml": xml({"driver.test.password": SENTINEL}),
        "hdfs-site.xml": xml(
            {
                "dfs.nameservices": "lab",
                "dfs.ha.namenodes.lab": "nn1",
                "dfs.namenode.rpc-address.lab.nn1": hdfs.uri.removeprefix("hdfs://"),
                "dfs.namenode.http-address.lab.nn1": hdfs.namenode_http.removeprefix("http://"),
            }
        ),
    }


@pytest.fixture
def volume(volume: csi.Volume, area: str) -> csi.Volume:
    volume.volume_context["uri"] = f"{LAB}{area}"
    return volume


def descendants(pid: int) -> Iterator[int]:
    """A process, and all that it has started."""
    yield pid
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # one that has ended meanwhile
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text(encoding="ascii").split():
                yield from descendants(int(child))


def of_process(pid: int, name: str) -> bytes:
    """A file of /proc/PID; nothing of one that has ended."""
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


def modules(pids: list[int]) -> set[str]:
    """What of ours runs in these processes."""
    lines = [of_process(pid, "cmdline").split(b"\0") for pid in pids]
    return {line[line.index(b"-m") + 1].decode() for line in lines if b"-m" in line}


def processes(services: list[Daemon], directory: Path) -> list[int]:
    """These and all that they have started; daemons are nobody's children."""
    started = [service.identity.pid for service in services if service.identity is not None]
    started += [serving_pid(directory, Path(mount.point)) for mount in mounts_below(directory)]
    return [pid for process in started for pid in descendants(process)]


def assert_hidden(services: list[Daemon], directory: Path) -> None:
    """The sentinel is in no command line, environment or log, and in no file that the driver keeps."""
    for pid in processes(services, directory):
        for name in ("cmdline", "environ"):
            assert SENTINEL.encode() not in of_process(pid, name)
    for service in services:
        assert SENTINEL not in service.log.read_text(encoding="utf-8")
    mountpoints = {mount.point for mount in mounts_below(directory)}
    for folder, folders, files in os.walk(directory):
        folders[:] = [name for name in folders if f"{folder}/{name}" not in mountpoints]
        for path in (Path(folder) / name for name in files):
            if path.is_file():
                assert SENTINEL.encode() not in path.read_bytes(), path


# ---- the node


@pytest.mark.parametrize("supervised_by", ["node", "mounter"])
def test_a_nameservice_that_only_the_secret_knows(
    node: DriverProcess,
    services: list[Daemon],
    hdfs: LocalHdfs,
    area: str,
    pod: Pod,
    volume: csi.Volume,
    secret: dict[str, str],
    tmp_path: Path,
) -> None:
    small = {f"{number:02}": os.urandom(1000) for number in range(64)}
    with ThreadPoolExecutor(32) as pool:  # each takes half a second to be complete
        list(pool.map(lambda name: put(hdfs, f"{area}/{name}", small[name]), small))
    node.client.refused(pod.stage(volume), timeout_s=60)
    node.client.call(changed(pod.stage(volume), secrets=secret))
    node.client.call(changed(pod.publish(volume), secrets=secret))
    assert read(pod.target / "data.bin") == CONTENT
    write(pod.target / "new", CONTENT)
    assert read_at_once(hdfs, f"{area}/new") == CONTENT
    assert node.client.call(pod.stats(volume)).usage
    assert not node.client.call(pod.health(volume)).volume_health.health_statuses

    def reads_in_a_burst() -> bool:
        done = bounded(sys.executable, "-c", READ_AT_ONCE, *small, directory=pod.target)
        assert (done.returncode, done.stderr) == (0, b"")
        for block in (tmp_path / "cache").glob("v2/???/*"):
            block.unlink()
        return "hdfs_fuse.loader" in modules(processes(services, tmp_path))

    # The processes that the daemon starts get it as well, and keep it to themselves.
    wait_until(reads_in_a_burst, "small files are loaded by a process of their own")
    assert modules(processes(services, tmp_path)) >= {"hdfs_fuse.upload.uploader", "hdfs_fuse.loader"}
    assert_hidden(services, tmp_path)

    node.client.call(pod.unpublish(volume))
    node.client.call(pod.unstage(volume))
    assert (mounts_below(tmp_path), list(pod.staging.iterdir())) == ([], [])


def test_pods_act_as_the_user_of_the_secret(
    node: DriverProcess, hdfs: LocalHdfs, area: str, pod: Pod, volume: csi.Volume, secret: dict[str, str]
) -> None:
    node.client.call(changed(pod.stage(volume), secrets=secret | {"user": "alice"}))
    node.client.call(pod.publish(volume))
    write(pod.target / "new", b"x", uid=65534)
    assert bounded("mkdir", "dir", directory=pod.target).returncode == 0
    for name in ("new", "dir"):
        there = status(hdfs, f"{area}/{name}")
        assert there is not None
        assert there["owner"] == "alice"
    node.client.call(pod.unpublish(volume))
    node.client.call(pod.unstage(volume))


def test_an_inline_volume_has_one(
    node: DriverProcess, pod: Pod, volume: csi.Volume, secret: dict[str, str], tmp_path: Path
) -> None:
    request = changed(pod.publish_inline(volume), secrets=secret)
    for _ in range(2):
        node.client.call(request)
    assert read(pod.target / "data.bin") == CONTENT
    node.client.call(pod.unpublish(volume))
    assert mounts_below(tmp_path) == []


def test_repairs_need_it(
    node: DriverProcess, pod: Pod, volume: csi.Volume, secret: dict[str, str], tmp_path: Path
) -> None:
    node.client.call(changed(pod.stage(volume), secrets=secret))
    assert b'"hasSecret":true' in (pod.staging / "volume.json").read_bytes()
    kill_daemon(tmp_path, pod)
    # The node service remembers it,
    node.client.call(pod.publish(volume), timeout_s=60)
    assert read(pod.target / "data.bin") == CONTENT
    node.restart(kill=True)
    # does not need it while the mount lives,
    node.client.call(pod.publish(volume))
    kill_daemon(tmp_path, pod)
    # and asks for it where it does.
    for _ in range(2):
        code, message = node.client.refused(pod.publish(volume))
        assert (code, "csi.storage.k8s.io/node-publish-secret-name" in message) == (
            StatusCode.FAILED_PRECONDITION,
            True,
        )
    node.client.call(changed(pod.publish(volume), secrets=secret), timeout_s=60)
    assert read(pod.target / "data.bin") == CONTENT
    kill_daemon(tmp_path, pod)
    node.client.call(pod.publish(volume), timeout_s=60)
    assert read(pod.target / "data.bin") == CONTENT


def test_one_that_was_changed_meanwhile(
    node: DriverProcess, pod: Pod, volume: csi.Volume, secret: dict[str, str], tmp_path: Path
) -> None:
    node.client.call(changed(pod.stage(volume), secrets=secret))
    pid = daemon_pid(tmp_path, pod)
    for other in (secret | {"user": "alice"}, secret | {"core-site.xml": xml({})}, {}):
        node.client.call(changed(pod.stage(volume), secrets=other))
        node.client.call(changed(pod.publish(volume), secrets=other))
    assert daemon_pid(tmp_path, pod) == pid


def test_what_is_refused(
    node: DriverProcess, services: list[Daemon], pod: Pod, volume: csi.Volume, tmp_path: Path
) -> None:
    volume.volume_context["user"] = "alice"
    for given, message in (
        ({"password": SENTINEL}, "unknown key 'password' in a secret"),
        ({"user": SENTINEL}, "user: the volume has it, and its secret another identity"),
        ({"core-site.xml": SENTINEL}, "core-site.xml: not accepted"),
        ({"keytab": SENTINEL}, "keytab: not accepted"),
    ):
        for request in (pod.stage(volume), pod.publish_inline(volume)):
            code, text = node.client.refused(changed(request, secrets=given))
            assert (code, text.startswith(message)) == (StatusCode.INVALID_ARGUMENT, True), text
    assert_hidden(services, tmp_path)
    assert mounts_below(tmp_path) == []


# ---- the controller


def test_the_controller_reaches_what_only_the_secret_knows(
    controller: DriverProcess, hdfs: LocalHdfs, area: str, secret: dict[str, str]
) -> None:
    client = controller.client
    created = create("pvc-1", f"{LAB}{area}/volumes", secrets=secret, capacity_range=capacity(1 << 30))
    made = client.call(created).volume
    assert made.volume_context["uri"] == f"{LAB}{area}/volumes/pvc-1"
    assert status(hdfs, f"{area}/volumes/pvc-1") is not None
    requests = [
        csi.ControllerExpandVolumeRequest(volume_id=made.volume_id, capacity_range=capacity(2 << 30), secrets=secret),
        csi.ControllerModifyVolumeRequest(
            volume_id=made.volume_id, mutable_parameters={"replication": "1"}, secrets=secret
        ),
        csi.ValidateVolumeCapabilitiesRequest(
            volume_id=made.volume_id, volume_capabilities=created.volume_capabilities, secrets=secret
        ),
        csi.ControllerGetVolumeHealthRequest(volume_id=made.volume_id, secrets=secret),
        csi.CreateSnapshotRequest(source_volume_id=made.volume_id, name="before", secrets=secret),
    ]
    snapshot = [client.call(request) for request in requests][-1].snapshot
    assert client.call(csi.GetSnapshotRequest(snapshot_id=snapshot.snapshot_id, secrets=secret)).snapshot == snapshot
    client.call(csi.DeleteSnapshotRequest(snapshot_id=snapshot.snapshot_id, secrets=secret))
    client.call(csi.DeleteVolumeRequest(volume_id=made.volume_id, secrets=secret))
    assert names(hdfs, f"{area}/volumes") == {".hdfs-csi"}
    assert SENTINEL not in controller.daemon.log.read_text(encoding="utf-8")


def test_snapshots_are_listed_with_it(listing_controller: DriverProcess, area: str, secret: dict[str, str]) -> None:
    client = listing_controller.client
    volume = client.call(create("pvc-1", f"{LAB}{area}/volumes", secrets=secret)).volume
    made = client.call(csi.CreateSnapshotRequest(source_volume_id=volume.volume_id, name="one", secrets=secret))
    listed = client.call(csi.ListSnapshotsRequest(source_volume_id=volume.volume_id, secrets=secret))
    assert [entry.snapshot for entry in listed.entries] == [made.snapshot]


def test_the_controller_is_nobody_else(controller: DriverProcess, hdfs: LocalHdfs, area: str, base: str) -> None:
    code, message = controller.client.refused(create("pvc-1", base, secrets={"user": SENTINEL}))
    assert (code, "HADOOP_USER_NAME" in message) == (StatusCode.INVALID_ARGUMENT, True)
    assert names(hdfs, area) == set()
    assert SENTINEL not in controller.daemon.log.read_text(encoding="utf-8")
