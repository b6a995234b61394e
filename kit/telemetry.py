"""OpenTelemetry for one service: spans, RED metrics, and JSON logs that carry the trace and request ids."""

import json
import logging
import re
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from opentelemetry import trace
from opentelemetry.context import attach, detach
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased, TraceIdRatioBased
from opentelemetry.trace import NonRecordingSpan, Span, SpanContext, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from sqlalchemy import Engine, event

from kit.call import current_call
from kit.measures import SECONDS
from kit.settings import Settings

_propagator = TraceContextTextMapPropagator()
UNSAMPLED = re.compile("00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-00")
CLOSE_SECONDS = 3.0
HOUR = 3600.0
SERVER_FAULTS = frozenset({"INTERNAL", "UNKNOWN", "DATA_LOSS", "UNAVAILABLE", "DEADLINE_EXCEEDED", "UNIMPLEMENTED"})


class _Current:
    """Makes a span the current one for a block and ends it with the block."""

    __slots__ = ("_span", "_token")

    def __init__(self, span: Span) -> None:
        self._span = span

    def __enter__(self) -> Span:
        self._token = attach(trace.set_span_in_context(self._span))
        return self._span

    def __exit__(self, *error: object) -> None:
        detach(self._token)
        self._span.end()


class Telemetry:
    """Makes spans and metrics of one service; without a collector it only carries trace ids along."""

    def __init__(self, settings: Settings) -> None:
        endpoint = settings.otel_exporter_otlp_endpoint
        resource = Resource.create({"service.name": settings.service, "service.instance.id": settings.instance})
        # Callers decide. This is for calls that come without a decision, past the gateway, and for background work.
        sampler = TraceIdRatioBased(settings.trace_sample_percent / 100) if endpoint else ALWAYS_OFF
        self._traces = TracerProvider(resource=resource, sampler=ParentBased(sampler), shutdown_on_exit=False)
        self._exporters: list[OTLPSpanExporter | OTLPMetricExporter] = []
        readers = []
        if endpoint:
            spans = OTLPSpanExporter(endpoint=endpoint, insecure=endpoint.startswith("http://"))
            self._traces.add_span_processor(BatchSpanProcessor(spans, schedule_delay_millis=1000))
            self._exporters.append(spans)
        if endpoint and settings.otel_metrics_exporter == "otlp":
            metrics = OTLPMetricExporter(endpoint=endpoint, insecure=endpoint.startswith("http://"))
            readers.append(PeriodicExportingMetricReader(metrics))
            self._exporters.append(metrics)
        self.measures = bool(readers)
        self._meters = MeterProvider(resource=resource, metric_readers=readers, shutdown_on_exit=False)
        self._tracer = self._traces.get_tracer("storyloom")
        self.meter = meter = self._meters.get_meter("storyloom")
        self._calls = meter.create_histogram("rpc.server.duration", unit="ms", description="Time to serve an RPC.")
        self._events = meter.create_counter("storyloom.outbox.events", description="Attempts to deliver an event.")
        self._waiting = meter.create_gauge("storyloom.outbox.waiting", description="Events not yet delivered.")
        self._parked = meter.create_gauge("storyloom.outbox.parked", description="Events that no longer are tried.")
        self._lag = meter.create_gauge("storyloom.outbox.lag", unit="s", description="Age of the oldest that is tried.")
        self._work = meter.create_histogram(
            "storyloom.work.duration",
            unit="s",
            description="Time that a piece of work took, such as weaving a story or grading an attempt.",
            explicit_bucket_boundaries_advisory=SECONDS,
        )

    def server_span(self, rpc: str, metadata: Mapping[str, Any]) -> "_Current":
        """The span of an incoming RPC; a caller that does not sample costs no span here."""
        parent = metadata.get("traceparent", "")
        if UNSAMPLED.fullmatch(parent):
            context = SpanContext(int(parent[3:35], 16), int(parent[36:52], 16), is_remote=True)
            return _Current(NonRecordingSpan(context))
        context_of_caller = _propagator.extract(metadata)
        return _Current(self._tracer.start_span(rpc.lstrip("/"), context_of_caller, kind=SpanKind.SERVER))

    @contextmanager
    def client_span(self, rpc: str, service: str) -> Iterator[dict[str, str]]:
        """The span of an outgoing RPC; yields the metadata that carries it on."""
        with self._tracer.start_as_current_span(
            rpc.lstrip("/"),
            kind=SpanKind.CLIENT,
            attributes={"rpc.system": "grpc", "rpc.method": rpc, "server.service": service},
            record_exception=False,
        ):
            carrier: dict[str, str] = {}
            _propagator.inject(carrier)
            yield carrier

    def count_call(self, span: Span, rpc: str, code: str, seconds: float) -> None:
        """Records the end of an RPC in its span and in the RED metrics."""
        if self.measures:
            self._calls.record(seconds * 1000, {"rpc.method": rpc, "rpc.grpc.status_code": code})
        if span.is_recording():
            span.set_attribute("rpc.grpc.status_code", code)
            if code in SERVER_FAULTS:
                span.set_status(Status(StatusCode.ERROR, code))

    def count_events(self, consumer: str, **counts: int) -> None:
        """Records what became of the events of one delivery to a consumer, by outcome: `delivered`, `failed`,
        `unanswered`; `parked` are those of the failed that were tried for the last time."""
        for outcome, count in counts.items():
            if count:
                self._events.add(count, {"consumer": consumer, "outcome": outcome})

    def measure_outbox(self, consumer: str, waiting: int, parked: int, lag: float) -> None:
        """Records how many events a consumer has not got yet, how many of them are parked, and since how many seconds
        the oldest of the others waits."""
        attributes = {"consumer": consumer}
        self._waiting.set(waiting, attributes)
        self._parked.set(parked, attributes)
        self._lag.set(lag, attributes)

    @contextmanager
    def timed(self, work: str) -> Iterator[None]:
        """Measures the time of a piece of work that ends well, by its name: a word of the code's, never of data."""
        started = clock()
        yield
        if self.measures:
            self._work.record(clock() - started, {"work": work})

    @contextmanager
    def statement_span(self, statement: str) -> Iterator[None]:
        """The span of a statement that goes past the engine, within sampled calls."""
        if not trace.get_current_span().is_recording():
            yield
            return
        span = self._start_statement(statement)
        try:
            yield
        except BaseException:
            span.set_status(Status(StatusCode.ERROR))
            raise
        finally:
            span.end()

    def _start_statement(self, statement: str) -> Span:
        attributes = {"db.system.name": "postgresql", "db.query.text": statement}
        return self._tracer.start_span(_statement_name(statement), kind=SpanKind.CLIENT, attributes=attributes)

    def trace_statements(self, engine: Engine) -> None:
        """Makes a span of every statement of the engine, within sampled calls. Parameters are never recorded."""

        def before(conn: Any, cursor: Any, statement: str, parameters: Any, context: Any, many: bool) -> None:
            if context is not None and trace.get_current_span().is_recording():
                context.storyloom_span = self._start_statement(statement)

        def after(conn: Any, cursor: Any, statement: str, parameters: Any, context: Any, many: bool) -> None:
            if span := getattr(context, "storyloom_span", None):
                span.end()

        def failed(context: Any) -> None:
            if span := getattr(context.execution_context, "storyloom_span", None):
                span.set_status(Status(StatusCode.ERROR))
                span.end()

        event.listen(engine, "before_cursor_execute", before)
        event.listen(engine, "after_cursor_execute", after)
        event.listen(engine, "handle_error", failed)

    def close(self) -> None:
        """Sends what is still buffered; blocks for at most a few seconds, whatever the collector does."""
        # A collector that hangs would be waited for once for each batch: an exporter that was shut down gives up.
        patience = threading.Timer(CLOSE_SECONDS, self._give_up)
        patience.start()
        self._traces.shutdown()
        self._meters.shutdown()
        patience.cancel()

    def _give_up(self) -> None:
        for exporter in self._exporters:
            exporter.shutdown()


