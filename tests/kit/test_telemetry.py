"""Spans, metrics and log lines of real calls, as a collector and a log shipper get them."""

import asyncio
import io
import json
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

import grpc
import pytest
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2
from sqlalchemy import text

from kit.telemetry import JsonFormatter, current_trace_id
from tests.kit.toy import Toy, another
from tests.stack import free_port, refused

EVERYTHING = ("all", "manage")
PARENT = "00f067aa0ba902b7"
CANARY = "canary-8241"


class Collector:
    """An OTLP receiver over gRPC that keeps what it gets."""

    def __init__(self) -> None:
        self.spans: list[Any] = []
        self.metrics: list[Any] = []
        self.raw = b""

    async def start(self) -> str:
        self._server = grpc.aio.server()
        for signal, messages, take in (
            ("trace.v1.Trace", trace_service_pb2, self._take_spans),
            ("metrics.v1.Metrics", metrics_service_pb2, self._take_metrics),
        ):
            kind = signal.rsplit(".", 1)[1]
            handler = grpc.unary_unary_rpc_method_handler(
                take,
                request_deserializer=getattr(messages, f"Export{kind}ServiceRequest").FromString,
                response_serializer=getattr(messages, f"Export{kind}ServiceResponse").SerializeToString,
            )
            name = f"opentelemetry.proto.collector.{signal}Service"
            self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, {"Export": handler}),))
        address = f"127.0.0.1:{free_port()}"
        self._server.add_insecure_port(address)
        await self._server.start()
        return f"http://{address}"

    async def stop(self) -> None:
        await self._server.stop(0)

    async def _take_spans(self, request: Any, context: Any) -> Any:
        self.raw += request.SerializeToString()
        self.spans += [span for one in request.resource_spans for scope in one.scope_spans for span in scope.spans]
        return trace_service_pb2.ExportTraceServiceResponse()

    async def _take_metrics(self, request: Any, context: Any) -> Any:
        self.raw += request.SerializeToString()
        self.metrics += [m for one in request.resource_metrics for scope in one.scope_metrics for m in scope.metrics]
        return metrics_service_pb2.ExportMetricsServiceResponse()

    def of(self, trace_id: str) -> list[Any]:
        return [span for span in self.spans if span.trace_id.hex() == trace_id]

    def named(self, trace_id: str, name: str) -> list[Any]:
        return [span for span in self.of(trace_id) if span.name == name]


