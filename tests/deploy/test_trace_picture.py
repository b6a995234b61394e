"""Pictures of a trace and of a dashboard have everything in their place."""

import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from urllib.parse import parse_qs, urlsplit
from xml.etree import ElementTree

import pytest

from deploy.local.spans import Span
from deploy.telemetry.dashboards import dashboards
from tools.plot_dashboard import draw as draw_dashboard
from tools.plot_trace import draw as draw_trace

SVG = "{http://www.w3.org/2000/svg}"
MS = 1_000_000


def span(name: str, service: str, start: float, end: float, parent: str = "", error: str | None = None) -> Span:
    return Span("ab" * 16, name, parent, service, name, round(start * MS), round(end * MS), error, {})


@pytest.fixture
def drawn() -> ElementTree.Element:
    spans = [
        span("/storyloom.content.v1.StoryService/GetStory", "storyloom-gateway", 0, 100),
        span("SELECT <stories>", "content", 50, 75, "/storyloom.content.v1.StoryService/GetStory", "lost"),
    ]
    return ElementTree.fromstring(draw_trace(spans))  # noqa: S314  # our own


class TestTrace:
    def test_has_a_bar_for_each_span_where_it_was(self, drawn: ElementTree.Element) -> None:
        root, statement = drawn.iter(f"{SVG}rect")
        left, full = float(root.get("x", 0)), float(root.get("width", 0))
        assert float(statement.get("x", 0)) == pytest.approx(left + full / 2, abs=0.2)
        assert float(statement.get("width", 0)) == pytest.approx(full / 4, abs=0.2)
        assert "error" in statement.get("class", "")

    def test_names_services_methods_and_statements(self, drawn: ElementTree.Element) -> None:
        said = [one.text for one in drawn.iter(f"{SVG}text")]
        assert {"GetStory", "gateway · StoryService/GetStory", "content · SELECT <stories>"} <= set(said)
        assert f"trace {'ab' * 16}" in said


class Answers(BaseHTTPRequestHandler):
    """Three series for every query: one of a line, one with a gap, one of no number."""

    def do_GET(self) -> None:
        asked = parse_qs(urlsplit(self.path).query)
        self.server.asked.append(asked["query"][0])  # type: ignore[attr-defined]
        start, end = float(asked["start"][0]), float(asked["end"][0])
        result = [
            {"metric": {"job": "content", "rpc_method": "/a.b.S/Get"}, "values": [[start, "1"], [start + 40, "4"]]},
            {"metric": {"job": "identity"}, "values": [[start, "2"], [end, "2"]]},
            {"metric": {"job": "audit"}, "values": [[start, "NaN"]]},
        ]
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps({"data": {"result": result}}).encode())

    def log_message(self, *said: object) -> None:
        pass


@pytest.fixture
def prometheus() -> Iterator[HTTPServer]:
    server = HTTPServer(("127.0.0.1", 0), Answers)
    server.asked = []  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_dashboard_has_a_line_for_each_series_of_each_panel(prometheus: HTTPServer) -> None:
    (one,) = [made for name, made in dashboards().items() if name == "calls.json"]
    drawn = draw_dashboard(one, f"http://127.0.0.1:{prometheus.server_port}", 60, 1_800_000_000)
    root = ElementTree.fromstring(drawn)  # noqa: S314  # our own
    lines = list(root.iter(f"{SVG}polyline"))
    # One, and two of a single point each.
    assert len(lines) == 3 * len(one["panels"])
    # From a quarter of the panel's height to its full height: nothing is drawn below zero or above the largest.
    low, high = (float(point.split(",")[1]) for point in lines[0].get("points", "").split())
    assert low - high == pytest.approx(0.75 * 84, abs=0.2)
    said = [text.text for text in root.iter(f"{SVG}text")]
    assert {panel["title"] for panel in one["panels"]} <= set(said)
    assert said.count("content · Get") == len(one["panels"])
    # Grafana's variables mean everything here.
    assert not [query for query in prometheus.asked if re.search(r"\$\w", query)]  # type: ignore[attr-defined]
