"""`hdfs-csi node` on its socket, with real mounts of a real HDFS: what pods write, and who may not."""

import errno
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from grpc import StatusCode
from hdfs_csi.pb import csi_pb2 as csi

from tests.csi.driver import DriverProcess, bounded
from tests.csi.pods import Pod, daemon_pid, kill_daemon, make_pod, mounts_below, read, write
from tests.csi.volumes import CONTENT, Mode, capability, create, names, read_at_once, read_file, status
from tests.support.local_hdfs import LocalHdfs
from tests.support.processes import ProcessIdentity

NOBODY = 65534

READERS = {
    "ReadOnlyMany": capability(Mode.MULTI_NODE_READER_ONLY),
    "one reader": capability(Mode.SINGLE_NODE_READER_ONLY),
    "mount option": capability(Mode.MULTI_NODE_MULTI_WRITER, mount_flags=["ro", "noatime"]),
}


def shell(script: str, directory: Path, uid: int | None = None) -> str:
    """Run a shell script that must succeed in a pod's volume."""
    done = bounded("sh", "-ec", script, directory=directory, uid=uid)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


def staged_folders(directory: Path) -> list[str]:
    """What is left in the staging directory of a node."""
    return sorted(os.listdir(directory / "staging"))


# ---- what pods write


@pytest.mark.parametrize("mode", ["0755", "1777"])
def test_a_pod_that_is_not_root_writes_to_its_claim(
    controller: DriverProcess, node: DriverProcess, hdfs: LocalHdfs, area: str, pod: Pod, tmp_path: Path, mode: str
) -> None:
    made = create("pvc-1", f"{hdfs.uri}{area}/volumes", parameters={"mode": mode})
    volume = controller.client.call(made).volume
    node.client.call(pod.stage(volume))
    node.client.call(pod.publish(volume))
    write(pod.target / "checkpoint", CONTENT, uid=NOBODY)
    assert read_at_once(hdfs, f"{area}/volumes/pvc-1/checkpoint") == CONTENT
    shell(
        """
        test -w . && test -w checkpoint
        mkdir logs && echo one > logs/events && echo two >> logs/events
        chmod 640 logs/events
        touch -d 2001-02-03T04:05:06Z logs/events
        mv checkpoint checkpoint.old && cp checkpoint.old checkpoint && rm checkpoint.old
        mkdir empty && rmdir empty
        """,
        pod.target,
        uid=NOBODY,
    )
    path = f"{area}/volumes/pvc-1"
    assert names(hdfs, path) == {"checkpoint", "logs"}
    assert read_at_once(hdfs, f"{path}/checkpoint") == CONTENT
    assert read_at_once(hdfs, f"{path}/logs/events") == b"one\ntwo\n"
    there = status(hdfs, f"{path}/logs/events")
    assert there is not None
    assert (there["permission"], there["modificationTime"]) == ("640", 981173106000)

    node.client.call(pod.unpublish(volume))
    node.client.call(pod.unstage(volume))
    assert (mounts_below(tmp_path), staged_folders(tmp_path), list(pod.staging.iterdir())) == ([], [], [])
    assert names(hdfs, path) == {"checkpoint", "logs"}
    controller.client.call(csi.DeleteVolumeRequest(volume_id=volume.volume_id))
    assert status(hdfs, path) is None


def test_the_namenode_decides_who_may_write(node: DriverProcess, hdfs: LocalHdfs, area: str, pod: Pod) -> None:
    hdfs.webhdfs("PUT", f"{area}/closed", "MKDIRS", permission="755")
    volume = csi.Volume(volume_id="alice-s", volume_context={"uri": f"{hdfs.uri}{area}", "user": "alice"})
    node.client.call(pod.stage(volume))
    node.client.call(pod.publish(volume))
    write(pod.target / "hers", b"x", uid=NOBODY)
    there = status(hdfs, f"{area}/hers")
    assert there is not None
    assert there["owner"] == "alice"
    for uid in (None, NOBODY):  # root of the node is nobody special
        refused = bounded("sh", "-c", "echo x > closed/file", directory=pod.target, uid=uid)
        assert b"Permission denied" in refused.stderr
    assert names(hdfs, f"{area}/closed") == set()


def test_a_full_staging_directory(
    node_with_little_room: DriverProcess, hdfs: LocalHdfs, area: str, pod: Pod, volume: csi.Volume
) -> None:
    node = node_with_little_room
    node.client.call(pod.stage(volume))
    node.client.call(pod.publish(volume))
    done = bounded("sh", "-c", "head -c 2000000 /dev/zero > large", directory=pod.target)
    assert b"No space left on device" in done.stderr
    write(pod.target / "small", CONTENT)
    assert read_at_once(hdfs, f"{area}/small") == CONTENT


# ---- who may not


