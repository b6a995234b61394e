"""Queries of sessions and refresh tokens, and of what a sign-in looks up."""

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Text, Uuid, bindparam, delete, func, or_, select, update

from kit.db import ReadSession, WriteSession, prepared
from kit.ids import new_id
from kit.models import now
from services.identity import rules
from services.identity.models import (
    RefreshToken,
    Session,
    TenantListing,
    User,
)
from services.identity.queries.access import change_access
from services.identity.queries.users import users_of

# Long after no token of the session can be valid any more.
FORGOTTEN_AFTER = timedelta(days=1)
# Some ten hours of a device in use.
ROTATIONS_PER_CLEANING = 64


_TENANT = bindparam("tenant", type_=Uuid)
_LISTED: tuple[Any, ...] = (TenantListing.id, TenantListing.status)
_LISTING = select(*_LISTED).where(TenantListing.tenant_id == _TENANT, TenantListing.slug == bindparam("slug"))
LISTING = prepared(_LISTING, "tenant", "slug")
_ACCOUNT = (
    users_of(_TENANT)
    .where(func.lower(User.email) == func.lower(bindparam("email", type_=Text)), User.deleted_at.is_(None))
    .add_columns(User.password_hash)
)
ACCOUNT = prepared(_ACCOUNT, "tenant", "email")
# One round trip, past the unit of work: every sign-in does it, and there is nothing to track. The user's row is locked
# while the session is opened: a change of the password, or the user's end, either comes first, and there is no session,
# or comes after and ends this one too. What is inserted here is not among the sessions counted, which may be too many.
OPEN = f"""
WITH owner AS (
  SELECT id FROM identity.users
  WHERE tenant_id = $1 AND id = $3 AND password_hash = $4 AND status = 'active' AND deleted_at IS NULL
  FOR SHARE
), opened AS (
  INSERT INTO identity.sessions (tenant_id, id, user_id, generation, rotated_at, expires_at)
  SELECT $1, $2, id, 0, now(), $5 FROM owner RETURNING id
), issued AS (
  INSERT INTO identity.refresh_tokens (tenant_id, session_id, token_hash, generation, expires_at)
  SELECT $1, id, $6, 0, $5 FROM opened
), displaced AS (
  UPDATE identity.sessions SET ended_at = now(), updated_at = now(), end_reason = 'displaced'
  WHERE tenant_id = $1 AND user_id = (SELECT id FROM owner) AND ended_at IS NULL AND id <= (
    SELECT id FROM identity.sessions
    WHERE tenant_id = $1 AND user_id = $3 AND ended_at IS NULL AND expires_at > now()
    ORDER BY id DESC OFFSET {rules.MOST_SESSIONS - 1} LIMIT 1)
  RETURNING id
), told AS (
  INSERT INTO identity.access_revisions (tenant_id, user_id, session_id) SELECT $1, $3, id FROM displaced
)
SELECT id FROM opened
"""  # noqa: S608  # composed of constants


async def find_listing(session: ReadSession, slug: str) -> Any:
    """Id and status of the tenant of this slug, of the platform's list; None when there is none."""
    return await session.fetchrow(LISTING, slug)


async def find_account(session: ReadSession, email: str) -> Any:
    """The user of the e-mail address, whatever the case of its letters, with the hash of their password, or None."""
    return await session.fetchrow(ACCOUNT, email)


async def insert_session(session: WriteSession, user_id: UUID, password_hash: str) -> tuple[UUID, str] | None:
    """The id of a new session, and its first refresh token; None when this is no longer the password of an active
    user. Ends the oldest sessions that are too many, and now and then forgets old ones."""
    secret = rules.RefreshSecret.new(session.tenant_id, new_id())
    expires_at = now() + rules.REFRESH_TOKEN_LIFETIME
    opened = await session.fetchrow(OPEN, secret.session_id, user_id, password_hash, expires_at, secret.digest)
    if secret.session_id.bytes[-1] < 4:
        await _delete_old_sessions(session, now() - FORGOTTEN_AFTER)
    return (secret.session_id, secret.text) if opened else None


async def find_family(session: WriteSession, secret: rules.RefreshSecret) -> tuple[Session, int] | None:
    """The living session of a refresh token, locked, and the token's generation."""
    locked = await session.execute(
        select(Session)
        .where(Session.tenant_id == session.tenant_id, Session.id == secret.session_id, Session.ended_at.is_(None))
        .with_for_update()
    )
    family = locked.scalar_one_or_none()
    if family is None:
        return None
    generation = await session.scalar(
        select(RefreshToken.generation).where(
            RefreshToken.tenant_id == session.tenant_id,
            RefreshToken.session_id == family.id,
            RefreshToken.token_hash == secret.digest,
            RefreshToken.expires_at > now(),
        )
    )
    return None if generation is None else (family, generation)


async def rotate(session: WriteSession, family: Session, *, again: bool) -> str:
    """The session's next refresh token; `again` when the one before was issued already and its answer lost."""
    if not again and family.generation % ROTATIONS_PER_CLEANING == 0:
        await _delete_old_tokens(session, family)
    if not again:
        family.generation, family.rotated_at = family.generation + 1, now()
    family.expires_at = now() + rules.REFRESH_TOKEN_LIFETIME
    secret = rules.RefreshSecret.new(session.tenant_id, family.id)
    token = RefreshToken(
        session_id=family.id, token_hash=secret.digest, generation=family.generation, expires_at=family.expires_at
    )
    session.add(token)
    return secret.text


async def end_sessions(
    session: WriteSession,
    user_id: UUID,
    reason: str,
    *,
    only: UUID | None = None,
    but: UUID | None = None,
) -> list[UUID]:
    """Ends the user's sessions, and makes every service refuse their tokens. Returns their ids."""
    statement = update(Session).where(
        Session.tenant_id == session.tenant_id, Session.user_id == user_id, Session.ended_at.is_(None)
    )
    if only is not None:
        statement = statement.where(Session.id == only)
    if but is not None:
        statement = statement.where(Session.id != but)
    statement = statement.values(ended_at=now(), end_reason=reason).returning(Session.id)
    found = await session.execute(statement.execution_options(synchronize_session=False))
    ended = list(found.scalars())
    if ended:
        # One change for all: the user's next snapshot names every session that ended.
        await change_access(session, user_id, session_id=ended[0] if len(ended) == 1 else None)
    return ended


async def _delete_old_sessions(session: WriteSession, before: datetime) -> None:
    old = or_(Session.expires_at < before, Session.ended_at < before)
    await session.execute(delete(Session).where(Session.tenant_id == session.tenant_id, old))


async def _delete_old_tokens(session: WriteSession, family: Session) -> None:
    """A session that is refreshed lives on for years. Its tokens that have expired are refused as unknown ones are."""
    await session.execute(
        delete(RefreshToken).where(
            RefreshToken.tenant_id == session.tenant_id,
            RefreshToken.session_id == family.id,
            RefreshToken.expires_at < now(),
        )
    )
