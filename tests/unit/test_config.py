"""MountConfig: what it takes, and that a refusal says what was given and what is accepted."""

import math

import msgspec
import pytest
from hdfs_fuse.config import GIB, KIB, MIB, CacheConfig, Location, MountConfig, StagingConfig, split_uri
from hdfs_fuse.errors import InvalidArgumentError
from hypothesis import given, settings
from hypothesis import strategies as st

URI = "hdfs://nn:8020/data"


@pytest.mark.parametrize(
    ("uri", "location"),
    [
        ("hdfs://nn:8020/data", Location("hdfs", "nn:8020", "/data")),
        ("hdfs://nameservice1/data/", Location("hdfs", "nameservice1", "/data")),
        ("hdfs:///data", Location("hdfs", "", "/data")),
        ("hdfs://nn", Location("hdfs", "nn", "/")),
        ("hdfs://nn/", Location("hdfs", "nn", "/")),
        ("hdfs://nn//a//b/./c", Location("hdfs", "nn", "/a/b/c")),
        ("HDFS://nn/x", Location("hdfs", "nn", "/x")),
        ("hdfs://[::1]:8020/x", Location("hdfs", "[::1]:8020", "/x")),
        ("hdfs://my_host.example-1:1/x", Location("hdfs", "my_host.example-1:1", "/x")),
        ("hdfs://nn/a?b#c d%20e", Location("hdfs", "nn", "/a?b#c d%20e")),
        ("hdfs://nn/día/數據", Location("hdfs", "nn", "/día/數據")),
        ("hdfs://nn/a\nb", Location("hdfs", "nn", "/a\nb")),
        ("hdfs://nn/..a/b..", Location("hdfs", "nn", "/..a/b..")),
        ("hdfs://nn/.snapshot/s1", Location("hdfs", "nn", "/.snapshot/s1")),
        ("file:///srv/data", Location("file", "", "/srv/data")),
        ("file://localhost/srv", Location("file", "", "/srv")),
        ("file:////srv", Location("file", "", "/srv")),
    ],
)
def test_uris_that_are_accepted(uri: str, location: Location) -> None:
    assert split_uri(uri) == location
    assert split_uri(f"{location.filesystem}{location.path}") == location


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        ("", "unknown filesystem scheme"),
        ("/data", "unknown filesystem scheme"),
        ("data", "unknown filesystem scheme"),
        ("s3://bucket/data", "unknown filesystem scheme 's3'"),
        ("webhdfs://nn/data", "unknown filesystem scheme 'webhdfs'"),
        ("://nn/data", "unknown filesystem scheme"),
        ("hdfs", "unknown filesystem scheme"),
        ("hdfs:/data", "'//' is missing"),
        ("hdfs:data", "'//' is missing"),
        ("file:data", "'//' is missing"),
        (" hdfs://nn/data", ""),
        ("hdfs://nn:port/", ""),
        ("hdfs://nn:99999/", ""),
        ("hdfs://nn:-1/", ""),
        ("hdfs://nn:0/", ""),
        ("hdfs://nn:/data", "malformed host"),
        ("hdfs://nn:8020:1/data", ""),
        ("hdfs://user@nn/data", "malformed host"),
        ("hdfs://n n/data", "malformed host"),
        ("hdfs://nn,nm/data", "malformed host"),
        ("hdfs://nn?x=1", "malformed host"),
        ("hdfs://nn\n/data", "malformed host"),
        ("hdfs://n\0n/data", ""),
        ("hdfs://[::1/data", ""),
        ("hdfs://[nn]/data", ""),
        ("hdfs://ñ/data", "malformed host"),
        ("file://host/data", "takes no host"),
        ("file://relative", "takes no host"),
        ("hdfs://nn/a/../b", "'..'"),
        ("hdfs://nn/..", "'..'"),
        ("file:///../etc", "'..'"),
        ("hdfs://nn/a\0b", "NUL"),
        ("hdfs://nn/a\udcff", "UTF-8"),
        ("hdfs://nn/" + "a/" * 4001, "8000"),
        ("hdfs://nn/" + "a" * 20000, "8000"),
    ],
)
def test_uris_that_are_refused(uri: str, reason: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        split_uri(uri)
    message = str(caught.value)
    assert message.startswith("uri")
    assert reason in message
    if len(uri) < 100:
        assert repr(uri) in message, "the message must show what was given"
    assert len(message) < 1000
    with pytest.raises(InvalidArgumentError):
        MountConfig(uri=uri)


@given(st.text(max_size=60).map(lambda text: f"hdfs://{text}"))
@settings(max_examples=200)
def test_any_text_is_split_or_refused(uri: str) -> None:
    try:
        location = split_uri(uri)
    except InvalidArgumentError:
        return
    assert location.path.startswith("/")
    assert "//" not in location.path
    assert location.path == "/" or not location.path.endswith("/")
    assert not {"..", "."} & set(location.path.split("/"))
    assert split_uri(location.filesystem + location.path) == location


BAD = [
    ("umask", 0o1000, "777"),
    ("umask", -1, "777"),
    ("uid", -1, "4294967294"),
    ("gid", 2**32 - 1, "4294967294"),
    ("metadata_ttl_s", -0.1, "0 to a year"),
    ("metadata_ttl_s", math.inf, "0 to a year"),
    ("metadata_ttl_s", math.nan, "0 to a year"),
    ("max_inodes", 999, "1000 or more"),
    ("read_ahead_bytes", -1, "0 or more"),
    ("streams", 0, "1 to 8"),
    ("streams", 9, "1 to 8"),
    ("workers", 0, "1 to 512"),
    ("workers", 513, "1 to 512"),
    ("call_deadline_s", 0.0, "above 0"),
    ("call_deadline_s", math.inf, "above 0"),
    ("call_deadline_s", math.nan, "above 0"),
]
BAD_CACHE = [
    ("block_size_bytes", 0, "power of two"),
    ("block_size_bytes", 32 * KIB, "65536"),
    ("block_size_bytes", 128 * MIB, "67108864"),
    ("block_size_bytes", 3 * MIB, "power of two"),
    ("block_size_bytes", -4 * MIB, "power of two"),
    ("size_bytes", -1, "0 or more"),
    ("size_bytes", 2**70, "0 or more"),
    ("min_free_bytes", -1, "0 or more"),
    ("min_free_bytes", 2**70, "0 or more"),
    ("directory", "relative/path", "absolute"),
    ("directory", "/a\0b", "NUL"),
]


def changed(name: str, value: object) -> MountConfig:
    if name.startswith("cache."):
        cache = CacheConfig(**{name.removeprefix("cache."): value})  # type: ignore[arg-type]
        return MountConfig(uri=URI, cache=cache)
    return MountConfig(uri=URI, **{name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "value", "accepted"), [*BAD, *((f"cache.{name}", value, what) for name, value, what in BAD_CACHE)]
)
def test_values_that_are_refused(name: str, value: object, accepted: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        changed(name, value)
    message = str(caught.value)
    assert message.startswith(f"{name}: given ")
    assert (oct(value) if name == "umask" and isinstance(value, int) else repr(value)) in message
    assert accepted in message


def test_a_writable_mount_needs_a_staging_directory() -> None:
    with pytest.raises(InvalidArgumentError, match=r"staging\.directory: given ''.*local directory"):
        MountConfig(uri=URI, read_only=False)
    with pytest.raises(InvalidArgumentError, match=r"staging\.directory: given 'here'.*absolute"):
        MountConfig(uri=URI, read_only=False, staging=StagingConfig(directory="here"))
    with pytest.raises(InvalidArgumentError, match=r"staging\.size_bytes: given -1"):
        MountConfig(uri=URI, read_only=False, staging=StagingConfig(directory="/here", size_bytes=-1))
    with pytest.raises(InvalidArgumentError, match=r"read_only: given False.*pyarrow"):
        MountConfig(uri=URI, read_only=False, staging=StagingConfig(directory="/here"), backend="pyarrow")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("umask", 0o777),
        ("uid", 0),
        ("gid", 2**32 - 2),
        ("metadata_ttl_s", 0.0),
        ("read_ahead_bytes", 0),
        ("streams", 8),
        ("workers", 1),
        ("call_deadline_s", 0.001),
        ("cache.block_size_bytes", 64 * KIB),
        ("cache.block_size_bytes", 64 * MIB),
        ("cache.size_bytes", 0),
        ("cache.directory", ""),
    ],
)
def test_values_at_the_border_are_accepted(name: str, value: object) -> None:
    config = changed(name, value)
    assert MountConfig.from_json(config.to_json()) == config


