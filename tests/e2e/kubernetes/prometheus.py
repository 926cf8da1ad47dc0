"""A real Prometheus beside the cluster: scrapes the driver, runs the chart's rules, answers its dashboard's queries."""

import json
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from tests.e2e.kubernetes.conftest import CHART, RELEASE, helm
from tests.e2e.kubernetes.kubectl import Namespace, wait_until

_DASHBOARD = CHART / "files" / "dashboard.json"
# Nobody else listens in the cluster's network namespace.
_PORT = 9090
# What Grafana fills in.
_VARIABLES = {"$instance": ".*", "$volume": ".*", "$__rate_interval": "15s"}


class Prometheus:
    """A running server."""

    def ask(self, what: str, **parameters: str) -> Any:
        """The data that its HTTP API answers with.

        Raises:
            urllib.error.HTTPError: it takes no such query.
        """
        url = f"http://127.0.0.1:{_PORT}/api/v1/{what}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(url, timeout=30) as answer:
            return json.load(answer)["data"]

    def series(self, expression: str, last_s: float = 60) -> list[dict[str, Any]]:
        """What a panel of the dashboard would draw of the last seconds; one entry for each line."""
        for name, value in _VARIABLES.items():
            expression = expression.replace(name, value)
        now_s = time.time()
        parameters = {"query": expression, "start": str(now_s - last_s), "end": str(now_s), "step": "1"}
        return list(self.ask("query_range", **parameters)["result"])

    def targets(self) -> list[dict[str, Any]]:
        """What it scrapes, with the outcome of the last time."""
        return list(self.ask("targets")["activeTargets"])


def panels() -> dict[str, list[str]]:
    """The dashboard's queries by the title of the panel."""
    found = json.loads(_DASHBOARD.read_text(encoding="utf-8"))["panels"]
    return {panel["title"]: [target["expr"] for target in panel["targets"]] for panel in found if "targets" in panel}


def write_rules(folder: Path) -> Path:
    """The chart's alerts as a file that Prometheus reads: what its operator makes of a PrometheusRule."""
    rendered = helm(
        "template", RELEASE, str(CHART), "--kube-version=1.34.0", "--set=prometheusRule.enabled=true",
        "--show-only=templates/monitoring.yaml",
    )  # fmt: skip
    (rule,) = (found for found in yaml.safe_load_all(rendered) if found and found["kind"] == "PrometheusRule")
    path = folder / "rules.yaml"
    path.write_text(yaml.safe_dump(rule["spec"]), encoding="utf-8")
    return path


def write_configuration(driver: Namespace, folder: Path) -> Path:
    """Scrape every pod's port `metrics` each second, with the labels that the chart's PodMonitors give."""
    static = []
    for pod in driver.list("pods", f"--selector=app.kubernetes.io/instance={RELEASE}"):
        component = pod["metadata"]["labels"]["app.kubernetes.io/component"]
        labels = {} if component == "controller" else {"instance": pod["spec"]["nodeName"]}
        for port in (port for container in pod["spec"]["containers"] for port in container.get("ports", [])):
            if port["name"] == "metrics":
                address = f"{pod['status']['podIP']}:{port['containerPort']}"
                static.append({"targets": [address], "labels": {"component": component, **labels}})
    configuration = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(write_rules(folder))],
        "scrape_configs": [{"job_name": "hdfs-csi", "static_configs": static}],
    }
    path = folder / "prometheus.yaml"
    path.write_text(yaml.safe_dump(configuration), encoding="utf-8")
    return path


@contextmanager
def prometheus(driver: Namespace, folder: Path) -> Iterator[Prometheus]:
    """One that has scraped all pods of the driver once."""
    log = folder / "prometheus.log"
    command = [
        "prometheus", f"--config.file={write_configuration(driver, folder)}", f"--storage.tsdb.path={folder}/data",
        f"--web.listen-address=127.0.0.1:{_PORT}", "--log.level=warn",
    ]  # fmt: skip
    with log.open("wb") as output, subprocess.Popen(command, stdout=output, stderr=output) as process:
        try:
            running = Prometheus()

            def is_scraping() -> bool:
                try:
                    targets = running.targets()
                except (urllib.error.URLError, ConnectionError):
                    return False
                return bool(targets) and all(target["health"] == "up" for target in targets)

            wait_until(is_scraping, "Prometheus has scraped all pods", explain=log.read_text)
            yield running
        finally:
            process.kill()  # its data goes with the folder
