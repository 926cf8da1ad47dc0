"""Claims and pods of a real Kubernetes, from the first to the last: nothing fails, and nothing stays behind."""

import json
from typing import Any

import pytest

from tests.e2e.kubernetes.kubectl import KubectlError, Namespace, kubectl, wait_until
from tests.e2e.kubernetes.manifests import claim, pod, snapshot
from tests.support.hadoop import FS_SHELL
from tests.support.local_hdfs import LocalHdfs


def directories(hdfs: LocalHdfs) -> set[str]:
    """The directories of volumes in HDFS."""
    entries = hdfs.webhdfs("GET", "/volumes", "LISTSTATUS")["FileStatuses"]["FileStatus"]
    return {entry["pathSuffix"] for entry in entries if not entry["pathSuffix"].startswith(".")}


def mounts() -> list[str]:
    """Where this node has mounts of ours."""
    with open("/proc/self/mountinfo", encoding="utf-8") as lines:
        return [line.split()[4] for line in lines if " - fuse.hdfs" in line]


def directory_of(space: Namespace, name: str) -> str:
    """The directory of a claim in HDFS."""
    volume = space.get("pvc", name)["spec"]["volumeName"]
    handle = json.loads(kubectl("get", "pv", volume, "-o", "json"))["spec"]["csi"]["volumeHandle"]
    return str(handle.rpartition("#")[2])


def test_a_claim_from_the_first_write_to_its_end(space: Namespace, hdfs: LocalHdfs) -> None:
    before = directories(hdfs)
    space.apply(claim("data"), pod("one", "data"), pod("two", "data"))
    space.wait_ready("one")
    space.wait_ready("two")
    space.sh("one", "echo hello >/data/greeting; mkdir /data/sub; echo deep >/data/sub/file")
    assert space.sh("two", "cat /data/greeting") == "hello\n"
    # It is in HDFS, as Hadoop's own tools see it.
    (name,) = directories(hdfs) - before
    assert name == directory_of(space, "data")
    assert hdfs.tool(FS_SHELL, "-cat", f"/volumes/{name}/greeting") == "hello\n"
    # The size of the claim is what df shows.
    assert space.sh("one", "df --output=size -B1 /data | tail -1").strip() == str(1 << 30)

    # Another pod gets a part of it, as another user, who owns what it makes.
    space.apply(pod("part", "data", security={"runAsUser": 1000}, mount={"subPath": "sub"}))
    space.wait_ready("part")
    assert space.sh("part", "cat /data/file; id -u; echo mine >/data/mine; cat /data/mine") == "deep\n1000\nmine\n"

    # A pod that starts anew finds what was there.
    space.delete("pod/one", "pod/part")
    space.apply(pod("one", "data"))
    space.wait_ready("one")
    assert space.sh("one", "cat /data/greeting /data/sub/mine") == "hello\nmine\n"

    space.delete("pod/one", "pod/two")
    space.delete("pvc/data")
    wait_until(lambda: directories(hdfs) == before, "the directory is removed", explain=space.events)
    wait_until(lambda: not mounts(), "nothing stays mounted", explain=lambda: str(mounts()))


def test_a_retained_volume_stays_in_hdfs(space: Namespace, hdfs: LocalHdfs) -> None:
    space.apply(claim("keep", storage_class="hdfs-retain"), pod("writer", "keep"))
    space.wait_ready("writer")
    space.sh("writer", "echo kept >/data/file")
    name = directory_of(space, "keep")
    volume = space.get("pvc", "keep")["spec"]["volumeName"]
    space.delete("pod/writer")
    space.delete("pvc/keep")
    kubectl("wait", "--for=jsonpath={.status.phase}=Released", f"pv/{volume}", "--timeout=60s")
    kubectl("delete", "pv", volume, "--timeout=60s")
    assert hdfs.tool(FS_SHELL, "-cat", f"/volumes/{name}/file") == "kept\n"


def test_a_claim_grows_under_a_pod_and_its_quota_holds(space: Namespace) -> None:
    space.apply(claim("small", size="64Mi"), pod("writer", "small"))
    space.wait_ready("writer")
    with pytest.raises(KubectlError, match="quota"):
        space.sh("writer", "dd if=/dev/zero of=/data/big bs=1M count=100 status=none")
    space.sh("writer", "rm -f /data/big")
    space("patch", "pvc", "small", "-p", '{"spec":{"resources":{"requests":{"storage":"256Mi"}}}}')
    space.wait("pvc/small", "jsonpath={.status.capacity.storage}=256Mi")
    space.sh(
        "writer", "dd if=/dev/zero of=/data/big bs=1M count=100 status=none; test $(stat -c %s /data/big) = 104857600"
    )


def test_snapshot_view_and_copy(space: Namespace) -> None:
    space.apply(claim("data"), pod("writer", "data"))
    space.wait_ready("writer")
    space.sh("writer", "echo first >/data/file")
    space.apply(snapshot("before", "data"))
    space.wait("volumesnapshot/before", "jsonpath={.status.readyToUse}=true")
    space.sh("writer", "echo second >/data/file")
    source = ("VolumeSnapshot", "before")
    space.apply(claim("view", modes=("ReadOnlyMany",), source=source), claim("copy", source=source))
    space.apply(claim("clone", source=("PersistentVolumeClaim", "data")))
    space.apply(pod("on-view", "view"), pod("on-copy", "copy"), pod("on-clone", "clone"))
    for name, content in (("on-view", "first\n"), ("on-copy", "first\n"), ("on-clone", "second\n")):
        space.wait_ready(name)
        assert space.sh(name, "cat /data/file") == content
    with pytest.raises(KubectlError, match="Read-only file system"):
        space.sh("on-view", "echo third >/data/file")
    space.sh("on-copy", "echo third >/data/file")
    assert space.sh("writer", "cat /data/file") == "second\n"
    # A snapshot that somebody looks at stays; without them all of it goes.
    space.delete("pod/on-view", "pod/on-copy", "pod/on-clone", "pod/writer")
    space.delete("pvc/view", "pvc/copy", "pvc/clone")
    space.delete("volumesnapshot/before")
    space.delete("pvc/data")


def test_what_can_not_be_says_why_in_the_events_of_the_claim(space: Namespace) -> None:
    block = claim("block")
    block["spec"]["volumeMode"] = "Block"
    shrunk = claim("escape", storage_class="escape")
    storage_class: dict[str, Any] = {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": "escape"},
        "provisioner": "hdfs.csi.dev",
        "parameters": {"uri": "hdfs://10.10.0.1:1/volumes", "pathPatern": "x"},
    }
    space.apply(storage_class, block, shrunk)
    try:
        wait_until(
            lambda: "block" in space.events().lower() and "did you mean" in space.events(),
            "events",
            explain=space.events,
        )
        assert "pathPattern" in space.events()
    finally:
        kubectl("delete", "storageclass", "escape")
