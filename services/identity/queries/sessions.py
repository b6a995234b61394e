"""Queries of sessions and refresh tokens."""

from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import delete, or_, select, update

from kit.db import WriteSession
from kit.ids import new_id
from kit.models import now
from services.identity import rules
from services.identity.models import (
    RefreshToken,
    Session,
)
from services.identity.queries.transactions import change_access

# Long after no token of the session can be valid any more.
FORGOTTEN_AFTER = timedelta(days=1)


# One round trip, past the unit of work: every sign-in does it, and there is nothing to track. It answers with the
# newest of the sessions that are too many; what the statement itself inserts is not seen by it.
OPEN = f"""
WITH opened AS (
  INSERT INTO identity.sessions (tenant_id, id, user_id, generation, rotated_at, expires_at)
  VALUES ($1, $2, $3, 0, now(), $4)
), issued AS (
  INSERT INTO identity.refresh_tokens (tenant_id, session_id, token_hash, generation, expires_at)
  VALUES ($1, $2, $5, 0, $4)
)
SELECT id FROM identity.sessions
WHERE tenant_id = $1 AND user_id = $3 AND ended_at IS NULL AND expires_at > now()
ORDER BY id DESC OFFSET {rules.MOST_SESSIONS - 1} LIMIT 1
"""  # noqa: S608  # composed of constants


async def insert_session(session: WriteSession, user_id: UUID) -> tuple[UUID, str]:
    """The id of a new session, and its first refresh token. Now and then forgets old ones."""
    secret = rules.RefreshSecret.new(session.tenant_id, new_id())
    expires_at = now() + rules.REFRESH_TOKEN_LIFETIME
    surplus = await session.fetchrow(OPEN, secret.session_id, user_id, expires_at, secret.digest)
    if surplus:
        await end_sessions(session, user_id, "displaced", up_to=surplus.id)
    if secret.session_id.bytes[-1] < 4:
        await _delete_old_sessions(session, now() - FORGOTTEN_AFTER)
    return secret.session_id, secret.text


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


def rotate(session: WriteSession, family: Session, *, again: bool) -> str:
    """The session's next refresh token; `again` when the one before was issued already and its answer lost."""
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
    up_to: UUID | None = None,
) -> list[UUID]:
    """Ends the user's sessions, and makes every service refuse their tokens. Returns their ids.

    `up_to` is the last of those to end: ids grow with time.
    """
    statement = update(Session).where(
        Session.tenant_id == session.tenant_id, Session.user_id == user_id, Session.ended_at.is_(None)
    )
    if only is not None:
        statement = statement.where(Session.id == only)
    if but is not None:
        statement = statement.where(Session.id != but)
    if up_to is not None:
        statement = statement.where(Session.id <= up_to)
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
