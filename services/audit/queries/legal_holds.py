"""Statements on legal holds."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import Row, Select, select

from kit.access import visible
from kit.db import ReadSession, WriteSession
from kit.errors import existing
from kit.pagination import Page
from services.audit.models import LegalHold

HOLD: Select[Any] = select(*(column for column in LegalHold.__table__.columns if column.key != "tenant_id"))

DESTROY_CONDEMNED = """
UPDATE audit.subject_keys SET wrapped_key = NULL, destroyed_at = now()
WHERE tenant_id = $1 AND condemned_at IS NOT NULL AND destroyed_at IS NULL
  AND NOT EXISTS (SELECT FROM audit.legal_holds h WHERE h.tenant_id = $1 AND h.release_time IS NULL)
"""


async def find_legal_hold(session: ReadSession) -> Row[Any] | None:
    """The oldest hold that is active in the tenant: one is enough to keep what the log says of people readable.

    Its time range does not matter here: a subject has one key for all that was ever said of them.
    """
    statement = HOLD.where(LegalHold.tenant_id == session.tenant_id, LegalHold.release_time.is_(None))
    return (await session.execute(statement.order_by(LegalHold.id).limit(1))).one_or_none()


async def get_legal_hold(session: WriteSession, hold_id: str) -> LegalHold:
    """The hold, locked: it is released once."""
    statement = select(LegalHold).where(LegalHold.tenant_id == session.tenant_id, LegalHold.id == UUID(hold_id))
    hold: LegalHold | None = await session.scalar(statement.with_for_update())
    return existing(hold, "legal_hold")


async def get_legal_hold_row(session: ReadSession, hold_id: str) -> Row[Any]:
    statement = HOLD.where(LegalHold.tenant_id == session.tenant_id, LegalHold.id == UUID(hold_id))
    return existing((await session.execute(statement)).one_or_none(), "legal_hold")


async def list_legal_holds(session: ReadSession, page: Page, *, active_only: bool) -> tuple[Sequence[Row[Any]], str]:
    statement = HOLD.where(LegalHold.tenant_id == session.tenant_id, visible("list", LegalHold))
    if active_only:
        statement = statement.where(LegalHold.release_time.is_(None))
    rows = (await session.execute(page.apply(statement, LegalHold.id))).all()
    return page.split(rows, key=lambda row: (row.id,))


async def destroy_condemned_keys(session: WriteSession) -> None:
    """Ends the keys of those who were erased while a hold was active; none while one still is."""
    await session.fetch(DESTROY_CONDEMNED)
