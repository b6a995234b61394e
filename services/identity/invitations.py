"""InvitationService: tokens with which users choose a password."""

from datetime import timedelta
from typing import Any
from uuid import UUID

from kit import audit
from kit.access import require
from kit.audit import Action
from kit.auth import act_as, current
from kit.db import Database, WriteSession, in_tenant
from kit.enums import stored_name
from kit.errors import NotFound, StoryloomError, wrong_state
from kit.ids import SYSTEM_TENANT
from kit.models import check_etag, now
from kit.pagination import Page
from services.identity import queries, rules
from services.identity.models import Invitation, User
from services.identity.passwords import Passwords
from services.identity.throttling import Attempt, Throttle
from services.identity.users import check_rights, insert_user, revoke_invitations, user_to_proto
from storyloom.identity.v1 import invitations_pb2


class InvitationService:
    SERVICE = invitations_pb2.DESCRIPTOR.services_by_name["InvitationService"]

    def __init__(self, db: Database, passwords: Passwords, throttle: Throttle) -> None:
        self.db, self.passwords, self.throttle = db, passwords, throttle

    async def CreateInvitation(
        self, request: invitations_pb2.CreateInvitationRequest, context: Any
    ) -> invitations_pb2.Invitation:
        kind = _stored_kind(request.kind)
        async with self.db.write() as session:
            user = await _invited(session, request, kind)
            invitation = Invitation(user_id=user.id, kind=kind, creator_id=current().subject)
            require("create", invitation)
            rules.check_invitable(kind, user.status)
            await revoke_invitations(session, user.id)
            secret = rules.InvitationSecret.new(session.tenant_id, invitation.id)
            invitation.token_hash, invitation.expires_at = secret.digest, now() + _lifetime(request, kind)
            session.add(invitation)
            audit.record(session, Action.CREATE, invitation)
            return await _answer(session, invitation, token=secret.text)

    async def GetInvitation(
        self, request: invitations_pb2.GetInvitationRequest, context: Any
    ) -> invitations_pb2.Invitation:
        async with self.db.read() as session:
            row = await queries.get_invitation_row(session, UUID(request.id))
        require("read", row, resource="invitation")
        return invitation_to_proto(row)

    async def ListInvitations(
        self, request: invitations_pb2.ListInvitationsRequest, context: Any
    ) -> invitations_pb2.ListInvitationsResponse:
        page = Page.of(request)
        async with self.db.read() as session:
            rows = await queries.list_invitations(
                session,
                page,
                user_id=UUID(request.user_id) if request.user_id else None,
                state=stored_name(invitations_pb2.InvitationState, request.state),
            )
        rows, token = page.split(rows, key=lambda row: (row.id,))
        return invitations_pb2.ListInvitationsResponse(
            invitations=[invitation_to_proto(row) for row in rows], next_page_token=token
        )

    async def RevokeInvitation(
        self, request: invitations_pb2.RevokeInvitationRequest, context: Any
    ) -> invitations_pb2.Invitation:
        async with self.db.write() as session:
            invitation = await queries.get_invitation(session, UUID(request.id))
            require("revoke", invitation)
            check_etag(invitation, request.etag)
            state = rules.invitation_state(invitation, now())
            if state != "pending":
                raise wrong_state("The invitation is not pending.", state)
            invitation.revoked_at = now()
            audit.write(session, "revoke", "invitation", invitation.id, new={"user_id": invitation.user_id})
            return await _answer(session, invitation)

    async def AcceptInvitation(
        self, request: invitations_pb2.AcceptInvitationRequest, context: Any
    ) -> invitations_pb2.AcceptInvitationResponse:
        secret = rules.InvitationSecret.parse(request.token)
        attempt = self.throttle.attempt("accept_invitation", f"{secret.tenant_id}/{secret.row_id}")
        async with self.db.read(SYSTEM_TENANT) as session:
            await self.throttle.check(session, attempt)
            async with in_tenant(session, secret.tenant_id):
                found = await queries.find_acceptable(session, secret)
        if found is None:
            raise await self._refusal(attempt)
        # Only now: a guess must not cost what a password costs.
        password_hash = await self.passwords.hash(request.password)
        act_as(secret.tenant_id, found.user_id)
        async with self.db.write(secret.tenant_id) as session:
            user = await _accepted(session, secret, found.user_id)
            if user is not None:
                shown = await _let_in(session, user, password_hash, request.display_name)
        if user is None:
            raise await self._refusal(attempt)
        return invitations_pb2.AcceptInvitationResponse(tenant=found.tenant, user=user_to_proto(shown))

    async def _refusal(self, attempt: Attempt) -> StoryloomError:
        async with self.db.write(SYSTEM_TENANT) as session:
            await self.throttle.count_failure(session, attempt)
        return rules.InvitationSecret.refused()


