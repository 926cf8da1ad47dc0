"""The chart's alerts and dashboard, run by a real Prometheus."""

import subprocess
from pathlib import Path
from typing import Any

import yaml

from tests.e2e.kubernetes.kubectl import Namespace, wait_until
from tests.e2e.kubernetes.manifests import claim, pod
from tests.e2e.kubernetes.prometheus import panels, prometheus, write_rules

_MOUNTS = {'hdfs_csi_mounts{instance="node-1",state="silent"}': "0x120"}
_SLOW = 'hdfs_fuse_hdfs_seconds_bucket{instance="node-1",le="%s"}'
# Alert -> series that should raise it, a minute a sample (promtool's notation); the labels that it has then.
_RAISED: dict[str, tuple[dict[str, str], dict[str, str]]] = {
    "HdfsCsiMountSilent": (
        {'hdfs_csi_mounts{instance="node-1",state="silent"}': "1x120"},
        {"severity": "critical", "instance": "node-1"},
    ),
    "HdfsCsiCallsFail": (
        {'hdfs_csi_operation_seconds_count{method="CreateVolume",code="INTERNAL"}': "0+1x120", **_MOUNTS},
        {"severity": "warning", "method": "CreateVolume", "code": "INTERNAL"},
    ),
    "HdfsCsiHdfsTimeouts": (
        {'hdfs_fuse_hdfs_timeout_total{instance="node-1",volume_id="a"}': "0+1x120", **_MOUNTS},
        {"severity": "warning", "instance": "node-1", "volume_id": "a"},
    ),
    "HdfsCsiHdfsSlow": (
        {_SLOW % "10": "0+1x120", _SLOW % "30": "0+100x120", _SLOW % "+Inf": "0+100x120", **_MOUNTS},
        {"severity": "warning", "instance": "node-1"},
    ),
    "HdfsCsiCacheFaults": (
        {'hdfs_fuse_cache_fault_total{instance="node-1"}': "0+1x120", **_MOUNTS},
        {"severity": "warning", "instance": "node-1"},
    ),
    "HdfsCsiNoMetrics": ({}, {"severity": "warning"}),
}
# What is no reason for an alert.
_ORDINARY = {
    'hdfs_csi_operation_seconds_count{method="CreateVolume",code="OK"}': "0+1x120",
    'hdfs_csi_operation_seconds_count{method="CreateVolume",code="ABORTED"}': "0+1x120",
    'hdfs_fuse_hdfs_timeout_total{instance="node-1",volume_id="a"}': "7x120",
    _SLOW % "10": "0+1000x120",
    _SLOW % "30": "0+1001x120",
    _SLOW % "+Inf": "0+1001x120",
    'hdfs_fuse_cache_fault_total{instance="node-1"}': "3x120",
    **_MOUNTS,
}


def promtool(*arguments: object) -> str:
    """What it prints, which must be no complaint."""
    done = subprocess.run(["promtool", *map(str, arguments)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_every_alert_comes_when_it_should_and_only_then(tmp_path: Path) -> None:
    rules = write_rules(tmp_path)
    promtool("check", "rules", rules)
    (group,) = yaml.safe_load(rules.read_text(encoding="utf-8"))["groups"]
    assert {rule["alert"] for rule in group["rules"]} == set(_RAISED)

    def case(series: dict[str, str], raised: str = "") -> dict[str, Any]:
        expected: list[dict[str, Any]] = [
            {
                "expr": f'ALERTS{{alertstate="firing",alertname!="{raised}"}}',
                "eval_time": "100m",
                "exp_samples": [],
            }
        ]
        if raised:
            labels = {"__name__": "ALERTS", "alertname": raised, "alertstate": "firing", **_RAISED[raised][1]}
            shown = ",".join(f'{name}="{value}"' for name, value in labels.items() if name != "__name__")
            sample = {"labels": f"ALERTS{{{shown}}}", "value": 1}
            expression = f'ALERTS{{alertstate="firing",alertname="{raised}"}}'
            expected.append({"expr": expression, "eval_time": "100m", "exp_samples": [sample]})
        return {
            "name": raised or "ordinary",
            "interval": "1m",
            "input_series": [{"series": name, "values": values} for name, values in series.items()],
            "promql_expr_test": expected,
        }

    cases = [case(_ORDINARY), *(case(series, raised) for raised, (series, _) in _RAISED.items())]
    tests = tmp_path / "tests.yaml"
    tests.write_text(yaml.safe_dump({"rule_files": [str(rules)], "evaluation_interval": "1m", "tests": cases}))
    promtool("test", "rules", tests)


def test_the_dashboard_shows_what_pods_do(driver: Namespace, space: Namespace, tmp_path: Path) -> None:
    space.apply(claim("data"), pod("worker", "data"))
    space.wait_ready("worker")
    volume = space.get("pvc", "data")["spec"]["volumeName"]
    with prometheus(driver, tmp_path) as server:
        space.sh(
            "worker",
            """
            cd /data
            for i in $(seq 20); do
              dd if=/dev/zero of=file$i bs=256k count=1 status=none
              cat file$i > copy$i; ls > /dev/null
              touch no:colons 2> /dev/null || true
              sleep 0.2
            done
            """,
        )
        # A rate needs two samples with the counter in them, and the errors began with the first one.
        drawn: dict[str, list[dict[str, Any]]] = {}

        def is_drawn() -> bool:
            for title, expressions in panels().items():
                drawn[title] = [series for expression in expressions for series in server.series(expression)]
            # No call has to have failed.
            return all(found or title.startswith("Calls that fail") for title, found in drawn.items())

        wait_until(
            is_drawn, "all panels have something to draw", 60, lambda: str({t: len(f) for t, f in drawn.items()})
        )
        (written,) = [
            series for series in drawn["Written by applications, by volume"] if volume in series["metric"]["volume_id"]
        ]
        assert max(float(value) for _, value in written["values"]) > 100_000
        (error,) = [
            series["metric"]
            for series in drawn["Requests answered with an error, by volume, errno and cause"]
            if volume in series["metric"]["volume_id"]
        ]
        assert (error["errno"], error["kind"]) == ("EINVAL", "InvalidArgumentError")
        # The server has read the rules, too.
        (group,) = server.ask("rules")["groups"]
        assert all(rule["health"] == "ok" for rule in group["rules"]), group
    space.delete("pod/worker")
    space.delete("pvc/data")
