"""The cache outside the tree: what is fetched or built once and then used by tests, demo and benchmark."""

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path


class SetupError(RuntimeError):
    """Something that the tests need is missing; the message says what, and how to get it."""


def cache_dir() -> Path:
    """HDFS_CSI_CACHE, else `hdfs-csi` in the user's cache directory; made when missing."""
    given = os.environ.get("HDFS_CSI_CACHE")
    base = Path(given) if given else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hdfs-csi"
    base.mkdir(parents=True, exist_ok=True)
    return base.resolve()


def cached(name: str, make: Callable[[Path], None]) -> Path:
    """A directory of the cache, made once, whole or not at all.

    Args:
        name: of the directory; it must change when the content would.
        make: fills the empty directory that it is given. Others wait for it meanwhile.

    Returns:
        The finished directory.
    """
    final = cache_dir() / name
    if final.is_dir():
        return final
    with _locked(cache_dir() / f"{name}.lock"):
        if not final.is_dir():  # another process may have made it while this one waited
            partial = Path(tempfile.mkdtemp(prefix=f"{name}.partial-", dir=cache_dir()))
            try:
                make(partial)
                partial.chmod(0o755)  # mkdtemp gives 0700, and a daemon may run as another user
                partial.rename(final)
            finally:
                shutil.rmtree(partial, ignore_errors=True)
    return final


def find_program(name: str, package: str) -> Path:
    """A program on PATH.

    Raises:
        SetupError: it is missing; names the Debian package.
    """
    found = shutil.which(name)
    if not found:
        raise SetupError(f"{name} is missing; get it with: apt-get install {package}")
    return Path(found)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
