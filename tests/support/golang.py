"""A Go recent enough to build csi-sanity, and Kubernetes.

A Go of 1.21 or later could fetch a newer one by itself, but Debian 12 has 1.19. Toolchains are published as versions of
an ordinary module, though, so that any Go with modules can download one, checked by the checksum database.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.support.cache import SetupError, cached, find_program

# csi-test 5 asks for 1.25, etcd and the sidecars of tests/e2e/kubernetes for 1.26.
GO_MINIMUM = (1, 26)
_GO_FETCHED = "1.26.8"

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def go_program() -> Path:
    """The `go` on PATH when it is recent enough, else a newer one that it fetches into the cache.

    Raises:
        SetupError: there is none, or it could not fetch a newer one.
    """
    own = find_program("go", "golang-go")
    if _version(own) >= GO_MINIMUM:
        return own

    def fetch(target: Path) -> None:
        _fetch(own, target)

    return cached(f"go-{_GO_FETCHED}", fetch) / "bin" / "go"


def go(directory: Path, *arguments: str, **environment: str) -> str:
    """What `go` prints in `directory`. It fetches modules, and no other Go: ours is recent enough.

    Raises:
        SetupError: there is none, or it failed.
    """
    done = subprocess.run(
        [str(go_program()), *arguments],
        cwd=directory,
        env={**os.environ, "GOTOOLCHAIN": "local", "GOFLAGS": "", **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SetupError(f"go {' '.join(arguments[:2])} failed; is there a network? {done.stderr[-4000:]}")
    return done.stdout.strip()


def _version(program: Path) -> tuple[int, ...]:
    # GOTOOLCHAIN=local: what is installed, not what it would fetch for the module of the current directory.
    said = subprocess.run(
        [program, "version"], capture_output=True, text=True, check=True, env={**os.environ, "GOTOOLCHAIN": "local"}
    ).stdout
    found = re.search(r"\bgo(\d+)\.(\d+)", said)
    if found is None:
        raise SetupError(f"{program} does not say its version: {said!r}")
    return int(found[1]), int(found[2])


def _fetch(own: Path, target: Path) -> None:
    print(
        f"fetching Go {_GO_FETCHED}, since {own} is older than {GO_MINIMUM[0]}.{GO_MINIMUM[1]} (once)", file=sys.stderr
    )
    architecture = _ARCHITECTURES.get(os.uname().machine)
    if architecture is None:
        raise SetupError(f"install Go {GO_MINIMUM[0]}.{GO_MINIMUM[1]} or later; none is known for {os.uname().machine}")
    module = f"golang.org/toolchain@v0.0.1-go{_GO_FETCHED}.linux-{architecture}"
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        done = subprocess.run(
            [own, "mod", "download", "-json", module],
            cwd=scratch,
            env={**os.environ, "GOPATH": scratch, "GOMODCACHE": f"{scratch}/mod", "GOFLAGS": "-modcacherw"},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise SetupError(f"could not fetch {module}; is there a network? {done.stdout}{done.stderr}")
        shutil.copytree(json.loads(done.stdout)["Dir"], target, dirs_exist_ok=True)
    # Modules carry no permission bits.
    for program in [*target.glob("bin/*"), *target.glob("pkg/tool/*/*")]:
        program.chmod(0o755)


if __name__ == "__main__":
    try:
        print(go_program())
    except SetupError as e:
        sys.exit(str(e))
