"""A service as a process: its parts put together once, served, and drained without losing a call."""

import asyncio
import gc
import logging
import signal
import sys
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from typing import Any
from uuid import UUID

import grpc
import uvloop
from google.protobuf.message import Message
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from kit.access import Access, Policy, Rule, SnapshotCache
from kit.auth import ServiceVerifier, TokenVerifier
from kit.call import new_call
from kit.clients import Clients
from kit.db import Database, Shapes
from kit.decisions import Decided, DecisionService, in_force
from kit.holdings import Holdings
from kit.inbox import EventInbox, Handle, Together
from kit.limiter import Limiter
from kit.measures import Tally, measure_caches, measure_limiters, measure_pool
from kit.minimums import GRPCIO, refuse_older
from kit.notes import Notes
from kit.operations import OutboxService
from kit.outbox import Relay
from kit.pagination import Sealer
from kit.pipeline import Method, Pipeline, grpc_handler
from kit.settings import Settings, SettingsError
from kit.subjects import Show, SubjectService
from kit.telemetry import Telemetry, log_as_json
from kit.tls import Tls, open_port
from kit.trust import Trust, remote_trust
from storyloom.event.v1.events_pb2_grpc import EventInboxServiceStub

log = logging.getLogger(__name__)

# Connections of the pool that users' calls leave alone: for services that call, and for the relay and the notes.
RESERVED_FOR_SERVICES, RESERVED_FOR_BACKGROUND = 2, 1
RESERVED = RESERVED_FOR_SERVICES + RESERVED_FOR_BACKGROUND
OPTIONS = (
    # Two processes on one port would share its calls by chance, unseen.
    ("grpc.so_reuseport", 0),
    ("grpc.max_metadata_size", 65536),
    ("grpc.absolute_max_metadata_size", 65536),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
)

# Whoever has to connect again asks for the addresses of a name again, and so finds the processes that were added; and
# shows a certificate again: one that has expired since is good for no longer than this. What a connection has begun
# comes to its end.
CONNECTION_SECONDS = 300


