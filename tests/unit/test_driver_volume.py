import re

import pytest
from hdfs_csi.errors import NotReadyError
from hdfs_csi.parameters import BY_KEY, PARAMETERS, Where
from hdfs_csi.secret import Secret
from hdfs_csi.volume import (
    MAX_KEY_CHARACTERS,
    VolumeId,
    attributes_of,
    component,
    new_volume,
    pod_spec,
    volume_spec,
)
from hdfs_fuse.config import MountConfig, split_uri
from hdfs_fuse.errors import InvalidArgumentError
from hypothesis import given
from hypothesis import strategies as st

BASE = "hdfs://namenode.example.com:8020/volumes"

# What CSI allows in a name: no control characters but tab, line feed and carriage return; 128 bytes.
NAMES = st.text(
    st.characters(exclude_categories=["Cc", "Cs"], include_characters="\t\n\r"), min_size=1, max_size=128
).filter(lambda name: len(name.encode()) <= 128)


@given(NAMES)
def test_every_name_becomes_one_plain_component(name: str) -> None:
    for limit in (MAX_KEY_CHARACTERS, 128):
        made = component(name, limit)
        assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", made)
        assert len(made) <= limit
        assert component(made, limit) == made


@given(NAMES, NAMES)
def test_different_names_become_different_components(one: str, other: str) -> None:
    assert (component(one, 40) == component(other, 40)) == (one == other)


@given(NAMES)
def test_ids_are_read_back(name: str) -> None:
    volume = new_volume(name, {"uri": BASE})
    text = str(volume.volume_id)
    assert len(text.encode()) <= 128
    assert VolumeId.parse(text) == volume.volume_id
    assert volume.path.rpartition("/")[0] == "/volumes"


@given(st.text(max_size=128))
def test_ids_that_are_read_are_written_the_same_way(text: str) -> None:
    found = VolumeId.parse(text)
    assert found is None or str(found) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "my-data",
        "#",
        "#key",
        f"{BASE}#",
        f"{BASE}#a/b",
        f"{BASE}#..",
        f"{BASE}#.key",
        f"{BASE}/#key",  # another spelling of the same base path
        f"{BASE}//x#key",
        f"{BASE}/../x#key",
        "file:///volumes#key",
        f"{BASE}#{'x' * 41}",
    ],
)
def test_what_was_never_given_is_no_id(text: str) -> None:
    assert VolumeId.parse(text) is None


def test_a_hash_in_the_base_path_is_part_of_it() -> None:
    volume = new_volume("pvc-1", {"uri": "hdfs://nn/a#b"})
    assert VolumeId.parse(str(volume.volume_id)) == VolumeId(split_uri("hdfs://nn/a#b"), "pvc-1")


def test_the_root_may_be_the_base_path() -> None:
    volume = new_volume("pvc-1", {"uri": "hdfs://nn:8020"})
    assert (str(volume.volume_id), volume.path) == ("hdfs://nn:8020/#pvc-1", "/pvc-1")
    assert volume.volume_id.record_path == "/.hdfs-csi/volumes/pvc-1.json"


def test_long_names_keep_a_plain_directory() -> None:
    volume = new_volume("x" * 128, {"uri": BASE})
    assert volume.path == f"/volumes/{'x' * 128}"
    assert len(volume.volume_id.key) == MAX_KEY_CHARACTERS


def test_parameters_become_attributes_of_the_volume() -> None:
    given = {"uri": f"{BASE}/", "mode": "1770", "owner": "alice", "onDelete": "retain", "readAheadBytes": "8Mi"}
    volume = new_volume("pvc-1", given | {"csi.storage.k8s.io/pvc/name": "claim"})
    made = volume.settings
    assert (made.mode, made.owner, made.group, made.on_delete) == (0o1770, "alice", None, "retain")
    assert volume.parameters == given
    assert attributes_of(volume.volume_id, volume.path, volume.parameters) == {
        "uri": f"{BASE}/pvc-1",
        "readAheadBytes": "8Mi",
    }


def test_attributes_become_a_mount() -> None:
    attributes = {
        "uri": f"{BASE}/data/",
        "backend": "pyarrow",
        "user": "alice",
        "uid": "1000",
        "gid": "100",
        "umask": "077",
        "allowOther": "false",
        "metadataTtlSeconds": "0.5",
        "readAheadBytes": "1048576",
        "blockSizeBytes": "1Mi",
        "streams": "3",
        "workers": "8",
        "maxInodes": "1000",
        "callDeadlineSeconds": "7",
        "replication": "2",
        "hdfsBlockSizeBytes": "8Mi",
    }
    added = {"storage.kubernetes.io/csiProvisionerIdentity": "1-hdfs.csi.dev", "csi.storage.k8s.io/ephemeral": "false"}
    spec = volume_spec("my-data", attributes | added)
    config = spec.config
    assert spec.attributes == attributes
    assert (config.uri, config.backend, config.user, config.volume_id) == (
        f"{BASE}/data",
        "pyarrow",
        "alice",
        "my-data",
    )
    assert (config.uid, config.gid, config.umask, config.allow_other, config.read_only) == (
        1000,
        100,
        0o77,
        False,
        True,
    )
    assert (config.metadata_ttl_s, config.read_ahead_bytes, config.cache.block_size_bytes) == (0.5, 1 << 20, 1 << 20)
    assert (config.streams, config.workers, config.max_inodes, config.call_deadline_s) == (3, 8, 1000, 7.0)
    assert config.hadoop_properties == {"dfs.replication": "2", "dfs.blocksize": "8388608"}
    # Every key of a volume is tried above.
    assert {*attributes, "podUser"} == {p.key for p in PARAMETERS if p.where is Where.BOTH}


