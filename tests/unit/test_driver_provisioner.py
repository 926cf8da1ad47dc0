"""The order of steps in HDFS, with every one of them cut short; the real thing is in tests/csi/test_controller.py."""

import logging

import pytest
from hdfs_csi.access import CapacityRange
from hdfs_csi.copies import Copies
from hdfs_csi.errors import RecordError
from hdfs_csi.filesystems import MAX_FILESYSTEMS, Filesystems
from hdfs_csi.provisioner import Provisioner
from hdfs_csi.records import VolumeRecord
from hdfs_csi.volume import new_volume
from hdfs_fuse.config import MountConfig
from hdfs_fuse.errors import AlreadyExistsError, NotFoundError, PermissionDeniedError, UnavailableError

from tests.support.cut_short import CutShort
from tests.support.fake_backend import FakeAdministration, FakeBackend, FakeFilesystem

VOLUME = new_volume("pvc-1", {"uri": "hdfs://nn/volumes", "owner": "alice", "mode": "0700"})
SIZE = CapacityRange(required_bytes=5)
DIRECTORY, RECORD = "/volumes/pvc-1", "/volumes/.hdfs-csi/volumes/pvc-1.json"

# More calls than creating or deleting a volume makes.
STEPS = range(60)


def provisioner(client: CutShort) -> Provisioner:
    return Provisioner(client.filesystems(), Copies(patience_s=30))


def exists(disk: FakeFilesystem, path: str) -> bool:
    try:
        disk.client().status(path)
    except NotFoundError:
        return False
    return True


@pytest.mark.parametrize("after", [False, True])
def test_a_create_that_was_cut_short_is_finished_by_the_next(after: bool) -> None:
    for step in STEPS:
        disk = FakeFilesystem()
        client = CutShort(disk, step, after=after)
        try:
            provisioner(client).create(VOLUME, SIZE)
        except UnavailableError:
            # Never a directory that nobody knows of.
            assert exists(disk, RECORD) or not exists(disk, DIRECTORY)
        if not client.is_cut:
            assert step > 5
            return
        record = provisioner(CutShort(disk)).create(VOLUME, SIZE)
        assert (record.path, record.capacity_bytes) == (DIRECTORY, 5)
        made = disk.client().status(DIRECTORY)
        assert (made.owner, made.mode) == ("alice", 0o700)
        provisioner(CutShort(disk)).delete(VOLUME.volume_id)
        assert not exists(disk, DIRECTORY)
        assert not exists(disk, RECORD)
        assert not disk.names_below("/volumes/.hdfs-csi/making")
    raise AssertionError("creating makes more calls than were tried")


@pytest.mark.parametrize("after", [False, True])
def test_a_copy_that_was_cut_short_holds_what_its_source_held_at_one_moment(after: bool) -> None:
    for step in STEPS:
        disk = FakeFilesystem()
        provisioner(CutShort(disk)).create(VOLUME, SIZE)
        disk.put(f"{DIRECTORY}/old", b"old")
        client = CutShort(disk, step, after=after)
        new = new_volume("copy", {"uri": "hdfs://nn/volumes"})
        source = provisioner(CutShort(disk)).source_of(VOLUME.volume_id, new.volume_id.key)
        try:
            provisioner(client).create(new, CapacityRange(), source)
        except UnavailableError:
            disk.remove(f"{DIRECTORY}/old")
            disk.put(f"{DIRECTORY}/new", b"new")
        if not client.is_cut:
            assert step > 10
            return
        provisioner(CutShort(disk)).create(new, CapacityRange(), source)
        assert disk.names_below("/volumes/copy") in (["old"], ["new"])
        assert not disk.names_below(f"{DIRECTORY}/.snapshot")
    raise AssertionError("copying makes more calls than were tried")


@pytest.mark.parametrize("after", [False, True])
def test_a_delete_that_was_cut_short_is_finished_by_the_next(after: bool) -> None:
    for step in STEPS:
        disk = FakeFilesystem()
        provisioner(CutShort(disk)).create(VOLUME, SIZE)
        disk.put(f"{DIRECTORY}/file", b"x")
        client = CutShort(disk, step, after=after)
        try:
            provisioner(client).delete(VOLUME.volume_id)
        except UnavailableError:
            assert exists(disk, RECORD) or not exists(disk, DIRECTORY)
        if not client.is_cut:
            assert step > 1
            return
        provisioner(CutShort(disk)).delete(VOLUME.volume_id)
        assert not exists(disk, DIRECTORY)
        assert not exists(disk, RECORD)
    raise AssertionError("deleting makes more calls than were tried")


