"""SessionService: signing in and out, and the keys that tokens are checked with."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

from google.api.httpbody_pb2 import HttpBody
from google.protobuf.empty_pb2 import Empty

from kit import audit
from kit.auth import act_as, current
from kit.db import Database, WriteSession, in_tenant
from kit.errors import PermissionDenied, StoryloomError, Unauthenticated
from kit.ids import NIL, SYSTEM_TENANT, new_id
from kit.models import now
from services.identity import queries, rules
from services.identity.models import Session
from services.identity.passwords import Passwords
from services.identity.signing import Keyring
from services.identity.throttling import Attempt, Devices, Throttle
from services.identity.users import user_to_proto
from storyloom.identity.v1 import sessions_pb2
from storyloom.type.v1.errors_pb2 import ErrorReason

# How a sign-in ended, by the reason of its refusal; never whose it was.
OUTCOMES = {
    ErrorReason.INVALID_CREDENTIALS: "wrong",
    ErrorReason.TOO_MANY_ATTEMPTS: "throttled",
    ErrorReason.TENANT_SUSPENDED: "suspended",
}


class SessionService:
    SERVICE = sessions_pb2.DESCRIPTOR.services_by_name["SessionService"]

    def __init__(
        self, db: Database, keyring: Keyring, passwords: Passwords, throttle: Throttle, devices: Devices
    ) -> None:
        self.db, self.keyring, self.passwords = db, keyring, passwords
        self.throttle, self.devices = throttle, devices
        self._sign_ins = db.telemetry.meter.create_counter(
            "storyloom.sign_ins", unit="{sign_in}", description="Sign-ins by how they ended."
        )

    async def CreateSession(self, request: sessions_pb2.CreateSessionRequest, context: Any) -> sessions_pb2.Session:
        with self._counted():
            return await self._sign_in(request)

    @contextmanager
    def _counted(self) -> Iterator[None]:
        outcome = "failed"
        try:
            yield
            outcome = "ok"
        except StoryloomError as refusal:
            outcome = OUTCOMES.get(refusal.reason, outcome)
            raise
        finally:
            self._sign_ins.add(1, {"outcome": outcome})

    async def _sign_in(self, request: sessions_pb2.CreateSessionRequest) -> sessions_pb2.Session:
        async with self.db.read(SYSTEM_TENANT) as session:
            tenant = await queries.find_listing(session, request.tenant)
            # An unknown tenant is looked into as well, as an empty one: no answer may tell by its time what exists.
            async with in_tenant(session, tenant.id if tenant else new_id()):
                user = await queries.find_account(session, request.email)
            device = self.devices.find(request.device_token, user)
            attempt = self.throttle.attempt("sign_in", f"{request.tenant}\0{request.email.lower()}", device)
            failed_before = await self.throttle.check(session, attempt)
        matches = await self.passwords.verify(user and user.password_hash, request.password)
        if not matches or tenant is None or user is None or user.status != "active":
            raise await self._refusal(attempt, tenant, user)
        act_as(tenant.id, user.id)
        if tenant.status == "suspended":
            raise PermissionDenied("The tenant is suspended.", reason=ErrorReason.TENANT_SUSPENDED)
        current_hash = await self._current_hash(user.password_hash, request.password)
        session_id, refresh_token = await self._open(user, current_hash, attempt if failed_before else None)
        answer = self._answer(session_id, refresh_token, user)
        answer.device_token = self.devices.token(device or new_id(), user, current_hash)
        return answer

    async def _open(self, user: Any, current_hash: str, forgiven: Attempt | None) -> tuple[UUID, str]:
        """A new session of the user, and its refresh token."""
        async with self.db.write(user.tenant_id) as session:
            if current_hash != user.password_hash:
                await queries.replace_password(session, user.id, old=user.password_hash, new=current_hash)
            if forgiven:
                async with in_tenant(session, SYSTEM_TENANT):
                    await self.throttle.forgive(session, forgiven)
            opened = await queries.insert_session(session, user.id, current_hash)
            if opened is None:
                # The password was right a moment ago: it has been changed, or the user barred, since it was read.
                raise _refused()
            audit.write(session, "sign_in", "user", user.id, new={"session_id": opened[0]})
        return opened

    async def _refusal(self, attempt: Attempt, tenant: Any, user: Any) -> Unauthenticated:
        async with self.db.write(SYSTEM_TENANT) as session:
            await self.throttle.count_failure(session, attempt)
            # Failures at tenants that do not exist are for the platform's own auditors to see.
            async with in_tenant(session, tenant.id if tenant else SYSTEM_TENANT):
                audit.write(session, "sign_in_failed", "user", user.id if user else NIL)
        return _refused()

    async def _current_hash(self, stored: str, password: str) -> str:
        """The stored hash of the password, or another when its parameters are outdated."""
        return await self.passwords.hash(password) if self.passwords.is_outdated(stored) else stored

    async def RefreshSession(self, request: sessions_pb2.RefreshSessionRequest, context: Any) -> sessions_pb2.Session:
        secret = rules.RefreshSecret.parse(request.refresh_token)
        async with self.db.write(secret.tenant_id) as session:
            found = await queries.find_family(session, secret)
            if found is None:
                raise rules.refused_refresh()
            family, generation = found
            act_as(secret.tenant_id, family.user_id)
            verdict = rules.refresh(generation, family.generation, family.rotated_at, now())
            if verdict is rules.Refresh.REUSE:
                await _end_stolen(session, family)
            else:
                user = await _active_user(session, family)
                again = verdict is rules.Refresh.REPLAY
                refresh_token = await queries.rotate(session, family, again=again)
        if verdict is rules.Refresh.REUSE:
            # Only now, outside the transaction: raised inside, it would bring the session back to life.
            raise rules.refused_refresh()
        return self._answer(family.id, refresh_token, user)

    def _answer(self, session_id: UUID, refresh_token: str, user: Any) -> sessions_pb2.Session:
        access_token, expires = self.keyring.access_token(
            tenant_id=user.tenant_id, user_id=user.id, session_id=session_id, roles=user.roles
        )
        answer = sessions_pb2.Session(
            access_token=access_token,
            refresh_token=refresh_token,
            user=user_to_proto(user),
            session_id=str(session_id),
        )
        answer.expire_time.FromSeconds(expires)
        return answer

    async def DeleteSession(self, request: sessions_pb2.DeleteSessionRequest, context: Any) -> Empty:
        caller = current()
        async with self.db.write(caller.home_tenant_id) as session:
            only = None if request.everywhere else caller.session_id
            ended = await queries.end_sessions(session, caller.subject, "sign_out", only=only)
            if ended:
                audit.write(session, "sign_out", "user", caller.subject, old={"session_ids": ended})
        return Empty()

    async def GetJwks(self, request: sessions_pb2.GetJwksRequest, context: Any) -> HttpBody:
        keys = json.dumps(await self.keyring.jwks()).encode()
        return HttpBody(content_type="application/jwk-set+json", data=keys)


def _refused() -> Unauthenticated:
    """One answer whatever was wrong."""
    return Unauthenticated(
        "Tenant, e-mail address and password do not match.", reason=ErrorReason.INVALID_CREDENTIALS
    )


async def _end_stolen(session: WriteSession, family: Session) -> None:
    await queries.end_sessions(session, family.user_id, "token_reuse", only=family.id)
    audit.write(session, "refresh_token_reused", "user", family.user_id, old={"session_ids": [family.id]})


async def _active_user(session: WriteSession, family: Session) -> Any:
    """The session's user, while they may use the platform."""
    user = await queries.get_user_row(session, family.user_id, also_deleted=True)
    if user.status != "active" or user.deleted_at is not None:
        raise rules.refused_refresh()
    tenant = await queries.get_tenant_row(session)
    if tenant.status == "suspended":
        raise PermissionDenied("The tenant is suspended.", reason=ErrorReason.TENANT_SUSPENDED)
    return user
