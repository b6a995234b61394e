"""Metrics that an OpenTelemetry SDK exports are shown to Prometheus by the names that rules and dashboards ask for."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpx
import pytest
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider

from deploy.local import metrics
from deploy.local.errors import RunError
from deploy.local.settings import Address, Settings
from deploy.local.traces import TraceReceiver, TraceStore
from tests.deploy.conftest import free_port

Tell = Callable[[MeterProvider], None]


@pytest.fixture
async def receiver(settings: Settings) -> AsyncIterator[tuple[Address, Address]]:
    """Where metrics are sent, and where they are shown."""
    shown = Address("127.0.0.1", free_port())
    running = TraceReceiver(settings.traces, TraceStore(settings.trace_file), shown)
    await running.start()
    yield settings.traces, shown
    await running.stop()


async def told(at: tuple[Address, Address], tell: Tell, instance: str = "a") -> list[str]:
    """The page's lines after a service told this."""
    exporter = OTLPMetricExporter(endpoint=f"http://{at[0]}", insecure=True)
    resource = Resource({"service.name": "content", "service.instance.id": instance})
    provider = MeterProvider([PeriodicExportingMetricReader(exporter)], resource, shutdown_on_exit=False)
    tell(provider)
    await asyncio.to_thread(provider.shutdown)
    async with httpx.AsyncClient() as client:
        answer = await client.get(f"http://{at[1]}/metrics")
    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    return answer.text.splitlines()


def a_bit_of_all(provider: MeterProvider) -> None:
    meter = provider.get_meter("test")
    meter.create_counter("storyloom.sign_ins").add(3, {"outcome": 'wr"ong\n'})
    meter.create_gauge("storyloom.outbox.lag", unit="s").set(1.5, {"consumer": "audit"})
    meter.create_observable_up_down_counter("db.client.connection.max", [eight], unit="{connection}")
    times = meter.create_histogram("rpc.server.duration", unit="ms", explicit_bucket_boundaries_advisory=[10.0, 100.0])
    times.record(7)
    # Of two traces of one bucket the later is shown; what is not sampled is not.
    for value, sampled in ((20.0, True), (70.0, True), (500.0, False)):
        with trace.use_span(span(sampled)):
            times.record(value)


def eight(_: CallbackOptions) -> list[Observation]:
    return [Observation(8)]


def span(sampled: bool) -> trace.Span:
    flags = trace.TraceFlags(trace.TraceFlags.SAMPLED if sampled else trace.TraceFlags.DEFAULT)
    made = TracerProvider(shutdown_on_exit=False).get_tracer("test").start_span("x").get_span_context()
    return trace.NonRecordingSpan(trace.SpanContext(made.trace_id, made.span_id, is_remote=False, trace_flags=flags))


class TestPage:
    async def test_names_metrics_and_processes_as_the_collector_does(self, receiver: tuple[Address, Address]) -> None:
        lines = await told(receiver, a_bit_of_all)
        of = 'job="content",instance="a"'
        for line in (
            "# TYPE storyloom_sign_ins counter",
            f'storyloom_sign_ins_total{{{of},outcome="wr\\"ong\\n"}} 3',
            "# TYPE storyloom_outbox_lag_seconds gauge",
            f'storyloom_outbox_lag_seconds{{{of},consumer="audit"}} 1.5',
            f"db_client_connection_max{{{of}}} 8",
            "# TYPE rpc_server_duration_milliseconds histogram",
            f'rpc_server_duration_milliseconds_bucket{{{of},le="10.0"}} 1',
            f'rpc_server_duration_milliseconds_bucket{{{of},le="+Inf"}} 4',
            f"rpc_server_duration_milliseconds_sum{{{of}}} 597.0",
            f"rpc_server_duration_milliseconds_count{{{of}}} 4",
        ):
            assert line in lines
        assert lines[-1] == "# EOF"

    async def test_leads_from_a_bucket_to_a_trace_of_it(self, receiver: tuple[Address, Address]) -> None:
        lines = await told(receiver, a_bit_of_all)
        (bucket,) = [line for line in lines if 'le="100.0"' in line]
        assert bucket.split(" # ")[0].endswith(" 3")
        assert bucket.split(" # ")[1].startswith('{trace_id="')
        assert " 70.0 " in bucket.split(" # ")[1]
        assert sum("trace_id" in line for line in lines) == 1

    async def test_has_one_place_for_each_metric_of_several_processes(self, receiver: tuple[Address, Address]) -> None:
        await told(receiver, a_bit_of_all)
        lines = await told(receiver, a_bit_of_all, instance="b")
        assert lines.count("# TYPE storyloom_sign_ins counter") == 1
        assert sum(line.startswith("storyloom_sign_ins_total") for line in lines) == 2

    async def test_forgets_processes_that_have_gone(
        self, receiver: tuple[Address, Address], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await told(receiver, a_bit_of_all)
        monkeypatch.setattr(metrics, "KEPT_SECONDS", 0.0)
        assert await told(receiver, lambda provider: None) == ["# EOF"]

    async def test_says_which_setting_chooses_another_port(self, settings: Settings, tmp_path: Path) -> None:
        taken = Address("127.0.0.1", free_port())
        server = await metrics.MetricStore().serve(*taken)
        with pytest.raises(RunError, match="METRICS_ADDRESS"):
            await TraceReceiver(settings.traces, TraceStore(settings.trace_file), taken).start()
        server.close()
