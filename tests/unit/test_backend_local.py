"""What only the local backend has: symlinks, special files, files that vanish."""

import os
from pathlib import Path

import pytest
from hdfs_fuse import errors
from hdfs_fuse.backend.base import FileKind
from hdfs_fuse.backend.local import LocalBackend


def test_symlinks_are_shown_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"data")
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "dangling").symlink_to("nowhere")
    backend = LocalBackend()
    assert {entry.name: entry.kind for entry in backend.list(str(tmp_path))} == {
        "file": FileKind.FILE,
        "link": FileKind.SYMLINK,
        "dangling": FileKind.SYMLINK,
    }
    assert backend.status(str(tmp_path / "dangling")).kind is FileKind.SYMLINK
    with pytest.raises(errors.UnsupportedError):
        backend.open(str(tmp_path / "link"))


def test_special_files_can_not_be_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(errors.UnsupportedError, match="no regular file"):
        LocalBackend().open(str(tmp_path / "fifo"))


def test_an_open_file_outlives_its_name(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"data")
    reader = LocalBackend().open(str(tmp_path / "file"))
    (tmp_path / "file").unlink()
    assert reader.read(0, 4) == b"data"


def test_a_file_that_shrinks_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"data")
    reader = LocalBackend().open(str(tmp_path / "file"))
    os.truncate(tmp_path / "file", 2)
    with pytest.raises(errors.ShortReadError):
        reader.read(0, 4)
    with pytest.raises(errors.ShortReadError):
        list(reader.stream(0, 4))


def test_a_descriptor_stays_open_while_a_stream_uses_it(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(3 << 20))
    (tmp_path / "other").write_bytes(b"x" * (3 << 20))
    before = len(os.listdir("/proc/self/fd"))
    reader = LocalBackend().open(str(tmp_path / "file"))
    stream = reader.stream(0, 3 << 20)
    next(stream)
    reader.close()
    other = LocalBackend().open(str(tmp_path / "other"))  # would get the number of a closed descriptor
    assert b"".join(stream) == bytes(2 << 20)
    del stream
    other.close()
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_unknown_owner_is_refused(tmp_path: Path) -> None:
    with pytest.raises(errors.InvalidArgumentError, match="no-such-user"):
        LocalBackend().set_owner(str(tmp_path), "no-such-user", None)
