"""The programs that a cluster is made of, built once from the Go module proxy into the cache: ten minutes on two cores.

Prometheus comes out of Debian's package, which is not installed: its own build needs a web browser's toolchain.

Each folder of `binaries/` is a Go module that names them with their versions. The wrapper of Kubernetes replaces its
staging modules by the published ones, since `go install` refuses a module with replacements.
"""

import json
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from tests.support.cache import SetupError, cache_dir
from tests.support.golang import go

_MODULES = Path(__file__).parent / "binaries"
_SNAPSHOT_CLIENT = "github.com/kubernetes-csi/external-snapshotter/client/v8"
# Its operator's kinds, which the chart's PodMonitors and PrometheusRule are of; no operator runs.
_MONITORING = "github.com/prometheus-operator/prometheus-operator@v0.85.0"
_KUBERNETES = "k8s.io/kubernetes"


@dataclass(frozen=True)
class Step:
    """What is built from one module.

    Attributes:
        module: its folder.
        packages: the programs, in the order in which they are named when they are done.
    """

    module: str
    packages: tuple[str, ...]


_KUBERNETES_PROGRAMS = (
    "kubectl",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kube-proxy",
    "kubelet",
)
_STEPS = (
    Step("tools", ("helm.sh/helm/v3/cmd/helm",)),
    Step("standins", (".",)),
    Step(
        "sidecars",
        (
            "github.com/kubernetes-csi/external-resizer/v2/cmd/csi-resizer",
            "github.com/kubernetes-csi/external-snapshotter/v8/cmd/csi-snapshotter",
            "github.com/kubernetes-csi/external-snapshotter/v8/cmd/snapshot-controller",
        ),
    ),
    Step("etcd", ("go.etcd.io/etcd/server/v3",)),
    Step("kubernetes", tuple(f"{_KUBERNETES}/cmd/{name}" for name in _KUBERNETES_PROGRAMS)),
)
_PROMETHEUS = ("prometheus", "promtool")
# What a program is called where the last part of its package says something else.
_NAMES = {"go.etcd.io/etcd/server/v3": "etcd", ".": "standins"}


def bin_dir() -> Path:
    """Where the programs are; `crd` below it holds the kinds that are no part of Kubernetes."""
    return cache_dir() / "kubernetes" / "bin"


def build() -> None:
    """Build what is missing or was built from something else.

    Raises:
        SetupError: there is no Go, or a program can't be built.
    """
    bin_dir().mkdir(parents=True, exist_ok=True)
    for step in _STEPS:
        stamp = bin_dir() / f"{step.module}.stamp"
        sources = sorted(path for path in (_MODULES / step.module).iterdir() if path.suffix in {".go", ".mod", ".sum"})
        wanted = "".join([*step.packages, *(path.read_text(encoding="utf-8") for path in sources)])
        if not stamp.is_file() or stamp.read_text(encoding="utf-8") != wanted:
            _build(step)
            stamp.write_text(wanted, encoding="utf-8")
    stamp = bin_dir() / "monitoring.stamp"
    if not stamp.is_file() or stamp.read_text(encoding="utf-8") != _MONITORING:
        for kind in ("podmonitors", "prometheusrules"):
            _take_definitions(_MONITORING, f"example/prometheus-operator-crd/monitoring.coreos.com_{kind}.yaml")
        _take_prometheus()
        stamp.write_text(_MONITORING, encoding="utf-8")


def _build(step: Step) -> None:
    for package in step.packages:
        name = _NAMES.get(package, package.rpartition("/")[2])
        print(f"building {name} ...", file=sys.stderr, flush=True)
        started = time.monotonic()
        flags = ["-s", "-w", *(_version_flags() if step.module == "kubernetes" else [])]
        _go(step.module, "build", "-trimpath", "-ldflags", " ".join(flags), "-o", str(bin_dir() / name), package)
        print(f"  {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
    if step.module == "sidecars":
        version = _go(step.module, "list", "-m", "-f", "{{.Version}}", _SNAPSHOT_CLIENT)
        _take_definitions(f"{_SNAPSHOT_CLIENT}@{version}", "config/crd/*snapshot.storage.k8s.io_*.yaml")


def _take_definitions(module: str, pattern: str) -> None:
    """Copy CustomResourceDefinitions out of a module."""
    folder = Path(json.loads(_go("sidecars", "mod", "download", "-json", module))["Dir"])
    (bin_dir() / "crd").mkdir(exist_ok=True)
    for definition in sorted(folder.glob(pattern)):
        (bin_dir() / "crd" / definition.name).write_bytes(definition.read_bytes())


def _take_prometheus() -> None:
    print("fetching prometheus ...", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory(prefix="prometheus.") as folder:
        for command in (["apt-get", "download", "-q", "prometheus"], ["sh", "-c", "dpkg-deb --extract *.deb ."]):
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
            if done.returncode:
                raise SetupError(
                    f"prometheus can't be had; is it in the lists of apt-get update? {done.stdout}{done.stderr}"
                )
        for name in _PROMETHEUS:
            shutil.copy2(Path(folder) / "usr" / "bin" / name, bin_dir() / name)


def _version_flags() -> list[str]:
    """What its makefiles would tell the linker: a kubelet without a version is refused."""
    version = _go("kubernetes", "list", "-m", "-f", "{{.Version}}", _KUBERNETES)
    package = "k8s.io/component-base/version"
    major, minor, _ = version.removeprefix("v").split(".")
    return [f"-X {package}.gitVersion={version}", f"-X {package}.gitMajor={major}", f"-X {package}.gitMinor={minor}"]


def _go(module: str, *arguments: str) -> str:
    return go(_MODULES / module, *arguments, CGO_ENABLED="0", GOFLAGS="-buildvcs=false")
