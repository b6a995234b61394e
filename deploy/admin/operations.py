"""Whether all is well: health, deliveries, jobs, and what the audit log says."""

import argparse
import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

import grpc
from google.protobuf.json_format import MessageToDict
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub

from deploy.admin.client import PLATFORM, Client
from deploy.local.database import service_environment
from deploy.local.gateway import answers
from deploy.local.settings import ROOT, read_settings
from kit.settings import SERVICES
from storyloom.audit.v1.audit_logs_pb2 import AuditLog, ListAuditLogsRequest, WatchAuditLogsRequest
from storyloom.audit.v1.audit_logs_pb2_grpc import AuditLogServiceStub
from storyloom.identity.v1 import parked_events_pb2
from storyloom.identity.v1.parked_events_pb2_grpc import ParkedEventServiceStub

Row = dict[str, Any]
HEALTH_SECONDS = 2.0
RECONNECT_SECONDS = 1.0
# What a stream may end with that a moment later has passed: a restart, or the end of its token.
PASSING = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED, grpc.StatusCode.UNAUTHENTICATED)


class Failed(Exception):
    """What was asked for was tried, and it is not as it should be; the message says what, '' when that was said."""

    def __init__(self, message: str, status: int = 1) -> None:
        super().__init__(message)
        self.status = status


def health(client: Client, asked: argparse.Namespace) -> Iterator[Row]:
    found = {name: (of_outbox if asked.server else of_service)(client, name) for name in SERVICES}
    if not asked.server:
        up = asyncio.run(answers(read_settings(os.environ).gateway, "/healthz"))
        found["gateway"] = "SERVING" if up else "UNAVAILABLE"
    for name, status in found.items():
        yield {"name": name, "status": status}
    if down := [name for name, status in found.items() if status != "SERVING"]:
        raise Failed(f"not serving: {', '.join(down)}")


def of_service(client: Client, service: str) -> str:
    """What the service says of itself; needs nobody to be signed in."""
    request = HealthCheckRequest(service=f"storyloom.{service}")
    try:
        answer = client.stub(HealthStub, service).Check(request, timeout=HEALTH_SECONDS)
    except grpc.RpcError as error:
        return str(error.code().name)
    return str(HealthCheckResponse.ServingStatus.Name(answer.status))


def of_outbox(client: Client, service: str) -> str:
    """Whether the service answers identity, for who is outside and can ask only the gateway."""
    request = parked_events_pb2.GetOutboxStandingsRequest(service=service)
    try:
        client.call(client.stub(ParkedEventServiceStub).GetOutboxStandings, request)
    except grpc.RpcError as error:
        return str(error.code().name)
    return "SERVING"


def outboxes(client: Client, asked: argparse.Namespace) -> Iterator[Row]:
    rpc = client.stub(ParkedEventServiceStub).GetOutboxStandings
    for service in [asked.service] if asked.service else SERVICES:
        answer = client.call(rpc, parked_events_pb2.GetOutboxStandingsRequest(service=service))
        for one in answer.standings:
            oldest = one.oldest_time.ToJsonString() if one.HasField("oldest_time") else ""
            waiting = {"waiting": one.waiting, "parked": one.parked, "oldest": oldest}
            yield {"service": service, "consumer": one.consumer, **waiting}


def parked(client: Client, asked: argparse.Namespace) -> Iterator[Row]:
    request = parked_events_pb2.ListParkedEventsRequest(service=asked.service, consumer=asked.consumer)
    for page in client.pages(client.stub(ParkedEventServiceStub).ListParkedEvents, request):
        for event in page.parked_events:
            yield shown(event)


def replay(client: Client, asked: argparse.Namespace) -> Iterator[Row]:
    request = parked_events_pb2.ReplayParkedEventsRequest(
        service=asked.service, consumer=asked.consumer, event_id=asked.event
    )
    answer = client.call(client.stub(ParkedEventServiceStub).ReplayParkedEvents, request)
    yield {"service": asked.service, "replayed": answer.replayed}


def tail(client: Client, asked: argparse.Namespace) -> Iterator[Row]:
    """The newest entries, oldest of them first, and what comes after them if that is wanted."""
    tenant_id = "" if asked.slug == PLATFORM else client.tenant(asked.slug).id
    filters = {"action": asked.action, "entity_type": asked.type}
    request = ListAuditLogsRequest(page_size=asked.lines, **filters)
    newest = client.call(client.stub(AuditLogServiceStub, "audit").ListAuditLogs, request, tenant_id).audit_logs
    for entry in reversed(newest):
        yield entry_row(entry)
    if asked.follow:
        yield from follow(client, tenant_id, [entry.id for entry in newest], filters)


def follow(client: Client, tenant_id: str, listed: Sequence[str], filters: dict[str, str]) -> Iterator[Row]:
    """What becomes part of the log, however often the service is restarted meanwhile. Entries that were listed, newest
    first, may have been in no tree yet, and become part of it now."""
    last = listed[0] if listed else ""
    watch = client.stub(AuditLogServiceStub, "audit").WatchAuditLogs
    while True:
        request = WatchAuditLogsRequest(after_id=last, **filters)
        try:
            for answer in watch(request, metadata=client.metadata(tenant_id)):
                last = answer.audit_log.id or answer.heartbeat.last_id or last
                if answer.HasField("audit_log") and last not in listed:
                    yield entry_row(answer.audit_log)
        except grpc.RpcError as error:
            if error.code() not in PASSING:
                raise
        time.sleep(RECONNECT_SECONDS)
        renew(client)


def renew(client: Client) -> None:
    """A new access token, unless nobody is there to give one: the one at hand may still be good."""
    try:
        client.renew()
    except grpc.RpcError as error:
        if error.code() is not grpc.StatusCode.UNAVAILABLE:
            raise


def entry_row(entry: AuditLog) -> Row:
    who = entry.user_id or entry.service or "the platform"
    return {"who": who, **shown(entry)}


def shown(message: Any) -> Row:
    """The fields as the API names them in protobuf, those that are empty too: scripts find them all."""
    found: Row = MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    return found


def jobs(client: Client, asked: argparse.Namespace) -> Iterator[Row]:
    """The service's own job runner, in the service's environment, told who wants it."""
    assert client.session is not None
    command = [sys.executable, "-m", "kit.jobs", asked.verb, asked.service]
    if asked.verb == "list":
        command += ["--json"] if asked.json else []
    else:
        command += [asked.job, "--as-operator"]
    environment = service_environment(read_settings(os.environ), asked.service)
    child = subprocess.Popen(command, env=environment, cwd=ROOT, text=True, stdin=subprocess.PIPE)
    assert child.stdin is not None
    with child.stdin as told:
        told.write(f"{client.session.access_token}\n")
    if status := ended(child):
        raise Failed("", status)
    yield from ()


def ended(child: subprocess.Popen[str]) -> int:
    """Its exit status. Ctrl-C pauses a job: the runner has to end by itself."""
    while True:
        try:
            return child.wait()
        except KeyboardInterrupt:
            child.send_signal(signal.SIGINT)
