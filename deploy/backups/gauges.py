"""How old and large the newest backups are, and how far the archive of the log is behind: what alerts are made of."""

import socket
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime

from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricReader, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource

from deploy.backups.archive import Archive, Backup
from deploy.backups.chain import chains
from deploy.backups.parts import created
from deploy.backups.settings import BackupSettings

DRILLED = "drilled-{}"
# Of whatever else has such a name nobody is told: a label that is no text would have no metric told any more.
DRILLS = ("dump", "moment")


@dataclass(slots=True)
class State:
    """What a receiver knows: until when the archive has everything, how much log the server keeps for it, and how often
    what has failed."""

    reach: datetime | None = None
    lag: int = 0
    failures: Counter[str] = field(default_factory=lambda: Counter(log=0, base=0))


def note_drill(backups: BackupSettings, kind: str) -> None:
    """Leaves a mark of a drill that went well, where the receiver looks for it."""
    mark = backups.directory / DRILLED.format(kind)
    try:
        mark.unlink(missing_ok=True)
        created(mark).close()
    except OSError as error:
        print(f"     no metric will tell of this drill: {backups.directory} can't be written ({error.strerror})")


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
        # Whoever is started again is the same one, not another beside what was told last.
        resource = Resource.create({"service.name": "backups", "service.instance.id": socket.gethostname()})
        self._meters = MeterProvider(resource=resource, metric_readers=readers, shutdown_on_exit=False)
        meter = self._meters.get_meter("storyloom")
        meter.create_observable_gauge(
            "storyloom.backups.age", [self._ages], unit="s", description="Age of the newest backup of each kind."
        )
        meter.create_observable_gauge(
            "storyloom.backups.size", [self._sizes], unit="By", description="What the newest of each kind takes."
        )
        meter.create_observable_gauge(
            "storyloom.backups.refused", [self._refused], description="Backups that are unreadable, or not trusted."
        )
        meter.create_observable_gauge(
            "storyloom.drills.age", [self._drills], unit="s", description="Age of the last drill that went well."
        )
        meter.create_observable_gauge(
            "storyloom.wal.behind", [self._behind], unit="s", description="How much would be lost with the server."
        )
        meter.create_observable_gauge(
            "storyloom.wal.reaches", [self._reaches], unit="s", description="How far back moments can be brought back."
        )
        meter.create_observable_gauge(
            "storyloom.wal.held", [self._held], unit="By", description="Log that the server keeps until it is received."
        )
        meter.create_observable_counter(
            "storyloom.wal.failures", [self._failures], description="What failed and was tried again."
        )

    def close(self) -> None:
        self._meters.shutdown()

    def _archives(self) -> Iterable[tuple[str, Archive]]:
        yield "dump", self._backups.dumps
        for bases in self._bases():
            yield "base", bases

    def _bases(self) -> list[Archive]:
        """Those of the newest chain that has one which is trusted: a later one may be anybody's, or have none yet."""
        return [chain.bases for chain in chains(self._backups) if chain.bases.trusted()][-1:]

    def _newest(self) -> Iterable[tuple[str, Backup]]:
        """The newest that are trusted. That they are whole, a drill finds out: to read them all takes too long."""
        for kind, archive in self._archives():
            if trusted := archive.trusted():
                yield kind, trusted[-1]

    def _ages(self, _: CallbackOptions) -> Iterable[Observation]:
        for kind, newest in self._newest():
            time = newest.finish_time if kind == "base" else newest.snapshot_time
            yield Observation(_since(time), {"kind": kind})

    def _sizes(self, _: CallbackOptions) -> Iterable[Observation]:
        for kind, newest in self._newest():
            yield Observation(sum(part.octets for part in newest.parts), {"kind": kind})

    def _refused(self, _: CallbackOptions) -> Iterable[Observation]:
        for kind, archive in self._archives():
            refused = len(archive.unreadable()) + len(archive.all()) - len(archive.trusted())
            yield Observation(refused, {"kind": kind})

    def _drills(self, _: CallbackOptions) -> Iterable[Observation]:
        for kind in DRILLS:
            with suppress(OSError):
                mark = (self._backups.directory / DRILLED.format(kind)).lstat()
                yield Observation(_since(datetime.fromtimestamp(mark.st_mtime, UTC)), {"kind": kind})

    def _behind(self, _: CallbackOptions) -> Iterable[Observation]:
        if self._state.reach:
            yield Observation(_since(self._state.reach))

    def _reaches(self, _: CallbackOptions) -> Iterable[Observation]:
        for bases in self._bases():
            yield Observation(_since(bases.trusted()[0].finish_time))

    def _held(self, _: CallbackOptions) -> Iterable[Observation]:
        yield Observation(self._state.lag)

    def _failures(self, _: CallbackOptions) -> Iterable[Observation]:
        for what, count in self._state.failures.items():
            yield Observation(count, {"what": what})


def _since(time: datetime) -> float:
    return (datetime.now(UTC) - time).total_seconds()
