"""What is generated or written from a source of truth elsewhere has not drifted from it."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

from hdfs_csi.parameters import PARAMETERS, SECRETS

ROOT = Path(__file__).parents[2]


def test_messages_are_those_of_the_protocol() -> None:
    subprocess.run([sys.executable, ROOT / "proto" / "generate.py", "--check"], check=True, timeout=60)


def test_the_runtime_is_new_enough_for_the_messages() -> None:
    generated = (ROOT / "driver/hdfs_csi/pb/csi_pb2.py").read_text(encoding="utf-8")
    version = re.search(r"^# Protobuf Python Version: ([0-9.]+)$", generated, re.MULTILINE)
    assert version is not None
    needed = tuple(map(int, version[1].split(".")))
    dependencies = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
    (floor,) = (d.removeprefix("protobuf>=") for d in dependencies if d.startswith("protobuf"))
    # A runtime that is older refuses the messages when they are imported.
    assert tuple(map(int, floor.split("."))) >= needed


def test_the_documents_list_every_parameter_and_secret() -> None:
    text = (ROOT / "docs" / "parameters.md").read_text(encoding="utf-8")
    rows = [
        tuple(cell.strip() for cell in line.strip("|").split(" | ")) for line in text.splitlines() if line[:3] == "| `"
    ]
    parameters = [(f"`{p.key}`", p.where.value, p.default, p.accepted, p.meaning) for p in PARAMETERS]
    assert rows == [*parameters, *((f"`{s.key}`", s.accepted, s.meaning) for s in SECRETS)]
