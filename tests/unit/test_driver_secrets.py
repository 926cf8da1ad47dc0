"""What a request's secret may say, what is refused, and that no message or text shows anything of it."""

import base64
import gc
import os
from collections.abc import Mapping
from pathlib import Path

import pytest
from hdfs_csi.filesystems import Filesystems
from hdfs_csi.node import NodeSettings
from hdfs_csi.parameters import MAX_SECRET_BYTES, SECRETS
from hdfs_csi.secret import NO_SECRET, Secret
from hdfs_csi.volume import inline_spec, volume_spec
from hdfs_fuse.backend import cluster_id, connect, effective_user
from hdfs_fuse.backend.hadoop_conf import read_properties
from hdfs_fuse.backend.identity import log_in
from hdfs_fuse.config import CacheConfig, Kerberos, MountConfig
from hdfs_fuse.errors import InvalidArgumentError

from tests.support.cut_short import CutShort
from tests.support.fake_backend import FakeAdministration, FakeFilesystem

SENTINEL = "hunter2"
KEYTAB = b"\x05\x02" + SENTINEL.encode()
KRB5_CONF = "[libdefaults]\n default_realm = EXAMPLE.COM\n"
URI = {"uri": "hdfs://ns/data"}


def xml(properties: Mapping[str, str]) -> str:
    entries = "".join(f"<property><name>{k}</name><value>{v}</value></property>" for k, v in properties.items())
    return f'<?xml version="1.0" encoding="UTF-8"?>\n<configuration>{entries}</configuration>'


KERBEROS = {"principal": "alice@EXAMPLE.COM", "keytab": base64.encodebytes(KEYTAB).decode(), "krb5.conf": KRB5_CONF}
HADOOP = {
    "core-site.xml": xml({"fs.defaultFS": "hdfs://ns", "a": "core"}),
    "hdfs-site.xml": xml({"a": "hdfs", "dfs.replication": "3"}),
}


# ---- what is accepted


def test_a_secret_becomes_a_mount() -> None:
    # Every key is tried.
    assert {*KERBEROS, *HADOOP, "user"} == {secret.key for secret in SECRETS}
    login = Kerberos(principal="alice@EXAMPLE.COM", keytab=KEYTAB, krb5_conf=KRB5_CONF)
    config = volume_spec("x", {**URI, "replication": "2"}, secret=Secret.read(KERBEROS | HADOOP)).config
    assert (config.user, config.kerberos) == (None, login)
    # hdfs-site.xml is read after core-site.xml, and what the volume itself says comes first.
    assert config.hadoop_properties == {"fs.defaultFS": "hdfs://ns", "a": "hdfs", "dfs.replication": "2"}
    assert MountConfig.from_json(config.to_json()) == config
    config = inline_spec("x", URI, secret=Secret.read({"user": "alice"})).config
    assert (config.user, config.kerberos, config.hadoop_properties) == ("alice", None, {})
    assert volume_spec("x", {**URI, "user": "alice"}, secret=Secret.read({"user": "alice"})).config.user == "alice"


def test_no_secret_changes_nothing() -> None:
    assert not Secret.read({})
    assert Secret.read({}) == NO_SECRET
    assert volume_spec("x", URI, secret=Secret.read({})) == volume_spec("x", URI)


def test_it_comes_before_the_configuration_of_the_node(tmp_path: Path) -> None:
    (tmp_path / "core-site.xml").write_text(xml({"a": "node", "b": "node"}), encoding="utf-8")
    spec = volume_spec("x", URI, read_only=True, secret=Secret.read(HADOOP))
    properties = read_properties(NodeSettings(hadoop_conf_dir=str(tmp_path)).complete(spec))
    assert (properties["a"], properties["b"]) == ("hdfs", "node")