@contextmanager
def log_lines() -> Iterator[io.StringIO]:
    """What the services log meanwhile, as JSON lines."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter("toy"))
    logging.getLogger("kit").addHandler(handler)
    try:
        yield stream
    finally:
        logging.getLogger("kit").removeHandler(handler)


@dataclass
class Day:
    """A few calls, and everything that was told of them."""

    collector: Collector
    token: str
    tenant: UUID
    traces: dict[str, str] = field(default_factory=dict)
    lines: list[dict[str, Any]] = field(default_factory=list)
    log: str = ""

    def parent(self, name: str, flags: str = "01") -> str:
        self.traces[name] = uuid4().hex
        return f"00-{self.traces[name]}-{PARENT}-{flags}"

    def spans(self, name: str) -> list[Any]:
        return self.collector.of(self.traces[name])

    def line(self, name: str) -> dict[str, Any]:
        return next(one for one in self.lines if one["trace_id"] == self.traces[name])


@pytest.fixture(scope="module")
async def day(toy: Toy) -> AsyncIterator[Day]:
    collector = Collector()
    endpoint = await collector.start()
    token = toy.grant(uuid4(), EVERYTHING)
    day = Day(collector, token, toy.tenant)
    toy.failing["broken"] = ValueError("the stack")
    with log_lines() as stream:
        async with another(toy, otel_exporter_otlp_endpoint=endpoint) as traced:
            await live(traced, day)
    day.log = stream.getvalue()
    day.lines = [json.loads(line) for line in day.log.splitlines()]
    yield day
    await collector.stop()


async def live(toy: Toy, day: Day) -> None:
    """The calls, one trace each."""

    def stub(name: str, flags: str = "01") -> Any:
        return toy.stub(day.token, traceparent=day.parent(name, flags), x_request_id=f"request-{name}")

    await stub("write").CreateNote(toy.pb.Note(text="plain", secret=CANARY))
    await stub("unsampled", "00").ListNotes(toy.pb.ListNotesRequest())
    for name, flags in (("broken", "01"), ("broken-unsampled", "00")):
        async with refused("INTERNAL_FAULT"):
            await stub(name, flags).CreateNote(toy.pb.Note(text="broken", secret=CANARY))
    async with refused("RESOURCE_NOT_FOUND"):
        await stub("absent").GetNote(toy.pb.GetNoteRequest(id=str(uuid4())))
    async for _ in stub("stream").WatchNotes(toy.pb.ListNotesRequest()):
        pass
    with suppress(grpc.aio.AioRpcError):
        await stub("late").Misbehave(toy.pb.Note(text="sleep"), timeout=0.2)
    for _ in range(2):
        await toy.stub(day.token).ListNotes(toy.pb.ListNotesRequest())
    await statements(toy, day)


async def statements(toy: Toy, day: Day) -> None:
    """Statements that fail, are cut off, or go in batches, each within a span of its own."""
    telemetry = toy.service.telemetry
    with telemetry.server_span("/toy/Batch", {"traceparent": day.parent("batch")}):
        async with toy.db.write(uuid4()) as session:
            for n in range(3):
                session.add(toy.note(text=str(n), secret="", author_id=uuid4()))
    with telemetry.server_span("/toy/Failed", {"traceparent": day.parent("failed")}), suppress(Exception):
        async with toy.db.write(uuid4()) as session:
            await session.execute(text("SELECT 1 FROM toy.nowhere"))
    with telemetry.server_span("/toy/Cut", {"traceparent": day.parent("cut")}), suppress(TimeoutError):
        async with asyncio.timeout(0.1), toy.db.read(uuid4()) as session:
            await session.execute(text("SELECT pg_sleep(5)"))
    assert current_trace_id() == ""


def attributes(span: Any) -> dict[str, Any]:
    return {one.key: one.value.string_value for one in span.attributes}


class TestServerSpans:
    def test_a_call_is_a_span_below_its_caller_s(self, day: Day) -> None:
        (span,) = [one for one in day.spans("write") if one.name == "toy.v1.NoteService/CreateNote"]
        assert span.parent_span_id.hex() == PARENT
        told = attributes(span)
        assert told["rpc.grpc.status_code"] == "OK"
        assert (told["tenant.id"], told["request.id"]) == (str(day.tenant), "request-write")

    def test_a_caller_that_does_not_sample_costs_no_span(self, day: Day) -> None:
        assert day.spans("unsampled") == day.spans("broken-unsampled") == []

    def test_only_the_server_s_own_faults_are_errors(self, day: Day) -> None:
        for name, code, status in (("broken", "INTERNAL", 2), ("absent", "NOT_FOUND", 0)):
            (span,) = [one for one in day.spans(name) if "/" in one.name]
            assert (attributes(span)["rpc.grpc.status_code"], span.status.code) == (code, status)

    def test_streams_and_calls_that_ran_out_of_time_end_their_span(self, day: Day) -> None:
        assert [one.name for one in day.spans("stream")] == ["toy.v1.NoteService/WatchNotes"]
        (late,) = day.spans("late")
        assert attributes(late)["rpc.grpc.status_code"] in {"CANCELLED", "DEADLINE_EXCEEDED"}

    def test_calls_without_a_caller_s_span_share_no_trace(self, day: Day) -> None:
        given = set(day.traces.values())
        roots = [
            one
            for one in day.collector.spans
            if one.name == "toy.v1.NoteService/ListNotes" and one.trace_id.hex() not in given
        ]
        assert [one.parent_span_id for one in roots] == [b"", b""]
        assert roots[0].trace_id != roots[1].trace_id


class TestStatementSpans:
    def test_are_named_by_verb_and_table_below_the_call(self, day: Day) -> None:
        (server,) = [one for one in day.spans("write") if "/" in one.name]
        (insert,) = [one for one in day.spans("write") if "/" not in one.name]
        assert (insert.name, insert.parent_span_id) == ("INSERT toy.notes", server.span_id)
        assert attributes(insert)["db.system.name"] == "postgresql"
        (read,) = [one for one in day.spans("absent") if "/" not in one.name]
        assert read.name == "SELECT toy.notes"

    def test_never_tell_a_value(self, day: Day) -> None:
        assert CANARY.encode() not in day.collector.raw
        assert day.token.encode() not in day.collector.raw
        assert b"plain" not in day.collector.raw

    @pytest.mark.parametrize("name", ["batch", "failed", "cut"])
    def test_end_however_the_statement_does(self, day: Day, name: str) -> None:
        spans = [one for one in day.spans(name) if not one.name.startswith("toy/")]
        assert len(spans) == 1
        assert all(one.end_time_unix_nano >= one.start_time_unix_nano > 0 for one in spans)
        assert {one.status.code for one in spans} == ({0} if name == "batch" else {2})


class TestMetrics:
    def test_count_every_call_by_method_and_code(self, day: Day) -> None:
        (durations,) = [one for one in day.collector.metrics if one.name == "rpc.server.duration"]
        counts = {
            (attributes(point)["rpc.method"].rsplit("/")[-1], attributes(point)["rpc.grpc.status_code"]): point.count
            for point in durations.histogram.data_points
        }
        assert counts[("CreateNote", "OK")] == 1
        assert counts[("CreateNote", "INTERNAL")] == 2
        assert counts[("GetNote", "NOT_FOUND")] == 1
        assert counts[("ListNotes", "OK")] == 3

    def test_tell_how_the_deliveries_stand(self, day: Day) -> None:
        gauges = {one.name: one.gauge.data_points for one in day.collector.metrics if one.HasField("gauge")}
        for name in ("storyloom.outbox.waiting", "storyloom.outbox.parked", "storyloom.outbox.lag"):
            assert {attributes(point)["consumer"] for point in gauges[name]} == {"audit"}


    def test_lead_from_slow_calls_to_their_traces_if_these_are_kept(self, day: Day) -> None:
        """The bucket that a call fell into names its trace, and none that was not sampled."""
        (durations,) = [one for one in day.collector.metrics if one.name == "rpc.server.duration"]
        found = {
            exemplar.trace_id.hex(): (attributes(point)["rpc.method"].rsplit("/")[-1], exemplar.as_double)
            for point in durations.histogram.data_points
            for exemplar in point.exemplars
        }
        method, milliseconds = found[day.traces["write"]]
        (span,) = [one for one in day.spans("write") if "/" in one.name]
        assert method == "CreateNote"
        # The time of the call, as its span has it.
        assert abs(milliseconds - (span.end_time_unix_nano - span.start_time_unix_nano) / 1e6) < 50
        assert not found.keys() & {day.traces["unsampled"], day.traces["broken-unsampled"]}
        assert found.keys() <= {span.trace_id.hex() for span in day.collector.spans}

    def test_tell_of_pool_limiters_and_caches(self, day: Day) -> None:
        assert {
            "db.client.connection.count",
            "db.client.connection.max",
            "storyloom.limiter.held",
            "storyloom.cache.requests",
        } <= {one.name for one in day.collector.metrics}


class TestLogs:
    @pytest.mark.parametrize("name", ["broken", "broken-unsampled"])
    def test_carry_trace_request_rpc_and_tenant(self, day: Day, name: str) -> None:
        line = day.line(name)
        assert (line["level"], line["service"], line["message"]) == ("ERROR", "toy", "unexpected failure")
        assert line["request_id"] == f"request-{name}"
        assert line["rpc"] == "/toy.v1.NoteService/CreateNote"
        assert line["tenant_id"] == str(day.tenant)
        assert "ValueError: the stack" in line["exception"]

    def test_name_the_request_as_its_span_does(self, day: Day) -> None:
        (span,) = [one for one in day.spans("broken") if "/" in one.name]
        assert attributes(span)["request.id"] == day.line("broken")["request_id"]

    def test_never_tell_a_token_or_a_value(self, day: Day) -> None:
        assert day.token not in day.log
        assert CANARY not in day.log

    async def test_never_tell_the_row_that_the_database_refused(self, toy: Toy) -> None:
        made: Any = toy.note(text="x", secret=CANARY + "\nsecond line", author_id=uuid4())
        made.text = None
        with log_lines() as stream:
            try:
                async with toy.db.write(uuid4()) as session:
                    session.add(made)
            except Exception:
                logging.getLogger("kit.test").exception("refused")
        (line,) = [json.loads(line) for line in stream.getvalue().splitlines()]
        assert "null value in column" in line["exception"]
        assert CANARY not in line["exception"]
        assert "second line" not in line["exception"]

    def test_keep_extra_fields_and_one_line_each(self) -> None:
        values = {"msg": "two\nlines %s", "args": ("Truyện",), "consumer": "audit", "id": UUID(int=1)}
        line = JsonFormatter("toy").format(logging.makeLogRecord(values))
        assert "\n" not in line
        told = json.loads(line)
        assert (told["message"], told["consumer"], told["id"]) == ("two\nlines Truyện", "audit", str(UUID(int=1)))
        assert "request_id" not in told
