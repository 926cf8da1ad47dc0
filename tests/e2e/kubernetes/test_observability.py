"""What a cluster sees of the driver: metrics, events and logs."""

import json
import urllib.request

from prometheus_client.parser import text_string_to_metric_families

from tests.e2e.kubernetes.conftest import running_pod
from tests.e2e.kubernetes.kubectl import Namespace, wait_until
from tests.e2e.kubernetes.manifests import claim, pod


def scrape(driver: Namespace, component: str, port: int) -> dict[str, list[tuple[dict[str, str], float]]]:
    """The metrics of a component's pod, as Prometheus would ask for them."""
    address = driver.get("pod", running_pod(driver, component))["status"]["podIP"]
    with urllib.request.urlopen(f"http://{address}:{port}/metrics", timeout=30) as answer:
        text = answer.read().decode()
    samples: dict[str, list[tuple[dict[str, str], float]]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            samples.setdefault(sample.name, []).append((dict(sample.labels), sample.value))
    return samples


def test_metrics_of_all_processes(driver: Namespace, space: Namespace) -> None:
    space.apply(claim("data"), pod("reader", "data"))
    space.wait_ready("reader")
    space.sh("reader", "dd if=/dev/zero of=/data/file bs=1M count=20 status=none; cat /data/file | wc -c")
    volume = space.get("pvc", "data")["spec"]["volumeName"]

    def methods(component: str, port: int) -> set[str]:
        counts = scrape(driver, component, port).get("hdfs_csi_operation_seconds_count", [])
        return {labels["method"] for labels, value in counts if labels["code"] == "OK" and value}

    # One of two controllers made the volume.
    pods = driver.list("pods", "--selector=app.kubernetes.io/component=controller")
    assert len(pods) == 2
    assert {"NodeStageVolume", "NodePublishVolume"} <= methods("node", 9810)
    mounts = scrape(driver, "mounter", 9811)
    assert sum(value for labels, value in mounts["hdfs_csi_mounts"] if labels["state"] != "silent") >= 1
    written = [value for labels, value in mounts["hdfs_fuse_written_bytes_total"] if volume in labels["volume_id"]]
    assert written == [20 << 20]
    space.delete("pod/reader")
    space.delete("pvc/data")


def test_kubernetes_own_figures_of_a_volume(driver: Namespace, space: Namespace) -> None:
    space.apply(claim("data", size="2Gi"), pod("reader", "data"))
    space.wait_ready("reader")

    def capacity() -> int:
        node = json.loads(space("get", "nodes", "-o", "json"))["items"][0]["metadata"]["name"]
        summary = json.loads(space("get", "--raw", f"/api/v1/nodes/{node}/proxy/stats/summary"))
        return max(
            (
                volume["capacityBytes"]
                for found in summary["pods"]
                if found["podRef"]["namespace"] == space.name
                for volume in found.get("volume", [])
                if volume.get("pvcRef", {}).get("name") == "data"
            ),
            default=0,
        )

    wait_until(lambda: capacity() == 2 << 30, "the kubelet tells the size of the claim", timeout_s=180)
    space.delete("pod/reader")
    space.delete("pvc/data")


def test_logs_are_json_and_name_the_volume(driver: Namespace, space: Namespace) -> None:
    space.apply(claim("data"), pod("reader", "data"))
    space.wait_ready("reader")
    volume = space.get("pvc", "data")["spec"]["volumeName"]
    lines = driver("logs", running_pod(driver, "node"), "--container=node").splitlines()
    records = [json.loads(line) for line in lines]
    assert any(record.get("volume_id", "").endswith(volume) and record.get("pod") for record in records), records[-5:]
    space.delete("pod/reader")
    space.delete("pvc/data")
