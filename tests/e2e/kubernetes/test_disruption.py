"""Parts of the driver and of Kubernetes that end while pods read and write."""

import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.e2e.kubernetes.conftest import CHART, DRIVER, RELEASE, helm, knows_driver, running_pod
from tests.e2e.kubernetes.kubectl import Namespace, kubectl, wait_until
from tests.e2e.kubernetes.manifests import claim, pod

# Writes and reads back, and reads what is there already, until it is told to stop; an error of any call ends it.
_LOAD = """
import hashlib, os, sys
content = os.urandom(1 << 20) * 8
with open('/data/base', 'wb') as file:
    file.write(content)
rounds = 0
while not os.path.exists('/tmp/stop'):
    data = b'%d ' % rounds * 5000
    name = f'/data/file-{rounds % 20}'
    with open(name + '.new', 'wb') as file:
        file.write(data)
        os.fsync(file.fileno())
    os.rename(name + '.new', name)
    with open(name, 'rb') as file:
        assert file.read() == data, name
    descriptor = os.open('/data/base', os.O_RDONLY)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    assert os.pread(descriptor, len(content), 0) == content
    os.close(descriptor)
    assert len(os.listdir('/data')) >= min(rounds + 1, 20)
    rounds += 1
    with open('/tmp/rounds.new', 'w') as file:
        file.write(str(rounds))
    os.rename('/tmp/rounds.new', '/tmp/rounds')
print('rounds', rounds)
"""


@contextmanager
def load(space: Namespace) -> Iterator[str]:
    """A pod that reads and writes all the time; at the end it must not have met one error."""
    space.apply(claim("load"), pod("load", "load", "python3", "-c", _LOAD))
    space.wait_ready("load")
    wait_until(lambda: rounds(space) >= 3, "the load runs", explain=lambda: space("logs", "load", check=False))
    yield "load"
    before = rounds(space)
    wait_until(
        lambda: rounds(space) > before + 2, "the load goes on", explain=lambda: space("logs", "load", check=False)
    )
    space.sh("load", "touch /tmp/stop")
    space.wait("pod/load", "jsonpath={.status.phase}=Succeeded")
    print(space("logs", "load"))


def rounds(space: Namespace) -> int:
    """How often the load has gone round."""
    return int(space.sh("load", "cat /tmp/rounds 2>/dev/null || echo 0", check=False) or 0)


def test_the_node_service_is_killed_and_upgraded_under_load(driver: Namespace, space: Namespace) -> None:
    with load(space):
        first = running_pod(driver, "node")
        driver("delete", "pod", first, "--grace-period=0", "--force")
        wait_until(lambda: running_pod(driver, "node") not in {"", first}, "another one runs", explain=driver.events)
        second = running_pod(driver, "node")
        helm(
            "upgrade",
            RELEASE,
            str(CHART),
            "--namespace",
            RELEASE,
            "--reuse-values",
            "--set",
            "node.podAnnotations.upgrade=yes",
        )
        driver("rollout", "status", "daemonset/hdfs-csi-node", "--timeout=120s", timeout_s=150)
        assert running_pod(driver, "node") != second
        wait_until(knows_driver, "the kubelet knows it")
    # The new one knows the volumes of the old one: it can show them to another pod, and take them down.
    space.apply(pod("later", "load"))
    space.wait_ready("later")
    assert space.sh("later", "wc -c </data/base").strip() == str(8 << 20)
    space.delete("pod/load", "pod/later")
    space.delete("pvc/load")


def test_the_kubelet_is_restarted_under_load(driver: Namespace, space: Namespace) -> None:
    pid_file = Path(os.environ["HDFS_CSI_E2E"]) / "state" / "kubelet.pid"
    with load(space):
        before = pid_file.read_text(encoding="ascii")
        os.kill(int(before), signal.SIGKILL)  # the cluster's init starts it again
        wait_until(lambda: pid_file.read_text(encoding="ascii") != before, "another kubelet runs")
        space.apply(pod("second", "load"))
        space.wait_ready("second")
    space.delete("pod/load", "pod/second")
    space.delete("pvc/load")


def test_a_mounter_that_is_killed_is_reported_and_repaired(driver: Namespace, space: Namespace) -> None:
    space.apply(claim("data"), pod("old", "data"))
    space.wait_ready("old")
    space.sh("old", "echo stored >/data/file")
    first = running_pod(driver, "mounter")
    driver("delete", "pod", first, "--grace-period=0", "--force")
    wait_until(lambda: running_pod(driver, "mounter") not in {"", first}, "another one runs", explain=driver.events)

    # What its pods see, and what Kubernetes says of it.
    assert "not connected" in space.sh("old", "cat /data/file 2>&1 || true", check=False)
    wait_until(
        lambda: "VolumeConditionAbnormal" in space.events() and "DaemonDead" in space.events(),
        "the condition of the volume is an event of the pod",
        timeout_s=240,  # the kubelet asks once a minute
        explain=lambda: space("describe", "pod", "old"),
    )
    # Whoever starts gets a mount that works, whether or not the old pod is still there.
    space.apply(pod("new", "data"))
    space.wait_ready("new")
    assert space.sh("new", "cat /data/file; echo more >/data/more") == "stored\n"
    started = time.monotonic()
    space.delete("pod/old", "pod/new")
    assert time.monotonic() - started < 60
    space.delete("pvc/data")


def test_a_mounter_that_ends_in_order_stores_what_was_written(driver: Namespace, space: Namespace) -> None:
    write = "file = open('/data/open', 'w'); file.write('kept'); file.flush(); import time; time.sleep(3600)"
    space.apply(claim("data"), pod("old", "data", "python3", "-c", write))
    space.wait_ready("old")
    wait_until(lambda: space.sh("old", "cat /data/open", check=False) == "kept", "it is written", explain=space.events)
    first = running_pod(driver, "mounter")
    driver("delete", "pod", first, "--timeout=60s")
    wait_until(lambda: running_pod(driver, "mounter") not in {"", first}, "another one runs", explain=driver.events)
    space.apply(pod("new", "data"))
    space.wait_ready("new")
    assert space.sh("new", "cat /data/open") == "kept"
    space.delete("pod/old", "pod/new")
    space.delete("pvc/data")


def test_two_controllers_one_of_which_works(driver: Namespace, space: Namespace) -> None:
    pods = driver.list("pods", "--selector=app.kubernetes.io/component=controller")
    assert len(pods) == 2
    leases = json.loads(kubectl("--namespace", RELEASE, "get", "leases", "-o", "json"))["items"]
    holders = {lease["metadata"]["name"]: lease["spec"]["holderIdentity"] for lease in leases}
    assert len(holders) >= 3, holders  # provisioner, resizer, snapshotter
    # The one that provisions is killed: the other one takes over.
    provisioner = holders[DRIVER]
    leader = next(p["metadata"]["name"] for p in pods if p["metadata"]["name"] in provisioner)
    driver("delete", "pod", leader, "--grace-period=0", "--force")
    space.apply(claim("data"))
    space.wait("pvc/data", "jsonpath={.status.phase}=Bound")
    space.delete("pvc/data")
