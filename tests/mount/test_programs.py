"""Real programs on a writable mount of a real HDFS; what they stored is read back with Hadoop's own client."""

import os
import sqlite3
import subprocess
import zipfile
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest

from tests.mount.local import KIB, MIB, Mounted, mounted_writable
from tests.support.local_hdfs import LocalHdfs

ROOT = Path(__file__).parents[2]


@pytest.fixture
def mount(hdfs: LocalHdfs, hdfs_dir: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Mounted]:
    for name, value in hdfs.environment.items():
        monkeypatch.setenv(name, value)
    # git asks nobody for a name, and looks for no configuration of ours.
    for name in ("GIT_AUTHOR_NAME", "GIT_COMMITTER_NAME", "GIT_AUTHOR_EMAIL", "GIT_COMMITTER_EMAIL"):
        monkeypatch.setenv(name, "somebody")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    with mounted_writable(f"{hdfs.uri}{hdfs_dir}", tmp_path, metadata_ttl_s=60.0) as made:
        yield made
        log = made.log.read_text()
        assert "Traceback" not in log
        assert "not stored" not in log


def run(*command: str, directory: Path) -> str:
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


def tree(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def fetched(hdfs: LocalHdfs, path: str, directory: Path) -> Path:
    """A copy of what HDFS has, made by Hadoop's client."""
    hdfs.fs_shell("-get", path, str(directory / "fetched"))
    return directory / "fetched"


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A git repository of some tens of files and a few commits."""
    made = tmp_path / "repository"
    made.mkdir()
    run("git", "init", "-q", directory=made)
    for number in range(3):
        for file in range(15):
            (made / f"file{file}").write_bytes(os.urandom(3000 + number))
        run("git", "add", "-A", directory=made)
        run("git", "commit", "-qm", f"commit {number}", directory=made)
    return made


def test_git(hdfs: LocalHdfs, hdfs_dir: str, mount: Mounted, repository: Path, tmp_path: Path) -> None:
    run("git", "clone", "-q", "--no-local", str(repository), "clone", directory=mount.path)
    clone = mount.path / "clone"
    assert run("git", "status", "--porcelain", directory=clone) == ""
    (clone / "file0").write_bytes(b"changed")
    (clone / "new").write_bytes(b"new")
    run("git", "add", "-A", directory=clone)
    run("git", "commit", "-qm", "through the mount", directory=clone)
    run("git", "gc", "-q", directory=clone)
    run("git", "fsck", "--strict", directory=clone)
    copy = fetched(hdfs, f"{hdfs_dir}/clone", tmp_path)
    assert run("git", "fsck", "--strict", directory=copy) == ""
    assert run("git", "log", "--format=%s", directory=copy).splitlines()[0] == "through the mount"
    assert (copy / "file0").read_bytes() == b"changed"


def test_tar(hdfs: LocalHdfs, hdfs_dir: str, mount: Mounted, tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "deep" / "er").mkdir(parents=True)
    for number in range(20):
        (source / "deep" / f"file{number}").write_bytes(os.urandom(number * 7 * KIB))
    os.utime(source / "deep" / "file1", ns=(1_222_222_222_000_000_000, 1_222_222_222_000_000_000))
    (source / "deep" / "file2").chmod(0o600)
    run("tar", "cf", str(mount.path / "all.tar"), "-C", str(source), ".", directory=tmp_path)
    (mount.path / "out").mkdir()
    run("tar", "xpf", "all.tar", "-C", "out", directory=mount.path)
    assert tree(mount.path / "out") == tree(source)
    assert (mount.path / "out" / "deep" / "file1").stat().st_mtime == 1_222_222_222
    assert (mount.path / "out" / "deep" / "file2").stat().st_mode & 0o777 == 0o600
    assert tree(fetched(hdfs, f"{hdfs_dir}/out", tmp_path)) == tree(source)
    run("tar", "df", "all.tar", "-C", "out", directory=mount.path)  # compares times and modes too


def test_rsync(hdfs: LocalHdfs, hdfs_dir: str, mount: Mounted, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for number in range(20):
        (source / f"file{number}").write_bytes(os.urandom(number * 20 * KIB))
        os.utime(source / f"file{number}", (1_222_222_222, 1_222_222_222 + number))
    run("rsync", "-rtp", f"{source}/", "out/", directory=mount.path)
    assert run("rsync", "-rtpi", f"{source}/", "out/", directory=mount.path) == ""  # nothing left to do
    (source / "file3").write_bytes(b"changed")
    (source / "file4").unlink()
    changed = run("rsync", "-rtpi", "--delete", "--inplace", f"{source}/", "out/", directory=mount.path)
    assert sorted(line.split()[-1] for line in changed.splitlines() if not line.endswith("/")) == ["file3", "file4"]
    assert tree(mount.path / "out") == tree(source)
    assert tree(fetched(hdfs, f"{hdfs_dir}/out", tmp_path)) == tree(source)


@pytest.mark.parametrize("journal", ["delete", "wal"])
def test_sqlite(hdfs: LocalHdfs, hdfs_dir: str, mount: Mounted, tmp_path: Path, journal: str) -> None:
    path = mount.path / "data.db"
    connection = sqlite3.connect(path)
    assert connection.execute(f"pragma journal_mode={journal}").fetchone() == (journal,)
    connection.execute("create table numbers(value)")
    for part in range(3):
        with connection:
            connection.executemany("insert into numbers values(?)", [(part * 100 + i,) for i in range(100)])
    connection.execute("delete from numbers")
    connection.rollback()
    assert connection.execute("select sum(value) from numbers").fetchone() == (sum(range(300)),)
    connection.close()
    hdfs.fs_shell("-get", f"{hdfs_dir}/data.db", str(tmp_path / "copy.db"))
    copy = sqlite3.connect(tmp_path / "copy.db")
    assert copy.execute("pragma integrity_check").fetchone() == ("ok",)
    assert copy.execute("select sum(value) from numbers").fetchone() == (sum(range(300)),)
    copy.close()


def test_a_checkpoint_as_torch_save_writes_it(hdfs: LocalHdfs, hdfs_dir: str, mount: Mounted, tmp_path: Path) -> None:
    """A zip file of uncompressed members, whose directory is written last and headers are written again."""
    members = {f"archive/data/{number}": os.urandom(MIB + number) for number in range(8)}
    temporary = mount.path / "model.pt.tmp"
    with zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    temporary.rename(mount.path / "model.pt")
    hdfs.fs_shell("-get", f"{hdfs_dir}/model.pt", str(tmp_path / "copy.pt"))
    for path in (tmp_path / "copy.pt", mount.path / "model.pt"):
        with zipfile.ZipFile(path) as archive:
            assert archive.testzip() is None
            assert {name: archive.read(name) for name in archive.namelist()} == members


def test_h5py(hdfs: LocalHdfs, hdfs_dir: str, mount: Mounted, tmp_path: Path) -> None:
    """HDF5 writes its metadata all over the file, and its superblock again and again."""
    path, images = mount.path / "data.h5", np.random.default_rng(0).integers(0, 256, (60, 64, 64), np.uint8)
    with h5py.File(path, "w") as file:
        made = file.create_dataset("images", (0, 64, 64), np.uint8, chunks=(4, 64, 64), maxshape=(None, 64, 64))
        file.create_dataset("labels", data=np.arange(60), compression="gzip", chunks=(16,))
        file.create_dataset("scratch", data=np.zeros(MIB, np.uint8))
        for start in range(0, 30, 10):
            made.resize(start + 10, axis=0)
            made[start:] = images[start : start + 10]
            file.flush()
    with h5py.File(path, "r+") as file:
        made = file["images"]
        made.resize(60, axis=0)
        made[30:] = images[30:]
        made[5] = images[5] = 7
        del file["scratch"]
        file.create_group("run").attrs["epoch"] = 3
    with h5py.File(path, "a") as file:
        file["labels"][0] = 100
        file["run"].attrs["epoch"] = 4
    hdfs.fs_shell("-get", f"{hdfs_dir}/data.h5", str(tmp_path / "copy.h5"))
    assert (tmp_path / "copy.h5").read_bytes() == path.read_bytes()
    for stored in (tmp_path / "copy.h5", path):
        with h5py.File(stored, "r") as file:
            assert np.array_equal(file["images"], images)
            assert np.array_equal(file["labels"], [100, *range(1, 60)])
            assert (sorted(file), file["run"].attrs["epoch"]) == (["images", "labels", "run"], 4)


@pytest.mark.parametrize(
    ("settings", "left"),
    [
        ("", {}),
        ("backupcopy=yes", {}),
        ("backupcopy=no", {}),
        ("nobackup writebackup", {}),
        ("nobackup nowritebackup", {}),
        ("backup", {"text~": b"save 1\nlast\n"}),
    ],
)
def test_vim(
    hdfs: LocalHdfs, hdfs_dir: str, mount: Mounted, tmp_path: Path, settings: str, left: dict[str, bytes]
) -> None:
    path = mount.path / "text"
    path.write_text("first\nlast\n")
    path.chmod(0o640)
    for number in range(3):
        # By default vim makes no backup of what is below /tmp, where tests mount.
        script = (f"set backupskip= {settings}", f"1s/.*/save {number}/", "wq")
        commands = [word for command in script for word in ("-c", command)]
        run("vim", "-N", "-u", "NONE", "-i", "NONE", "-es", *commands, "text", directory=mount.path)
    assert tree(mount.path) == {"text": b"save 2\nlast\n", **left}
    assert path.stat().st_mode & 0o777 == 0o640
    assert tree(fetched(hdfs, hdfs_dir, tmp_path)) == {"text": b"save 2\nlast\n", **left}
    status = hdfs.webhdfs("GET", f"{hdfs_dir}/text", "GETFILESTATUS")["FileStatus"]
    assert status["permission"] == "640"


def test_an_editor_that_saves_by_rename(hdfs: LocalHdfs, hdfs_dir: str, mount: Mounted, tmp_path: Path) -> None:
    path = mount.path / "text"
    path.write_text("one\n")
    for number in range(3):
        # vim with backups: the old file is moved aside, the new one written, synced and given the old mode.
        backup = mount.path / "text~"
        path.rename(backup)
        with path.open("w") as file:
            file.write(f"save {number}\n")
            file.flush()
            os.fsync(file.fileno())
        path.chmod(0o640)
        backup.unlink()
    run("sed", "-i", "s/save/saved/", "text", directory=mount.path)
    assert path.read_text() == "saved 2\n"
    assert sorted(os.listdir(mount.path)) == ["text"]
    copy = fetched(hdfs, hdfs_dir, tmp_path)
    assert tree(copy) == {"text": b"saved 2\n"}
