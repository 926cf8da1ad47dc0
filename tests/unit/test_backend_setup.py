"""From a mount's configuration to a backend: Hadoop's files, identity, the choice of the client."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hdfs_fuse.backend import client_environment, cluster_id, connect, effective_user, resolve
from hdfs_fuse.backend.hadoop_conf import read_properties, webhdfs_addresses
from hdfs_fuse.backend.hdfs_native import CLIENT_DEFAULTS
from hdfs_fuse.backend.identity import acting_user
from hdfs_fuse.config import KIB, CacheConfig, Kerberos, Location, MountConfig
from hdfs_fuse.errors import FileChangedError, InvalidArgumentError

HA = {
    "fs.defaultFS": "hdfs://ns1",
    "dfs.nameservices": "ns1",
    "dfs.ha.namenodes.ns1": "nn1, nn2",
    "dfs.namenode.rpc-address.ns1.nn1": "one.example:8020",
    "dfs.namenode.rpc-address.ns1.nn2": "two.example:8020",
}


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HADOOP_CONF_DIR", "HADOOP_HOME", "HADOOP_USER_NAME", "CLASSPATH"):
        monkeypatch.delenv(name, raising=False)


def write_conf(folder: Path, properties: dict[str, str], name: str = "core-site.xml") -> str:
    entries = "".join(
        f"<property><name>{key}</name>\n<value> {value} </value></property>" for key, value in properties.items()
    )
    (folder / name).write_text(f'<?xml version="1.0"?>\n<!-- a comment -->\n<configuration>{entries}</configuration>')
    return str(folder)


# ---- which filesystem


@pytest.mark.parametrize(
    ("uri", "authority"),
    [
        ("hdfs://host:9000/data", "host:9000"),
        ("hdfs://host/data", "host:8020"),
        ("hdfs://ns1/data", "ns1"),
        ("hdfs:///data", "ns1"),
        ("hdfs://[::1]/data", "[::1]:8020"),
        ("hdfs://[::1]:9000/data", "[::1]:9000"),
    ],
)
def test_the_authority_is_filled_in(uri: str, authority: str) -> None:
    config = MountConfig(uri=uri, hadoop_properties=HA)
    assert resolve(config) == Location("hdfs", authority, "/data")
    assert cluster_id(config) == f"hdfs://{authority}"


def test_local_files_are_one_cluster() -> None:
    assert cluster_id(MountConfig(uri="file:///a")) == cluster_id(MountConfig(uri="file:///b")) == "local"


@pytest.mark.parametrize(
    ("default", "message"),
    [
        (None, r"fs\.defaultFS is not configured"),
        ("file:///", "fs.defaultFS is no help: hdfs://host:port is needed"),
        ("s3a://bucket", "fs.defaultFS is no help: hdfs://host:port is needed"),
        ("hdfs://", "fs.defaultFS is no help: hdfs://host:port is needed"),
    ],
)
def test_no_host_and_no_default(default: str | None, message: str) -> None:
    config = MountConfig(uri="hdfs:///data", hadoop_properties={"fs.defaultFS": default} if default else {})
    with pytest.raises(InvalidArgumentError, match=message):
        connect(config)


def test_the_folder_of_the_mount_comes_before_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "home" / "etc" / "hadoop").mkdir(parents=True)
    for name in ("env", "own"):
        (tmp_path / name).mkdir()
    write_conf(tmp_path / "home" / "etc" / "hadoop", {"fs.defaultFS": "hdfs://from-home:1"})
    write_conf(tmp_path / "env", {"fs.defaultFS": "hdfs://from-env:1"})
    write_conf(tmp_path / "own", {"fs.defaultFS": "hdfs://from-own:1", "a": "core"})
    write_conf(tmp_path / "own", {"a": "hdfs"}, "hdfs-site.xml")
    monkeypatch.setenv("HADOOP_HOME", str(tmp_path / "home"))
    assert cluster_id(MountConfig(uri="hdfs:///")) == "hdfs://from-home:1"
    monkeypatch.setenv("HADOOP_CONF_DIR", str(tmp_path / "env"))
    assert cluster_id(MountConfig(uri="hdfs:///")) == "hdfs://from-env:1"
    own = MountConfig(uri="hdfs:///", hadoop_conf_dir=str(tmp_path / "own"))
    assert cluster_id(own) == "hdfs://from-own:1"
    assert read_properties(own)["a"] == "hdfs"
    given = MountConfig(uri="hdfs:///", hadoop_conf_dir=str(tmp_path / "own"), hadoop_properties={"a": "given"})
    assert read_properties(given)["a"] == "given"


def test_a_folder_that_is_not_there_and_files_that_are_no_xml(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match="hadoop_conf_dir"):
        connect(MountConfig(uri="hdfs://h:1/", hadoop_conf_dir=str(tmp_path / "missing")))
    (tmp_path / "core-site.xml").write_text("<configuration>")
    with pytest.raises(InvalidArgumentError, match=r"core-site\.xml"):
        connect(MountConfig(uri="hdfs://h:1/", hadoop_conf_dir=str(tmp_path)))


# ---- where WebHDFS is


@pytest.mark.parametrize(
    ("authority", "properties", "addresses"),
    [
        ("host:8020", {}, ["http://host:9870"]),
        ("host:8020", {"dfs.namenode.http-address": "other:50070"}, ["http://other:50070"]),
        ("host:8020", {"dfs.namenode.http-address": "0.0.0.0:50070"}, ["http://host:50070"]),
        ("host:8020", {"dfs.namenode.http-address": "other"}, ["http://other:9870"]),
        # The configuration of another cluster says nothing of this one.
        (
            "host:8020",
            {"fs.defaultFS": "hdfs://else:8020", "dfs.namenode.http-address": "else:50070"},
            ["http://host:9870"],
        ),
        (
            "host:8020",
            {"dfs.namenode.rpc-address": "else:8020", "dfs.namenode.http-address": "else:50070"},
            ["http://host:9870"],
        ),
        ("host:8020", {"dfs.http.policy": "HTTPS_ONLY"}, ["https://host:9871"]),
        ("ns1", HA, ["http://one.example:9870", "http://two.example:9870"]),
        (
            "ns1",
            {**HA, "dfs.namenode.http-address.ns1.nn2": "web.example:80"},
            ["http://one.example:9870", "http://web.example:80"],
        ),
        ("[::1]:8020", {}, ["http://[::1]:9870"]),
    ],
)
def test_addresses_of_webhdfs(authority: str, properties: dict[str, str], addresses: list[str]) -> None:
    assert webhdfs_addresses(authority, properties) == addresses


# ---- identity


def test_the_user_is_the_environments(monkeypatch: pytest.MonkeyPatch) -> None:
    own = effective_user()
    assert own
    monkeypatch.setenv("HADOOP_USER_NAME", "alice")
    assert effective_user() == "alice"
    connect(MountConfig(uri="hdfs://h:1/", user="alice"))
    with pytest.raises(InvalidArgumentError, match="HADOOP_USER_NAME=bob"):
        connect(MountConfig(uri="hdfs://h:1/", user="bob"))
    # With Kerberos the ticket says who it is, and who asks for somebody must not get somebody else.
    kerberos = {"hadoop.security.authentication": "kerberos"}
    connect(MountConfig(uri="hdfs://h:1/", hadoop_properties=kerberos))
    for user in ("alice", "bob"):
        with pytest.raises(InvalidArgumentError, match=r"user: given, but .* is kerberos"):
            connect(MountConfig(uri="hdfs://h:1/", user=user, hadoop_properties=kerberos))


@pytest.mark.parametrize("principal", ["alice", "alice@EXAMPLE.COM", "alice/node1.example.com@EXAMPLE.COM"])
def test_a_principal_is_the_owner_of_its_files(principal: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HADOOP_USER_NAME", "carol")
    login = Kerberos(principal=principal, keytab=b"")
    assert acting_user(MountConfig(uri="hdfs://h:1/", kerberos=login)) == "alice"
    assert acting_user(MountConfig(uri="hdfs://h:1/")) == "carol"


def test_a_uid_without_a_name_is_who_the_client_says() -> None:
    script = "import os; from hdfs_fuse.backend import effective_user; os.setuid(54321); print(effective_user())"
    environment = {key: value for key, value in os.environ.items() if key != "HADOOP_USER_NAME"}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "unknown"


def test_the_environment_of_a_client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = dict(os.environ)
    monkeypatch.setenv("TOKIO_WORKER_THREADS", "3")  # the user's own choice stands
    assert client_environment(MountConfig(uri="hdfs://h:1/")) == {"RUST_BACKTRACE": "0"}
    monkeypatch.delenv("TOKIO_WORKER_THREADS")
    assert 1 <= int(client_environment(MountConfig(uri="hdfs://h:1/"))["TOKIO_WORKER_THREADS"]) <= 8
    config = MountConfig(uri="hdfs://h:1/", user="alice", hadoop_conf_dir=str(tmp_path), backend="pyarrow")
    monkeypatch.setenv("CLASSPATH", f"/jars/a.jar:{tmp_path}")
    found = client_environment(config)
    assert found["HADOOP_USER_NAME"] == "alice"
    assert found["HADOOP_CONF_DIR"] == str(tmp_path)
    assert found["CLASSPATH"] == f"{tmp_path}:/jars/a.jar"
    monkeypatch.undo()
    assert dict(os.environ) == before


# ---- which client


@pytest.mark.parametrize(
    ("uri", "backend", "client"),
    [
        ("hdfs://h:1/", "hdfs-native", "HdfsNativeBackend"),
        ("file:///", "hdfs-native", "LocalBackend"),
        ("file:///", "pyarrow", "ArrowLocalBackend"),
    ],
)
def test_the_client_is_chosen_by_scheme_and_backend(uri: str, backend: str, client: str) -> None:
    config = MountConfig.from_json(f'{{"uri": "{uri}", "backend": "{backend}"}}'.encode())
    assert type(connect(config).client()).__name__ == client


def test_an_unknown_backend_is_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="backend"):
        MountConfig.from_json(b'{"uri": "hdfs://h:1/", "backend": "nfs"}')


def test_a_nameservice_that_is_not_configured_is_taken_for_a_host() -> None:
    # As Hadoop's own client does; the look-up of the name then says what is wrong.
    assert cluster_id(MountConfig(uri="hdfs://ns9/", hadoop_properties=HA)) == "hdfs://ns9:8020"


@pytest.mark.parametrize(
    ("uri", "unwanted"),
    [
        ("hdfs://h:1/", ["pyarrow", "httpx", "http.client", "ssl", "asyncio"]),
        ("file:///", ["pyarrow", "hdfs_native", "http.client", "asyncio"]),
    ],
)
def test_a_mount_loads_only_its_client(uri: str, unwanted: list[str]) -> None:
    script = (
        "import sys\n"
        "from hdfs_fuse.backend import connect\n"
        "from hdfs_fuse.config import MountConfig\n"
        f"connect(MountConfig(uri={uri!r}))\n"
        f"print([name for name in {unwanted!r} if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_defaults_give_way_to_the_users_configuration() -> None:
    # The keys are those of HdfsClientConfigKeys; a misspelt one would be ignored without a word.
    assert set(CLIENT_DEFAULTS) == {
        "dfs.client.socket-timeout",
        "dfs.client.failover.max.attempts",
        "dfs.client.failover.sleep.base.millis",
        "dfs.client.failover.sleep.max.millis",
        "dfs.client.block.write.replace-datanode-on-failure.best-effort",
    }


@pytest.mark.parametrize("block_size_bytes", [64 * KIB, 4096 * KIB])
def test_a_file_that_is_read_in_parts_is_checked_when_it_is_opened(tmp_path: Path, block_size_bytes: int) -> None:
    path = tmp_path / "file"
    config = MountConfig(uri=f"file://{tmp_path}", cache=CacheConfig(block_size_bytes=block_size_bytes))
    backend = connect(config)
    path.write_bytes(b"1" * (config.small_file_bytes + 1))
    believed = backend.status(str(path))
    path.write_bytes(b"2" * (config.small_file_bytes + 1))
    os.utime(path, ns=(0, 0))
    with pytest.raises(FileChangedError):
        backend.open(str(path), believed)
