"""The command hdfs-fuse, run as a user runs it."""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hdfs_fuse.mounter import mounts

from tests.support.local_hdfs import LocalHdfs
from tests.support.processes import running
from tests.support.waiting import wait_until

COMMAND = str(Path(sys.executable).with_name("hdfs-fuse"))
Done = subprocess.CompletedProcess[str]


class Shell:
    """A user's shell, with a cache and a runtime folder of its own.

    Attributes:
        source: a directory with a file to mount.
        mountpoint: an empty directory.
    """

    def __init__(self, directory: Path, runtime: str) -> None:
        self.environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith("HADOOP")},
            "HDFS_FUSE_RUNTIME_DIR": runtime,
        }
        self.cache = directory / "cache"
        self.source = directory / "source"
        self.mountpoint = directory / "mnt"
        self.source.mkdir()
        self.mountpoint.mkdir()
        (self.source / "file").write_bytes(b"content")

    def run(self, *arguments: object) -> Done:
        command = [COMMAND, *map(str, arguments)]
        return subprocess.run(
            command, env=self.environment, check=False, capture_output=True, text=True, timeout=100, cwd="/"
        )

    def mount(self, uri: object, *options: object) -> Done:
        return self.run("mount", uri, self.mountpoint, "--cache-dir", self.cache, *options)

    def is_mounted(self) -> bool:
        return mounts.find(str(self.mountpoint)) is not None


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    with tempfile.TemporaryDirectory(prefix="hf-") as runtime:  # socket paths may have 107 bytes
        shell = Shell(tmp_path, runtime)
        yield shell
        if shell.is_mounted():
            shell.run("umount", "--force", shell.mountpoint)
        assert not shell.is_mounted()


def checks_of(done: Done) -> dict[str, str]:
    """State by check, of what `doctor` printed; the worst of those of one name."""
    states: dict[str, str] = {}
    for state, name in re.findall(r"^ *(ok|note|failed)  ([^:]+):", done.stdout, re.MULTILINE):
        if states.get(name) != "failed":
            states[name] = state
    return states


# --- mount, stats, umount ---


def test_a_directory_is_mounted_in_the_background_and_unmounted(shell: Shell) -> None:
    done = shell.mount(f"file://{shell.source}")
    assert done.returncode == 0, done.stderr
    assert f"umount {shell.mountpoint}" in done.stdout
    log = re.search(r"log: (\S+);", done.stdout)
    assert log is not None
    assert Path(log[1]).is_file()
    assert (shell.mountpoint / "file").read_bytes() == b"content"

    numbers: dict[str, Any] = json.loads(shell.run("stats", "--json", shell.mountpoint).stdout)
    assert numbers["uri"] == f"file://{shell.source}"
    assert (numbers["miss_count"], numbers["hdfs_bytes"]) == (1, 7)
    table = shell.run("stats", "--once", shell.mountpoint).stdout
    assert str(numbers["pid"]) in table

    done = shell.run("umount", shell.mountpoint)
    assert (done.returncode, done.stderr) == (0, "")
    assert not shell.is_mounted()
    wait_until(lambda: not Path(f"/proc/{numbers['pid']}").exists(), "the daemon ends")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_mount_in_the_foreground_ends_with_its_command(shell: Shell, number: signal.Signals) -> None:
    command = [COMMAND, "mount", "-f", f"file://{shell.source}", str(shell.mountpoint), "--no-cache"]
    with running(command, shell.environment) as process:
        assert process.stdout is not None
        assert "Ctrl-C unmounts" in process.stdout.readline()
        assert (shell.mountpoint / "file").read_bytes() == b"content"
        process.send_signal(number)
        assert process.wait(60) == 0
    assert not shell.is_mounted()


def test_a_mount_in_use_is_unmounted_by_force_only(shell: Shell) -> None:
    shell.mount(f"file://{shell.source}")
    with (shell.mountpoint / "file").open("rb"):
        done = shell.run("umount", shell.mountpoint)
        assert done.returncode == 1
        assert "in use" in done.stderr
        assert shell.is_mounted()
        assert shell.run("umount", "--force", shell.mountpoint).returncode == 0
    assert not shell.is_mounted()