configs = st.builds(
    MountConfig,
    uri=st.sampled_from([URI, "hdfs:///", "file:///srv/día"]),
    backend=st.sampled_from(["hdfs-native", "pyarrow"]),
    hadoop_conf_dir=st.none() | st.just("/etc/hadoop"),
    hadoop_properties=st.dictionaries(st.text(max_size=9), st.text(max_size=9), max_size=3),
    user=st.none() | st.just("alice"),
    uid=st.none() | st.integers(0, 2**32 - 2),
    gid=st.none() | st.integers(0, 2**32 - 2),
    umask=st.integers(0, 0o777),
    allow_other=st.booleans(),
    metadata_ttl_s=st.floats(0, 86400 * 365),
    max_inodes=st.integers(1000, 2**60),
    read_ahead_bytes=st.integers(0, 2**60 - 1),
    streams=st.integers(1, 8),
    workers=st.integers(1, 512),
    call_deadline_s=st.floats(0.001, 86400),
    cache=st.builds(
        CacheConfig,
        directory=st.sampled_from(["", "/var/cache/hdfs"]),
        size_bytes=st.integers(0, 2**60 - 1),
        min_free_bytes=st.integers(0, 10 * GIB),
        block_size_bytes=st.sampled_from([2**n for n in range(16, 27)]),
    ),
    volume_id=st.text(max_size=9),
)