def test_defaults_are_what_the_table_says() -> None:
    config = volume_spec("x", {"uri": "hdfs://nn/a"}).config
    for parameter in PARAMETERS:
        without = {"uri", "user", "podUser", "replication", "hdfsBlockSizeBytes"}
        if parameter.where is Where.BOTH and parameter.key not in without:
            holder: object = config.cache if parameter.field.startswith("cache.") else config
            actual = getattr(holder, parameter.field.removeprefix("cache."))
            assert parameter.read(parameter.default) == actual, parameter.key
    assert (config.user, config.hadoop_properties) == (None, {})
    made = new_volume("x", {"uri": BASE})
    assert made.settings.mode == BY_KEY["mode"].read(BY_KEY["mode"].default)
    assert made.settings.on_delete == BY_KEY["onDelete"].default
    assert made.settings.enforces_size is (BY_KEY["quota"].default == "enforced")


def test_pods_that_are_not_root_may_enter() -> None:
    assert volume_spec("x", {"uri": "hdfs://nn/a"}).config.allow_other
    assert not MountConfig(uri="hdfs://nn/a").allow_other


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("mode", "0o755"),
        ("mode", "2000"),
        ("mode", ""),
        ("owner", ""),
        ("owner", " alice"),
        ("owner", "a\nb"),
        ("onDelete", "Delete"),
        ("backend", "webhdfs"),
        ("uid", "-1"),
        ("uid", "+1"),
        ("uid", "1_0"),
        ("uid", "٣"),
        ("uid", "4294967295"),
        ("umask", "1000"),
        ("allowOther", "yes"),
        ("metadataTtlSeconds", "nan"),
        ("metadataTtlSeconds", "1e3"),
        ("metadataTtlSeconds", "99999999"),
        ("readAheadBytes", "1MB"),
        ("readAheadBytes", "1.5Mi"),
        ("blockSizeBytes", "65537"),
        ("streams", "0"),
        ("workers", "513"),
        ("maxInodes", "999"),
        ("callDeadlineSeconds", "0"),
    ],
)
def test_values_that_are_not_accepted_name_their_key(key: str, value: str) -> None:
    with pytest.raises(InvalidArgumentError, match=f"^{key}: given .*, accepted "):
        new_volume("x", {"uri": BASE, key: value})


@pytest.mark.parametrize(
    ("key", "nearest"),
    [
        ("Uri", "uri"),
        ("ondelete", "onDelete"),
        ("readahead", "readAheadBytes"),
        ("metadata_ttl_s", "metadataTtlSeconds"),
    ],
)
def test_unknown_keys_name_the_nearest(key: str, nearest: str) -> None:
    with pytest.raises(InvalidArgumentError, match=f"unknown key '{key}' .* did you mean '{nearest}'"):
        new_volume("x", {"uri": BASE, key: "1"})


def test_keys_of_a_class_are_unknown_to_a_volume() -> None:
    with pytest.raises(InvalidArgumentError, match="unknown key 'mode' in volume attributes"):
        volume_spec("x", {"uri": BASE, "mode": "0755"})


def test_a_base_path_that_is_too_long_says_how_long_it_may_be() -> None:
    name = "pvc-0a1b2c3d-0a1b-0a1b-0a1b-0a1b2c3d4e5f"
    longest = "hdfs://nn/" + "x" * 77
    assert len(str(new_volume(name, {"uri": longest}).volume_id)) == 128
    with pytest.raises(
        InvalidArgumentError, match="129 bytes, CSI allows 128; accepted are base URIs of up to 87 bytes"
    ):
        new_volume(name, {"uri": longest + "x"})


# ---- each pod its own user


def test_a_pod_has_the_user_that_the_pattern_makes() -> None:
    context = {"csi.storage.k8s.io/pod.namespace": "research", "csi.storage.k8s.io/serviceAccount.name": "trainer"}
    volume = volume_spec("x", {"uri": BASE, "podUser": "${pod.namespace}.${serviceAccount.name}"} | context)
    assert (volume.is_per_pod, volume.config.user) == (True, None)
    pod = pod_spec(volume, context)
    assert (pod.is_per_pod, pod.config.user) == (False, "research.trainer")
    assert pod.config == volume_spec("x", {"uri": BASE, "user": "research.trainer"}).config
    shared = volume_spec("x", {"uri": BASE, "user": "alice"})
    assert pod_spec(shared, context) is shared
    for key in context:
        with pytest.raises(NotReadyError, match=f"does not say {key.removeprefix('csi.storage.k8s.io/')} of the pod"):
            pod_spec(volume, {k: v for k, v in context.items() if k != key})


@pytest.mark.parametrize(
    "pattern", ["alice", "", "${pod.name}", "${user}", "$pod.namespace${pod.namespace}", "${pod.namespace} "]
)
def test_patterns_that_are_none(pattern: str) -> None:
    with pytest.raises(InvalidArgumentError, match=r"^podUser: given .*, accepted is a name with"):
        new_volume("x", {"uri": BASE, "podUser": pattern})


def test_one_identity_is_enough() -> None:
    pattern = {"uri": BASE, "podUser": "${pod.namespace}"}
    with pytest.raises(InvalidArgumentError, match="podUser: given, but the volume or its secret has another identity"):
        new_volume("x", pattern | {"user": "alice"})
    with pytest.raises(InvalidArgumentError, match="podUser: given, but the volume or its secret has another identity"):
        volume_spec("x", pattern, secret=Secret.read({"user": "alice"}))
