"""Changes through two mounts of one directory, beside a plain local directory: both do the same, step by step."""

import contextlib
import errno
import itertools
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from tests.mount.local import KIB, mounted_writable
from tests.support.local_hdfs import LocalHdfs

T = TypeVar("T")

NAMES = ["a", "b", "d", "ü", "d/a", "d/b", "d/e", "d/e/a", "x/y"]
# A number stands for one of the paths that there are at that moment, or for one of NAMES.
paths = st.integers(0, 999)
# Around a cached block and a small file (64 KiB here), a page, and nothing.
offsets = st.one_of(
    st.integers(0, 200 * KIB), st.sampled_from([0, 1, 4095, 4096, 64 * KIB - 1, 64 * KIB, 64 * KIB + 1, 128 * KIB])
)
sizes = st.one_of(st.integers(0, 100), st.integers(0, 70 * KIB))
modes = st.sampled_from(
    [
        os.O_RDONLY,
        os.O_RDWR,
        os.O_RDWR | os.O_CREAT,
        os.O_RDWR | os.O_CREAT,
        os.O_WRONLY | os.O_CREAT | os.O_TRUNC,
        os.O_RDWR | os.O_CREAT | os.O_EXCL,
        os.O_WRONLY | os.O_CREAT | os.O_APPEND,
        os.O_RDWR | os.O_TRUNC,
    ]
)


@dataclass(frozen=True)
class Open:
    """A file that is open in both worlds."""

    real: int
    model: int
    inode: int
    is_writer: bool
    flags: int


