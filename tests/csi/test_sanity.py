"""The conformance test of Kubernetes' CSI project against both services, a real HDFS and real mounts.

What csi-sanity leaves out by itself are the 17 tests of RPCs that HDFS has no use for (docs/csi.md says why).
"""

import re
import subprocess
from pathlib import Path

import pytest

from tests.csi.driver import DriverProcess
from tests.csi.pods import mounts_below
from tests.csi.sanity import csi_sanity

# What ran with the RPCs advertised now; fewer would mean that a capability got lost.
PASSED_AT_LEAST = 85

_SUMMARY = re.compile(r"(\d+) Passed.*?(\d+) Failed.*?(\d+) Pending.*?(\d+) Skipped")


@pytest.mark.timeout(900)  # the first run builds csi-sanity: a minute on two idle cores
def test_csi_sanity(listing_controller: DriverProcess, node: DriverProcess, base: str, tmp_path: Path) -> None:
    controller = listing_controller
    parameters = tmp_path / "parameters.yaml"
    parameters.write_text(f"uri: {base}\n", encoding="utf-8")
    secrets = tmp_path / "secrets.yaml"
    calls = (
        "CreateVolume", "DeleteVolume", "ControllerValidateVolumeCapabilities", "NodeStageVolume", "NodePublishVolume",
        "CreateSnapshot", "DeleteSnapshot", "ControllerExpandVolume", "ListSnapshots",
    )  # fmt: skip
    content = "<configuration><property><name>password</name><value>hunter2</value></property></configuration>"
    lines = [f"{call}Secret: {{core-site.xml: {content}}}\n" for call in calls]
    secrets.write_text("".join(lines), encoding="utf-8")
    done = subprocess.run(
        [
            "timeout", "-k", "10", "240", str(csi_sanity()),
            f"-csi.endpoint=unix://{node.socket}",
            f"-csi.controllerendpoint=unix://{controller.socket}",
            f"-csi.mountdir={tmp_path}/sanity-mount",
            f"-csi.stagingdir={tmp_path}/sanity-staging",
            f"-csi.testvolumeparameters={parameters}",
            f"-csi.secrets={secrets}",
            "-ginkgo.no-color",
        ],
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip

    output = f"{done.stdout}{done.stderr}"
    summary = _SUMMARY.search(output)
    assert summary, f"csi-sanity ended with {done.returncode}:\n{output}"
    print(f"csi-sanity: {summary[0]}")
    passed, failed, _, _ = (int(number) for number in summary.groups())
    assert (done.returncode, failed) == (0, 0), f"{output}\n{controller.log()}\n{node.log()}"
    assert passed >= PASSED_AT_LEAST, output
    assert mounts_below(tmp_path) == []
    for process in (controller, node):
        assert "hunter2" not in process.daemon.log.read_text(encoding="utf-8")
