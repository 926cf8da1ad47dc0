"""csi-sanity, the conformance test of CSI drivers: built once from its Go module."""

import os
import shutil
import subprocess
from pathlib import Path

from tests.support.cache import SetupError, cached
from tests.support.golang import go_program

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
    go = go_program()
    done = subprocess.run(
        [str(go), "install", f"{_MODULE}@{VERSION}"],
        # Go fetches toolchains only for what is installed by version; ours is recent enough (golang.py).
        env={**os.environ, "GOBIN": str(target), "GOTOOLCHAIN": "local", "GOFLAGS": ""},
        cwd=target,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SetupError(f"csi-sanity {VERSION} can't be built; is there a network? {done.stderr}")
    assert shutil.which(str(target / "csi-sanity"))
