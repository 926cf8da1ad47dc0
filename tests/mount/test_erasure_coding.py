"""Files of a directory with an erasure-coding policy, on a real HDFS with three DataNodes: written, changed, read."""

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mount.behind import Behind
from tests.mount.local import MIB, Mounted, mounted_writable
from tests.support.local_hdfs import LocalHdfs

POLICY = "XOR-2-1-1024k"
CONTENT = random.Random(5).randbytes(20 * MIB + 17)


@pytest.fixture(scope="module")
def hdfs() -> Iterator[LocalHdfs]:
    with LocalHdfs(datanodes=3) as running:
        running.webhdfs("PUT", "/", "ENABLEECPOLICY", ecpolicy=POLICY)
        running.webhdfs("PUT", "/coded", "MKDIRS")
        running.webhdfs("PUT", "/coded", "SETECPOLICY", ecpolicy=POLICY)
        yield running


@pytest.fixture
def behind(hdfs: LocalHdfs, monkeypatch: pytest.MonkeyPatch) -> Behind:
    for name, value in hdfs.environment.items():
        monkeypatch.setenv(name, value)
    return Behind(f"{hdfs.uri}/coded")


@pytest.fixture
def mount(behind: Behind, tmp_path: Path) -> Iterator[Mounted]:
    with mounted_writable(behind.uri, tmp_path) as made:
        yield made


def test_files_are_stored_as_the_policy_says(hdfs: LocalHdfs, behind: Behind, mount: Mounted) -> None:
    expected = {"empty": b"", "small": b"small", "cell": CONTENT[:MIB], "long": CONTENT}
    for name, content in expected.items():
        (mount.path / name).write_bytes(content)
    assert hdfs.fetch("/coded") == expected
    for name, content in expected.items():
        mount.drop_pages(name)
        assert (mount.path / name).read_bytes() == content
        assert os.getxattr(mount.path / name, "user.hdfs.erasure_coding_policy") == POLICY.encode()


def test_files_are_changed(hdfs: LocalHdfs, behind: Behind, mount: Mounted) -> None:
    path = mount.path / "file"
    path.write_bytes(CONTENT)
    with path.open("r+b") as file:
        file.seek(5 * MIB)
        file.write(b"changed")
        os.fsync(file.fileno())
        file.truncate(12 * MIB)
    changed = CONTENT[: 5 * MIB] + b"changed" + CONTENT[5 * MIB + 7 : 12 * MIB]
    assert behind.content("file") == changed
    for line in (b"one", b"two"):
        with path.open("ab") as file:
            file.write(line)
            os.fsync(file.fileno())
            file.write(line)
    path.rename(mount.path / "renamed")
    assert hdfs.fetch("/coded")["renamed"] == changed + b"oneonetwotwo"
