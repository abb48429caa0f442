"""What ships for operators holds together: images, compose files, alerts, dashboard and the page that explains them."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry

from streamer.config import MetricsConfig, load_site
from streamer.health_server import HealthServer
from streamer.metrics import METRIC_NAMES
from tests.servers.need import absent

ROOT = Path(__file__).resolve().parents[1]
DOCKER = ROOT / "docker"
OPERATIONS = ROOT / "docs" / "operations.md"
SECRETS = {"DATABASE_PASSWORD": "d", "RTSP_PASSWORD": "r", "KAFKA_PASSWORD": "k"}
PATIENCE_S = 60.0
_METRIC = re.compile(r"\btracker_[a-z0-9_]+")
#: What a histogram's name is followed by in queries.
_HISTOGRAM = re.compile(r"_(bucket|count|sum)$")


def run(program: str, *arguments: str | Path) -> str:
    """What a program of the environment or the system says; it must be content."""
    found = shutil.which(program, path=str(Path(sys.executable).parent)) or shutil.which(program)
    if found is None:
        absent(f"no {program}")
    done = subprocess.run([found, *arguments], capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def yaml_of(path: Path) -> Any:  # noqa: ANN401 - whatever the file holds
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def alerts() -> list[dict[str, Any]]:
    groups = yaml_of(DOCKER / "prometheus" / "alerts.yml")["groups"]
    return [rule for group in groups for rule in group["rules"]]


def dashboard_queries() -> Iterator[str]:
    board = json.loads((DOCKER / "grafana" / "dashboards" / "tracker.json").read_text(encoding="utf-8"))
    for panel in board["panels"]:
        yield from (target["expr"] for target in panel.get("targets", ()))
    yield from (variable["query"]["query"] for variable in board["templating"]["list"])


def headings() -> list[str]:
    """The page's headings, as links name them."""
    found = re.findall(r"^#+ (.+)$", OPERATIONS.read_text(encoding="utf-8"), re.MULTILINE)
    return [re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in found]


@pytest.mark.integration
def test_the_images_follow_docker_s_good_practice() -> None:
    run("hadolint", DOCKER / "Dockerfile")


def test_images_for_cpu_and_gpu_run_as_nobody_special() -> None:
    text = (DOCKER / "Dockerfile").read_text(encoding="utf-8")
    assert re.findall(r"^FROM \S+ AS (cpu|gpu)$", text, re.MULTILINE) == ["gpu", "cpu"]
    assert "\nUSER 1000\n" in text


@pytest.mark.parametrize(("faults", "is_healthy"), [({}, True), ({"matcher": "hangs"}, False)])
def test_a_container_is_as_healthy_as_its_program_says(faults: dict[str, str], is_healthy: bool) -> None:
    text = (DOCKER / "Dockerfile").read_text(encoding="utf-8")
    (check,) = re.findall(r"^HEALTHCHECK .*CMD (\[.*\])$", text, re.MULTILINE)
    _python, *arguments = json.loads(check)
    config = MetricsConfig(host="127.0.0.1", port=0)
    server = HealthServer(config, lives=lambda: faults, ready=dict, registry=CollectorRegistry())
    server.start()
    try:
        environment = os.environ | {"METRICS_PORT": str(server.port)}
        done = subprocess.run([sys.executable, *arguments], capture_output=True, env=environment, timeout=PATIENCE_S)
    finally:
        server.stop()
    assert (done.returncode == 0) is is_healthy, done.stderr


@pytest.mark.parametrize("name", ["compose.yaml", "compose.gpu.yaml"])
def test_compose_files_follow_the_specification(name: str) -> None:
    run("check-jsonschema", "--builtin-schema", "vendor.compose-spec", DOCKER / name)


def test_what_compose_mounts_and_builds_is_there() -> None:
    services = yaml_of(DOCKER / "compose.yaml")["services"]
    mounts = [volume.split(":")[0] for service in services.values() for volume in service.get("volumes", ())]
    mounts = [re.sub(r"^\$\{\w+:-(.*)$", r"\1", mount) for mount in mounts]
    folders = [mount for mount in mounts if mount.startswith(".")]
    assert "./prometheus" in folders
    for folder in folders:
        assert (DOCKER / folder.rstrip("}")).exists(), folder
    for name in ("edge", "matcher"):
        assert services[name]["build"]["target"] == "cpu"


def test_a_container_is_given_longer_to_end_than_the_program_takes() -> None:
    site = load_site(DOCKER / "site.yaml", SECRETS)
    grace = yaml_of(DOCKER / "compose.yaml")["services"]["edge"]["stop_grace_period"]
    assert float(grace.removesuffix("s")) > site.supervisor.drain_timeout_s


def test_prometheus_and_docker_ask_where_the_sites_listen() -> None:
    site = load_site(DOCKER / "site.yaml", SECRETS)
    assert f"METRICS_PORT={site.metrics.port}" in (DOCKER / "Dockerfile").read_text(encoding="utf-8")
    (scraped,) = yaml_of(DOCKER / "prometheus" / "prometheus.yml")["scrape_configs"]
    targets = [target for config in scraped["static_configs"] for target in config["targets"]]
    assert targets == [f"edge:{site.metrics.port}", f"matcher:{site.metrics.port}"]
    assert site.metrics.host == "0.0.0.0"  # asked from other containers


@pytest.mark.parametrize("path", ["configs/site.yaml", "docker/site.yaml"])
def test_sites_that_ship_load_and_are_watched(path: str) -> None:
    site = load_site(ROOT / path, SECRETS)
    assert site.metrics.port is not None
    assert site.bus != "memory"


@pytest.mark.integration
def test_prometheus_can_read_its_files() -> None:
    assert "SUCCESS" in run("promtool", "check", "config", DOCKER / "prometheus" / "prometheus.yml")


@pytest.mark.integration
def test_prometheus_understands_the_dashboard(tmp_path: Path) -> None:
    queries = [query.replace("$camera", ".*") for query in dashboard_queries() if not query.startswith("label_values")]
    rules = [{"record": f"panel:{number}", "expr": query} for number, query in enumerate(queries)]
    file = tmp_path / "rules.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}), encoding="utf-8")
    run("promtool", "check", "rules", file)


def test_every_metric_that_is_asked_for_exists() -> None:
    queries = [rule["expr"] for rule in alerts()] + list(dashboard_queries())
    asked = {_HISTOGRAM.sub("", name) for query in queries for name in _METRIC.findall(query)}
    assert asked - set(METRIC_NAMES) == set()


def test_every_alert_says_what_and_where_to_read_on() -> None:
    for rule in alerts():
        assert rule["labels"]["severity"] in ("page", "ticket"), rule["alert"]
        assert rule["annotations"]["summary"], rule["alert"]
        assert rule["annotations"]["runbook_url"] == f"docs/operations.md#{rule['alert'].lower()}"


def test_every_alert_has_its_heading_and_no_heading_is_left_over() -> None:
    page = OPERATIONS.read_text(encoding="utf-8")
    explained = re.findall(r"^### (\w+)$", page.partition("## Alerts")[2].partition("\n## ")[0], re.MULTILINE)
    assert explained == [rule["alert"] for rule in alerts()]


def test_links_within_the_page_lead_somewhere() -> None:
    page = OPERATIONS.read_text(encoding="utf-8")
    assert {link for link in re.findall(r"\]\(#([\w-]+)\)", page) if link not in headings()} == set()
    files = re.findall(r"\]\((?!#|https?:)([^)#]+)", page)
    assert [name for name in files if not (OPERATIONS.parent / name).exists()] == []