class Worlds(RuleBasedStateMachine):
    """A mount, a second one for looking, and the local directory that they are compared with."""

    roots: tuple[Path, Path, Path]  # set by `run`: mount, second mount, model
    numbers = itertools.count()

    def __init__(self) -> None:
        super().__init__()
        name = f"tree{next(self.numbers)}"
        self.real, self.second, self.model = (root / name for root in self.roots)
        self.real.mkdir()
        self.model.mkdir()
        for name in ("d", "d/e"):
            self.both(lambda root: (root / name).mkdir())  # noqa: B023
        for name, size in (("a", 0), ("b", 10), ("d/a", 5000), ("d/e/a", 150 * KIB)):
            self.both(lambda root: (root / name).write_bytes(b"o" * size))  # noqa: B023
        self.files: list[Open] = []
        self.bytes = itertools.cycle(range(1, 256))

    def both(self, action: Callable[[Path], Any]) -> Any:
        """Do the same in both trees, and compare what comes of it."""
        return self.same((self.model, self.real), action)

    def both_files(self, file: Open, action: Callable[[int], Any]) -> None:
        """Do the same with both descriptors, and compare what comes of it."""
        self.same((file.model, file.real), action)

    @staticmethod
    def same(worlds: tuple[T, T], action: Callable[[T], Any]) -> Any:
        outcomes = []
        for world in worlds:
            try:
                outcomes.append(action(world))
            except OSError as e:
                outcomes.append(errno.errorcode[e.errno or 0])
        assert outcomes[0] == outcomes[1]
        return outcomes[0]

    def path(self, number: int) -> str:
        there = sorted(str(path.relative_to(self.model)) for path in self.model.rglob("*"))
        candidates = NAMES if number % 4 == 0 or not there else there
        return candidates[number // 4 % len(candidates)]

    def inode(self, path: str) -> int | None:
        try:
            return (self.model / path).stat().st_ino
        except OSError:
            return None

    def has_unlinked(self) -> bool:
        """Whether a file without a name is open: it keeps its directory, as on NFS."""
        return any(os.fstat(file.model).st_nlink == 0 for file in self.files)

    # ---- files

    @rule(at=paths, flags=modes)
    def open(self, at: int, flags: int) -> None:
        path = self.path(at)
        is_writer = flags & os.O_ACCMODE != os.O_RDONLY
        if not is_writer and (self.model / path).is_dir():
            return  # works, but there is nothing to compare
        inode = self.inode(path)
        if is_writer and inode is not None and any(file.is_writer and file.inode == inode for file in self.files):
            expected = (
                errno.EEXIST if flags & os.O_EXCL else errno.EISDIR if (self.model / path).is_dir() else errno.EBUSY
            )
            with pytest.raises(OSError) as caught:  # noqa: PT011
                os.open(self.real / path, flags)
            assert caught.value.errno == expected
            return
        fds: list[int] = []

        def action(root: Path) -> bool:
            fds.append(os.open(root / path, flags))
            return True

        if self.both(action) is True:
            self.files.append(Open(fds[1], fds[0], os.fstat(fds[0]).st_ino, is_writer, flags))

    def pick(self, number: int) -> Open:
        return self.files[number % len(self.files)]

    @precondition(lambda self: self.files)
    @rule(number=st.integers(0, 99), offset=offsets, size=sizes)
    def write(self, number: int, offset: int, size: int) -> None:
        file = self.pick(number)
        if file.flags & os.O_APPEND:
            offset = os.fstat(file.model).st_size
        data = bytes([next(self.bytes)]) * size
        self.both_files(file, lambda fd: os.pwrite(fd, data, offset))

    @precondition(lambda self: self.files)
    @rule(number=st.integers(0, 99), offset=offsets, size=sizes)
    def read(self, number: int, offset: int, size: int) -> None:
        self.both_files(self.pick(number), lambda fd: os.pread(fd, size, offset))

    @precondition(lambda self: self.files)
    @rule(number=st.integers(0, 99), length=offsets)
    def truncate_open(self, number: int, length: int) -> None:
        self.both_files(self.pick(number), lambda fd: os.ftruncate(fd, length))

    @precondition(lambda self: self.files)
    @rule(number=st.integers(0, 99))
    def sync(self, number: int) -> None:
        self.both_files(self.pick(number), os.fsync)

    @precondition(lambda self: self.files)
    @rule(number=st.integers(0, 99))
    def look_at_open(self, number: int) -> None:
        self.both_files(self.pick(number), lambda fd: os.fstat(fd).st_size)

    @precondition(lambda self: self.files)
    @rule(number=st.integers(0, 99))
    def drop_pages(self, number: int) -> None:
        os.posix_fadvise(self.pick(number).real, 0, 0, os.POSIX_FADV_DONTNEED)

    @precondition(lambda self: self.files)
    @rule(number=st.integers(0, 99))
    def close(self, number: int) -> None:
        file = self.files.pop(number % len(self.files))
        self.both_files(file, os.close)

    @rule(at=paths, length=offsets)
    def truncate(self, at: int, length: int) -> None:
        path = self.path(at)
        self.both(lambda root: os.truncate(root / path, length))

    # ---- names

    @rule(at=paths)
    def unlink(self, at: int) -> None:
        path = self.path(at)
        if not (self.model / path).is_dir():  # EISDIR here, EPERM elsewhere
            self.both(lambda root: os.unlink(root / path))

    @rule(at=paths)
    def make_directory(self, at: int) -> None:
        path = self.path(at)
        self.both(lambda root: os.mkdir(root / path))

    @rule(at=paths)
    def remove_directory(self, at: int) -> None:
        path = self.path(at)
        if not self.has_unlinked():
            self.both(lambda root: os.rmdir(root / path))

    @rule(origin=paths, destination=paths)
    def rename(self, origin: int, destination: int) -> None:
        source, target = self.path(origin), self.path(destination)
        if not self.has_unlinked():
            self.both(lambda root: os.rename(root / source, root / target))

    # ---- looking

    @rule(at=paths)
    def look(self, at: int) -> None:
        path = self.path(at)

        def action(root: Path) -> tuple[bool, int]:
            found = (root / path).stat()
            return (root / path).is_dir(), 0 if (root / path).is_dir() else found.st_size

        self.both(action)

    @rule(at=paths)
    def list_names(self, at: int) -> None:
        path = self.path(at).rpartition("/")[0]
        self.both(lambda root: sorted(os.listdir(root / path)))

    @rule(at=paths)
    def read_through_the_other_mount(self, at: int) -> None:
        """What is closed here is seen there; what is open for writing is seen as it was when it was last stored."""
        path = self.path(at)
        inode = self.inode(path)
        if inode is not None and not any(file.is_writer and file.inode == inode for file in self.files):
            self.compare(path, self.second)

    def compare(self, path: str, root: Path) -> None:
        if (self.model / path).is_file():
            assert (root / path).read_bytes() == (self.model / path).read_bytes()

    def teardown(self) -> None:
        for file in self.files:
            self.both_files(file, os.close)
        expected = tree(self.model)
        for root in (self.real, self.second):
            found = tree(root)
            assert found.keys() == expected.keys()
            assert [name for name in found if found[name] != expected[name]] == []


def tree(root: Path) -> dict[str, bytes | None]:
    return {
        str(path.relative_to(root)): path.read_bytes() if path.is_file() else None for path in sorted(root.rglob("*"))
    }


@contextlib.contextmanager
def two_mounts(uri: str, directory: Path) -> Iterator[tuple[Path, Path, Path]]:
    model = directory / "model"
    model.mkdir()
    with mounted_writable(uri, directory / "one") as one, mounted_writable(uri, directory / "two") as two:
        yield one.path, two.path, model
        for mount in (one, two):
            log = mount.log.read_text() if mount.log.exists() else ""
            assert "Traceback" not in log, log


def run(roots: tuple[Path, Path, Path], examples: int, steps: int) -> None:
    machine = type("Worlds", (Worlds,), {"roots": roots})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
        ),
    )


@pytest.mark.timeout(900)
def test_a_mount_does_what_a_local_directory_does(tmp_path: Path) -> None:
    (tmp_path / "behind").mkdir()
    with two_mounts(f"file://{tmp_path}/behind", tmp_path) as roots:
        run(roots, examples=80, steps=50)


@pytest.mark.timeout(900)
def test_a_mount_of_hdfs_does_what_a_local_directory_does(
    hdfs: LocalHdfs, hdfs_dir: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in hdfs.environment.items():
        monkeypatch.setenv(name, value)
    with two_mounts(f"{hdfs.uri}{hdfs_dir}", tmp_path) as roots:
        run(roots, examples=20, steps=50)
