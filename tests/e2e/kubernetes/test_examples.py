"""Every example of deploy/examples, run as it stands but for the address of the NameNode."""

import random
from typing import Any

import pytest
import yaml

from tests.e2e.kubernetes.conftest import ROOT
from tests.e2e.kubernetes.kubectl import KubectlError, Namespace, wait_until
from tests.support.hadoop import FS_SHELL
from tests.support.local_hdfs import LocalHdfs

_FOLDER = ROOT / "deploy" / "examples"
# Its servers are not there: test_chart.py has the API server look at it.
_LAYOUT_ONLY = {"07-kerberos-secret.yaml"}
_OF_THEIR_OWN = {"05-snapshot-and-clone.yaml", "10-checkpoints-statefulset.yaml", "11-volume-attributes-class.yaml"}


@pytest.fixture(scope="module")
def images(hdfs: LocalHdfs, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The data set that some examples read: /datasets/images."""
    folder = tmp_path_factory.mktemp("images") / "images"
    folder.mkdir()
    for number in range(300):
        (folder / f"{number:05}.jpg").write_bytes(random.Random(number).randbytes(4096))
    hdfs.tool(FS_SHELL, "-put", str(folder), "/datasets/")


def example(name: str, hdfs: LocalHdfs) -> list[dict[str, Any]]:
    """The objects of an example, on this HDFS."""
    text = (_FOLDER / name).read_text(encoding="utf-8")
    text = text.replace("hdfs://namenode.example.com:8020", hdfs.uri)
    return [found for found in yaml.safe_load_all(text) if found]


def end_of(space: Namespace, objects: list[dict[str, Any]]) -> str:
    """Wait for the jobs and pods among `objects`; returns what they printed."""
    output = []
    for found in objects:
        name = found["metadata"]["name"]
        if found["kind"] == "Job":
            output.append(space.wait_done(name))
        elif found["kind"] == "Pod":
            wait_until(
                lambda name=name: space.get("pod", name)["status"]["phase"] in {"Succeeded", "Failed"},  # type: ignore[misc]
                f"pod {name} ends",
                explain=lambda name=name: space("describe", "pod", name),  # type: ignore[misc]
            )
            output.append(space("logs", name))
            if space.get("pod", name)["status"]["phase"] == "Failed":
                raise KubectlError(f"pod {name} failed:\n{output[-1]}")
    return "\n".join(output)


def remove(space: Namespace, objects: list[dict[str, Any]]) -> None:
    """Delete them, the last one first."""
    for found in reversed(objects):
        space.delete(f"{found['kind'].lower()}/{found['metadata']['name']}")


@pytest.mark.parametrize(
    "name", sorted(path.name for path in _FOLDER.glob("*.yaml") if path.name not in _LAYOUT_ONLY | _OF_THEIR_OWN)
)
def test_an_example(space: Namespace, hdfs: LocalHdfs, images: None, name: str) -> None:
    objects = example(name, hdfs)
    space.apply(*objects)
    print(end_of(space, objects))
    remove(space, objects)


def test_snapshot_and_clone(space: Namespace, hdfs: LocalHdfs) -> None:
    objects = example("05-snapshot-and-clone.yaml", hdfs)
    for step in ("1", "2"):
        part = [found for found in objects if found["metadata"]["labels"]["step"] == step]
        space.apply(*part)
        print(end_of(space, part))
    remove(space, objects)


def test_checkpoints_go_on_after_a_restart(space: Namespace, hdfs: LocalHdfs) -> None:
    objects = example("10-checkpoints-statefulset.yaml", hdfs)
    space.apply(*objects)
    stateful = next(found for found in objects if found["kind"] == "StatefulSet")["metadata"]["name"]
    pod = f"{stateful}-0"
    wait_until(lambda: space("get", "pod", pod, check=False), "the pod is made", explain=space.events)
    space.wait_ready(pod)
    wait_until(
        lambda: space("logs", pod, check=False).count("\n") >= 4, "checkpoints are written", explain=space.events
    )
    space.delete(f"pod/{pod}")
    wait_until(lambda: space("get", "pod", pod, check=False), "the pod is made again", explain=space.events)
    space.wait_ready(pod)
    wait_until(lambda: "resum" in space("logs", pod, check=False), "it resumes", explain=lambda: space("logs", pod))
    print(space("logs", pod))
    remove(space, objects)
    for found in space.list("pvc"):
        space.delete(f"pvc/{found['metadata']['name']}")


def test_another_replication_of_a_claim_in_use(space: Namespace, hdfs: LocalHdfs) -> None:
    objects = example("11-volume-attributes-class.yaml", hdfs)
    space.apply(*objects)
    print(end_of(space, objects))
    space(
        "patch", "pvc", "attributes", "--type=merge", "-p", '{"spec":{"volumeAttributesClassName":"hdfs-two-copies"}}'
    )
    space.wait("pvc/attributes", "jsonpath={.status.currentVolumeAttributesClassName}=hdfs-two-copies")
    directory = f"/volumes/{space.get('pvc', 'attributes')['spec']['volumeName']}"
    assert hdfs.webhdfs("GET", f"{directory}/file", "GETFILESTATUS")["FileStatus"]["replication"] == 2
    remove(space, objects)
