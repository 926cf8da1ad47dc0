"""A real HDFS beside the cluster, and the driver installed from the chart: all in the cluster's own namespaces."""

import json
import os
import subprocess
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.e2e.kubernetes import images
from tests.e2e.kubernetes.kubectl import Namespace, kubectl, wait_until
from tests.support.local_hdfs import LocalHdfs

DRIVER = "hdfs.csi.dev"
NODE_IP = "10.10.0.1"
ROOT = Path(__file__).parents[3]
CHART = ROOT / "deploy" / "helm" / "hdfs-csi"
RELEASE = "hdfs-csi"
_SNAPSHOT_CONTROLLER = Path(__file__).parent / "snapshot-controller.yaml"

# Outside of a cluster's namespaces (cluster/up.sh makes them) there is nothing to test.
collect_ignore_glob = [] if "HDFS_CSI_E2E" in os.environ else ["test_*.py"]


@pytest.fixture(scope="session")
def hdfs(nothing_left_behind: None) -> Iterator[LocalHdfs]:
    """A NameNode and a DataNode on the node's address, where pods reach them."""
    properties = {
        "fs.trash.interval": "60",
        # Addresses of this network have no names.
        "dfs.namenode.datanode.registration.ip-hostname-check": "false",
    }
    with LocalHdfs(datanodes=1, host=NODE_IP, properties=properties) as running:
        running.webhdfs("PUT", "/volumes", "MKDIRS", permission="755")
        running.webhdfs("PUT", "/datasets", "MKDIRS", permission="755")
        yield running


def chart_values(hdfs: LocalHdfs) -> dict[str, Any]:
    """What an installation on this cluster sets: images that are built here, and one StorageClass."""

    def image(program: str) -> dict[str, object]:
        repository, _, tag = images.name_of(program).rpartition(":")
        return {"repository": repository, "tag": tag, "pullPolicy": "Never"}

    repository, _, tag = images.DRIVER.rpartition(":")
    return {
        "image": {"repository": repository, "tag": tag, "pullPolicy": "Never"},
        "sidecars": {
            "provisioner": {"image": image("csi-provisioner")},
            "resizer": {"image": image("csi-resizer")},
            "snapshotter": {"image": image("csi-snapshotter")},
            "livenessProbe": {"image": image("livenessprobe")},
            "nodeDriverRegistrar": {"image": image("csi-node-driver-registrar")},
        },
        # Where its WebHDFS is, which is no standard port here.
        "hadoop": {
            "configFiles": {name: (hdfs.conf_dir / name).read_text() for name in ("core-site.xml", "hdfs-site.xml")}
        },
        # The superuser of the local HDFS is whoever started it.
        "controller": {"hdfsUser": "root", "baseUris": [f"{hdfs.uri}/volumes"]},
        "node": {"extraArgs": ["--volume-condition"]},
        "inlineVolumes": {"enabled": True},
        "storageClasses": [
            {"name": "hdfs", "parameters": {"uri": f"{hdfs.uri}/volumes", "hdfsBlockSizeBytes": "1Mi"}},
            {
                "name": "hdfs-retain",
                "reclaimPolicy": "Retain",
                "parameters": {"uri": f"{hdfs.uri}/volumes", "hdfsBlockSizeBytes": "1Mi"},
            },
        ],
        "volumeSnapshotClasses": [{"name": "hdfs"}],
    }


@pytest.fixture(scope="session")
def driver(hdfs: LocalHdfs, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Namespace]:
    """The driver, installed as a user would; the namespace that it is in."""
    crds = Path(os.environ["HDFS_CSI_E2E"]) / "bin" / "crd"
    kubectl("apply", "-f", str(crds))
    kubectl("wait", "--for=condition=Established", "-f", str(crds), "--timeout=60s")
    kubectl("apply", "-f", str(_SNAPSHOT_CONTROLLER))
    with installed(RELEASE, chart_values(hdfs), tmp_path_factory.mktemp("chart")) as namespace:
        yield namespace


@contextmanager
def installed(
    release: str, values: Mapping[str, object], directory: Path, *, driver_name: str = DRIVER
) -> Iterator[Namespace]:
    """The chart, installed as `release` in a namespace of that name; gone afterwards.

    Args:
        release: a name that begins with the chart's.
        values: of the chart.
        directory: an empty one.
        driver_name: what `values` say of it.
    """
    file = directory / "values.yaml"
    file.write_text(yaml.safe_dump(values), encoding="utf-8")
    kubectl("create", "namespace", release)
    kubectl("label", "namespace", release, "pod-security.kubernetes.io/enforce=privileged")
    namespace = Namespace(release)
    try:
        helm("upgrade", "--install", release, str(CHART), "--namespace", release, "--values", str(file))
        for workload in (f"deployment/{release}-controller", f"daemonset/{release}-node"):
            namespace("rollout", "status", workload, "--timeout=180s", timeout_s=200)
        wait_until(lambda: running_pod(namespace, "mounter"), "the mounter runs", explain=namespace.events)
        wait_until(lambda: knows_driver(driver_name), "the kubelet knows the driver", explain=namespace.events)
        yield namespace
    finally:
        for component in ("controller", "node", "mounter"):
            selector = f"--selector=app.kubernetes.io/component={component}"
            print(namespace("logs", selector, "--all-containers", "--tail=40", check=False))
        helm("uninstall", release, "--namespace", release, "--wait", "--timeout", "150s")
        kubectl("delete", "namespace", release, "--timeout=120s")


def knows_driver(name: str = DRIVER) -> bool:
    """Whether the kubelet has registered the driver."""
    nodes = json.loads(kubectl("get", "csinodes", "-o", "json"))["items"]
    return any(found["name"] == name for node in nodes for found in node["spec"].get("drivers") or [])


def running_pod(namespace: Namespace, component: str) -> str:
    """The name of a component's pod that is ready; empty while there is none."""
    for pod in namespace.list("pods", f"--selector=app.kubernetes.io/component={component}"):
        conditions = pod["status"].get("conditions", [])
        ready = any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
        if ready and "deletionTimestamp" not in pod["metadata"]:
            return str(pod["metadata"]["name"])
    return ""


def helm(*arguments: str) -> str:
    """What helm prints."""
    done = subprocess.run(["helm", *arguments], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, f"helm {' '.join(arguments)}: {done.stderr}"
    return done.stdout


@pytest.fixture
def space(driver: Namespace, request: pytest.FixtureRequest) -> Iterator[Namespace]:
    """A namespace of this test alone."""
    with Namespace.made(f"test-{uuid.uuid4().hex[:8]}") as made:
        yield made