@pytest.mark.parametrize("how", READERS)
def test_a_volume_for_readers_refuses_changes(
    node: DriverProcess, pod: Pod, volume: csi.Volume, hdfs: LocalHdfs, area: str, how: str
) -> None:
    for _ in range(2):
        node.client.call(pod.stage(volume, READERS[how]))
    for readonly in (False, True):
        node.client.call(pod.publish(volume, READERS[how], readonly=readonly))
        refuses_changes(pod)
    code, message = node.client.refused(pod.stage(volume))
    assert (code, "read-only flag" in message) == (StatusCode.ALREADY_EXISTS, True)
    other = Pod(pod.staging, pod.target.with_name("other"))
    code, message = node.client.refused(other.publish(volume))
    assert (code, "staged read-only" in message) == (StatusCode.FAILED_PRECONDITION, True)
    node.client.call(other.publish(volume, readonly=True))
    refuses_changes(other)
    for reader in (pod, other):
        node.client.call(reader.unpublish(volume))
    node.client.call(pod.unstage(volume))
    assert names(hdfs, area) == {"data.bin"}


def refuses_changes(pod: Pod) -> None:
    assert read(pod.target / "data.bin", uid=NOBODY) == CONTENT
    for change in ("echo x > new", "echo x >> data.bin", "mkdir new", "rm -f data.bin", "mv data.bin new",
                   "chmod 600 data.bin", "touch data.bin"):  # fmt: skip
        for uid in (None, NOBODY):
            done = bounded("sh", "-c", change, directory=pod.target, uid=uid)
            assert b"Read-only file system" in done.stderr, change


def test_readers_and_writers_of_one_volume(
    node: DriverProcess, pod: Pod, volume: csi.Volume, hdfs: LocalHdfs, area: str
) -> None:
    reader = Pod(pod.staging, pod.target.with_name("reader"))
    option = Pod(pod.staging, pod.target.with_name("option"))
    node.client.call(pod.stage(volume))
    node.client.call(pod.publish(volume))
    node.client.call(reader.publish(volume, readonly=True))
    node.client.call(option.publish(volume, READERS["mount option"]))
    refuses_changes(reader)
    refuses_changes(option)
    assert node.client.refused(reader.publish(volume))[0] is StatusCode.ALREADY_EXISTS
    write(pod.target / "new", b"written")
    assert read(reader.target / "new") == b"written"
    assert read_at_once(hdfs, f"{area}/new") == b"written"


def test_java_s_client_only_reads(
    controller: DriverProcess, node: DriverProcess, pod: Pod, volume: csi.Volume, base: str
) -> None:
    volume.volume_context["backend"] = "pyarrow"
    code, message = node.client.refused(pod.stage(volume))
    assert (code, "pyarrow only reads" in message) == (StatusCode.INVALID_ARGUMENT, True)
    made = create("pvc-1", base, parameters={"backend": "pyarrow"})
    code, message = controller.client.refused(made)
    assert (code, "pyarrow only reads" in message) == (StatusCode.INVALID_ARGUMENT, True)
    reading = [READERS["ReadOnlyMany"], READERS["mount option"]]
    made = create("pvc-1", base, parameters={"backend": "pyarrow"}, volume_capabilities=reading)
    claimed = controller.client.call(made).volume
    for known in (claimed, volume):
        for asked, is_confirmed in ((reading, True), ([*reading, capability(Mode.SINGLE_NODE_WRITER)], False)):
            answer = controller.client.call(
                csi.ValidateVolumeCapabilitiesRequest(
                    volume_id=known.volume_id, volume_context=known.volume_context, volume_capabilities=asked
                )
            )
            assert answer.HasField("confirmed") is is_confirmed
            assert ("pyarrow only reads" in answer.message) is not is_confirmed


# ---- the end


@pytest.mark.parametrize("restarted", [False, True])
def test_unstaging_waits_until_all_is_complete(
    node: DriverProcess, hdfs: LocalHdfs, area: str, pod: Pod, volume: csi.Volume, tmp_path: Path, restarted: bool
) -> None:
    node.client.call(pod.stage(volume))
    node.client.call(pod.publish(volume))
    daemon = ProcessIdentity.of(daemon_pid(tmp_path, pod))
    if restarted:
        node.restart(kill=True)
    files = {f"file{number}": os.urandom(1000) for number in range(100)}
    with ThreadPoolExecutor(8) as pool:
        for _ in pool.map(lambda file: (pod.target / file[0]).write_bytes(file[1]), files.items()):
            pass
    node.client.call(pod.unpublish(volume))
    node.client.call(pod.unstage(volume))
    # hdfs-native reads the last block of a file only when it is complete.
    assert {name: read_file(hdfs, f"{area}/{name}") for name in files} == files
    assert not daemon.alive()
    assert names(hdfs, area) == {"data.bin", *files}
    assert (mounts_below(tmp_path), staged_folders(tmp_path), list((tmp_path / "run").iterdir())) == ([], [], [])


