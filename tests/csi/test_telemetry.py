"""What the driver tells Prometheus, probes and logs, and what it takes from a configuration file."""

import json
import re
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from grpc import StatusCode
from hdfs_csi.metrics import Mounts, Operations
from hdfs_csi.pb import csi_pb2 as csi
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from tests.csi.driver import DriverProcess, hdfs_csi
from tests.csi.pods import Pod, make_pod
from tests.csi.volumes import CONTENT, create
from tests.support.local_hdfs import LocalHdfs
from tests.support.waiting import wait_until

DOCUMENT = Path(__file__).parents[2] / "docs" / "metrics.md"


def http_port(process: DriverProcess) -> int:
    """Of the process that was started with port 0."""
    log = process.daemon.log
    wait_until(lambda: " port=" in log.read_text(encoding="utf-8"), "the port is in the log")
    return int(re.findall(r" port=(\d+)", log.read_text(encoding="utf-8"))[-1])


def scraped(port: int) -> dict[tuple[str, str], float]:
    """Values by name and all labels but the number of the mount."""
    answer = httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False).raise_for_status()
    return {
        (sample.name, ",".join(value for name, value in sorted(sample.labels.items()) if name != "mount")): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


@pytest.fixture
def observed(hdfs: LocalHdfs) -> Iterator[DriverProcess]:
    """A controller with everything that is told."""
    with tempfile.TemporaryDirectory(prefix="hdfs-csi-") as directory:
        options = ["--http-address", "127.0.0.1:0", "--log-format", "json"]
        with DriverProcess("controller", Path(directory), hdfs.environment, *options) as running:
            yield running


def test_the_controllers_calls(observed: DriverProcess, base: str) -> None:
    volume = observed.client.call(create("pvc-1", base)).volume
    assert observed.client.refused(csi.ControllerGetVolumeRequest(volume_id="x"))[0] is StatusCode.NOT_FOUND
    port = http_port(observed)
    found = scraped(port)
    assert found["hdfs_csi_operation_seconds_count", "OK,CreateVolume"] == 1
    assert found["hdfs_csi_operation_seconds_count", "NOT_FOUND,ControllerGetVolume"] == 1
    assert httpx.get(f"http://127.0.0.1:{port}/healthz", trust_env=False).text == "ok\n"
    assert httpx.get(f"http://127.0.0.1:{port}/other", trust_env=False).status_code == 404

    lines = [json.loads(line) for line in observed.daemon.log.read_text(encoding="utf-8").splitlines()]
    (made,) = (line for line in lines if line["message"].startswith("volume created"))
    assert made["volume_id"] == volume.volume_id
    assert [line["message"].split()[:2] for line in lines if line["request"] == made["request"]][-1] == [
        "done",
        "CreateVolume",
    ]


@pytest.mark.parametrize("node_options", [["--http-address", "127.0.0.1:0"]])
def test_the_mounts_of_a_node(node: DriverProcess, volume: csi.Volume, pod: Pod) -> None:
    node.client.call(pod.stage(volume))
    node.client.call(pod.publish(volume))
    assert (pod.target / "data.bin").read_bytes() == CONTENT
    found = scraped(http_port(node))
    assert (found["hdfs_csi_mounts", "answering"], found["hdfs_csi_mounts", "silent"]) == (1, 0)
    assert found["hdfs_fuse_read_bytes_total", "my-data"] >= len(CONTENT)
    assert found["hdfs_fuse_hdfs_bytes_total", "my-data"] >= len(CONTENT)
    reads = found["hdfs_fuse_read_seconds_count", "my-data"]
    assert 0 < reads == found["hdfs_fuse_read_seconds_bucket", "+Inf,my-data"]
    assert found["hdfs_csi_operation_seconds_count", "OK,NodePublishVolume"] == 1
    node.client.call(pod.unpublish(volume))
    node.client.call(pod.unstage(volume))
    assert scraped(http_port(node))["hdfs_csi_mounts", "answering"] == 0


@pytest.mark.parametrize("node_options", [["--http-address", "127.0.0.1:0"]])
def test_what_is_on_its_way_into_hdfs(node: DriverProcess, volume: csi.Volume, pod: Pod) -> None:
    node.client.call(pod.stage(volume))
    node.client.call(pod.publish(volume))
    port = http_port(node)
    queue = ("changed_files", "staged_bytes", "publishing_files", "completing_files")

    def queued() -> list[float]:
        found = scraped(port)
        return [found[f"hdfs_fuse_upload_{name}", "my-data"] for name in queue]

    assert queued() == [0, 0, 0, 0]
    with (pod.target / "checkpoint").open("wb", buffering=0) as file:
        file.write(CONTENT)
        assert queued() == [1, len(CONTENT), 0, 0]
    wait_until(lambda: queued() == [0, 0, 0, 0], "it is stored and complete")
    assert scraped(port)["hdfs_fuse_published_total", "my-data"] == 1


@pytest.mark.parametrize("node_options", [["--http-address", "127.0.0.1:0"]])
def test_errors_by_kind(node: DriverProcess, volume: csi.Volume, pod: Pod) -> None:
    node.client.call(pod.stage(volume))
    node.client.call(pod.publish(volume))
    port = http_port(node)
    assert not [labels for name, labels in scraped(port) if name == "hdfs_fuse_error_total"]
    for _ in range(2):
        with pytest.raises(OSError, match="Invalid argument"):
            (pod.target / "no:colons").touch()
    with pytest.raises(FileNotFoundError):
        (pod.target / "missing").read_bytes()
    found = {labels: value for (name, labels), value in scraped(port).items() if name == "hdfs_fuse_error_total"}
    assert found == {"EINVAL,InvalidArgumentError,my-data": 2}


@pytest.mark.parametrize("node_options", [["--http-address", "127.0.0.1:0"]])
def test_two_mounts_of_one_volume_are_told_apart(node: DriverProcess, volume: csi.Volume, tmp_path: Path) -> None:
    """As those of a volume with podUser are; Prometheus refuses two samples with the same labels."""
    for name in ("a", "b"):
        made = make_pod(tmp_path / name)
        node.client.call(made.stage(volume))
    text = httpx.get(f"http://127.0.0.1:{http_port(node)}/metrics", trust_env=False).text
    samples = [line.rpartition(" ")[0] for line in text.splitlines() if not line.startswith("#")]
    assert len(samples) == len(set(samples))
    assert sum(sample.startswith("hdfs_fuse_uptime_seconds{") for sample in samples) == 2


def test_every_metric_is_documented() -> None:
    registry = CollectorRegistry()
    Operations(registry)
    registry.register(Mounts("/nowhere"))
    rows = {
        (f"{metric.name}_total" if metric.type == "counter" else metric.name, metric.type, metric.documentation)
        for metric in registry.collect()
    }
    found = re.findall(r"^\| `(\w+)` \| (\w+) \| (.*) \|$", DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE)
    assert set(found) == rows


# ---- configuration


def ended(config: Path, *options: str) -> tuple[int, str]:
    done = subprocess.run(
        ["timeout", "60", hdfs_csi(), "--config", str(config), "controller", *options],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stderr


def test_a_configuration_file(tmp_path: Path) -> None:
    config = tmp_path / "hdfs-csi.toml"
    config.write_text(f'[controller]\nendpoint = "unix://{tmp_path}/none/csi.sock"\n[node]\nnode-id = "n"\n')
    code, error = ended(config)
    assert (code, f"{tmp_path}/none" in error) == (1, True)
    # The command line comes first.
    assert f"{tmp_path}/other" in ended(config, "--endpoint", f"unix://{tmp_path}/other/csi.sock")[1]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[controller]\nlog-levl = "debug"\n', "did you mean 'log-level'"),
        ("[controler]\n", "controller, node"),
        ("endpoint = 1\n", "controller, node"),
        ("nonsense", "hdfs-csi.toml"),
        ('[controller]\nthreads = "many"\n', "--threads"),
    ],
)
def test_configuration_files_that_make_no_sense(tmp_path: Path, text: str, words: str) -> None:
    config = tmp_path / "hdfs-csi.toml"
    config.write_text(text)
    code, error = ended(config)
    assert (code, words in " ".join(error.split())) == (2, True), error


@pytest.mark.parametrize("address", ["9808", "localhost:", "localhost:http", ":99999"])
def test_addresses_that_are_none(tmp_path: Path, address: str) -> None:
    config = tmp_path / "hdfs-csi.toml"
    config.write_text(f'[controller]\nendpoint = "unix://{tmp_path}/csi.sock"\n')
    code, error = ended(config, "--http-address", address)
    assert (code, f"given '{address}'" in error) == (1, True), error
