"""What happens to every RPC, in order: each stage wraps the next, once, at start-up."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, replace
from functools import partial
from typing import Any
from uuid import UUID

import grpc
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from grpc_status import rpc_status

from kit import audit
from kit.access import Access, Snapshot, SnapshotCache, denied
from kit.auth import (
    Principal,
    ServiceVerifier,
    TokenVerifier,
    acting_tenant,
    refuse_mismatch,
    refuse_suspended,
)
from kit.call import Call, enter, leave
from kit.db import Database
from kit.errors import (
    Aborted,
    Cancelled,
    DeadlineExceeded,
    Internal,
    PermissionDenied,
    Unauthenticated,
    from_exception,
    to_status,
)
from kit.idempotency import Key, Replay
from kit.ids import SYSTEM_TENANT
from kit.limiter import Limiter
from kit.notes import Notes
from kit.options import is_read, requires
from kit.pagination import Sealer
from kit.telemetry import Telemetry, clock
from kit.tls import speaks_for
from kit.validation import validator
from storyloom.type.v1.errors_pb2 import ErrorReason
from storyloom.type.v1.options_pb2 import Requires

log = logging.getLogger(__name__)

LEAST_REMAINING_SECONDS = 0.1
CONFLICT_RETRIES = 2

Handler = Callable[[Any, Call, Any], Awaitable[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """One RPC as its descriptor declares it."""

    path: str
    requires: Requires
    request: type[Message]
    response: type[Message]
    client_streaming: bool
    server_streaming: bool

    @classmethod
    def of(cls, descriptor: MethodDescriptor) -> "Method":
        """Refuses an RPC that does not say, in exactly one way, who may call it."""
        path = f"/{descriptor.containing_service.full_name}/{descriptor.name}"
        who = requires(descriptor)
        forms = (bool(who.resource and who.action), who.public, who.authenticated, who.internal)
        if sum(forms) != 1:
            raise TypeError(f"{path} does not declare who may call it: set option (storyloom.type.v1.requires)")
        return cls(
            path=path,
            requires=who,
            request=GetMessageClass(descriptor.input_type),
            response=GetMessageClass(descriptor.output_type),
            client_streaming=descriptor.client_streaming,
            server_streaming=descriptor.server_streaming,
        )

    @property
    def streaming(self) -> bool:
        return self.client_streaming or self.server_streaming

    @property
    def mutates(self) -> bool:
        return not is_read(self.path)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pipeline:
    """The stages and what they need. `callers` says which services may call which gRPC service's internal RPCs."""

    telemetry: Telemetry
    db: Database
    tokens: TokenVerifier
    services: ServiceVerifier
    snapshots: SnapshotCache
    access: Access
    sealer: Sealer
    limiter: Limiter
    internal_limiter: Limiter
    notes: Notes
    callers: Callable[[str, str], bool]
    mutual_tls: bool
    default_deadline: float

    def compose(self, method: Method, servicer_method: Any) -> Handler:
        """The handler of one RPC: the servicer's method with every stage around it."""
        handler = _invoke(method, servicer_method)
        stages = (
            self._trace,
            self._errors,
            self._deadline,
            self._authenticate,
            self._authorize,
            self._validate,
            self._limit,
            self._idempotency,
            self._retry_conflicts,
        )
        for stage in reversed(stages):
            handler = stage(method, handler)
        return handler

    def _trace(self, method: Method, proceed: Handler) -> Handler:
        async def trace(request: Any, call: Call, context: Any) -> Any:
            started = clock()
            with self.telemetry.server_span(method.path, call.metadata) as span:
                try:
                    return await proceed(request, call, context)
                finally:
                    if span.is_recording() and call.principal:
                        span.set_attribute("tenant.id", str(call.principal.tenant_id))
                        span.set_attribute("request.id", call.request_id)
                    self.telemetry.count_call(span, method.path, call.code, clock() - started)

        return trace

    def _errors(self, method: Method, proceed: Handler) -> Handler:
        async def errors(request: Any, call: Call, context: Any) -> Any:
            try:
                return await proceed(request, call, context)
            except asyncio.CancelledError:
                call.code = Cancelled.code.name
                raise
            except Exception as exception:
                # Nothing unknown may reach the client: grpc would send it the exception's text.
                error = from_exception(exception)
                call.code, call.reason = error.code.name, ErrorReason.Name(error.reason)
                if isinstance(error, Internal):
                    log.exception("unexpected failure")
                if isinstance(error, PermissionDenied) and call.principal:
                    self.notes.add(audit.Action.DENY, call, tenant_id=call.principal.tenant_id)
            return await context.abort_with_status(rpc_status.to_status(to_status(error)))

        return errors

    def _deadline(self, method: Method, proceed: Handler) -> Handler:
        async def deadline(request: Any, call: Call, context: Any) -> Any:
            remaining = context.time_remaining()
            if remaining is None:
                if method.streaming:
                    return await proceed(request, call, context)
                remaining = self.default_deadline
            if remaining < LEAST_REMAINING_SECONDS:
                raise DeadlineExceeded("The deadline leaves too little time to begin.")
            loop = asyncio.get_running_loop()
            call.deadline = loop.time() + remaining
            async with asyncio.timeout_at(call.deadline):
                return await proceed(request, call, context)

        return deadline

    def _authenticate(self, method: Method, proceed: Handler) -> Handler:
        if method.requires.public:
            return proceed
        identify = self._service if method.requires.internal else self._user

        async def authenticate(request: Any, call: Call, context: Any) -> Any:
            header = call.metadata.get("authorization", "")
            scheme, _, token = header.partition(" ")
            if scheme.lower() != "bearer" or not token:
                raise Unauthenticated("No access token was sent.", reason=ErrorReason.MISSING_TOKEN)
            call.principal = await identify(token, call, context)
            return await proceed(request, call, context)

        return authenticate

    async def _service(self, token: str, call: Call, context: Any) -> Principal:
        service = self.services.verify(token)
        if self.mutual_tls and not speaks_for(context, service):
            raise PermissionDenied(
                f"This connection is not the service {service}'s.", reason=ErrorReason.SERVICE_NOT_ALLOWED
            )
        if not self.callers(call.rpc.split("/")[1], service):
            raise PermissionDenied(
                f"The service {service} may not call this method.", reason=ErrorReason.SERVICE_NOT_ALLOWED
            )
        return Principal(tenant_id=SYSTEM_TENANT, home_tenant_id=SYSTEM_TENANT, service=service)

    async def _user(self, token: str, call: Call, context: Any) -> Principal:
        # From here on it is known whose refusal is to be written down.
        call.principal = at_home = await self._at_home(token)
        refuse_mismatch(call, "x-user-id", at_home.subject)
        refuse_mismatch(call, "x-tenant-id", at_home.tenant_id)
        refuse_suspended(at_home)
        call.identify = self._other
        if not (wish := call.metadata.get("x-act-in-tenant")):
            return at_home
        all_rights = at_home.snapshot is not None and at_home.snapshot.grants("all", "manage")
        return self._act_in(call, at_home, acting_tenant(wish, at_home.tenant_id, all_rights))

    async def _at_home(self, token: str) -> Principal:
        """Whose access token it is, as long as its session lives."""
        claims = await self.tokens.verify(token)
        return Principal(
            tenant_id=claims.tenant_id,
            home_tenant_id=claims.tenant_id,
            user_id=claims.user_id,
            session_id=claims.session_id,
            token=token,
            snapshot=await self._snapshot(claims.tenant_id, claims.user_id, claims.session_id),
        )

    async def _other(self, token: str) -> Principal:
        found = await self._at_home(token)
        refuse_suspended(found)
        return found

    async def _snapshot(self, tenant_id: UUID, user_id: UUID, session_id: UUID | None) -> Snapshot:
        """The user's, as long as the session lives."""
        snapshot = await self.snapshots.get(tenant_id, user_id)
        ended = session_id in snapshot.revoked_sessions or self.snapshots.session_ended(session_id)
        if ended or not snapshot.active:
            raise Unauthenticated("The session has ended; sign in again.")
        return snapshot

    def _act_in(self, call: Call, at_home: Principal, tenant_id: UUID) -> Principal:
        if tenant_id == at_home.tenant_id:
            return at_home
        self.notes.add(audit.Action.ACT, call, tenant_id=tenant_id)
        return replace(at_home, tenant_id=tenant_id)

    def _authorize(self, method: Method, proceed: Handler) -> Handler:
        resource, action = method.requires.resource, method.requires.action
        if not resource:
            return proceed

        def check(snapshot: Snapshot | None) -> None:
            if snapshot is None or not self.access.could(snapshot, resource, action):
                raise denied(resource, action)

        async def authorize(request: Any, call: Call, context: Any) -> Any:
            check(call.principal.snapshot if call.principal else None)
            if method.streaming:
                call.renew = partial(self._renew, call, check)
            return await proceed(request, call, context)

        return authorize

    async def _renew(self, call: Call, check: Callable[[Snapshot], None]) -> None:
        """What a call is refused for before it begins, as far as it can come true while a stream lives. The token may
        expire meanwhile: the session that it was given to may not."""
        who = call.principal
        assert who is not None  # noqa: S101  # it was authorized
        snapshot = await self._snapshot(who.home_tenant_id, who.subject, who.session_id)
        renewed = replace(who, snapshot=snapshot)
        refuse_suspended(renewed)
        acting_tenant(str(who.tenant_id), who.home_tenant_id, snapshot.grants("all", "manage"))
        check(snapshot)
        call.principal = renewed

    def _validate(self, method: Method, proceed: Handler) -> Handler:
        check = validator(method.request)

        def parse(data: bytes) -> Message:
            message = method.request.FromString(data)
            check(message)
            return message

        async def validate(request: Any, call: Call, context: Any) -> Any:
            if method.client_streaming:
                return await proceed(_parsed(request, parse), call, context)
            message = parse(request)
            key = call.metadata.get("idempotency-key")
            if key and method.mutates and not method.streaming and call.principal and call.principal.user_id:
                call.key = Key(key, user_id=call.principal.user_id, request_hash=_digest(call, request))
            return await proceed(message, call, context)

        return validate

    def _limit(self, method: Method, proceed: Handler) -> Handler:
        # A stream lives long and mostly waits; it takes connections from the pool only while it works.
        if method.streaming:
            return proceed
        # The flood of users must not keep services from one another; these call for all tenants, for each in its turn.
        limiter = self.internal_limiter if method.requires.internal else self.limiter

        async def limit(request: Any, call: Call, context: Any) -> Any:
            tenant = getattr(request, "tenant_id", "") if method.requires.internal else call.tenant_id
            async with limiter.slot(tenant) as call.slot:
                return await proceed(request, call, context)

        return limit

    def _idempotency(self, method: Method, proceed: Handler) -> Handler:
        if method.streaming or not method.mutates:
            return proceed

        async def idempotency(request: Any, call: Call, context: Any) -> Any:
            key = call.key
            if key is None:
                return await proceed(request, call, context)
            try:
                async with key.stack:
                    response = await proceed(request, call, context)
                    if call.uncommitted is not None:
                        await key.commit(call.uncommitted, response.SerializeToString())
                    return response
            except Replay as replay:
                return method.response.FromString(replay.response)

        return idempotency

    def _retry_conflicts(self, method: Method, proceed: Handler) -> Handler:
        if method.streaming:
            return proceed

        async def retry_conflicts(request: Any, call: Call, context: Any) -> Any:
            for _ in range(0 if call.key else CONFLICT_RETRIES):
                try:
                    return await proceed(request, call, context)
                except Exception as exception:
                    error = from_exception(exception)
                    if not isinstance(error, Aborted) or error.reason != ErrorReason.CONCURRENT_CHANGE:
                        raise
            return await proceed(request, call, context)

        return retry_conflicts


