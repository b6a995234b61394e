"""Statements on the versions of questions, where people read them."""

from typing import Any
from uuid import UUID

from sqlalchemy import Row, select

from kit.db import ReadSession
from kit.errors import existing
from kit.pagination import Page
from services.assessment.models import QuestionVersion
from services.assessment.queries.base import Rows

COLUMNS = (
    QuestionVersion.id,
    QuestionVersion.question_id,
    QuestionVersion.version,
    QuestionVersion.body,
    QuestionVersion.created_at,
)


async def get_version(session: ReadSession, question_id: UUID, version: int) -> Row[Any]:
    statement = select(*COLUMNS).where(
        QuestionVersion.tenant_id == session.tenant_id,
        QuestionVersion.question_id == question_id,
        QuestionVersion.version == version,
    )
    return existing((await session.execute(statement)).one_or_none(), "question_version")


async def list_versions(session: ReadSession, page: Page, question_id: UUID) -> tuple[Rows, str]:
    """The versions of the question, newest first."""
    statement = select(*COLUMNS).where(
        QuestionVersion.tenant_id == session.tenant_id, QuestionVersion.question_id == question_id
    )
    rows = (await session.execute(page.apply(statement, QuestionVersion.version))).all()
    return page.split(rows, key=lambda row: (row.version,))
