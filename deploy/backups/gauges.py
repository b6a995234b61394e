"""How old the newest backups are, and how far the archive of the log is behind: what alerts are made of."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime

from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricReader, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource

from deploy.backups.archive import Archive
from deploy.backups.chain import chains
from deploy.backups.receiving import State
from deploy.backups.settings import BackupSettings


class Gauges:
    """Looks when it is asked, so that what stands still grows older."""

    def __init__(
        self, environ: Mapping[str, str], backups: BackupSettings, state: State, readers: tuple[MetricReader, ...] = ()
    ) -> None:
        self._backups, self._state = backups, state
        endpoint = environ.get("OTEL_EXPORTER_OTLP_ENDPOINT")
        if endpoint and environ.get("OTEL_METRICS_EXPORTER", "otlp") == "otlp":
            exporter = OTLPMetricExporter(endpoint=endpoint, insecure=endpoint.startswith("http://"))
            readers = (*readers, PeriodicExportingMetricReader(exporter))
        resource = Resource.create({"service.name": "backups"})
        self._meters = MeterProvider(resource=resource, metric_readers=readers, shutdown_on_exit=False)
        meter = self._meters.get_meter("storyloom")
        meter.create_observable_gauge(
            "storyloom.backups.age", [self._ages], unit="s", description="Age of the newest backup of each kind."
        )
        meter.create_observable_gauge(
            "storyloom.wal.behind", [self._behind], unit="s", description="How much would be lost with the server."
        )
        meter.create_observable_gauge(
            "storyloom.wal.held", [self._held], unit="By", description="Log that the server keeps until it is received."
        )

    def close(self) -> None:
        self._meters.shutdown()

    def _ages(self, _: CallbackOptions) -> Iterable[Observation]:
        now = datetime.now(UTC)
        dumps = [one.snapshot_time for one in Archive(self._backups.directory).all()]
        bases = [one.finish_time for chain in chains(self._backups.directory)[-1:] for one in chain.bases.all()]
        for kind, times in (("dump", dumps), ("base", bases)):
            if times:
                yield Observation((now - max(times)).total_seconds(), {"kind": kind})

    def _behind(self, _: CallbackOptions) -> Iterable[Observation]:
        if self._state.reach:
            yield Observation((datetime.now(UTC) - self._state.reach).total_seconds())

    def _held(self, _: CallbackOptions) -> Iterable[Observation]:
        yield Observation(self._state.lag)
