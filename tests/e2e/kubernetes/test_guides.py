"""The commands of the guides, as they stand there, on a cluster that has the driver.

Not here: those that install and try the examples, which other tests run in their own way, and those that need a
registry, Docker, OpenShift, a KDC or a second node.
"""

import os
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.kubernetes.conftest import RELEASE, ROOT, helm, running_pod
from tests.e2e.kubernetes.kubectl import Namespace, kubectl, wait_until
from tests.e2e.kubernetes.manifests import claim, pod
from tests.support.local_hdfs import LocalHdfs

Run = Callable[..., str]

# The guides' StorageClasses are of this base path, which is another one here.
_BASE = "hdfs://namenode.example.com:8020/kubernetes"


def command(document: str, beginning: str) -> str:
    """The command of a guide that begins so, with the lines that go on with it and without its comment."""
    lines = iter((ROOT / "docs" / document).read_text(encoding="utf-8").splitlines())
    for line in lines:
        if line.strip().startswith(beginning) and line.startswith("    "):
            found = [line]
            while found[-1].endswith("\\"):
                found.append(next(lines))
            return re.sub(r"\s+#.*$", "", "\n".join(found)).strip()
    raise AssertionError(f"docs/{document} has no command that begins with {beginning!r}")


@pytest.fixture
def node(driver: Namespace) -> str:
    """The name of the one node."""
    return str(driver.get("pod", running_pod(driver, "node"))["spec"]["nodeName"])