def grpc_handler(method: Method, handler: Handler, make_call: Callable[[str, Any], Call]) -> grpc.RpcMethodHandler:
    """The one adapter of the four RPC kinds. Requests arrive as bytes, so that parsing happens inside the pipeline."""

    async def serve(request: Any, context: Any) -> Any:
        call = make_call(method.path, context)
        token = enter(call)
        context.set_trailing_metadata((("x-request-id", call.request_id),))
        try:
            return await handler(request, call, context)
        finally:
            leave(token)

    kind = f"{'stream' if method.client_streaming else 'unary'}_{'stream' if method.server_streaming else 'unary'}"
    make = getattr(grpc, f"{kind}_rpc_method_handler")
    return make(serve, request_deserializer=None, response_serializer=method.response.SerializeToString)


def _invoke(method: Method, servicer_method: Any) -> Handler:
    """The innermost stage: the servicer's method; the messages of a response stream are written one by one."""
    if not method.server_streaming:

        async def unary(request: Any, call: Call, context: Any) -> Any:
            return await servicer_method(request, context)

        return unary

    async def stream(request: Any, call: Call, context: Any) -> None:
        # Closed at once when the client hangs up between two messages, so that it ends within its call.
        async with aclosing(servicer_method(request, context)) as messages:
            async for message in messages:
                await context.write(message)

    return stream


async def _parsed(requests: AsyncIterator[bytes], parse: Callable[[bytes], Message]) -> AsyncIterator[Message]:
    async for data in requests:
        yield parse(data)


def _digest(call: Call, request: bytes) -> bytes:
    """What a keyed call must have in common with its repetition: RPC, request, and the caller's roles, so that whoever
    lost a role is not shown what they saw with it."""
    roles = sorted(call.principal.snapshot.roles) if call.principal and call.principal.snapshot else []
    return call.sealer.digest("\0".join((call.rpc, *roles)).encode() + b"\0" + request)
