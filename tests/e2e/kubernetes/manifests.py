"""Kubernetes objects that several tests need."""

from typing import Any

from tests.e2e.kubernetes.images import POD

DATA = "/data"


def claim(
    name: str,
    *,
    size: str = "1Gi",
    storage_class: str = "hdfs",
    modes: tuple[str, ...] = ("ReadWriteMany",),
    source: tuple[str, str] | None = None,
) -> dict[str, Any]:
    """A PersistentVolumeClaim; `source` is kind and name of what it is made from."""
    spec: dict[str, Any] = {
        "storageClassName": storage_class,
        "accessModes": list(modes),
        "resources": {"requests": {"storage": size}},
    }
    if source is not None:
        group = {"apiGroup": "snapshot.storage.k8s.io"} if source[0] == "VolumeSnapshot" else {}
        spec["dataSource"] = {**group, "kind": source[0], "name": source[1]}
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name}, "spec": spec}


def pod(
    name: str,
    claim_name: str,
    *command: str,
    security: dict[str, Any] | None = None,
    mount: dict[str, Any] | None = None,
    restart: str = "Never",
) -> dict[str, Any]:
    """A pod that has a claim at /data; without a command it waits."""
    container = {
        "name": "main",
        "image": POD,
        "imagePullPolicy": "IfNotPresent",
        "command": list(command) or ["sleep", "infinity"],
        "volumeMounts": [{"name": "data", "mountPath": DATA, **(mount or {})}],
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {
            "terminationGracePeriodSeconds": 1,
            "restartPolicy": restart,
            "securityContext": security or {},
            "containers": [container],
            "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": claim_name}}],
        },
    }


def snapshot(name: str, claim_name: str) -> dict[str, Any]:
    """A VolumeSnapshot of a claim."""
    return {
        "apiVersion": "snapshot.storage.k8s.io/v1",
        "kind": "VolumeSnapshot",
        "metadata": {"name": name},
        "spec": {"volumeSnapshotClassName": "hdfs", "source": {"persistentVolumeClaimName": claim_name}},
    }
