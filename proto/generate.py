#!/usr/bin/env python3
"""Generates driver/hdfs_csi/pb from csi.proto; `--check` only says whether what is there has drifted.

csi.proto is the unchanged file of the CSI release named below. To move to another release, copy the file out of its
Go module, set the two constants and run this without arguments:

    go mod download -json github.com/container-storage-interface/spec@v1.13.0    # prints "Dir"

Only messages are generated, no `csi_pb2_grpc`: the server registers plain methods by the service descriptors
(hdfs_csi/server.py), which needs no base classes and ties the package to no version of grpcio.
"""

import argparse
import hashlib
import sys
import tempfile
from importlib import resources
from pathlib import Path

CSI_VERSION = "v1.13.0"
CSI_SHA256 = "8c5604cb76fefff19c01cf88ebd229e4f8c88c419898b07e4914318d25d84af3"

PROTO = Path(__file__).resolve().parent
DRIVER = PROTO.parent / "driver"
PACKAGE = "hdfs_csi/pb"
GENERATED = ("csi_pb2.py", "csi_pb2.pyi")


def generate(output: Path) -> None:
    """Write the generated files below `output`.

    Args:
        output: folder that stands for driver/; hdfs_csi/pb is made in it.

    Raises:
        RuntimeError: csi.proto is not the file of the release, or protoc refused it.
    """
    from grpc_tools import protoc  # type: ignore[import-untyped]  # noqa: PLC0415 - --help works without it

    digest = hashlib.sha256((PROTO / "csi.proto").read_bytes()).hexdigest()
    if digest != CSI_SHA256:
        raise RuntimeError(f"proto/csi.proto is not that of CSI {CSI_VERSION}: SHA-256 {digest}, not {CSI_SHA256}")
    (output / PACKAGE).mkdir(parents=True, exist_ok=True)
    # The left side of the mapping becomes the import path, so that no generated import needs to be rewritten.
    arguments = [
        "protoc",
        f"-I{PACKAGE}={PROTO}",
        f"-I{resources.files('grpc_tools') / '_proto'}",
        f"--python_out={output}",
        f"--pyi_out={output}",
        f"{PACKAGE}/csi.proto",
    ]
    if protoc.main(arguments) != 0:
        raise RuntimeError("protoc failed; what it said stands above")


def drifted() -> list[str]:
    """The generated files that differ from what csi.proto gives now.

    Returns:
        Their names; empty when all are as they should be.
    """
    with tempfile.TemporaryDirectory() as scratch:
        generate(Path(scratch))
        return [
            name
            for name in GENERATED
            if not (DRIVER / PACKAGE / name).is_file()
            or (DRIVER / PACKAGE / name).read_bytes() != (Path(scratch) / PACKAGE / name).read_bytes()
        ]


def main() -> int:
    """Generate, or check; the exit status is 1 when something has drifted."""
    parser = argparse.ArgumentParser(description=f"Generate driver/{PACKAGE} from csi.proto of CSI {CSI_VERSION}.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 when the files have drifted")
    if not parser.parse_args().check:
        generate(DRIVER)
        return 0
    names = drifted()
    for name in names:
        print(f"driver/{PACKAGE}/{name} is not what proto/csi.proto gives: run `make proto`", file=sys.stderr)
    return 1 if names else 0


if __name__ == "__main__":
    sys.exit(main())