@pytest.fixture
def run(hdfs: LocalHdfs, driver: Namespace, space: Namespace, node: str, tmp_path: Path) -> Run:
    """Runs a command of a guide, in the namespace of the test; gives what it prints."""
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(kubectl("config", "view", "--raw"), encoding="utf-8")
    kubectl("config", "set-context", "--current", f"--namespace={space.name}", f"--kubeconfig={kubeconfig}")

    def run(document: str, beginning: str, *, more: str = "", **values: object) -> str:
        text = command(document, beginning).replace(_BASE, f"{hdfs.uri}/volumes")
        for name, value in {"NODE": node, **values}.items():
            text = re.sub(rf"(?<![\w$]){name}(?!\w)", str(value), text)
        done = subprocess.run(
            ["bash", "-o", "pipefail", "-ec", f"{text} {more}"],
            cwd=ROOT,
            env={**os.environ, "KUBECONFIG": str(kubeconfig), "NODE": node},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, f"{text}\n{done.stdout}{done.stderr}"
        return done.stdout

    return run


@pytest.fixture
def reader(space: Namespace) -> Iterator[str]:
    """A pod with a claim `data` that has some files."""
    space.apply(claim("data"), pod("reader", "data"))
    space.wait_ready("reader")
    space.sh("reader", "cd /data; for i in $(seq 30); do head -c 4096 /dev/urandom > file$i; done")
    yield "reader"
    space.delete("pod/reader")
    space.delete("pvc/data")


def test_looking_for_a_fault(run: Run, driver: Namespace, reader: str) -> None:
    guide = "troubleshooting.md"
    pods = {"NODE_POD": running_pod(driver, "node"), "MOUNTER_POD": running_pod(driver, "mounter")}
    assert "Bound" in run(guide, "kubectl describe pvc CLAIM", CLAIM="data", POD=reader)
    assert "hdfs-csi-node" in run(guide, "kubectl -n hdfs-csi get pods -o wide --field-selector")
    assert "CreateVolume" in run(guide, "kubectl -n hdfs-csi logs -l app.kubernetes.io/component=controller")
    assert "NodePublishVolume" in run(guide, "kubectl -n hdfs-csi logs NODE_POD -c node", **pods)
    said = run(guide, "kubectl -n hdfs-csi exec ds/hdfs-csi-mounter", more="--hadoop-conf-dir /etc/hadoop/conf")
    assert "failed" not in said
    said = run(guide, "kubectl -n hdfs-csi exec ds/hdfs-csi-node")
    assert "ok  /dev/fuse" in said
    assert "failed" not in said
    table = run(guide, "kubectl -n hdfs-csi exec NODE_POD -- grep fuse.hdfs", **pods)
    mountpoint = table.splitlines()[0].split()[4]
    assert "reads" in run(guide, "kubectl -n hdfs-csi exec NODE_POD -- hdfs-fuse stats", MOUNTPOINT=mountpoint, **pods)
    run(guide, "kubectl -n hdfs-csi get events --field-selector", **pods)
    run(guide, "kubectl -n hdfs-csi describe pod MOUNTER_POD; kubectl", **pods)
    assert pods["MOUNTER_POD"] in run(
        guide, "kubectl -n hdfs-csi get pods -l app.kubernetes.io/component=mounter -o wide"
    )


def test_reading_ahead_of_a_training(run: Run, reader: str) -> None:
    guide = "data-sets.md"
    run(guide, "kubectl exec POD -- sh -c 'find", POD=reader)
    ask = command(guide, "curl -s localhost:9811/metrics")
    forward = command(guide, "kubectl -n hdfs-csi port-forward")
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-ec", f"{forward}\ntrap 'kill $!' EXIT\nsleep 3\n{ask}"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "hdfs_fuse_miss_total" in done.stdout, done.stderr
    names = run(guide, "NODE_POD=$(kubectl", more='\necho "$NODE_POD"')
    assert "pod/hdfs-csi-node" in names


def test_what_is_there_after_installing(run: Run) -> None:
    assert run("install.md", "kubectl -n hdfs-csi get pods").count("Running") >= 4
    assert "hdfs.csi.dev" in run("install.md", "kubectl get csinodes -o jsonpath")
    run("install.md", "kubectl get pv -o jsonpath")


def test_changes_of_the_release(run: Run, hdfs: LocalHdfs, tmp_path: Path) -> None:
    """Rendered and checked by the server; other tests of this run go on with the release as it is."""
    values, krb5 = tmp_path / "values.yaml", tmp_path / "krb5.conf"
    values.write_text(helm("get", "values", RELEASE, "--namespace", RELEASE, "-o", "yaml"), encoding="utf-8")
    krb5.write_text("[libdefaults]\n", encoding="utf-8")
    files = {"values.yaml": values, "/etc/krb5.conf": krb5, "/etc/hadoop/conf": hdfs.conf_dir}
    for document, beginning in (
        ("install.md", "helm upgrade hdfs-csi deploy/helm/hdfs-csi -n hdfs-csi --reuse-values \\"),
        ("kerberos-and-ha.md", "helm upgrade hdfs-csi"),
        ("metrics.md", "helm upgrade hdfs-csi"),
        ("openshift.md", "helm upgrade hdfs-csi"),
        ("security.md", "helm upgrade hdfs-csi"),
        ("upgrading.md", "helm upgrade hdfs-csi deploy/helm/hdfs-csi -n hdfs-csi -f values.yaml --set image.tag=0.2.0"),
    ):
        run(document, beginning, more="--dry-run=server >/dev/null", **files)
    run("install.md", "kubectl -n hdfs-csi create configmap hadoop-conf", more="--dry-run=server", **files)
    assert "deployed" in run("upgrading.md", "helm history hdfs-csi")


def test_a_node_at_a_time(run: Run, driver: Namespace) -> None:
    guide = "upgrading.md"
    before = {running_pod(driver, "node"), running_pod(driver, "mounter")}
    run(guide, "kubectl drain NODE", more="--dry-run=server")
    run(guide, "kubectl -n hdfs-csi delete pod -l app.kubernetes.io/component=mounter")
    run(guide, "kubectl -n hdfs-csi delete pod -l app.kubernetes.io/component=node")
    run(guide, "kubectl -n hdfs-csi wait pod")
    run(guide, "kubectl uncordon NODE")
    after = {running_pod(driver, "node"), running_pod(driver, "mounter")}
    assert not before & after
    for beginning in (
        "kubectl -n hdfs-csi rollout status deployment",
        "kubectl -n hdfs-csi rollout status daemonset",
        "kubectl -n hdfs-csi get daemonset",
        "kubectl -n hdfs-csi get pods -l app.kubernetes.io/component=mounter",
        "kubectl -n hdfs-csi get pods -o wide",
        "kubectl -n hdfs-csi logs -l app.kubernetes.io/component=node",
    ):
        run(guide, beginning)
    wait_until(lambda: "hdfs.csi.dev" in run("install.md", "kubectl get csinodes -o jsonpath"), "the driver is there")