def test_options_reach_the_mount(shell: Shell) -> None:
    done = shell.mount(f"file://{shell.source}", "--uid", 1234, "--gid", 2345, "--umask", "027", "--block-size", "64k")
    assert done.returncode == 0, done.stderr
    (shell.source / "file").chmod(0o666)
    shown = (shell.mountpoint / "file").stat()
    assert (shown.st_uid, shown.st_gid, shown.st_mode & 0o777) == (1234, 2345, 0o640)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("s3://bucket/a",), r"s3.*accepted"),
        (("file:///nowhere/at/all",), r"/nowhere/at/all"),
        (("file:///etc/passwd",), r"directory"),
        (("file:///tmp", "--block-size", "5"), r"blockSizeBytes|block_size_bytes"),
        (("file:///tmp", "--cache-size", "much"), r"'much' is no size"),
        (("file:///tmp", "--umask", "888"), r"umask '888'"),
        (("file:///tmp", "-D", "key"), r"KEY=VALUE"),
        (("file:///tmp", "--streams", "0"), r"streams.*1 to 8"),
        (("hdfs://127.0.0.1:1/", "--deadline", "2"), r"127\.0\.0\.1:1"),
        (("hdfs://127.0.0.1:1/", "--backend", "curl"), r"curl.*hdfs-native"),
    ],
    ids=lambda value: None if isinstance(value, str) else " ".join(value),
)
def test_what_can_not_be_mounted_says_why_in_a_line(shell: Shell, arguments: tuple[str, ...], message: str) -> None:
    done = shell.mount(*arguments)
    assert done.returncode != 0
    assert re.search(message, done.stderr), done.stderr
    assert "Traceback" not in done.stderr
    assert not shell.is_mounted()


def test_a_mountpoint_that_is_missing_or_taken_says_so(shell: Shell) -> None:
    missing = shell.run("mount", f"file://{shell.source}", shell.mountpoint / "missing")
    assert missing.returncode == 1
    assert f"{shell.mountpoint}/missing" in missing.stderr
    assert shell.mount(f"file://{shell.source}").returncode == 0
    again = shell.mount(f"file://{shell.source}")
    assert again.returncode == 1
    assert "in use" in again.stderr


def test_what_is_no_mount_of_ours_is_left_alone(shell: Shell) -> None:
    for command in ("umount", "stats"):
        done = shell.run(command, shell.mountpoint)
        assert done.returncode == 1
        assert str(shell.mountpoint) in done.stderr
    done = shell.run("umount", "/proc")
    assert done.returncode == 1
    assert "not ours" in done.stderr


# --- doctor ---


def test_doctor_finds_a_healthy_node(shell: Shell) -> None:
    done = shell.run("doctor", "--cache-dir", shell.cache, "--cache-size", "1M", "--cache-min-free", "0")
    assert done.returncode == 0, done.stdout
    assert set(checks_of(done).values()) == {"ok"}
    assert {"/dev/fuse", "right to mount", "kernel", "cache"} <= set(checks_of(done))


def test_doctor_where_nothing_is_mounted(shell: Shell) -> None:
    done = shell.run("doctor", "--no-mount", "--no-cache")
    assert (done.returncode, checks_of(done)) == (0, {"kernel": "ok", "cache": "note"}), done.stdout


def test_doctor_names_a_cache_that_can_not_be_used(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = shell.run("doctor", "--cache-dir", tmp_path / "file")
    assert done.returncode == 1
    assert checks_of(done)["cache"] == "failed"
    assert "--cache-dir DIR" in done.stdout


def test_doctor_checks_a_filesystem_as_the_user_that_it_is_given(shell: Shell, hdfs: LocalHdfs, hdfs_dir: str) -> None:
    uri = f"{hdfs.uri}{hdfs_dir}"
    options = ("--cache-dir", shell.cache, "--hadoop-conf-dir", hdfs.conf_dir)
    done = shell.run("doctor", uri, *options)
    assert done.returncode == 0, done.stdout
    assert checks_of(done)["NameNode"] == "ok"
    assert checks_of(done)["DataNodes"] == "note"
    hdfs.fs_shell("-put", str(shell.source / "file"), f"{hdfs_dir}/file")
    done = shell.run("doctor", uri, *options, "--user", "alice")
    assert done.returncode == 0, done.stdout
    assert " as alice " in done.stdout
    assert checks_of(done)["DataNodes"] == "ok"
    hdfs.webhdfs("PUT", hdfs_dir, "SETPERMISSION", permission="700")
    done = shell.run("doctor", uri, *options, "--user", "alice")
    assert done.returncode == 1
    assert checks_of(done)["permissions"] == "failed"
    assert "alice" in done.stdout


def test_doctor_names_what_is_wrong_with_a_filesystem(shell: Shell, hdfs: LocalHdfs, hdfs_dir: str) -> None:
    options = ("--cache-dir", shell.cache, "--hadoop-conf-dir", hdfs.conf_dir)
    missing = shell.run("doctor", f"{hdfs.uri}{hdfs_dir}/missing", *options)
    assert missing.returncode == 1
    assert checks_of(missing)["path"] == "failed"
    assert "hdfs dfs -mkdir -p" in missing.stdout
    nobody = shell.run("doctor", "hdfs://127.0.0.1:1/", *options)
    assert nobody.returncode == 1
    assert checks_of(nobody)["NameNode address"] == "failed"
    unknown = shell.run("doctor", "hdfs://no-such-nameservice/", *options)
    assert unknown.returncode == 1
    assert "Traceback" not in unknown.stderr
