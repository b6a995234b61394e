"""Statements about classes and their members."""

from collections.abc import Collection, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import Row, func, select, update

from kit.access import visible
from kit.db import ReadSession, WriteSession
from kit.errors import existing
from kit.models import now
from kit.pagination import Page
from services.learning.models import Cohort, CohortMember

MEMBER_COUNT = (
    select(func.count())
    .select_from(CohortMember)
    .where(
        CohortMember.tenant_id == Cohort.tenant_id,
        CohortMember.cohort_id == Cohort.id,
        CohortMember.leave_time.is_(None),
    )
    .correlate(Cohort)
    .scalar_subquery()
)
COHORT: tuple[Any, ...] = (
    Cohort.id,
    Cohort.name,
    Cohort.description,
    Cohort.author_id,
    Cohort.created_at,
    Cohort.updated_at,
    Cohort.deleted_at,
    Cohort.revision,
    MEMBER_COUNT.label("member_count"),
)
MEMBER: tuple[Any, ...] = (CohortMember.id, CohortMember.user_id, CohortMember.created_at, CohortMember.leave_time)
INSERT_MEMBERS = """
INSERT INTO learning.cohort_members (tenant_id, cohort_id, user_id)
SELECT $1, $2, user_id FROM unnest($3::uuid[]) AS user_id
ON CONFLICT (tenant_id, cohort_id, user_id) WHERE leave_time IS NULL DO NOTHING
RETURNING user_id
"""


async def get_cohort(session: ReadSession, cohort_id: UUID) -> Any:
    statement = select(*COHORT).where(
        Cohort.tenant_id == session.tenant_id, Cohort.id == cohort_id, Cohort.deleted_at.is_(None)
    )
    return existing((await session.execute(statement)).one_or_none(), "cohort")


async def get_cohort_to_change(session: WriteSession, cohort_id: UUID, *, deleted: bool) -> Cohort:
    """The cohort, locked: who its members are changes under this lock only."""
    statement = select(Cohort).where(Cohort.tenant_id == session.tenant_id, Cohort.id == cohort_id).with_for_update()
    cohort: Cohort | None = await session.scalar(statement)
    return existing(cohort, "cohort", also_deleted=deleted)


async def list_cohorts(session: ReadSession, page: Page, *, user_id: str) -> Sequence[Row[Any]]:
    statement = select(*COHORT).where(
        Cohort.tenant_id == session.tenant_id, Cohort.deleted_at.is_(None), visible("list", Cohort)
    )
    if user_id:
        theirs = select(CohortMember.cohort_id).where(
            CohortMember.tenant_id == session.tenant_id,
            CohortMember.user_id == UUID(user_id),
            CohortMember.leave_time.is_(None),
        )
        statement = statement.where(Cohort.id.in_(theirs))
    return (await session.execute(page.apply(statement, Cohort.id))).all()


async def list_members(session: ReadSession, page: Page, cohort_id: UUID, *, left: bool) -> Sequence[Row[Any]]:
    """A page of the members, with those who have left if they are asked for."""
    statement = select(*MEMBER).where(CohortMember.tenant_id == session.tenant_id, CohortMember.cohort_id == cohort_id)
    if not left:
        statement = statement.where(CohortMember.leave_time.is_(None))
    return (await session.execute(page.apply(statement, CohortMember.id))).all()


async def list_member_ids(session: ReadSession, cohort_id: UUID) -> list[UUID]:
    """All who are members, who joined first first."""
    statement = (
        select(CohortMember.user_id)
        .where(
            CohortMember.tenant_id == session.tenant_id,
            CohortMember.cohort_id == cohort_id,
            CohortMember.leave_time.is_(None),
        )
        .order_by(CohortMember.id)
    )
    return list((await session.execute(statement)).scalars())


async def count_members(session: ReadSession, cohort_id: UUID) -> int:
    statement = select(func.count()).where(
        CohortMember.tenant_id == session.tenant_id,
        CohortMember.cohort_id == cohort_id,
        CohortMember.leave_time.is_(None),
    )
    return int(await session.scalar(statement) or 0)


async def insert_members(session: WriteSession, cohort_id: UUID, user_ids: Collection[UUID]) -> list[UUID]:
    """Those of the users who were not members before."""
    return [row.user_id for row in await session.fetch(INSERT_MEMBERS, cohort_id, list(user_ids))]


async def end_members(session: WriteSession, cohort_id: UUID, user_ids: Collection[UUID]) -> list[UUID]:
    """Those of the users who were members."""
    statement = (
        update(CohortMember)
        .where(
            CohortMember.tenant_id == session.tenant_id,
            CohortMember.cohort_id == cohort_id,
            CohortMember.user_id.in_(user_ids),
            CohortMember.leave_time.is_(None),
        )
        .values(leave_time=now())
        .returning(CohortMember.user_id)
    )
    return list((await session.execute(statement)).scalars())
