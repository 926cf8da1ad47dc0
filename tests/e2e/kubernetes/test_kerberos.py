"""A second installation, for a cluster with Kerberos: claims and pods, with secrets that say who acts."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.kubernetes.conftest import NODE_IP, chart_values, installed
from tests.e2e.kubernetes.kubectl import Namespace, wait_until
from tests.e2e.kubernetes.manifests import claim, pod
from tests.support.hadoop import FS_SHELL
from tests.support.local_hdfs import KerberosHdfs

DRIVER = "kerberos.hdfs.csi.dev"
RELEASE = "hdfs-csi-kerberos"
HOST = "node-1"


@pytest.fixture(scope="module")
def secured(nothing_left_behind: None) -> Iterator[KerberosHdfs]:
    with KerberosHdfs("privacy", host=HOST) as running:
        running.webhdfs("PUT", "/volumes", "MKDIRS", permission="755")
        yield running


@pytest.fixture(scope="module")
def installation(
    driver: Namespace, secured: KerberosHdfs, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Namespace]:
    """The second one; the first brings what a cluster has once."""
    secrets = {
        f"csi.storage.k8s.io/{call}-secret-{part}": value
        for call in ("provisioner", "controller-expand")
        for part, value in (("name", "controller"), ("namespace", RELEASE))
    } | {
        f"csi.storage.k8s.io/{call}-secret-{part}": value
        for call in ("node-stage", "node-publish")
        for part, value in (("name", "user"), ("namespace", "${pvc.namespace}"))
    }
    common = chart_values(secured)
    values: dict[str, Any] = common | {
        "driverName": DRIVER,
        "runtimeDir": "/run/hdfs-fuse-kerberos",
        "cache": {"hostPath": "/var/lib/hdfs-csi/kerberos-cache"},
        "staging": {"hostPath": "/var/lib/hdfs-csi/kerberos-staging"},
        "hostAliases": [{"ip": NODE_IP, "hostnames": [HOST]}],
        "hadoop": {**common["hadoop"], "caBundle": secured.certificate.read_text(encoding="ascii")},
        "kerberos": {"krb5Conf": secured.krb5_conf.read_text(encoding="ascii")},
        "controller": {"hdfsUser": ""},
        "node": {"hdfsUser": ""},
        "storageClasses": [
            {"name": "kerberos", "parameters": {"uri": f"{secured.uri}/volumes", "owner": "alice", **secrets}}
        ],
        "volumeSnapshotClasses": [],
    }
    with installed(RELEASE, values, tmp_path_factory.mktemp("kerberos"), driver_name=DRIVER) as namespace:
        namespace.apply(secret(secured, "controller", "hdfs"))
        yield namespace


def secret(hdfs: KerberosHdfs, name: str, user: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": hdfs.secret(user)}


@pytest.fixture(autouse=True)
def nothing_stays(installation: Namespace, space: Namespace, secured: KerberosHdfs) -> Iterator[None]:
    """The next test, and the end of the installation, find no volume."""
    yield
    space.delete("pod/one")
    space.delete("pvc/data")
    wait_until(lambda: not directories(secured), "the directory is removed", explain=space.events)


def directories(hdfs: KerberosHdfs) -> list[str]:
    entries = hdfs.webhdfs("GET", "/volumes", "LISTSTATUS")["FileStatuses"]["FileStatus"]
    return [entry["pathSuffix"] for entry in entries if not entry["pathSuffix"].startswith(".")]


def test_a_claim_with_secrets(space: Namespace, secured: KerberosHdfs) -> None:
    space.apply(secret(secured, "user", "alice"), claim("data", storage_class="kerberos"), pod("one", "data"))
    space.wait_ready("one")
    space.sh("one", "echo hello >/data/greeting; head -c 5000000 /dev/urandom >/data/large; cat /data/* | wc -c")
    (name,) = directories(secured)
    assert secured.tool(FS_SHELL, "-cat", f"/volumes/{name}/greeting", user="alice") == "hello\n"
    status = secured.webhdfs("GET", f"/volumes/{name}/large", "GETFILESTATUS")["FileStatus"]
    assert (status["owner"], status["length"]) == ("alice", 5000000)
    # The quota that the controller has set, asked of WebHDFS by the mount.
    assert space.sh("one", "df --output=size -B1 /data | tail -1").strip() == str(1 << 30)
    space("patch", "pvc", "data", "--patch", '{"spec":{"resources":{"requests":{"storage":"2Gi"}}}}')
    quota = f"/volumes/{name}"
    wait_until(
        lambda: secured.webhdfs("GET", quota, "GETQUOTAUSAGE")["QuotaUsage"]["spaceQuota"] == 2 << 30,
        "the quota grows",
        explain=space.events,
    )


def test_a_claim_whose_user_has_no_secret(space: Namespace) -> None:
    space.apply(claim("data", storage_class="kerberos"), pod("one", "data"))
    wait_until(
        lambda: 'secrets "user" not found' in space.events(), "the events of the pod say it", explain=space.events
    )