def test_what_could_not_be_made_leaves_nothing() -> None:
    disk = FakeFilesystem()
    disk.fail("set_owner", PermissionDeniedError("not you"))
    with pytest.raises(PermissionDeniedError, match="superuser"):
        provisioner(CutShort(disk)).create(VOLUME, SIZE)
    assert not exists(disk, DIRECTORY)
    assert not exists(disk, RECORD)
    # So that the same name works with a corrected StorageClass.
    other = new_volume("pvc-1", {"uri": "hdfs://nn/volumes"})
    assert provisioner(CutShort(disk)).create(other, SIZE).path == DIRECTORY


def test_what_can_not_be_undone_is_said(caplog: pytest.LogCaptureFixture) -> None:
    disk = FakeFilesystem()
    disk.fail("set_owner", PermissionDeniedError("not you"))
    disk.fail("delete", PermissionDeniedError("not you either"))
    with caplog.at_level(logging.WARNING), pytest.raises(PermissionDeniedError, match="superuser"):
        provisioner(CutShort(disk)).create(VOLUME, SIZE)
    assert [r.getMessage().partition(" volume_id")[0] for r in caplog.records] == ["volume not cleaned up"]


def test_two_names_with_one_key_are_told_apart() -> None:
    disk = FakeFilesystem()
    provisioner(CutShort(disk)).create(VOLUME, SIZE)
    content = VolumeRecord.from_json(disk.find(RECORD).data, RECORD)
    disk.put(RECORD, content.to_json().replace(b'"pvc-1"', b'"other"'))
    with pytest.raises(AlreadyExistsError, match="belongs to the name 'other'"):
        provisioner(CutShort(disk)).create(VOLUME, SIZE)


@pytest.mark.parametrize(
    "content",
    [b"", b"{}", b"\xff\xfe", b"[]", b'{"version": 1}'],
)
def test_records_that_make_no_sense_delete_nothing(content: bytes) -> None:
    disk = FakeFilesystem()
    provisioner(CutShort(disk)).create(VOLUME, SIZE)
    disk.put(RECORD, content)
    with pytest.raises(RecordError, match=r"pvc-1\.json"):
        provisioner(CutShort(disk)).delete(VOLUME.volume_id)
    assert exists(disk, DIRECTORY)


def test_records_of_a_later_release_delete_nothing_but_new_fields_do_not_matter() -> None:
    disk = FakeFilesystem()
    record = provisioner(CutShort(disk)).create(VOLUME, SIZE)
    text = record.to_json()
    assert VolumeRecord.from_json(text.replace(b"{", b'{"laterField": 1,', 1), "x") == record
    disk.put(RECORD, text.replace(b'"version": 1', b'"version": 2'))
    with pytest.raises(RecordError, match="version 2, accepted is 1"):
        provisioner(CutShort(disk)).delete(VOLUME.volume_id)


def test_a_filesystem_has_one_client_and_few_are_kept() -> None:
    made: list[FakeBackend] = []

    def connect(config: MountConfig) -> CutShort:
        assert (config.hadoop_conf_dir, config.call_deadline_s, config.user) == ("/conf", 7, None)
        client = CutShort(FakeFilesystem())
        made.append(client)
        return client

    filesystems = Filesystems(
        hadoop_conf_dir="/conf",
        deadline_s=7,
        connect=connect,
        connect_administration=lambda _: FakeAdministration(FakeFilesystem()),
    )
    names = [f"hdfs://n{i}" for i in range(MAX_FILESYSTEMS)]
    for name in names:
        filesystems.get(name)
    assert filesystems.get(names[0]) is filesystems.get(names[0])
    filesystems.get("hdfs://one-more")
    assert [client.closed for client in made] == [False, True, *[False] * (MAX_FILESYSTEMS - 1)]
