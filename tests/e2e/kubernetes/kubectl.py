"""kubectl as tests use it: manifests in, records out, and waiting with a reason where something never comes."""

import json
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import yaml

# A pod's image is there already, so what takes longer than this hangs. The machine may be busy with builds.
PATIENCE_S = 120

Manifest = Mapping[str, Any]


class KubectlError(AssertionError):
    """kubectl was refused, or what was waited for did not come."""


def kubectl(*arguments: str, stdin: str | None = None, timeout_s: float = PATIENCE_S, check: bool = True) -> str:
    """What kubectl prints.

    Raises:
        KubectlError: it failed; says what it said.
    """
    done = subprocess.run(
        ["kubectl", *arguments], input=stdin, capture_output=True, text=True, timeout=timeout_s + 30, check=False
    )
    if check and done.returncode:
        raise KubectlError(f"kubectl {' '.join(arguments)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


class Namespace:
    """A namespace and what is in it."""

    def __init__(self, name: str) -> None:
        """One that is there already, or is made with `made`."""
        self.name = name

    @classmethod
    @contextmanager
    def made(cls, name: str) -> Iterator["Namespace"]:
        """A new one; afterwards it goes, with all that is in it."""
        kubectl("create", "namespace", name)
        try:
            yield cls(name)
        finally:
            kubectl("delete", "namespace", name, "--wait=true", "--timeout=120s", timeout_s=150)

    def __call__(
        self, *arguments: str, stdin: str | None = None, timeout_s: float = PATIENCE_S, check: bool = True
    ) -> str:
        """kubectl in this namespace."""
        return kubectl("--namespace", self.name, *arguments, stdin=stdin, timeout_s=timeout_s, check=check)

    def apply(self, *manifests: Manifest) -> None:
        self("apply", "-f", "-", stdin=yaml.safe_dump_all(manifests))

    def get(self, kind: str, name: str) -> dict[str, Any]:
        return dict(json.loads(self("get", kind, name, "-o", "json")))

    def list(self, kind: str, *options: str) -> list[dict[str, Any]]:
        return list(json.loads(self("get", kind, *options, "-o", "json"))["items"])

    def wait(self, what: str, condition: str, timeout_s: float = PATIENCE_S) -> None:
        """Wait as `kubectl wait --for`; what the objects and their events say comes with the error."""
        try:
            self("wait", f"--for={condition}", what, f"--timeout={timeout_s:.0f}s", timeout_s=timeout_s)
        except KubectlError as e:
            raise KubectlError(f"{e}\n{self('describe', what, check=False)}\n{self.events()}") from None

    def wait_ready(self, pod: str, timeout_s: float = PATIENCE_S) -> None:
        self.wait(f"pod/{pod}", "condition=Ready", timeout_s)

    def wait_done(self, job: str, timeout_s: float = 300) -> str:
        """Wait for the end of a job; returns what its pods printed.

        Raises:
            KubectlError: it failed, or did not end.
        """

        def ended() -> bool:
            conditions = self.get("job", job).get("status", {}).get("conditions", [])
            return any(c["type"] in {"Complete", "Failed"} and c["status"] == "True" for c in conditions)

        wait_until(ended, f"job {job} ends", timeout_s, self.events)
        output = self("logs", f"--selector=job-name={job}", "--tail=-1", "--prefix")
        if self.get("job", job)["status"].get("failed"):
            raise KubectlError(f"job {job} failed:\n{output}\n{self.events()}")
        return output

    def sh(self, pod: str, script: str, *, check: bool = True, timeout_s: float = PATIENCE_S) -> str:
        """Run a shell script in a pod's first container; returns what it prints."""
        return self("exec", pod, "--", "sh", "-ec", script, check=check, timeout_s=timeout_s)

    def delete(self, *what: str, timeout_s: float = PATIENCE_S) -> None:
        self("delete", *what, "--ignore-not-found", f"--timeout={timeout_s:.0f}s", timeout_s=timeout_s)

    def events(self) -> str:
        return self("get", "events", "--sort-by=.lastTimestamp", check=False)


def wait_until(
    condition: Callable[[], object], what: str, timeout_s: float = PATIENCE_S, explain: Callable[[], str] = str
) -> None:
    """Wait for what sends no signal.

    Raises:
        KubectlError: it did not come in time.
    """
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise KubectlError(f"never happened: {what}\n{explain()}")
        time.sleep(0.3)
