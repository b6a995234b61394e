"""Statements about the time learners spend."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Row, and_, func, or_, select
from sqlalchemy.exc import IntegrityError

from kit.access import visible
from kit.db import ReadSession, WriteSession
from kit.errors import Aborted, existing
from kit.pagination import Page
from services.learning.models import LearningSession
from services.learning.queries.daily_activity import Happened, tally
from services.learning.queries.learners import lock_learners
from services.learning.rules import ABANDONED_AFTER

SESSION: tuple[Any, ...] = (
    LearningSession.id,
    LearningSession.user_id,
    LearningSession.lesson_id,
    LearningSession.story_id,
    LearningSession.start_time,
    LearningSession.last_seen_time,
    LearningSession.end_time,
    LearningSession.active_duration,
    LearningSession.interactions,
    LearningSession.state,
    LearningSession.revision,
    LearningSession.client_session_id,
)


async def get_session(session: ReadSession, session_id: UUID) -> Any:
    rows = await session.execute(
        select(*SESSION).where(LearningSession.tenant_id == session.tenant_id, LearningSession.id == session_id)
    )
    return existing(rows.one_or_none(), "learning_session")


async def get_session_to_change(session: WriteSession, session_id: UUID) -> LearningSession:
    statement = (
        select(LearningSession)
        .where(LearningSession.tenant_id == session.tenant_id, LearningSession.id == session_id)
        .with_for_update()
    )
    found: LearningSession | None = await session.scalar(statement)
    return existing(found, "learning_session")


async def find_open_session(session: WriteSession, user_id: UUID) -> LearningSession | None:
    """The one session of the user that is stored as open, locked."""
    statement = (
        select(LearningSession)
        .where(
            LearningSession.tenant_id == session.tenant_id,
            LearningSession.user_id == user_id,
            LearningSession.state == "open",
        )
        .with_for_update()
    )
    found: LearningSession | None = await session.scalar(statement)
    return found


async def list_silent_to_change(
    session: WriteSession, after: UUID, since: datetime, most: int
) -> tuple[Sequence[LearningSession], UUID | None]:
    """The next sessions stored as open that were last heard of before `since`, locked with their learners; and the id
    of the last one that was looked at."""
    silent = select(LearningSession).where(_silent(session, since)).order_by(LearningSession.id)
    ids = silent.with_only_columns(LearningSession.id, LearningSession.user_id)
    rows = (await session.execute(ids.where(LearningSession.id > after).limit(most))).all()
    changes = await lock_learners(session, {row.user_id for row in rows})
    # Some may have been heard of since.
    still = silent.where(LearningSession.id.in_([row.id for row in rows])).with_for_update()
    found = (await session.execute(still)).scalars().all() if rows else ()
    for one in found:
        one.change = changes[one.user_id]
    return found, rows[-1].id if rows else None


async def count_silent(session: ReadSession, since: datetime) -> int:
    return int(await session.scalar(select(func.count()).where(_silent(session, since))) or 0)


def _silent(session: ReadSession, since: datetime) -> Any:
    return and_(
        LearningSession.tenant_id == session.tenant_id,
        LearningSession.state == "open",
        LearningSession.last_seen_time < since,
    )


async def insert_session(session: WriteSession, opened: LearningSession) -> None:
    """Counts the session in the day of the learner, who must be locked.

    Raises ABORTED (CONCURRENT_CHANGE) when the user opens another session at the same moment.
    """
    session.add(opened)
    try:
        await session.flush()
    except IntegrityError as error:
        raise Aborted("Another session was opened at the same moment; try again.") from error
    await tally(session, opened.user_id, [Happened(at=opened.start_time, sessions=1)])


async def list_sessions(
    session: ReadSession, page: Page, *, lesson_id: str, user_id: str, state: str, at: datetime
) -> Sequence[Row[Any]]:
    statement = select(*SESSION).where(LearningSession.tenant_id == session.tenant_id, visible("list", LearningSession))
    if lesson_id:
        statement = statement.where(LearningSession.lesson_id == UUID(lesson_id))
    if user_id:
        statement = statement.where(LearningSession.user_id == UUID(user_id))
    if state:
        statement = statement.where(_in_state(state, at))
    return (await session.execute(page.apply(statement, LearningSession.id))).all()


def _in_state(state: str, at: datetime) -> Any:
    """`rules.state_at` as a filter."""
    silent = and_(LearningSession.state == "open", LearningSession.last_seen_time < at - ABANDONED_AFTER)
    stored = LearningSession.state == state
    return {"open": and_(stored, ~silent), "abandoned": or_(stored, silent)}.get(state, stored)
