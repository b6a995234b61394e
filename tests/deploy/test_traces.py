"""Spans that an OpenTelemetry SDK exports are kept within bounds and come back as a tree."""

import asyncio
import re
from pathlib import Path

import pytest
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from deploy.local.errors import RunError
from deploy.local.settings import Address, Settings
from deploy.local.spans import Span, parse_trace_id, read_roots, read_trace
from deploy.local.traces import TraceReceiver, TraceStore
from deploy.local.tree import render_roots, render_trace

ID = "4bf92f3577b34da6a3ce929d0e0e4736"


def provider(service: str, address: Address) -> TracerProvider:
    made = TracerProvider(resource=Resource.create({"service.name": service}), shutdown_on_exit=False)
    made.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=f"http://{address}", insecure=True)))
    return made


def publish_a_story(gateway: trace.Tracer, content: trace.Tracer) -> str:
    """The spans of one request over two services; returns the trace id."""
    with gateway.start_as_current_span("PublishStory", attributes={"http.method": "POST"}) as root:
        with content.start_as_current_span("story", attributes={"tenant_id": "lotus", "noise": "x"}):
            with content.start_as_current_span("SELECT stories"):
                pass
            with content.start_as_current_span("COMMIT") as commit:
                commit.set_status(trace.StatusCode.ERROR, "lost\x1b[31m")
        with content.start_as_current_span("late"):
            pass
    return f"{root.get_span_context().trace_id:032x}"


@pytest.fixture
async def exported(settings: Settings) -> tuple[Path, list[str]]:
    """The store's file after two services exported three traces, and the traces' ids."""
    receiver = TraceReceiver(settings.traces, TraceStore(settings.trace_file))
    await receiver.start()
    providers = [provider(name, settings.traces) for name in ("gateway", "content")]
    gateway, content = (one.get_tracer("test") for one in providers)
    ids = [publish_a_story(gateway, content) for _ in range(3)]
    for one in providers:
        await asyncio.to_thread(one.shutdown)
    await receiver.stop()
    return settings.trace_file, ids


class TestTrace:
    async def test_is_read_back_as_a_tree(self, exported: tuple[Path, list[str]]) -> None:
        file, ids = exported
        head, _, *lines = render_trace(read_trace(file, ids[1]))
        assert f"trace {ids[1]}" in head
        assert head.endswith("5 spans of 2 services")
        assert [re.sub(r"^ +[\d.]+ +[\d.]+  ", "", line) for line in lines] == [
            "gateway  PublishStory  http.method=POST",
            "  content  story  tenant_id=lotus",
            "    content  SELECT stories",
            "    content  COMMIT  ERROR: lost [31m",
            "  content  late",
        ]

    async def test_roots_are_listed_newest_first(self, exported: tuple[Path, list[str]]) -> None:
        file, ids = exported
        assert [span.trace_id for span in read_roots(file, 20)] == ids[::-1]
        assert len(read_roots(file, 2)) == 2
        assert ids[2] in list(render_roots(read_roots(file, 20)))[1]

    async def test_of_an_unknown_id_has_no_spans(self, exported: tuple[Path, list[str]]) -> None:
        assert read_trace(exported[0], ID) == []

    def test_spans_that_point_at_each_other_end(self) -> None:
        def span(name: str, parent: str) -> Span:
            return Span(ID, name, parent, "s", name, 0, 1, None, {})

        lines = list(render_trace([span("a", "b"), span("b", "a"), span("c", "c"), span("d", "gone")]))
        assert [line.split()[-1] for line in lines[2:]] == ["c", "d"]


class TestTraceId:
    @pytest.mark.parametrize("text", [ID, ID.upper(), f" {ID}\n", f"00-{ID}-00f067aa0ba902b7-01"])
    def test_is_found_in_what_people_paste(self, text: str) -> None:
        assert parse_trace_id(text) == ID

    @pytest.mark.parametrize("text", ["", "12", ID + "0", "x" * 32])
    def test_anything_else_is_refused_with_a_sentence(self, text: str) -> None:
        with pytest.raises(RunError, match="is not a trace id: it takes 32 hexadecimal digits"):
            parse_trace_id(text)


class TestTraceStore:
    def test_drops_the_oldest_beyond_its_bound(self, place: Path) -> None:
        file = place / "traces.db"
        for _ in range(2):
            store = TraceStore(file, kept_bytes=100_000)
            for _ in range(500):
                store.add(bytes(1000))
                store.write()
            store.add(bytes.fromhex(ID))
            store.close()
        sizes = TraceStore(file, kept_bytes=100_000)
        count, size = sizes._connection.execute("SELECT count(*), sum(length(request)) FROM batches").fetchone()
        sizes.close()
        assert 90_000 < size <= 100_000
        assert count <= 101
        assert sum(path.stat().st_size for path in place.iterdir()) < 5_000_000

    def test_refuses_what_the_disk_can_not_keep_up_with(self, place: Path) -> None:
        store = TraceStore(place / "traces.db")
        for _ in range(40):
            store.add(bytes(2**20))
        assert store._waiting_bytes <= 16 * 2**20
        store.close()

    def test_begins_anew_when_its_file_is_broken(self, place: Path) -> None:
        file = place / "traces.db"
        file.write_bytes(b"not a database at all" * 500)
        TraceStore(file).close()
        assert read_roots(file, 20) == []

    def test_without_a_file_the_reader_says_how_to_get_one(self, place: Path) -> None:
        with pytest.raises(RunError, match="No traces are kept here yet: `make run`"):
            read_roots(place / "traces.db", 20)
