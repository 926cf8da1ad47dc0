"""The backend while daemons of a real HDFS die, hang, and come back."""

import hashlib
import http.client
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
from hdfs_fuse import errors
from hdfs_fuse.backend import ResilientBackend, ResilientReader, call_with_deadline, connect
from hdfs_fuse.config import MountConfig
from hdfs_native import Client, WriteOptions

from tests.support.libhdfs import libhdfs_environment
from tests.support.local_hdfs import LocalHdfs

MIB = 1 << 20
# Far beyond what the client queues ahead of the reader (100 packets of 64 KiB), over several HDFS blocks.
LENGTH = 64 * MIB
CONTENT = os.urandom(MIB) * (LENGTH // MIB)
DEADLINE_S = 60.0


@pytest.fixture(scope="module")
def cluster(nothing_left_behind: None) -> Iterator[LocalHdfs]:
    """Two DataNodes, so that one may die; replaced blocks go quickly."""
    properties = {"dfs.namenode.safemode.extension": "0", "dfs.heartbeat.interval": "1", "dfs.replication": "2"}
    # By name, as in most clusters: NameNodes know DataNodes by address too, and redirect to names.
    with LocalHdfs(datanodes=2, block_size_bytes=16 * MIB, properties=properties, host="localhost") as running:
        yield running


@pytest.fixture
def hdfs(cluster: LocalHdfs) -> Iterator[LocalHdfs]:
    """The cluster, whole again after each test."""
    yield cluster
    cluster.mend()


@pytest.fixture
def backend(hdfs: LocalHdfs) -> Iterator[ResilientBackend]:
    made = connect(MountConfig(uri=hdfs.uri, hadoop_conf_dir=str(hdfs.conf_dir), call_deadline_s=DEADLINE_S))
    yield made
    made.close()


@pytest.fixture(autouse=True)
def expected_warnings(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Faults are logged; what else is logged is an error."""
    yield
    for record in caplog.get_records("call"):
        assert record.levelno < logging.WARNING or record.name == "hdfs_fuse.backend.retry", record.getMessage()


def put(hdfs: LocalHdfs, path: str, data: bytes, replication: int) -> None:
    with Client(hdfs.uri).create(path, WriteOptions(overwrite=True, replication=replication)) as file:
        for at in range(0, len(data), MIB):
            file.write(data[at : at + MIB])


def poll(what: Callable[[], bool], timeout_s: float) -> None:
    end = time.monotonic() + timeout_s
    while not what():
        assert time.monotonic() < end
        time.sleep(0.1)


def has_changed(reader: ResilientReader, content: bytes) -> bool:
    """False while `content` can still be read, True once the reader says that the file is another one."""
    try:
        assert reader.read(0, len(content)) == content
    except errors.FileChangedError:
        return True
    return False


def background(call: Callable[[], None]) -> Future[None]:
    pool = ThreadPoolExecutor(1)
    future = pool.submit(call)
    pool.shutdown(wait=False)
    return future


def start_datanodes(hdfs: LocalHdfs) -> None:
    for index in range(2):
        hdfs.start_datanode(index)


# ---- DataNodes


@pytest.mark.parametrize("victim", [0, 1])
def test_a_dead_datanode_is_asked_once_for_a_file_over_http(
    hdfs: LocalHdfs, backend: ResilientBackend, victim: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    connect_web = http.client.HTTPConnection.connect

    def connect_counted(connection: http.client.HTTPConnection) -> None:
        asked.append(connection.port)
        connect_web(connection)

    monkeypatch.setattr(http.client.HTTPConnection, "connect", connect_counted)
    put(hdfs, "/over-http", b"", replication=1)
    hdfs.kill_datanode(victim)
    chosen = 0
    for _ in range(20):
        asked.clear()
        backend.put("/over-http", iter([b"content"]), 7, 0o640, alone=True)
        assert asked.count(hdfs.datanode_http_ports[victim]) <= 1
        chosen += asked.count(hdfs.datanode_http_ports[victim])
    assert chosen


@pytest.mark.parametrize("victim", [0, 1])
def test_a_datanode_dies_while_its_blocks_are_read(hdfs: LocalHdfs, backend: ResilientBackend, victim: int) -> None:
    put(hdfs, "/replicated", CONTENT, replication=2)
    reader = backend.open("/replicated")
    digest, got = hashlib.sha256(), 0
    for chunk in reader.stream(0, LENGTH):
        if got < MIB <= got + len(chunk):
            hdfs.kill_datanode(victim)
        digest.update(chunk)
        got += len(chunk)
    assert got == LENGTH
    assert digest.digest() == hashlib.sha256(CONTENT).digest()


def test_all_replicas_go_and_come_back_while_they_are_read(hdfs: LocalHdfs, backend: ResilientBackend) -> None:
    put(hdfs, "/single", CONTENT, replication=1)
    reader = backend.open("/single")
    parts, got = [], 0
    back: Future[None] | None = None
    for chunk in reader.stream(0, LENGTH):
        if got < MIB <= got + len(chunk):
            hdfs.kill_datanode(0)
            hdfs.kill_datanode(1)
            back = background(lambda: start_datanodes(hdfs))
        parts.append(bytes(chunk))
        got += len(chunk)
    assert back is not None
    back.result(60)
    assert b"".join(parts) == CONTENT
    assert backend.reopened >= 1


def test_reads_go_on_when_the_only_replica_is_back(hdfs: LocalHdfs, backend: ResilientBackend) -> None:
    put(hdfs, "/single", CONTENT[: 4 * MIB], replication=1)
    reader = backend.open("/single")
    hdfs.kill_datanode(0)
    hdfs.kill_datanode(1)
    back = background(lambda: start_datanodes(hdfs))
    assert reader.read(1000, 2000) == CONTENT[1000:2000]
    back.result(60)


def test_no_replica_left_is_an_error_within_the_deadline(hdfs: LocalHdfs) -> None:
    put(hdfs, "/single", CONTENT[:MIB], replication=1)
    impatient = connect(MountConfig(uri=hdfs.uri, call_deadline_s=6))
    reader = impatient.open("/single")
    hdfs.kill_datanode(0)
    hdfs.kill_datanode(1)
    started = time.monotonic()
    with pytest.raises(errors.UnavailableError, match="All DataNodes failed"):
        reader.read(0, MIB)
    assert time.monotonic() - started < 6


# ---- versions


def test_a_file_that_is_replaced_while_it_is_open(hdfs: LocalHdfs, backend: ResilientBackend) -> None:
    put(hdfs, "/replaced", CONTENT[:MIB], replication=2)
    reader = backend.open("/replaced")
    assert reader.read(0, 100) == CONTENT[:100]
    put(hdfs, "/replaced", bytes(MIB), replication=2)
    # The old blocks stay readable until the DataNodes have removed them; never are the new file's bytes shown.
    poll(lambda: has_changed(reader, CONTENT[:MIB]), 60)
    with pytest.raises(errors.FileChangedError):
        list(reader.stream(0, MIB))
    assert backend.open("/replaced").read(0, 10) == bytes(10)


def test_a_file_whose_writer_closes_in_the_background(hdfs: LocalHdfs, backend: ResilientBackend) -> None:
    writer = Client(hdfs.uri).create("/fresh", WriteOptions(overwrite=True, replication=1))
    writer.write(CONTENT[:4096])
    writer.hsync()
    assert backend.status("/fresh").length_bytes == 4096
    closing = background(writer.close)
    try:
        # The length is known, but the client does not see the block before the close: WebHDFS does.
        assert backend.open("/fresh").read(0, 4096) == CONTENT[:4096]
    except errors.FileChangedError:
        # The close, before or after the open, gave it another modification time and so another version: open it again.
        closing.result(10)
        assert backend.open("/fresh").read(0, 4096) == CONTENT[:4096]


def test_a_file_whose_writer_never_closes(hdfs: LocalHdfs, backend: ResilientBackend) -> None:
    writer = Client(hdfs.uri).create("/growing", WriteOptions(overwrite=True, replication=1))
    writer.write(CONTENT[:4096])
    writer.hsync()
    assert backend.open("/growing").read(1000, 4096) == CONTENT[1000:4096]
    assert b"".join(backend.open("/growing").stream(0, 4096)) == CONTENT[:4096]
    nowhere = {"dfs.namenode.http-address": "127.0.0.1:1"}
    without_webhdfs = connect(MountConfig(uri=hdfs.uri, call_deadline_s=20, hadoop_properties=nowhere))
    started = time.monotonic()
    with pytest.raises(errors.ShortReadError):
        without_webhdfs.open("/growing").read(0, 4096)
    assert time.monotonic() - started < 10
    writer.close()


# ---- the NameNode


def test_the_namenode_stops_and_comes_back(hdfs: LocalHdfs, backend: ResilientBackend) -> None:
    put(hdfs, "/file", CONTENT[: 20 * MIB], replication=2)
    reader = backend.open("/file")
    impatient = connect(MountConfig(uri=hdfs.uri, call_deadline_s=6))
    hdfs.kill_namenode()
    started = time.monotonic()
    with pytest.raises(errors.UnavailableError, match=f"{hdfs.uri}/file: .*(Connection refused|RPC listener)"):
        impatient.status("/file")
    with pytest.raises(errors.UnavailableError):
        list(impatient.list("/"))
    with pytest.raises(errors.UnavailableError):
        impatient.open("/file")
    assert time.monotonic() - started < 18
    # Block locations are known since the open.
    assert b"".join(reader.stream(0, 20 * MIB)) == CONTENT[: 20 * MIB]
    # A call that waits sees it come back.
    back = background(hdfs.start_namenode)
    assert backend.status("/file").length_bytes == 20 * MIB
    back.result(60)
    assert impatient.status("/file").length_bytes == 20 * MIB


def test_the_namenode_hangs_and_wakes_up(hdfs: LocalHdfs, backend: ResilientBackend) -> None:
    backend.make_directory("/before", 0o755)
    discarded = threading.Event()

    def discard() -> None:
        backend.discard_client(waited_s=0)
        discarded.set()

    hdfs.pause_namenode()
    try:
        started = time.monotonic()
        with pytest.raises(errors.DeadlineError):
            call_with_deadline(backend.status, "/before", deadline_s=1, on_timeout=discard)
        assert time.monotonic() - started < 10, "not for as long as the NameNode hangs"
        assert discarded.is_set()
        # A new client hangs too, and is given up too.
        with pytest.raises(errors.DeadlineError):
            call_with_deadline(backend.status, "/before", deadline_s=1, on_timeout=discard)
    finally:
        hdfs.resume_namenode()
    found = call_with_deadline(backend.status, "/before", deadline_s=30)
    assert found.mode == 0o755
    assert backend.discarded == 2


def test_a_mutation_that_hung_may_have_happened(hdfs: LocalHdfs, backend: ResilientBackend) -> None:
    backend.status("/")
    hdfs.pause_namenode()
    try:
        with pytest.raises(errors.DeadlineError):
            call_with_deadline(
                backend.make_directory, "/hung", 0o750, deadline_s=1, on_timeout=lambda: backend.discard_client(0)
            )
    finally:
        hdfs.resume_namenode()
    # Whatever became of the first, the second sees the directory made once, as asked.
    call_with_deadline(backend.make_directory, "/hung", 0o750, deadline_s=30)
    assert backend.status("/hung").mode == 0o750


def test_safe_mode(hdfs: LocalHdfs, backend: ResilientBackend) -> None:
    put(hdfs, "/safe", CONTENT[:MIB], replication=2)
    hdfs.dfsadmin("-safemode", "enter")
    try:
        assert backend.open("/safe").read(0, MIB) == CONTENT[:MIB]
        assert "safe" in [entry.name for entry in backend.list("/")]
        with pytest.raises(errors.ReadOnlyError, match="safe mode"):
            backend.make_directory("/new", 0o755)
        with pytest.raises(errors.ReadOnlyError, match="safe mode"):
            backend.delete("/safe", recursive=False)
        with pytest.raises(errors.ReadOnlyError, match="safe mode"):
            backend.set_owner("/safe", "alice", None)
    finally:
        hdfs.dfsadmin("-safemode", "leave")
    assert backend.delete("/safe", recursive=False)


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("hdfs://127.0.0.1:1/", r"hdfs://127\.0\.0\.1:1/: Connection refused"),
        ("hdfs://no-such-host.invalid/", r"hdfs://no-such-host\.invalid:8020/: failed to lookup address"),
    ],
)
def test_a_namenode_that_is_not_there(uri: str, message: str) -> None:
    backend = connect(MountConfig(uri=uri, call_deadline_s=4))
    started = time.monotonic()
    with pytest.raises(errors.UnavailableError, match=message):
        backend.status("/")
    assert time.monotonic() - started < 10
    with pytest.raises(errors.UnavailableError, match="WebHDFS at http://"):
        backend.space("/")


def test_arrow_does_not_take_a_dead_namenode_for_an_absent_file(hdfs: LocalHdfs) -> None:
    script = (
        "from hdfs_fuse.backend import connect\n"
        "from hdfs_fuse.config import MountConfig\n"
        "backend = connect(MountConfig(uri='hdfs://127.0.0.1:1/', backend='pyarrow', call_deadline_s=2))\n"
        "for call in (lambda: backend.status('/x'), lambda: list(backend.list('/x')), lambda: backend.open('/x')):\n"
        "    try:\n"
        "        call()\n"
        "    except Exception as e:\n"
        "        print(type(e).__name__)\n"
    )
    # A process of its own, since a JVM can't be taken out of one again.
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, **libhdfs_environment(hdfs)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["UnavailableError"] * 3


def test_a_port_that_speaks_something_else(hdfs: LocalHdfs) -> None:
    web = hdfs.namenode_http.removeprefix("http://")
    backend = connect(MountConfig(uri=f"hdfs://{web}/", call_deadline_s=4))
    with pytest.raises(errors.HdfsFuseError, match=web):
        backend.status("/")


def test_quota_that_is_used_up(hdfs: LocalHdfs, backend: ResilientBackend) -> None:
    backend.make_directory("/full", 0o755)
    hdfs.webhdfs("PUT", "/full", "SETQUOTA", namespacequota="2")
    backend.make_directory("/full/one", 0o755)
    with pytest.raises(errors.QuotaExceededError):
        backend.make_directory("/full/two", 0o755)


def test_snapshots_are_read_only(hdfs: LocalHdfs, backend: ResilientBackend) -> None:
    backend.make_directory("/snapped/sub", 0o755)
    hdfs.webhdfs("PUT", "/snapped", "ALLOWSNAPSHOT")
    hdfs.webhdfs("PUT", "/snapped", "CREATESNAPSHOT", snapshotname="one")
    assert [entry.name for entry in backend.list("/snapped/.snapshot/one")] == ["sub"]
    with pytest.raises(errors.ReadOnlyError):
        backend.make_directory("/snapped/.snapshot/one/new", 0o755)
    with pytest.raises(errors.ReadOnlyError):
        backend.delete("/snapped/.snapshot/one/sub", recursive=True)
    with pytest.raises(errors.BusyError):
        backend.delete("/snapped", recursive=True)
