"""What a service in this process tells of itself, read as a collector would."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from kit.telemetry import Telemetry

STATE = "db.client.connection.state"


class Reader:
    """The metrics of one service at this moment."""

    def __init__(self, reader: InMemoryMetricReader) -> None:
        self._reader = reader

    def points(self, name: str) -> list[Any]:
        data = self._reader.get_metrics_data()
        metrics = [
            metric
            for one in (data.resource_metrics if data else ())
            for scope in one.scope_metrics
            for metric in scope.metrics
        ]
        return [point for metric in metrics if metric.name == name for point in metric.data.data_points]

    def value(self, name: str, **labels: str) -> int:
        """Of the one point that has these labels, or how many a histogram has counted there; 0 where there is none."""
        wanted = {STATE if key == "state" else key: value for key, value in labels.items()}
        found = [one for one in self.points(name) if wanted.items() <= dict(one.attributes).items()]
        assert len(found) <= 1
        return int(found[0].value if hasattr(found[0], "value") else found[0].count) if found else 0


@contextmanager
def reading(telemetry: Telemetry) -> Iterator[Reader]:
    """Listens meanwhile, though the service sends its metrics nowhere."""
    reader, before = InMemoryMetricReader(), telemetry.measures
    telemetry._meters.add_metric_reader(reader)
    telemetry.measures = True
    try:
        yield Reader(reader)
    finally:
        telemetry.measures = before
        telemetry._meters.remove_metric_reader(reader)
