"""Listing ahead of lookups: what it saves, what it may cost, and what it must not believe."""

import pytest
from hdfs_fuse import errors
from hdfs_fuse.inodes import ROOT
from trio.testing import MockClock

from tests.model.harness import eventually, serve
from tests.support.fake_backend import FakeFilesystem

TTL_S = 10.0


def disk_of(count: int) -> FakeFilesystem:
    disk = FakeFilesystem()
    disk.make_directory("/d")
    for i in range(count):
        disk.put(f"/d/{i:06d}", b"x" * (i % 7))
    return disk


@pytest.mark.trio
async def test_names_looked_up_one_by_one_are_listed_ahead(mock_clock: MockClock) -> None:
    mock_clock.rate = 0
    disk = disk_of(800)
    async with serve("/", backend=disk.client, metadata_ttl_s=TTL_S) as served:
        directory = await served.fs.lookup(ROOT, "d")
        for i in range(31):
            await served.fs.lookup(directory.number, f"{i:06d}")
        assert disk.calls["list"] == 0
        await served.fs.lookup(directory.number, "000031")
        await eventually(lambda: len(served.fs.listings) == 800)
        before = disk.calls["status"]
        for i in range(800):
            inode = await served.fs.lookup(directory.number, f"{i:06d}")
            assert inode.status.length_bytes == i % 7
        assert disk.calls["status"] == before
        assert disk.calls["list"] == 1
        # A name that is not listed is still asked for: it may be new.
        disk.put("/d/new", b"new")
        assert (await served.fs.lookup(directory.number, "new")).status.length_bytes == 3
        with pytest.raises(errors.NotFoundError):
            await served.fs.lookup(directory.number, "absent")
        # And all is asked for again after its lifetime.
        disk.put("/d/000500", b"changed!")
        mock_clock.jump(TTL_S)
        assert (await served.fs.lookup(directory.number, "000500")).status.length_bytes == 8


@pytest.mark.trio
async def test_a_page_of_a_large_directory_is_earned_by_lookups() -> None:
    disk = disk_of(3000)
    async with serve("/", backend=disk.client, metadata_ttl_s=3600) as served:
        directory = await served.fs.lookup(ROOT, "d")
        for page in (1, 2):
            for i in range(32):
                await served.fs.lookup(directory.number, f"{3000 - page * 100 + i:06d}")
            await eventually(lambda page=page: len(served.fs.listings) == 1000 * page)  # type: ignore[misc]


@pytest.mark.trio
async def test_a_listing_that_fails_harms_no_lookup() -> None:
    disk = disk_of(200)
    async with serve("/", backend=disk.client, metadata_ttl_s=3600) as served:
        directory = await served.fs.lookup(ROOT, "d")
        disk.fail("list", errors.PermissionDeniedError("no reading, only entering"))
        for i in range(200):
            assert (await served.fs.lookup(directory.number, f"{i:06d}")).status.length_bytes == i % 7
        assert disk.calls["list"] == 1
        assert len(served.fs.listings) == 0


@pytest.mark.trio
async def test_without_a_lifetime_nothing_is_listed() -> None:
    disk = disk_of(100)
    async with serve("/", backend=disk.client, metadata_ttl_s=0) as served:
        directory = await served.fs.lookup(ROOT, "d")
        for i in range(100):
            await served.fs.lookup(directory.number, f"{i:06d}")
        assert disk.calls["list"] == 0


@pytest.mark.trio
async def test_a_page_on_its_way_does_not_bring_back_what_has_changed() -> None:
    disk = disk_of(100)
    async with serve("/", backend=disk.client, metadata_ttl_s=3600) as served:
        directory = await served.fs.lookup(ROOT, "d")
        with disk.mutex:  # the listing waits here
            for _ in range(32):
                served.fs.listings.missed(directory.number, "/d")
            served.fs.listings.disbelieve(directory.number, "000050")
        await eventually(lambda: len(served.fs.listings) == 99)
        assert served.fs.listings.find(directory.number, "000050") is None
        assert served.fs.listings.find(directory.number, "000051") is not None