# ---- what is refused


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"password": SENTINEL}, "unknown key 'password' in a secret; accepted are: user, principal, keytab"),
        ({"core-site": SENTINEL}, "unknown key 'core-site' in a secret; did you mean 'core-site.xml'?"),
        ({"Keytab": SENTINEL}, "unknown key 'Keytab' in a secret; did you mean 'keytab'?"),
        ({"user": f"{SENTINEL}\n"}, "user: not accepted"),
        ({"user": ""}, "user: not accepted"),
        ({"keytab": SENTINEL}, "keytab: not accepted"),
        ({"keytab": f"{SENTINEL}!"}, "keytab: not accepted"),
        ({"keytab": f"{SENTINEL}ü"}, "keytab: not accepted"),
        ({"keytab": base64.b64encode(SENTINEL.encode()).decode()}, "keytab: not accepted"),
        ({"krb5.conf": SENTINEL}, "krb5.conf: not accepted"),
        ({"krb5.conf": f"{KRB5_CONF}include /{SENTINEL}\n"}, "krb5.conf: not accepted"),
        ({"krb5.conf": f"{KRB5_CONF}includedir /{SENTINEL}\n"}, "krb5.conf: not accepted"),
        ({"krb5.conf": f"module /{SENTINEL}.so:x\n{KRB5_CONF}"}, "krb5.conf: not accepted"),
        ({"krb5.conf": f"{KRB5_CONF}[ plugins ]\n x = {SENTINEL}"}, "krb5.conf: not accepted"),
        ({"krb5.conf": f"{KRB5_CONF} plugin_base_dir = /{SENTINEL}"}, "krb5.conf: not accepted"),
        ({"krb5.conf": f"{KRB5_CONF} pkinit_identities = PKCS11:{SENTINEL}"}, "krb5.conf: not accepted"),
        ({"core-site.xml": SENTINEL}, "core-site.xml: not accepted"),
        ({"core-site.xml": f"<{SENTINEL}/>"}, "core-site.xml: not accepted"),
        ({"hdfs-site.xml": f"<configuration>&{SENTINEL};</configuration>"}, "hdfs-site.xml: not accepted"),
        ({"hdfs-site.xml": f"<!DOCTYPE a [<!ENTITY b '{SENTINEL}'>]><configuration/>"}, "hdfs-site.xml: not accepted"),
        ({"core-site.xml": SENTINEL * (MAX_SECRET_BYTES // len(SENTINEL) + 1)}, "accepted are 131072"),
        ({"principal": SENTINEL}, "keytab: missing in the secret; principal does not go without it"),
        ({"keytab": KERBEROS["keytab"]}, "principal: missing in the secret; keytab does not go without it"),
        ({"krb5.conf": KRB5_CONF}, "principal: missing in the secret; krb5.conf does not go without it"),
        ({"user": SENTINEL, **KERBEROS}, "user: given beside principal in the secret"),
    ],
)
def test_what_is_refused(given: dict[str, str], message: str) -> None:
    with pytest.raises(InvalidArgumentError) as refused:
        Secret.read(given)
    assert message in str(refused.value)
    assert_hidden(refused.value)


@pytest.mark.parametrize(
    ("attributes", "given", "message"),
    [
        ({"user": "alice"}, {"user": SENTINEL}, "user: the volume has it, and its secret another identity"),
        ({"user": "alice"}, KERBEROS, "user: the volume has it, and its secret another identity"),
        ({"backend": "pyarrow"}, KERBEROS, "backend: given 'pyarrow'; with a keytab"),
        ({"backend": "pyarrow"}, HADOOP, "backend: given 'pyarrow'; with a keytab"),
    ],
)
def test_attributes_that_do_not_go_with_it(attributes: dict[str, str], given: dict[str, str], message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message) as refused:
        volume_spec("x", URI | attributes, secret=Secret.read(given))
    assert_hidden(refused.value)


def test_values_that_a_client_refuses_are_not_shown() -> None:
    for properties in ({"dfs.replication": SENTINEL}, {"fs.defaultFS": f"s3a://{SENTINEL}"}):
        secret = Secret.read({"core-site.xml": xml(properties)})
        config = volume_spec("x", {"uri": "hdfs:///"}, secret=secret).config
        with pytest.raises(InvalidArgumentError) as refused:
            connect(config).client()
        assert_hidden(refused.value)


def assert_hidden(error: BaseException | None) -> None:
    while error is not None:
        assert SENTINEL not in str(error)
        error = error.__cause__


# ---- what is shown


def test_nothing_of_it_is_shown() -> None:
    secret = Secret.read(KERBEROS | {"core-site.xml": xml({"a": SENTINEL})})
    spec = volume_spec("x", URI, read_only=True, secret=secret)
    for value in (secret, spec, spec.config, spec.config.kerberos, NodeSettings().complete(spec)):
        for text in (repr(value), str(value), f"{value}"):
            assert SENTINEL not in text
            assert "\\x05" not in text


# ---- the cache


def test_who_says_what_a_name_means_shares_no_blocks_with_others() -> None:
    settings = NodeSettings(cache=CacheConfig(directory="/cache"))

    def name(given: Mapping[str, str]) -> str:
        return cluster_id(settings.complete(volume_spec("x", URI, read_only=True, secret=Secret.read(given))))

    assert name({}) == name({"user": "alice"}) == "hdfs://ns:8020"
    assert name(HADOOP) == name(dict(reversed(HADOOP.items())) | {"user": "bob"})
    assert len({name({}), name(HADOOP), name({"core-site.xml": HADOOP["core-site.xml"]})}) == 3


# ---- Kerberos


def test_keytab_and_krb5_conf_are_files_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KRB5_CONFIG", "/etc/krb5.conf")
    first = log_in(Kerberos(principal="alice", keytab=KEYTAB))
    assert os.environ["KRB5_CONFIG"] == "/etc/krb5.conf"
    assert Path(first.keytab_path).read_bytes() == KEYTAB
    assert first.tickets.startswith("MEMORY:")
    second = log_in(Kerberos(principal="alice", keytab=KEYTAB + b"x", krb5_conf=KRB5_CONF))
    assert Path(second.keytab_path).read_bytes() == KEYTAB + b"x"
    assert Path(os.environ["KRB5_CONFIG"]).read_text(encoding="utf-8") == KRB5_CONF
    assert second.tickets != first.tickets
    # The keytab goes with the login; krb5.conf stays.
    path = second.keytab_path
    del second
    gc.collect()
    assert not os.path.exists(path)
    assert os.path.exists(os.environ["KRB5_CONFIG"])
    assert Path(first.keytab_path).read_bytes() == KEYTAB


def test_a_keytab_needs_hadoop_to_ask_for_kerberos() -> None:
    secret = Secret.read({key: KERBEROS[key] for key in ("principal", "keytab")})
    config = volume_spec("x", {"uri": "hdfs://h:1/"}, secret=secret).config
    with pytest.raises(InvalidArgumentError, match=r"hadoop\.security\.authentication is not kerberos"):
        connect(config)


# ---- the controller


def test_the_controller_has_a_client_for_each_secret() -> None:
    made: list[MountConfig] = []

    def connect_client(config: MountConfig) -> CutShort:
        made.append(config)
        return CutShort(FakeFilesystem())

    filesystems = Filesystems(
        deadline_s=1,
        connect=connect_client,
        connect_administration=lambda _: FakeAdministration(FakeFilesystem()),
    )
    hadoop = Secret.read(HADOOP)
    plain = filesystems.get("hdfs://ns")
    special = filesystems.with_secret(hadoop).get("hdfs://ns")
    assert plain is not special
    assert filesystems.with_secret(Secret.read(dict(reversed(HADOOP.items())))).get("hdfs://ns") is special
    assert filesystems.with_secret(NO_SECRET).get("hdfs://ns") is filesystems.get("hdfs://ns") is plain
    own = Secret.read({"user": effective_user()})
    assert filesystems.with_secret(own).get("hdfs://ns") is plain
    login = Secret.read({key: KERBEROS[key] for key in ("principal", "keytab")})
    filesystems.with_secret(login).get("hdfs://ns")
    assert [(c.hadoop_properties, c.kerberos) for c in made] == [
        ({}, None),
        (hadoop.hadoop_properties, None),
        ({}, login.kerberos),
    ]


def test_the_controller_acts_as_nobody_else() -> None:
    filesystems = Filesystems(deadline_s=1)
    with pytest.raises(InvalidArgumentError, match="can't be the user that its secret names") as refused:
        filesystems.with_secret(Secret.read({"user": SENTINEL}))
    assert_hidden(refused.value)
    with pytest.raises(InvalidArgumentError, match=r"krb5\.conf: the controller has one for all volumes"):
        filesystems.with_secret(Secret.read(KERBEROS))
