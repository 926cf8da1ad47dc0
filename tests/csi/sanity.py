"""csi-sanity, the conformance test of CSI drivers: built once from its Go module."""

import shutil
from pathlib import Path

from tests.support.cache import cached
from tests.support.golang import go

# 5.6 tests CSI 1.13, the release of proto/csi.proto.
VERSION = "v5.6.0"
_MODULE = "github.com/kubernetes-csi/csi-test/v5/cmd/csi-sanity"


def csi_sanity() -> Path:
    """The program, built on the first call: a minute on two cores.

    Raises:
        SetupError: there is no Go, or the module could not be fetched or built.
    """
    return cached(f"csi-sanity-{VERSION}", _build) / "csi-sanity"


def _build(target: Path) -> None:
    go(target, "install", f"{_MODULE}@{VERSION}", GOBIN=str(target))
    assert shutil.which(str(target / "csi-sanity"))