def _statement_name(statement: str) -> str:
    """`SELECT content.stories` of the statement's text: low in cardinality, as span names should be."""
    words = statement.split()
    verb = words[0].upper() if words else "SQL"
    for marker in ("FROM", "INTO", "UPDATE"):
        if marker in words[:-1]:
            return f"{verb} {words[words.index(marker) + 1].strip('(),')}"
    return verb


def current_traceparent() -> str:
    """The W3C traceparent of the current span, or '' when there is none."""
    carrier: dict[str, str] = {}
    _propagator.inject(carrier)
    return carrier.get("traceparent", "")


def current_trace_id() -> str:
    """The current trace id as 32 hexadecimal digits, or '' when there is none."""
    context = trace.get_current_span().get_span_context()
    return f"{context.trace_id:032x}" if context.is_valid else ""


class JsonFormatter(logging.Formatter):
    """One JSON object a line. Extra fields of the record are kept; nothing here ever sees a token or a parameter."""

    _standard = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}

    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service

    def format(self, record: logging.LogRecord) -> str:
        call = current_call()
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "service": self._service,
            "logger": record.name,
            "message": record.getMessage(),
            "trace_id": current_trace_id(),
        }
        if call is not None:
            line |= {"request_id": call.request_id, "rpc": call.rpc, "tenant_id": str(call.tenant_id or "")}
        line |= {key: value for key, value in vars(record).items() if key not in self._standard}
        if record.exc_info:
            line["exception"] = _without_values(self.formatException(record.exc_info), record.exc_info[1])
        return json.dumps(line, ensure_ascii=False, default=str)


class OncePerHour(logging.Filter):
    """Lets each message of these loggers through once an hour: a collector may be away for long, which is for its alert
    to say and not for our log, line by line."""

    def __init__(self, logger: str) -> None:
        super().__init__(logger)
        self._told: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if not super().filter(record):
            return True
        now = clock()
        # By its text before values are filled in, of which there are no more than places in the code.
        if now - self._told.get(record.msg, float("-inf")) < HOUR:
            return False
        self._told[record.msg] = now
        return True


def _without_values(text: str, error: BaseException | None) -> str:
    """The formatted exception without PostgreSQL's DETAIL lines: they quote whole rows."""
    while error is not None:
        if detail := getattr(error, "detail", None):
            text = text.replace(str(detail), "[redacted]")
        error = error.__cause__ or error.__context__
    return text


def log_as_json(service: str, level: str) -> None:
    """Sends all logs of the process to standard error as JSON lines."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter(service))
    logging.basicConfig(level=level, handlers=[handler], force=True)
    logging.getLogger("opentelemetry").setLevel("ERROR")
    # Loggers ask their own filters only: what these say comes from the loggers below "opentelemetry" as well.
    handler.addFilter(OncePerHour("opentelemetry"))


clock = time.perf_counter
