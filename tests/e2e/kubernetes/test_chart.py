"""The chart and the kustomizations: well-formed, equal where they say so, and taken by a real API server."""

import os
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.e2e.kubernetes.conftest import CHART, RELEASE, ROOT, chart_values, helm
from tests.e2e.kubernetes.kubectl import Namespace, kubectl
from tests.support.local_hdfs import LocalHdfs

_KUSTOMIZE = ROOT / "deploy" / "kustomize"
_EXAMPLES = ROOT / "deploy" / "examples"
# Kinds that this cluster does not know.
_UNKNOWN = ("security.openshift.io/",)
_EVERYTHING = {
    "inlineVolumes": {"enabled": True},
    "podMonitor": {"enabled": True},
    "prometheusRule": {"enabled": True},
    "dashboard": {"enabled": True},
    "networkPolicy": {"enabled": True},
    "openshift": {"enabled": True},
    "hadoop": {"configFiles": {"core-site.xml": "<configuration/>"}, "caBundle": "a certificate\n"},
    "kerberos": {"krb5Conf": "[libdefaults]\n"},
    "volumeAttributesClasses": [{"name": "two", "parameters": {"replication": "2"}}],
}


def check_on_the_server(manifests: str) -> None:
    """A server-side dry run of all objects whose kinds the server knows, as `apply` would send them."""
    objects = [found for found in yaml.safe_load_all(manifests) if found]
    known = [found for found in objects if not found["apiVersion"].startswith(_UNKNOWN)]
    assert len(known) > 5
    for found in known:
        if found["kind"] == "CSIDriver":
            # One that is there, with other values, can't be changed in all that matters.
            found["metadata"]["name"] = "dry-run.csi.dev"
    kubectl("apply", "--dry-run=server", "-f", "-", stdin=yaml.safe_dump_all(known))


@pytest.mark.parametrize("values", [{}, _EVERYTHING], ids=["defaults", "everything"])
def test_the_chart(hdfs: LocalHdfs, driver: Namespace, tmp_path: Path, values: dict[str, object]) -> None:
    file = tmp_path / "values.yaml"
    file.write_text(yaml.safe_dump({**chart_values(hdfs), **values} if values else {}), encoding="utf-8")
    helm("lint", "--strict", str(CHART), "--values", str(file))
    check_on_the_server(
        helm("template", RELEASE, str(CHART), "--namespace", RELEASE, "--kube-version", "1.34.0", "--values", str(file))
    )


@pytest.mark.parametrize("wrong", ["cache.sizee=1", "controller.replicas=none", "openshift=yes"])
def test_values_that_do_not_exist_are_refused(wrong: str) -> None:
    done = subprocess.run(
        ["helm", "template", RELEASE, str(CHART), "--kube-version", "1.34.0", f"--set={wrong}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert wrong.partition("=")[0].split(".")[0] in done.stderr


def test_kustomize_starts_from_what_the_chart_renders() -> None:
    done = subprocess.run([str(_KUSTOMIZE / "render.sh"), "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("overlay", sorted(found.name for found in (_KUSTOMIZE / "overlays").iterdir()))
def test_kustomizations(driver: Namespace, overlay: str) -> None:
    check_on_the_server(kubectl("kustomize", str(_KUSTOMIZE / "overlays" / overlay)))


@pytest.mark.parametrize("example", sorted(found.name for found in _EXAMPLES.glob("*.yaml")))
def test_the_server_takes_the_examples(driver: Namespace, example: str) -> None:
    kubectl("apply", "--dry-run=server", "-f", str(_EXAMPLES / example))


def test_the_programs_are_those_of_this_cluster() -> None:
    # Helm and kubectl of another installation would test something else.
    assert Path(os.environ["PATH"].split(":")[0]) == Path(os.environ["HDFS_CSI_E2E"]) / "bin"