async def _invited(session: WriteSession, request: invitations_pb2.CreateInvitationRequest, kind: str) -> User:
    """Who is to be invited, once the caller may decide about them: whoever has the token can become them."""
    if request.HasField("user"):
        return await insert_user(session, request.user, None)
    user = await queries.get_user(session, UUID(request.user_id))
    if kind == "reset":
        # A session that somebody left open must not become the account: to change one's own takes the password.
        rules.check_not_self(user.id, current().subject)
    await check_rights(session, user)
    return user


async def _accepted(session: WriteSession, secret: rules.InvitationSecret, user_id: UUID) -> User | None:
    """Uses the invitation up, unless somebody was faster or something changed while the password was hashed."""
    try:
        # In this order everywhere: the user is locked first.
        user = await queries.get_user(session, user_id)
        invitation = await queries.get_invitation(session, secret.row_id)
    except NotFound:
        return None
    if await queries.find_acceptable(session, secret) is None:
        return None
    invitation.accepted_at = now()
    audit.write(session, "accept", "invitation", invitation.id, new={"user_id": user_id})
    return user


async def _let_in(session: WriteSession, user: User, password_hash: str, display_name: str) -> Any:
    """Gives the user the password; the row of the user."""
    action = "activate" if user.status == "invited" else "reset_password"
    user.status, user.password_hash = "active", password_hash
    if display_name:
        user.display_name = display_name
    audit.record(session, action, user)
    await queries.end_sessions(session, user.id, "password_change")
    await queries.change_access(session, user.id)
    await session.flush()
    return await queries.get_user_row(session, user.id)


def _lifetime(request: invitations_pb2.CreateInvitationRequest, kind: str) -> timedelta:
    return request.lifetime.ToTimedelta() if request.HasField("lifetime") else rules.INVITATION_LIFETIME[kind]


async def _answer(session: WriteSession, invitation: Invitation, *, token: str = "") -> invitations_pb2.Invitation:
    await session.flush()
    message = invitation_to_proto(await queries.get_invitation_row(session, invitation.id))
    message.token = token
    return message


def _stored_kind(value: Any) -> str:
    return stored_name(invitations_pb2.InvitationKind, value) or "welcome"


def invitation_to_proto(row: Any) -> invitations_pb2.Invitation:
    """Of a row of `queries.get_invitation_row`."""
    message = invitations_pb2.Invitation(
        id=str(row.id),
        user_id=str(row.user_id),
        email=row.email,
        kind=f"INVITATION_KIND_{row.kind.upper()}",
        state=f"INVITATION_STATE_{rules.invitation_state(row, now()).upper()}",
        creator_id=str(row.creator_id),
        etag=str(row.revision),
    )
    message.expire_time.FromDatetime(row.expires_at)
    message.create_time.FromDatetime(row.created_at)
    for field, time in (("accept_time", row.accepted_at), ("revoke_time", row.revoked_at)):
        if time is not None:
            getattr(message, field).FromDatetime(time)
    return message
