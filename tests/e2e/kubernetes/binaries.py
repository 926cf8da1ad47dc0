"""The programs that a cluster is made of, built once from the Go module proxy into the cache: ten minutes on two cores.

Each folder of `binaries/` is a Go module that names them with their versions. The wrapper of Kubernetes replaces its
staging modules by the published ones, since `go install` refuses a module with replacements.
"""

import sys
import time
from dataclasses import dataclass
from pathlib import Path

from tests.support.cache import cache_dir
from tests.support.golang import go

_MODULES = Path(__file__).parent / "binaries"
_CRDS = "github.com/kubernetes-csi/external-snapshotter/client/v8"
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
# What a program is called where the last part of its package says something else.
_NAMES = {"go.etcd.io/etcd/server/v3": "etcd", ".": "standins"}


def bin_dir() -> Path:
    """Where the programs are; `crd` below it holds the definitions of snapshots."""
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


def _build(step: Step) -> None:
    for package in step.packages:
        name = _NAMES.get(package, package.rpartition("/")[2])
        print(f"building {name} ...", file=sys.stderr, flush=True)
        started = time.monotonic()
        flags = ["-s", "-w", *(_version_flags() if step.module == "kubernetes" else [])]
        _go(step.module, "build", "-trimpath", "-ldflags", " ".join(flags), "-o", str(bin_dir() / name), package)
        print(f"  {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
    if step.module == "sidecars":
        _go(step.module, "mod", "download", _CRDS)
        folder = Path(_go(step.module, "list", "-m", "-f", "{{.Dir}}", _CRDS)) / "config" / "crd"
        (bin_dir() / "crd").mkdir(exist_ok=True)
        for crd in folder.glob("*snapshot.storage.k8s.io_*.yaml"):
            (bin_dir() / "crd" / crd.name).write_bytes(crd.read_bytes())


def _version_flags() -> list[str]:
    """What its makefiles would tell the linker: a kubelet without a version is refused."""
    version = _go("kubernetes", "list", "-m", "-f", "{{.Version}}", _KUBERNETES)
    package = "k8s.io/component-base/version"
    major, minor, _ = version.removeprefix("v").split(".")
    return [f"-X {package}.gitVersion={version}", f"-X {package}.gitMajor={major}", f"-X {package}.gitMinor={minor}"]


def _go(module: str, *arguments: str) -> str:
    return go(_MODULES / module, *arguments, CGO_ENABLED="0", GOFLAGS="-buildvcs=false")
