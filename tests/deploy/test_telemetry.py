"""Alerts and dashboards ask for metrics that exist, each alert has its page, and fires for what it is for."""

import ast
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from deploy.local.settings import ROOT
from deploy.telemetry.dashboards import dashboards
from gateway.descriptors import Api
from gateway.envoy import write
from gateway.settings import Settings
from kit.settings import SERVICES
from tests.contract.tree import parsed, python_files
from tests.deploy.conftest import free_port

# Other programs look at the files, which takes them a while.
pytestmark = pytest.mark.slow

TELEMETRY = ROOT / "deploy" / "telemetry"
PROMETHEUS = TELEMETRY / "prometheus"
RUNBOOKS = ROOT / "docs" / "runbooks"
ENVOY = Path(sys.executable).parent / "envoy"
PROMTOOL = shutil.which("promtool")
UNITS = {"ms": "_milliseconds", "s": "_seconds", "By": "_bytes", "1": "_ratio", "": ""}
# Of Prometheus itself.
OWN = {"up"}
# What no series is called, though it stands where one could.
WORDS = re.compile(
    r"\b(sum|rate|increase|by|le|on|and|or|unless|absent|max|max_over_time|min|count|histogram_quantile|label_replace)\b"
)


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load((PROMETHEUS / "rules" / "storyloom.yaml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


ALERTS = [pytest.param(rule, id=rule["alert"]) for rule in rules() if "alert" in rule]
QUERIES = [
    *(pytest.param(rule["expr"], id=rule.get("alert", rule.get("record"))) for rule in rules()),
    *(
        pytest.param(panel["targets"][0]["expr"], id=f"{name}-{panel['title']}")
        for name, one in dashboards().items()
        for panel in one["panels"]
    ),
]


def series(query: str) -> set[str]:
    """The names of the series that a query asks for."""
    bare = re.sub(r'"[^"]*"', "", query)
    bare = re.sub(r"\{[^}]*\}|\[\w+\]|\b(by|on)\s*\([^)]*\)", " ", bare)
    return set(re.findall(r"\b[a-z_][a-z0-9_:]*[a-z0-9]\b", WORDS.sub(" ", bare)))


def our_metrics() -> Iterator[tuple[str, str, str]]:
    """Kind, name and unit of each metric that the code makes."""
    for path in python_files("kit", "services", "deploy"):
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args:
                kind, first = node.func.attr, node.args[0]
                if kind.startswith("create_") and isinstance(first, ast.Constant) and "." in str(first.value):
                    unit = next((k.value.value for k in node.keywords if k.arg == "unit"), "")  # type: ignore[attr-defined]
                    yield kind, str(first.value), unit if unit in UNITS else ""


@cache
def of_services() -> set[str]:
    """The metrics of kit and services, as the collector's Prometheus exporter names them."""
    return set().union(*(exported(*one) for one in our_metrics()))


def exported(kind: str, name: Any, unit: str) -> set[str]:
    made = name.replace(".", "_") + UNITS[unit]
    if kind == "create_histogram":
        return {f"{made}_{part}" for part in ("bucket", "sum", "count")}
    return {f"{made}_total"} if kind in {"create_counter", "create_observable_counter"} else {made}


@pytest.fixture(scope="module")
def of_gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[set[str]]:
    """The metrics that a running Envoy with our configuration offers to Prometheus."""
    folder = tmp_path_factory.mktemp("envoy")
    port, metrics = free_port(), free_port()
    environment = {"GATEWAY_ADDRESS": f"127.0.0.1:{port}", "GATEWAY_ADMIN_ADDRESS": f"unix:{folder}/admin.sock"}
    environment["GATEWAY_METRICS_ADDRESS"] = f"127.0.0.1:{metrics}"
    environment |= {f"{name.upper()}_ADDRESS": f"127.0.0.1:{free_port()}" for name in SERVICES}
    api = Api.load(ROOT / "gen" / "descriptors.binpb")
    made = write(api, Settings.read(environment | {"ACCESS_LOG": ""}), folder)
    log = ("--log-path", str(folder / "envoy.log"))
    process = subprocess.Popen([ENVOY, "-c", str(made), "--concurrency", "1", "--disable-hot-restart", *log])
    try:
        yield offered(f"http://127.0.0.1:{port}/openapi.json", f"http://127.0.0.1:{metrics}/stats/prometheus")
    finally:
        process.terminate()
        process.wait(10)


def offered(page: str, stats: str) -> set[str]:
    for _ in range(100):
        try:
            # Histograms are there from the first request on.
            httpx.get(page)
            names = set(re.findall(r"^(\w+)[{ ]", httpx.get(stats).text, re.MULTILINE))
            if "envoy_http_downstream_rq_time_bucket" in names:
                return names
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise AssertionError("Envoy does not answer")


@pytest.mark.parametrize("query", QUERIES)
def test_queries_ask_for_metrics_that_exist(query: str, of_gateway: set[str]) -> None:
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    asked = series(query)
    assert asked
    assert not asked - of_gateway - of_services() - recorded - OWN


def test_names_of_our_metrics_follow_from_the_code() -> None:
    assert {"rpc_server_duration_milliseconds_bucket", "storyloom_outbox_lag_seconds"} <= of_services()
    assert {"storyloom_outbox_events_total", "storyloom_outbox_parked"} <= of_services()


def test_every_metric_of_ours_is_in_the_table() -> None:
    told, group = set(), ""
    for row in re.findall(r"^\| (`\w+\..*?) \|", (ROOT / "docs" / "telemetry.md").read_text(), re.MULTILINE):
        for name in re.findall(r"`(.+?)`", row):
            group = name.rpartition(".")[0] or group
            told.add(f"{group}.{name.rpartition('.')[2]}")
    assert not [name for _, name, _ in our_metrics() if not {name, f"{name.rpartition('.')[0]}.*"} & told]


class TestAlerts:
    @pytest.mark.parametrize("alert", ALERTS)
    def test_lead_to_a_page_that_names_them(self, alert: dict[str, Any]) -> None:
        page = (ROOT / alert["annotations"]["runbook"]).read_text()
        assert alert["alert"] in page.splitlines()[2]
        for part in ("**What it means.**", "**How to look.**", "**What to do.**"):
            assert part in page
        assert alert["labels"]["severity"] in {"page", "ticket"}
        assert alert["for"]

    def test_about_services_are_about_all_of_them(self) -> None:
        named = re.findall(r'envoy_cluster_name=~"([^"]+)"', (PROMETHEUS / "rules" / "storyloom.yaml").read_text())
        assert named
        assert set(named) == {"|".join(SERVICES)}

    def test_have_all_pages_there_are(self) -> None:
        named = {(ROOT / rule["annotations"]["runbook"]).name for rule in rules() if "alert" in rule}
        assert named == {path.name for path in RUNBOOKS.glob("*.md")}

    @pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed: rules and their tests were not run")
    @pytest.mark.parametrize(
        "arguments",
        [("check", "config", "prometheus.yaml"), ("test", "rules", "rules.test.yaml")],
        ids=["configuration", "rules"],
    )
    def test_please_prometheus_and_fire_as_meant(self, arguments: tuple[str, ...]) -> None:
        told = subprocess.run(
            [str(PROMTOOL), *arguments], cwd=PROMETHEUS, capture_output=True, text=True, check=False
        )
        assert told.returncode == 0, told.stdout + told.stderr


class TestDashboards:
    @pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed: queries of dashboards were not checked")
    def test_ask_in_prometheus_own_language(self, tmp_path: Path) -> None:
        exprs = [panel["targets"][0]["expr"] for one in dashboards().values() for panel in one["panels"]]
        made = [{"record": f"panel:{nth}", "expr": expr} for nth, expr in enumerate(exprs)]
        (tmp_path / "panels.yaml").write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": made}]}))
        told = subprocess.run(
            [str(PROMTOOL), "check", "rules", "panels.yaml"], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert told.returncode == 0, told.stdout + told.stderr

    def test_ask_datasources_that_are_provisioned(self) -> None:
        provisioned = yaml.safe_load(
            (TELEMETRY / "grafana/provisioning/datasources/storyloom.yaml").read_text()
        )["datasources"]
        assert {one["uid"] for one in provisioned} == {"prometheus", "jaeger"}
        asked = {panel["datasource"]["uid"] for one in dashboards().values() for panel in one["panels"]}
        assert asked == {"prometheus"}


class TestCollector:
    def test_pipelines_name_what_is_configured(self) -> None:
        found = yaml.safe_load((TELEMETRY / "collector.yaml").read_text())
        for pipeline in found["service"]["pipelines"].values():
            for part in ("receivers", "processors", "exporters"):
                assert set(pipeline[part]) <= found[part].keys()
            assert pipeline["processors"][0] == "memory_limiter"
        assert set(found["service"]["extensions"]) == found["extensions"].keys()

    def test_is_scraped_where_it_listens(self) -> None:
        found = yaml.safe_load((TELEMETRY / "collector.yaml").read_text())
        own = found["service"]["telemetry"]["metrics"]["readers"][0]["pull"]["exporter"]["prometheus"]["port"]
        passed_on = int(found["exporters"]["prometheus"]["endpoint"].rpartition(":")[2])
        scraped = yaml.safe_load((PROMETHEUS / "prometheus.yaml").read_text())["scrape_configs"]
        targets = {one["job_name"]: one["static_configs"][0]["targets"] for one in scraped}
        assert targets["collector"] == [f"collector:{own}"]
        assert targets["services"] == [f"collector:{passed_on}"]
        gateway = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text())["services"]["gateway-configuration"]
        assert targets["gateway"] == [gateway["environment"]["GATEWAY_METRICS_ADDRESS"]]