@given(configs)
def test_every_configuration_survives_json(config: MountConfig) -> None:
    assert MountConfig.from_json(config.to_json()) == config


@pytest.mark.parametrize(
    ("data", "named"),
    [
        (b"", "mount configuration"),
        (b"{", "mount configuration"),
        (b"[]", "mount configuration"),
        (b"\xff", "mount configuration"),
        (b"{}", "uri"),
        (b'{"uri": 5}', "uri"),
        (b'{"uri": "hdfs://nn/", "cache_size": 5}', "cache_size"),
        (b'{"uri": "hdfs://nn/", "cache": {"size": 5}}', "size"),
        (b'{"uri": "hdfs://nn/", "workers": "many"}', "workers"),
        (b'{"uri": "hdfs://nn/", "workers": 1.5}', "workers"),
        (b'{"uri": "hdfs://nn/", "workers": null}', "workers"),
        (b'{"uri": "hdfs://nn/", "backend": "libhdfs"}', "backend"),
        (b'{"uri": "hdfs://nn/", "streams": 99}', "streams"),
        (b'{"uri": "hdfs://nn/", "cache": {"block_size_bytes": 5}}', "cache.block_size_bytes"),
        (b'{"uri": "s3://nn/"}', "uri"),
    ],
)
def test_json_that_is_refused(data: bytes, named: str) -> None:
    with pytest.raises(InvalidArgumentError, match=named):
        MountConfig.from_json(data)


def test_a_configuration_can_not_be_changed() -> None:
    config = MountConfig(uri=URI)
    with pytest.raises(AttributeError):
        config.workers = 5  # type: ignore[misc]
    assert msgspec.structs.replace(config, workers=5).workers == 5
