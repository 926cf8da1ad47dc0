"""Repetition, reopening and resuming over a backend that fails on command; time is the tests' own."""

import logging
from collections.abc import Iterator

import pytest
from hdfs_fuse import errors
from hdfs_fuse.backend.resilient import ResilientBackend
from hypothesis import given
from hypothesis import strategies as st

from tests.support.fake_backend import FakeFilesystem

BUDGET_S, DEADLINE_S, SETTLE_S = 30.0, 60.0, 3.0
CONTENT = bytes(range(256)) * 40
DOWN = errors.UnavailableError("no answer")
ODD = errors.BackendError("the client panicked")


class Clock:
    """Time that passes only while somebody sleeps."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds

    def __call__(self) -> float:
        return self.now_s


class World:
    """A filesystem with one file, a resilient backend over it, and their clock."""

    def __init__(self, verify_above_bytes: int = 1 << 30) -> None:
        self.disk = FakeFilesystem(chunk_bytes=100)
        self.disk.make_directory("/dir")
        self.disk.put("/dir/file", CONTENT)
        self.clock = Clock()
        self.backend = ResilientBackend(
            self.disk.client,
            budget_s=BUDGET_S,
            deadline_s=DEADLINE_S,
            settle_s=SETTLE_S,
            verify_above_bytes=verify_above_bytes,
            sleep=self.clock.sleep,
            clock=self.clock,
        )


@pytest.fixture
def world() -> World:
    return World()


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


# ---- metadata


def test_what_fails_for_a_while_is_repeated(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.disk.fail("status", DOWN, DOWN, ODD)
    assert world.backend.status("/dir/file").length_bytes == len(CONTENT)
    assert world.disk.calls["status"] == 4
    assert len(warnings(caplog)) == 1
    assert "status /dir/file" in warnings(caplog)[0]
    caplog.clear()


def test_repetition_ends_before_the_budget(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.disk.fail("status", *[DOWN] * 1000)
    started = world.clock.now_s
    with pytest.raises(errors.UnavailableError):
        world.backend.status("/dir/file")
    assert BUDGET_S / 2 < world.clock.now_s - started <= BUDGET_S
    assert 10 < world.disk.calls["status"] < 100
    assert len(warnings(caplog)) == 1
    caplog.clear()


def test_one_warning_an_incident(world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    for _ in range(5):
        world.disk.fail("status", DOWN)
        world.backend.status("/dir/file")
    assert len(warnings(caplog)) == 1
    world.clock.sleep(60)
    world.backend.status("/dir/file")
    assert "5 failed" in caplog.records[-1].getMessage()
    world.disk.fail("status", DOWN)
    world.backend.status("/dir/file")
    assert len(warnings(caplog)) == 2
    caplog.clear()


def test_an_unknown_failure_gets_two_more_chances(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.disk.fail("status", *[ODD] * 10)
    with pytest.raises(errors.BackendError):
        world.backend.status("/dir/file")
    assert world.disk.calls["status"] == 3
    caplog.clear()


@pytest.mark.parametrize(
    "failure",
    [
        errors.NotFoundError("x"),
        errors.PermissionDeniedError("x"),
        errors.AuthenticationError("x"),
        errors.ReadOnlyError("x"),
        errors.DeadlineError("x"),
    ],
)
def test_what_no_repetition_mends_is_raised_at_once(world: World, failure: errors.HdfsFuseError) -> None:
    world.disk.fail("status", failure)
    with pytest.raises(type(failure)):
        world.backend.status("/dir/file")
    assert world.disk.calls["status"] == 1


def test_space_is_asked_once(world: World) -> None:
    world.disk.fail("space", DOWN)
    with pytest.raises(errors.UnavailableError):
        world.backend.space("/")
    assert world.disk.calls["space"] == 1


# ---- list


def names(entries: Iterator[object]) -> list[str]:
    return [getattr(entry, "name", "") for entry in entries]


LISTED = ["ünï", "日本", "a", "b", "c", "file"]  # HDFS's order: signed bytes


@pytest.mark.parametrize("broken_at", range(7))
def test_a_listing_that_breaks_goes_on_where_it_was(
    world: World, broken_at: int, caplog: pytest.LogCaptureFixture
) -> None:
    for name in LISTED[:-1]:
        world.disk.put(f"/dir/{name}", b"")
    listing = world.backend.list("/dir")
    found = [next(listing).name for _ in range(min(broken_at, 5))]
    world.disk.fail("list entry", DOWN, ODD)
    # An entry that comes and one that goes meanwhile must not shift the others.
    world.disk.put("/dir/ö", b"")
    world.disk.remove(f"/dir/{LISTED[0]}")
    found += names(listing)
    assert [name for name in found if name not in (LISTED[0], "ö")] == LISTED[1:]
    assert len(found) == len(set(found))
    caplog.clear()


def test_a_listing_that_never_comes(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.disk.fail("list", *[DOWN] * 1000)
    with pytest.raises(errors.UnavailableError):
        list(world.backend.list("/dir"))
    assert world.disk.calls["list"] > 10
    caplog.clear()


# ---- mutations whose answer is lost


def test_a_delete_that_happened_is_not_repeated(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.disk.lose_answer("delete", DOWN)
    assert world.backend.delete("/dir/file", recursive=False) is True
    assert world.disk.calls["delete"] == 1
    caplog.clear()


def test_a_delete_that_did_not_happen_is_repeated(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.disk.fail("delete", DOWN)
    assert world.backend.delete("/dir/file", recursive=False) is True
    assert world.disk.calls["delete"] == 2
    with pytest.raises(errors.NotFoundError):
        world.backend.status("/dir/file")
    caplog.clear()


def test_a_directory_that_was_made_is_not_made_again(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.disk.lose_answer("make_directory", DOWN)
    world.backend.make_directory("/dir/new", 0o750)
    assert world.disk.calls["make_directory"] == 1
    world.disk.fail("make_directory", DOWN)
    world.backend.make_directory("/dir/other", 0o700)
    assert world.backend.status("/dir/other").mode == 0o700
    caplog.clear()


def test_an_owner_that_was_set_is_not_set_again(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.disk.lose_answer("set_owner", DOWN)
    world.backend.set_owner("/dir", "alice", None)
    assert world.disk.calls["set_owner"] == 1
    world.disk.fail("set_owner", DOWN)
    world.backend.set_owner("/dir", None, "data")
    assert world.backend.status("/dir").owner == "alice"
    assert world.backend.status("/dir").group == "data"
    caplog.clear()


# ---- reading


def test_a_read_is_repeated_on_a_new_reader(world: World, caplog: pytest.LogCaptureFixture) -> None:
    reader = world.backend.open("/dir/file")
    world.disk.fail("read", DOWN, ODD, errors.ShortReadError("short"))
    assert reader.read(10, 2000) == CONTENT[10:2000]
    assert world.disk.calls["open"] == 4
    assert world.backend.reopened == 3
    assert len(warnings(caplog)) == 1
    caplog.clear()


def test_a_small_file_costs_one_open_and_one_read(world: World) -> None:
    expected = world.backend.status("/dir/file")
    world.disk.calls.clear()
    world.backend.open("/dir/file", expected).read(0, len(CONTENT))
    assert world.disk.calls == {"open": 1, "read": 1}


def test_a_replaced_file_is_noticed_when_the_reader_is_reopened(world: World, caplog: pytest.LogCaptureFixture) -> None:
    reader = world.backend.open("/dir/file")
    world.disk.put("/dir/file", bytes(len(CONTENT)))
    assert reader.read(0, 10) == CONTENT[:10]  # the version that was opened is still there
    world.disk.fail("read", DOWN)
    with pytest.raises(errors.FileChangedError):
        reader.read(0, 10)
    world.disk.fail("stream", DOWN)
    with pytest.raises(errors.FileChangedError):
        list(reader.stream(0, 10))
    caplog.clear()


def test_a_removed_file_is_noticed_when_the_reader_is_reopened(world: World, caplog: pytest.LogCaptureFixture) -> None:
    reader = world.backend.open("/dir/file")
    world.disk.remove("/dir/file")
    world.disk.fail("read", DOWN)
    with pytest.raises(errors.FileChangedError, match="removed"):
        reader.read(0, 10)
    caplog.clear()


def test_an_expected_version_that_is_gone_is_noticed_at_the_open() -> None:
    world = World(verify_above_bytes=1000)
    expected = world.backend.status("/dir/file")
    world.disk.put("/dir/file", CONTENT[:-1])
    with pytest.raises(errors.FileChangedError):
        world.backend.open("/dir/file", expected)
    # Of the same length: noticed where the file is read in parts.
    expected = world.backend.status("/dir/file")
    world.disk.put("/dir/file", CONTENT[1:])
    with pytest.raises(errors.FileChangedError):
        world.backend.open("/dir/file", expected)


def test_bytes_that_are_still_being_written_are_waited_for(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.disk.shorten_open(0)
    world.disk.shorten_open(0)
    reader = world.backend.open("/dir/file")
    assert reader.length_bytes == len(CONTENT)
    started = world.clock.now_s
    assert reader.read(0, len(CONTENT)) == CONTENT
    assert world.clock.now_s - started < SETTLE_S
    caplog.clear()


def test_bytes_that_never_come_are_an_error_soon(world: World, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(1000):
        world.disk.shorten_open(100)
    reader = world.backend.open("/dir/file")
    started = world.clock.now_s
    assert reader.read(0, 100) == CONTENT[:100]
    assert world.clock.now_s == started
    with pytest.raises(errors.ShortReadError):
        reader.read(0, 101)
    with pytest.raises(errors.ShortReadError):
        list(reader.stream(0, 101))
    assert world.clock.now_s - started <= 2 * SETTLE_S
    caplog.clear()


@given(
    start=st.integers(0, len(CONTENT)),
    length=st.integers(0, len(CONTENT)),
    chunk_bytes=st.integers(1, 3000),
    breaks=st.lists(
        st.tuples(st.integers(0, 4000), st.sampled_from([DOWN, ODD, errors.ShortReadError("short"), None])), max_size=6
    ),
)
def test_no_byte_is_lost_or_repeated(
    start: int, length: int, chunk_bytes: int, breaks: list[tuple[int, errors.HdfsFuseError | None]]
) -> None:
    world = World()
    world.disk.chunk_bytes = chunk_bytes
    stop = min(start + length, len(CONTENT))
    for after_bytes, failure in breaks:
        world.disk.break_stream(after_bytes, failure)
    reader = world.backend.open("/dir/file")
    got, failed = b"", False
    try:
        for chunk in reader.stream(start, stop):
            got += bytes(chunk)
    except errors.HdfsFuseError:
        failed = True
    assert got == CONTENT[start : start + len(got)]
    # It may give up only where nothing came again and again.
    assert (got == CONTENT[start:stop]) or (failed and sum(1 for after_bytes, _ in breaks if after_bytes == 0) >= 3)


def test_a_stream_that_is_closed_closes_the_one_below(world: World) -> None:
    reader = world.backend.open("/dir/file")
    stream = reader.stream(0, len(CONTENT))
    next(stream)
    close = getattr(stream, "close")  # noqa: B009 - Iterator has none, the generator does
    close()
    assert list(stream) == []
    assert b"".join(reader.stream(5, 10)) == CONTENT[5:10]


# ---- clients that hang


def test_a_client_is_discarded_once_by_all_who_waited_for_it(world: World) -> None:
    assert world.disk.clients == 1
    world.clock.sleep(DEADLINE_S)
    for _ in range(30):  # thirty callers gave up at the same moment
        world.backend.discard_client()
        world.backend.status("/dir/file")
    assert world.disk.clients == 2
    world.clock.sleep(1)
    world.backend.discard_client()
    world.backend.status("/dir/file")
    assert world.disk.clients == 2
    world.clock.sleep(DEADLINE_S)
    world.backend.discard_client()
    world.backend.status("/dir/file")
    assert (world.disk.clients, world.backend.discarded) == (3, 2)


def test_a_caller_that_waited_less_says_so(world: World) -> None:
    world.clock.sleep(2)
    world.backend.discard_client(waited_s=2)
    world.backend.status("/dir/file")
    assert world.disk.clients == 2


def test_a_reader_of_a_discarded_client_goes_on_with_the_new_one(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    reader = world.backend.open("/dir/file")
    world.clock.sleep(DEADLINE_S)
    world.backend.discard_client()
    assert reader.read(0, 5) == CONTENT[:5]
    world.disk.fail("read", DOWN)
    assert reader.read(0, 5) == CONTENT[:5]
    assert world.disk.clients == 2
    caplog.clear()


def test_a_closed_backend_makes_no_new_client(world: World) -> None:
    world.backend.close()
    world.backend.close()
    with pytest.raises(errors.UnavailableError, match="closed"):
        world.backend.client()
    assert world.disk.clients == 1


def test_a_budget_above_the_deadline_is_refused(world: World) -> None:
    with pytest.raises(errors.InvalidArgumentError, match="budget_s"):
        ResilientBackend(world.disk.client, budget_s=10, deadline_s=10)
