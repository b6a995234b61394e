"""Shows what services told last of their metrics, in OpenMetrics' text and by the names the collector gives them."""

import asyncio
import time
from collections.abc import Iterator, Mapping
from typing import Any

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric, NumberDataPoint

SERVICE = "opentelemetry.proto.collector.metrics.v1.MetricsService"
# As long as the collector does.
KEPT_SECONDS = 180.0
UNITS = {"ms": "_milliseconds", "s": "_seconds", "By": "_bytes"}
HEADERS = "HTTP/1.1 200 OK\r\ncontent-type: application/openmetrics-text; version=1.0.0\r\nconnection: close\r\n\r\n"


class MetricStore:
    """The latest metrics of each process that tells any."""

    def __init__(self) -> None:
        self._latest: dict[tuple[str, str], tuple[float, list[Metric]]] = {}

    def add(self, request: bytes) -> None:
        for one in ExportMetricsServiceRequest.FromString(request).resource_metrics:
            of = {pair.key: pair.value.string_value for pair in one.resource.attributes}
            found = [metric for scope in one.scope_metrics for metric in scope.metrics]
            self._latest[of["service.name"], of["service.instance.id"]] = time.monotonic(), found

    def text(self) -> str:
        """Of all that told something lately."""
        kinds: dict[str, str] = {}
        lines: dict[str, list[str]] = {}
        for (job, instance), (at, metrics) in self._latest.items():
            if time.monotonic() - at < KEPT_SECONDS:
                for metric in metrics:
                    name = _name(metric.name) + UNITS.get(metric.unit, "")
                    kinds[name] = _kind(metric)
                    lines.setdefault(name, []).extend(_samples(name, metric, {"job": job, "instance": instance}))
        families = ("\n".join([f"# TYPE {name} {kinds[name]}", *told]) for name, told in lines.items())
        return "\n".join([*families, "# EOF\n"])

    async def serve(self, host: str, port: int) -> asyncio.Server:
        """Answers whatever is asked, as there is one thing to tell."""
        return await asyncio.start_server(self._answer, host, port)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            writer.write((HEADERS + self.text()).encode())
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass
        finally:
            writer.close()


def _kind(metric: Metric) -> str:
    if metric.HasField("histogram"):
        return "histogram"
    return "counter" if metric.sum.is_monotonic else "gauge"


def _samples(name: str, metric: Metric, of: dict[str, str]) -> Iterator[str]:
    if metric.HasField("histogram"):
        for point in metric.histogram.data_points:
            yield from _histogram(name, point, of | _labels(point))
        return
    suffix = "_total" if metric.sum.is_monotonic else ""
    for number in (metric.sum if metric.HasField("sum") else metric.gauge).data_points:
        yield f"{name}{suffix}{_text(of | _labels(number))} {_value(number)}"


def _histogram(name: str, point: Any, labels: dict[str, str]) -> Iterator[str]:
    bounds = [*map(str, point.explicit_bounds), "+Inf"]
    below, count = float("-inf"), 0
    for bound, more in zip(bounds, point.bucket_counts, strict=True):
        count += more
        shown = f"{name}_bucket{_text(labels | {'le': bound})} {count}"
        # One for each bucket: the latest.
        inside = [one for one in point.exemplars if below < one.as_double <= float(bound) and one.trace_id]
        below = float(bound)
        if inside:
            last = max(inside, key=lambda one: one.time_unix_nano)
            ids = _text({"trace_id": last.trace_id.hex(), "span_id": last.span_id.hex()})
            shown += f" # {ids} {last.as_double} {last.time_unix_nano / 1e9:.3f}"
        yield shown
    yield f"{name}_sum{_text(labels)} {point.sum}"
    yield f"{name}_count{_text(labels)} {point.count}"


def _labels(point: Any) -> dict[str, str]:
    return {_name(pair.key): pair.value.string_value for pair in point.attributes}


def _value(point: NumberDataPoint) -> float:
    return point.as_double if point.HasField("as_double") else point.as_int


def _name(text: str) -> str:
    return text.replace(".", "_")


def _text(labels: Mapping[str, str]) -> str:
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items()) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
