"""The container images of the cluster, from Debian packages, wheels and binaries.py: nothing is pulled."""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.e2e.kubernetes.binaries import bin_dir
from tests.support.cache import SetupError, cache_dir

DRIVER = "localhost/hdfs-csi:e2e"
# What the examples name; here a Debian with Python.
POD = "docker.io/library/python:3.12-slim"
_BUILD = Path(__file__).parents[3] / "deploy" / "images" / "build.sh"
_FOLDER = Path(__file__).parent / "images"
_STANDINS = ("csi-provisioner", "csi-node-driver-registrar", "livenessprobe")
_SIDECARS = ("csi-resizer", "csi-snapshotter", "snapshot-controller")


def images_dir() -> Path:
    """Archives, one an image, that containerd imports."""
    return cache_dir() / "kubernetes" / "images"


def name_of(program: str) -> str:
    """The image of a sidecar here."""
    return f"localhost/{program}:e2e"


def build() -> None:
    """Build all of them; layers that have not changed are kept in the cache.

    Raises:
        SetupError: one can't be built.
    """
    images_dir().mkdir(parents=True, exist_ok=True)
    _run("hdfs-csi", [str(_BUILD), str(images_dir() / "hdfs-csi.tar"), DRIVER])
    _build("pause", "localhost/pause:1")
    _build("pod", POD)
    for program in (*_STANDINS, *_SIDECARS):
        _build(program, name_of(program))


def _build(target: str, name: str) -> None:
    archive = images_dir() / f"{target}.tar"
    archive.unlink(missing_ok=True)
    options = ["--build-arg", "BASE=localhost/debian-base:bookworm", "--build-context", f"bin={bin_dir()}"]
    options += ["--pull-never", "--layers", "--target", target, "--tag", name, "--file", str(_FOLDER / "Dockerfile")]
    with tempfile.TemporaryDirectory(prefix="hdfs-csi-image.") as run:
        _run(target, [*_buildah(run), "build", *options, str(_FOLDER)])
        _run(target, [*_buildah(run), "push", name, f"docker-archive:{archive}:{name}"])


def _buildah(run: str) -> list[str]:
    """With the store of build.sh, whose base is used here too; in a mount namespace that its mounts end with."""
    driver = os.environ.get("STORAGE_DRIVER", "overlay")
    store = ["--root", str(cache_dir() / "buildah"), "--runroot", run, "--storage-driver", driver]
    return ["unshare", "--mount", "buildah", *store]


def _run(what: str, command: list[str]) -> None:
    started = time.monotonic()
    environment = {**os.environ, "BUILDAH_ISOLATION": "chroot", "HDFS_CSI_CACHE": str(cache_dir())}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SetupError(f"image {what} can't be built: {(done.stdout + done.stderr)[-4000:]}")
    print(f"image {what}: {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
