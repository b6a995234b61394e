"""Statements on results and responses as an analysis looks at them: many attempts at once."""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import Select, Text, and_, cast, func, select
from sqlalchemy.dialects.postgresql import JSONPATH

from kit.access import visible
from kit.db import ReadSession, WriteSession
from services.assessment.models import Attempt, QuizQuestion, QuizResult
from services.assessment.queries.base import Rows

# Ids of attempts as an array; of each, whether it is among the upper (1), the lower (-1) or others.
ASKED = """
FROM unnest($2::uuid[], $3::int[]) AS asked (id, part)
JOIN assessment.responses r ON r.tenant_id = $1 AND r.attempt_id = asked.id
"""
PICKED = f"""
SELECT r.version_id, picked.choice, count(*) AS picked,
       count(*) FILTER (WHERE asked.part = 1) AS upper, count(*) FILTER (WHERE asked.part = -1) AS lower
{ASKED} CROSS JOIN LATERAL jsonb_array_elements_text(r.answer) AS picked (choice)
WHERE r.version_id = ANY($4::uuid[]) GROUP BY 1, 2
"""
ANSWERED = f"""
SELECT r.version_id, count(*) AS answered {ASKED}
WHERE jsonb_path_exists(r.answer, '$[*] ? (@ != "")') GROUP BY 1
"""
NOTE = """
UPDATE assessment.questions q SET facility = found.facility, facility_time = now()
FROM unnest($2::uuid[], $3::numeric[]) AS found (id, facility)
WHERE q.tenant_id = $1 AND q.id = found.id
"""


def _figures(name: str) -> Any:
    """These figures of all items of a result, as JSON text."""
    return cast(func.jsonb_path_query_array(QuizResult.detail, cast(f"$[*].{name}", JSONPATH)), Text)


async def list_results(session: ReadSession, quiz_id: UUID, *, first: bool, after: UUID, limit: int) -> Rows:
    """Attempts that are over: what they keep and earned, and whether the caller may list them as `shown`."""
    statement: Select[Any] = (
        select(
            Attempt.id,
            Attempt.user_id,
            cast(Attempt.version_ids, Text).label("version_ids"),
            _figures("score").label("scores"),
            _figures("max_score").label("maxima"),
            visible("list", Attempt).label("shown"),
        )
        .join(QuizResult, and_(QuizResult.tenant_id == Attempt.tenant_id, QuizResult.attempt_id == Attempt.id))
        .where(Attempt.tenant_id == session.tenant_id, Attempt.quiz_id == quiz_id, Attempt.id > after)
        .order_by(Attempt.id)
        .limit(limit)
    )
    if first:
        # Nobody begins a second attempt before the first is over.
        statement = statement.where(Attempt.number == 1)
    return (await session.execute(statement)).all()


async def list_positions(session: ReadSession, quiz_id: UUID) -> Mapping[str, int]:
    """The places that questions have in the quiz, by their ids."""
    statement = select(QuizQuestion.question_id, QuizQuestion.position).where(
        QuizQuestion.tenant_id == session.tenant_id, QuizQuestion.quiz_id == quiz_id
    )
    return {str(row.question_id): row.position for row in await session.execute(statement)}


async def list_picked(
    session: ReadSession, attempt_ids: Sequence[UUID], parts: Sequence[int], version_ids: Sequence[UUID]
) -> list[Any]:
    """How many of the attempts picked each choice of these versions."""
    return await session.fetch(PICKED, attempt_ids, parts, version_ids)


async def list_answered(session: ReadSession, attempt_ids: Sequence[UUID], parts: Sequence[int]) -> list[Any]:
    """How many of the attempts answered each version."""
    return await session.fetch(ANSWERED, attempt_ids, parts)


async def note_facilities(session: WriteSession, facilities: Mapping[UUID, Decimal | None]) -> None:
    """What an analysis found of questions. It follows from results: no change that anybody made, and no new etag."""
    await session.fetch(NOTE, list(facilities), list(facilities.values()))