class Service:
    """One service: database, clients, pipeline, servicers, relay and background work, in the order they need.

    `publishes` maps each event type to its consumers; `callers` says which services may call which gRPC service's
    internal RPCs; `trust` replaces identity's RPCs in identity itself.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        rules: Iterable[Rule] = (),
        publishes: Mapping[type[Message], tuple[str, ...]] | None = None,
        callers: Callable[[str, str], bool],
    ) -> None:
        self.settings = settings
        self.telemetry = Telemetry(settings)
        self.db = Database(
            settings.database_url,
            service=settings.service,
            pool_size=settings.pool_size,
            telemetry=self.telemetry,
            publishes=publishes,
            pooler=settings.database_pooler,
        )
        self.tls = Tls.of(settings)
        self.clients = Clients(settings, self.telemetry, self.tls)
        self.access = Access(rules)
        self.notes = Notes(self.db)
        # What is measured by name: the service adds its own.
        self.caches: dict[str, Tally] = {"statements": Shapes.tally, "plans": self.access.tally}
        self.limiters: dict[str, Limiter] = {
            "users": Limiter(max(1, settings.pool_size - RESERVED), settings.queue_timeout),
            "services": Limiter(RESERVED_FOR_SERVICES, settings.queue_timeout),
        }
        self.port = 0
        self._callers = callers
        self._trust: Trust | None = None
        self._decisions: DecisionService | None = None
        self._servicers: list[Any] = [OutboxService(self.db)]
        self._background: list[Callable[[], Awaitable[None]]] = []
        self._tasks: list[asyncio.Task[Any]] = []

    def trust(self, trust: Trust) -> None:
        """Uses this trust instead of identity's RPCs."""
        self._trust = trust

    def add(self, *servicers: Any) -> None:
        """Serves these; each names its gRPC service's descriptor as `SERVICE`."""
        self._servicers.extend(servicers)

    def consume(self, handlers: Mapping[type[Message], Handle | Together]) -> None:
        """Handles these event payloads."""
        self.add(EventInbox(self.db, handlers))

    def holds(self, holdings: Holdings, shown: Mapping[str, Show] | None = None) -> SubjectService:
        """Exports, erases and purges what these say the service holds of users and tenants; `shown` are tables whose
        rows are told otherwise than as they are."""
        subjects = SubjectService(self.db, holdings, shown)
        self.add(subjects)
        return subjects

    def decides(self, *resources: Decided) -> DecisionService:
        """Applies stored policies to these resources of the service, and decides about them when identity asks."""
        self._decisions = DecisionService(self.db, self.access, resources)
        self.add(self._decisions)
        return self._decisions

    def run_in_background(self, work: Callable[[], Awaitable[None]]) -> None:
        """Runs the coroutine function from start to stop; it should loop for ever and survive its own failures."""
        self._background.append(work)

    async def start(self) -> None:
        """Serves; returns when the port is open and the health check says SERVING."""
        refuse_older("grpcio", grpc.__version__, GRPCIO)
        await self.db.check_role()
        pipeline = self._pipeline()
        self._measure(pipeline)
        self._server = grpc.aio.server(options=(*OPTIONS, ("grpc.max_connection_age_ms", CONNECTION_SECONDS * 1000)))
        names = [self._register(one, pipeline) for one in self._servicers]
        self._health = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        if self.settings.reflection:
            from grpc_reflection.v1alpha import reflection

            reflection.enable_server_reflection((*names, health.SERVICE_NAME, reflection.SERVICE_NAME), self._server)
        self.port = open_port(self._server, self.settings.listen_address, self.tls)
        await self._server.start()
        consumers = {name: self.clients.stub(EventInboxServiceStub, name).DeliverEvents for name in self.db.routes.all}
        self._relay = Relay(self.db, consumers, self.telemetry)
        self._relay.start()
        work = [pipeline.snapshots.watch, self.notes.run, *self._background]
        self._tasks = [asyncio.create_task(_supervised(one)) for one in work]
        for name in ("", f"storyloom.{self.settings.service}", *names):
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)
        log.info("serving", extra={"address": self.settings.listen_address, "port": self.port})

    def _pipeline(self) -> Pipeline:
        settings = self.settings
        trust = self._trust or remote_trust(self.clients)
        return Pipeline(
            telemetry=self.telemetry,
            db=self.db,
            tokens=TokenVerifier(trust.keys, issuer=settings.token_issuer, audience=settings.token_audience),
            services=ServiceVerifier(settings.service, settings.service_keys),
            snapshots=self._snapshots(trust),
            access=self.access,
            sealer=Sealer(settings.secret),
            limiter=self.limiters["users"],
            internal_limiter=self.limiters["services"],
            notes=self.notes,
            callers=self._callers,
            mutual_tls=self.tls is not None,
            default_deadline=settings.default_deadline,
        )

    def _measure(self, pipeline: Pipeline) -> None:
        self.caches |= {
            "tokens": pipeline.tokens.tally,
            "credentials": pipeline.services.tally,
            "snapshots": pipeline.snapshots.tally,
            "policies": pipeline.snapshots.tally_of_sets,
        }
        measure_pool(self.telemetry.meter, self.db)
        measure_limiters(self.telemetry.meter, self.limiters)
        measure_caches(self.telemetry.meter, self.caches)

    def _snapshots(self, trust: Trust) -> SnapshotCache:
        fields = self._decisions.fields if self._decisions else {}

        async def policies(tenant_id: UUID) -> tuple[Policy, ...]:
            return in_force(await trust.policies(tenant_id), fields)

        made = SnapshotCache(trust.snapshots, trust.changes, policies, max_stale=self.settings.snapshot_max_stale)
        if self._decisions:
            self._decisions.snapshots = made
        return made

    def _register(self, servicer: Any, pipeline: Pipeline) -> str:
        descriptor = servicer.SERVICE

        def make_call(rpc: str, context: Any) -> Any:
            return new_call(rpc, context, pipeline.access, pipeline.sealer, self.settings.gateway_secret)

        handlers = {}
        for rpc in descriptor.methods:
            method = Method.of(rpc)
            handlers[rpc.name] = grpc_handler(method, pipeline.compose(method, getattr(servicer, rpc.name)), make_call)
        generic = grpc.method_handlers_generic_handler(descriptor.full_name, handlers)
        self._server.add_generic_rpc_handlers((generic,))
        return str(descriptor.full_name)

    async def stop(self) -> None:
        """Drains: no longer healthy, then no new calls, then running ones to their end, then everything below."""
        await self._health.enter_graceful_shutdown()
        await asyncio.sleep(self.settings.drain_delay)
        await _cancelled(self._tasks)
        await self._server.stop(self.settings.drain_grace)
        await self.notes.write(everything=True)
        await self._relay.stop()
        await self.clients.close()
        await self.db.close()
        await asyncio.to_thread(self.telemetry.close)


async def _cancelled(tasks: Collection[asyncio.Task[Any]]) -> None:
    """Cancels until all have ended: one cancellation can get lost in a `wait_for` of what a task calls (cpython
    issue 86296), and the task would go on for ever."""
    while pending := [task for task in tasks if not task.done()]:
        for task in pending:
            task.cancel()
        await asyncio.wait(pending, timeout=1)
    await asyncio.gather(*tasks, return_exceptions=True)


async def _supervised(work: Callable[[], Awaitable[None]]) -> None:
    while True:
        try:
            await work()
        except Exception:
            log.exception("background work failed", extra={"work": getattr(work, "__qualname__", str(work))})
        await asyncio.sleep(1)


def run(service: str, build: Callable[[Settings], Service]) -> None:
    """The process: settings from the environment, serve until SIGTERM or SIGINT, drain."""
    try:
        settings = Settings.from_environment(service)
    except SettingsError as error:
        sys.exit(f"{service}: {error}")
    log_as_json(service, settings.log_level)
    uvloop.run(_serve_until_told(build, settings))


async def _serve_until_told(build: Callable[[Settings], Service], settings: Settings) -> None:
    told = asyncio.Event()
    for one in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(one, told.set)
    try:
        service = build(settings)
        await service.start()
    except (OSError, RuntimeError, SettingsError) as error:
        log.critical("cannot start", extra={"error": str(error)})
        sys.exit(f"{settings.service}: cannot start: {error}")
    # What start-up made stays: the collector need not look at its hundreds of thousands of objects again and again.
    gc.collect()
    gc.freeze()
    await told.wait()
    await service.stop()
