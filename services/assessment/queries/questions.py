"""Statements on the bank of questions."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import ARRAY, Row, Select, Text, and_, cast, delete, func, select

from kit.access import visible
from kit.db import ReadSession, WriteSession
from kit.errors import existing
from kit.pagination import Page
from services.assessment import rules
from services.assessment.models import Attempt, Question, QuestionVersion, Quiz, QuizQuestion, Regrade
from services.assessment.queries.base import Rows

COLUMNS = [one for one in Question.__table__.columns if one.key not in ("tenant_id", "search_key")]
QUESTION: Select[Any] = select(*COLUMNS, QuestionVersion.body).join(
    QuestionVersion,
    and_(
        QuestionVersion.tenant_id == Question.tenant_id,
        QuestionVersion.question_id == Question.id,
        QuestionVersion.version == Question.version,
    ),
)
USE: tuple[Any, ...] = (Quiz.id, Quiz.title, Quiz.status, QuizQuestion.points)
MOST_WORDS = 12
# Up to so many candidates are looked at one by one. What finds more is so frequent that going through all questions,
# newest first, soon fills a page.
CANDIDATES = 1000
# The tenant is said twice, here and in the function, which row-level security does not hold for.
# An attempt names its questions in an array, which no foreign key can be of.
PURGES = "hashtextextended('assessment.purges.' || $1::uuid, 0)"
FIND = """
SELECT patterns, CASE WHEN $1::uuid = current_setting('app.tenant_id')::uuid
  THEN assessment.find_questions(patterns, $3, $4) END AS ids
FROM (SELECT ARRAY(SELECT '% ' || word || '%' FROM unnest(assessment.words_of($2)) word LIMIT $5) AS patterns) AS wanted
"""


async def get_question(session: WriteSession, question_id: str, *, deleted: bool = False) -> Question:
    """The question, locked; deleted ones are found only when asked for."""
    statement = select(Question).where(Question.tenant_id == session.tenant_id, Question.id == UUID(question_id))
    question: Question | None = await session.scalar(statement.with_for_update())
    return existing(question, "question", also_deleted=deleted)


async def get_body(session: ReadSession, question: Question) -> dict[str, Any]:
    """What the latest version of the question says."""
    return (await get_latest(session, question)).body  # type: ignore[no-any-return]


async def get_latest(session: ReadSession, question: Question) -> Row[Any]:
    """The `body` of the latest version of the question, and what it has `preserved`."""
    statement = select(QuestionVersion.body, QuestionVersion.preserved).where(
        QuestionVersion.tenant_id == session.tenant_id,
        QuestionVersion.question_id == question.id,
        QuestionVersion.version == question.version,
    )
    return (await session.execute(statement)).one()


async def get_question_row(session: ReadSession, question_id: str) -> Row[Any]:
    """The question's columns, and the `body` of its latest version."""
    statement = QUESTION.where(
        Question.tenant_id == session.tenant_id, Question.id == UUID(question_id), Question.deleted_at.is_(None)
    )
    return existing((await session.execute(statement)).one_or_none(), "question")


async def list_some(session: ReadSession, question_ids: Sequence[UUID]) -> Rows:
    """Those of the questions that are there and that the caller may read, in this order."""
    statement = QUESTION.where(
        Question.tenant_id == session.tenant_id,
        Question.id.in_(question_ids),
        Question.deleted_at.is_(None),
        visible("read", Question),
    )
    rows = {row.id: row for row in await session.execute(statement)}
    return [rows[one] for one in question_ids if one in rows]


async def list_questions(
    session: ReadSession, page: Page, *, kind: str, query: str, tags: Sequence[str], author_id: str
) -> tuple[Rows, str]:
    statement = QUESTION.where(
        Question.tenant_id == session.tenant_id, Question.deleted_at.is_(None), visible("list", Question)
    )
    if kind:
        statement = statement.where(Question.type == kind)
    if author_id:
        statement = statement.where(Question.author_id == UUID(author_id))
    if query or tags:
        statement = await _found(session, statement, query, tags)
    rows = (await session.execute(page.apply(statement, Question.id))).all()
    return page.split(rows, key=lambda row: (row.id,))


async def _found(session: ReadSession, statement: Select[Any], query: str, tags: Sequence[str]) -> Select[Any]:
    """Of the statement's questions, those with the words of the query and the tags."""
    row = await session.fetchrow(FIND, query, list(tags), CANDIDATES + 1, MOST_WORDS)
    if len(row.ids) <= CANDIDATES:
        return statement.where(Question.id.in_(row.ids))
    words = [Question.search_key.like(pattern) for pattern in row.patterns]
    return statement.where(Question.tags.bool_op("@>")(cast(list(tags), ARRAY(Text))), *words)


async def list_uses(session: ReadSession, page: Page, question_id: UUID) -> tuple[Rows, str]:
    """The quizzes that have the question, with its points there."""
    statement: Select[Any] = (
        select(*USE)
        .join(QuizQuestion, and_(QuizQuestion.tenant_id == Quiz.tenant_id, QuizQuestion.quiz_id == Quiz.id))
        .where(
            Quiz.tenant_id == session.tenant_id,
            QuizQuestion.question_id == question_id,
            Quiz.deleted_at.is_(None),
            visible("list", Quiz),
        )
    )
    rows = (await session.execute(page.apply(statement, Quiz.id))).all()
    return page.split(rows, key=lambda row: (row.id,))


async def is_in_use(session: ReadSession, question_id: UUID) -> bool:
    """Whether a quiz that is not archived has the question; a deleted quiz may come back, so it counts."""
    statement = (
        select(QuizQuestion.id)
        .join(Quiz, and_(Quiz.tenant_id == QuizQuestion.tenant_id, Quiz.id == QuizQuestion.quiz_id))
        .where(
            QuizQuestion.tenant_id == session.tenant_id,
            QuizQuestion.question_id == question_id,
            Quiz.status != rules.ARCHIVED,
        )
        .limit(1)
    )
    return await session.scalar(statement) is not None


async def keep_attempts_out(session: WriteSession) -> None:
    """Waits for those that are being started in the tenant, and lets others wait: what they ask is known afterwards."""
    await session.fetch(f"SELECT pg_advisory_xact_lock({PURGES})")


async def is_pinned(session: ReadSession, question_id: UUID) -> bool:
    """Whether a quiz, an attempt or a regrade has the question in any of its versions."""
    versions = select(func.array_agg(QuestionVersion.id)).where(
        QuestionVersion.tenant_id == session.tenant_id, QuestionVersion.question_id == question_id
    )
    pins = [
        select(model.id).where(model.tenant_id == session.tenant_id, model.question_id == question_id).limit(1)
        for model in (QuizQuestion, Regrade)
    ]
    attempts = select(Attempt.id).where(
        Attempt.tenant_id == session.tenant_id, Attempt.version_ids.bool_op("&&")(versions.scalar_subquery())
    )
    found = [await session.scalar(one) for one in (*pins, attempts.limit(1))]
    return any(found)


async def purge(session: WriteSession, question: Question) -> None:
    """Removes the versions of the question, and it."""
    await session.execute(
        delete(QuestionVersion).where(
            QuestionVersion.tenant_id == session.tenant_id, QuestionVersion.question_id == question.id
        )
    )
    await session.delete(question)
