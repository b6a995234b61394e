"""Queries of invitations."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Row, Select, or_, select, update

from kit.access import visible
from kit.db import ReadSession, WriteSession
from kit.errors import existing
from kit.models import now
from kit.pagination import Page
from services.identity import rules
from services.identity.models import Invitation, Tenant, User


def _invitations(tenant_id: UUID) -> Select[Any]:
    """Invitations with the addresses of their users."""
    return (
        select(*Invitation.__table__.columns, User.email)
        .join(User, (User.tenant_id == Invitation.tenant_id) & (User.id == Invitation.user_id))
        .where(Invitation.tenant_id == tenant_id, User.tenant_id == tenant_id)
    )


def _in_state(state: str) -> ColumnElement[bool]:
    """The same decision as `rules.invitation_state`."""
    open_ = Invitation.accepted_at.is_(None) & Invitation.revoked_at.is_(None)
    return {
        "accepted": Invitation.accepted_at.is_not(None),
        "revoked": Invitation.revoked_at.is_not(None),
        "expired": open_ & (Invitation.expires_at <= now()),
        "pending": open_ & (Invitation.expires_at > now()),
    }[state]


async def get_invitation(session: WriteSession, identity: UUID) -> Invitation:
    """The invitation, locked."""
    statement = select(Invitation).where(Invitation.tenant_id == session.tenant_id, Invitation.id == identity)
    invitation: Invitation | None = await session.scalar(statement.with_for_update())
    return existing(invitation, "invitation")


async def get_invitation_row(session: ReadSession, identity: UUID) -> Row[Any]:
    statement = _invitations(session.tenant_id).where(Invitation.id == identity)
    return existing((await session.execute(statement)).one_or_none(), "invitation")


async def list_invitations(
    session: ReadSession, page: Page, *, user_id: UUID | None, state: str
) -> Sequence[Row[Any]]:
    statement = _invitations(session.tenant_id).where(visible("list", Invitation))
    if user_id is not None:
        statement = statement.where(Invitation.user_id == user_id)
    if state:
        statement = statement.where(_in_state(state))
    return (await session.execute(page.apply(statement, Invitation.id))).all()


async def find_acceptable(session: ReadSession, secret: rules.InvitationSecret) -> Row[Any] | None:
    """The invitation of the token while it can be accepted: it is pending, its user is still who it was made for, and
    the tenant is not suspended. With the tenant's slug."""
    fits = or_(
        *((Invitation.kind == kind) & (User.status == status) for kind, status in rules.INVITED_STATUS.items())
    )
    statement = (
        select(Invitation.id, Invitation.user_id, Invitation.kind, Tenant.slug.label("tenant"))
        .join(User, (User.tenant_id == Invitation.tenant_id) & (User.id == Invitation.user_id))
        .join(Tenant, Tenant.tenant_id == Invitation.tenant_id)
        .where(
            Invitation.tenant_id == session.tenant_id,
            User.tenant_id == session.tenant_id,
            Tenant.tenant_id == session.tenant_id,
            Invitation.id == secret.row_id,
            Invitation.token_hash == secret.digest,
            _in_state("pending"),
            User.deleted_at.is_(None),
            fits,
            Tenant.status == "active",
        )
    )
    return (await session.execute(statement)).one_or_none()


async def revoke_invitations(session: WriteSession, user_id: UUID) -> list[UUID]:
    """Makes the user's open invitations useless; returns their ids, of which there is one at most."""
    found = await session.execute(
        update(Invitation)
        .where(
            Invitation.tenant_id == session.tenant_id,
            Invitation.user_id == user_id,
            Invitation.accepted_at.is_(None),
            Invitation.revoked_at.is_(None),
        )
        .values(revoked_at=now(), revision=Invitation.revision + 1)
        .returning(Invitation.id)
        .execution_options(synchronize_session=False)
    )
    return list(found.scalars())
