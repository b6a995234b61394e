"""Statements on extensions."""

from typing import Any
from uuid import UUID

from sqlalchemy import Row, Select, and_, select

from kit.access import visible
from kit.db import ReadSession, WriteSession
from kit.errors import existing
from kit.pagination import Page
from services.assessment.models import Extension, Quiz
from services.assessment.queries.base import Rows, columns

# Those of deleted quizzes are hidden with them.
EXTENSION: Select[Any] = select(*columns(Extension)).join(
    Quiz, and_(Quiz.tenant_id == Extension.tenant_id, Quiz.id == Extension.quiz_id, Quiz.deleted_at.is_(None))
)


async def get_extension(session: ReadSession, extension_id: UUID) -> Row[Any]:
    statement = EXTENSION.where(Extension.tenant_id == session.tenant_id, Extension.id == extension_id)
    return existing((await session.execute(statement)).one_or_none(), "extension")


async def get_extension_to_change(session: WriteSession, extension_id: UUID) -> tuple[Extension, Quiz]:
    """The extension, locked, and its quiz."""
    statement = (
        select(Extension, Quiz)
        .join(Quiz, and_(Quiz.tenant_id == session.tenant_id, Quiz.id == Extension.quiz_id, Quiz.deleted_at.is_(None)))
        .where(Extension.tenant_id == session.tenant_id, Extension.id == extension_id)
        .with_for_update(of=Extension)
    )
    found: Any = existing((await session.execute(statement)).one_or_none(), "extension")
    return found[0], found[1]


async def find_quiz(session: ReadSession, quiz_id: UUID) -> Row[Any] | None:
    statement = select(*columns(Quiz)).where(
        Quiz.tenant_id == session.tenant_id, Quiz.id == quiz_id, Quiz.deleted_at.is_(None)
    )
    return (await session.execute(statement)).one_or_none()


async def list_extensions(session: ReadSession, page: Page, *, quiz_id: str, user_id: str) -> tuple[Rows, str]:
    statement = EXTENSION.where(Extension.tenant_id == session.tenant_id, visible("list", Extension))
    if quiz_id:
        statement = statement.where(Extension.quiz_id == UUID(quiz_id))
    if user_id:
        statement = statement.where(Extension.user_id == UUID(user_id))
    rows = (await session.execute(page.apply(statement, Extension.id))).all()
    return page.split(rows, key=lambda row: (row.id,))