def test_a_file_that_was_not_stored_is_tried_again_at_the_end(
    node: DriverProcess, hdfs: LocalHdfs, area: str, pod: Pod, volume: csi.Volume
) -> None:
    node.client.call(pod.stage(volume))
    node.client.call(pod.publish(volume))
    hdfs.dfsadmin("-setSpaceQuota", "1m", area)
    done = bounded("sh", "-c", "head -c 3000000 /dev/zero > large", directory=pod.target)
    assert b"Disk quota exceeded" in done.stderr
    hdfs.dfsadmin("-clrSpaceQuota", area)
    node.client.call(pod.unpublish(volume))
    node.client.call(pod.unstage(volume))
    assert read_file(hdfs, f"{area}/large") == bytes(3_000_000)


def test_a_file_that_is_still_open_at_the_end(
    node: DriverProcess, hdfs: LocalHdfs, area: str, pod: Pod, volume: csi.Volume, tmp_path: Path
) -> None:
    node.client.call(pod.stage(volume))
    node.client.call(pod.publish(volume))
    daemon = ProcessIdentity.of(daemon_pid(tmp_path, pod))
    left_open = os.open(pod.target / "file", os.O_WRONLY | os.O_CREAT)
    os.write(left_open, CONTENT)
    node.client.call(pod.unpublish(volume), timeout_s=30)
    node.client.call(pod.unstage(volume), timeout_s=30)
    assert not daemon.alive()
    assert read_file(hdfs, f"{area}/file") == CONTENT
    with pytest.raises(OSError, match=os.strerror(errno.ENOTCONN)):
        os.write(left_open, b"too late")
    with pytest.raises(OSError, match=os.strerror(errno.ENOTCONN)):
        os.close(left_open)


@pytest.mark.parametrize("kill", [False, True])
def test_a_file_that_is_written_across_a_restart_of_the_node_service(
    node: DriverProcess, hdfs: LocalHdfs, area: str, pod: Pod, volume: csi.Volume, kill: bool
) -> None:
    node.client.call(pod.stage(volume))
    node.client.call(pod.publish(volume))
    with (pod.target / "file").open("wb", buffering=0) as file:
        file.write(CONTENT)
        node.restart(kill=kill)
        file.write(CONTENT)
    assert read_at_once(hdfs, f"{area}/file") == CONTENT + CONTENT
    node.client.call(pod.stage(volume))
    node.client.call(pod.publish(volume))
    write(pod.target / "file", b"afterwards")
    node.client.call(pod.unpublish(volume))
    node.client.call(pod.unstage(volume))
    assert read_file(hdfs, f"{area}/file") == b"afterwards"


def test_a_daemon_that_is_repaired_is_writable_again(
    node: DriverProcess, hdfs: LocalHdfs, area: str, pod: Pod, volume: csi.Volume, tmp_path: Path
) -> None:
    for asked, is_writable in ((capability(Mode.MULTI_NODE_MULTI_WRITER), True), (READERS["ReadOnlyMany"], False)):
        node.client.call(pod.stage(volume, asked))
        kill_daemon(tmp_path, pod)
        node.client.call(pod.publish(volume, asked), timeout_s=60)
        done = bounded("sh", "-c", "echo x > file", directory=pod.target)
        assert (done.returncode == 0) is is_writable
        node.client.call(pod.unpublish(volume))
        node.client.call(pod.unstage(volume))
    assert staged_folders(tmp_path) == []


# ---- two nodes


def test_two_nodes_write_to_one_volume(
    node: DriverProcess, second_node: DriverProcess, hdfs: LocalHdfs, area: str, pod: Pod, volume: csi.Volume,
    tmp_path: Path,
) -> None:  # fmt: skip
    everybody = capability(Mode.MULTI_NODE_MULTI_WRITER)
    volume.volume_context["metadataTtlSeconds"] = "0"  # what the other node writes is seen at once
    second = make_pod(tmp_path / "second")
    for service, at in ((node, pod), (second_node, second)):
        service.client.call(at.stage(volume, everybody))
        service.client.call(at.publish(volume, everybody))

    # No process is started meanwhile: it would inherit the open file, and closing that stores it.
    with (pod.target / "shared").open("wb") as file:
        file.write(b"first\n")
        with pytest.raises(OSError, match=os.strerror(errno.EBUSY)):
            os.open(second.target / "shared", os.O_WRONLY | os.O_CREAT)
        (second.target / "other").write_bytes(b"other")
    assert read(second.target / "shared") == b"first\n"
    with (second.target / "shared").open("ab") as file:
        with pytest.raises(OSError, match=os.strerror(errno.EBUSY)):
            os.open(pod.target / "shared", os.O_RDWR)
        file.write(b"second\n")
    assert read_at_once(hdfs, f"{area}/shared") == b"first\nsecond\n"
    assert read(pod.target / "other") == b"other"

    for service, at in ((node, pod), (second_node, second)):
        service.client.call(at.unpublish(volume))
        service.client.call(at.unstage(volume))
    assert read_file(hdfs, f"{area}/shared") == b"first\nsecond\n"
    assert read_file(hdfs, f"{area}/other") == b"other"
    assert names(hdfs, area) == {"data.bin", "other", "shared"}
    assert mounts_below(tmp_path) == []
