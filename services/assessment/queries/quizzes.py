"""Statements on quizzes, their items, and what an attempt could ask."""

from collections.abc import Collection, Iterable, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import Row, Select, and_, delete, func, insert, select

from kit.access import require_any, visible
from kit.db import ReadSession, WriteSession
from kit.errors import PermissionDenied, existing, reference_not_found
from kit.ids import new_id
from kit.pagination import Page
from services.assessment.bodies import tag_key
from services.assessment.composing import Composed, Pick, Slot
from services.assessment.models import Question, QuestionVersion, Quiz, QuizDraw, QuizQuestion
from services.assessment.queries.base import Rows, columns

QUIZ: Select[Any] = select(*columns(Quiz))
LATEST = and_(
    QuestionVersion.tenant_id == Question.tenant_id,
    QuestionVersion.question_id == Question.id,
    QuestionVersion.version == Question.version,
)
# What a draw may take from the bank, in the order of `composing.shuffled`: no more of it than all draws together need.
# The bank may have tens of thousands of questions, and is put in order once for all draws.
CANDIDATES = """
WITH bank AS MATERIALIZED (
  SELECT q.id, q.version, q.type, q.tags, sha256(uuid_send($3) || convert_to(q.id::text, 'UTF8')) AS place
  FROM assessment.questions q
  WHERE q.tenant_id = $1 AND q.deleted_at IS NULL
    AND q.id NOT IN (SELECT o.question_id FROM assessment.quiz_questions o WHERE o.tenant_id = $1 AND o.quiz_id = $2)
)
SELECT draw.position, found.id AS question_id, v.id AS version_id, found.version, v.exercise_id
FROM assessment.quiz_draws draw
CROSS JOIN LATERAL (
  SELECT q.id, q.version FROM bank q
  WHERE (draw.type IS NULL OR q.type = draw.type)
    AND q.tags @> ARRAY(SELECT wanted.tag FROM unnest($4::int[], $5::text[]) AS wanted (position, tag)
                        WHERE wanted.position = draw.position)
  ORDER BY q.place
  LIMIT (SELECT sum(d.draw_count) FROM assessment.quiz_draws d
         WHERE d.tenant_id = $1 AND d.quiz_id = $2 AND NOT d.listed)
) found
JOIN assessment.question_versions v
  ON v.tenant_id = $1 AND v.question_id = found.id AND v.version = found.version
WHERE draw.tenant_id = $1 AND draw.quiz_id = $2 AND NOT draw.listed
"""


async def get_quiz(session: WriteSession, quiz_id: str, *, deleted: bool = False) -> Quiz:
    """The quiz, locked; deleted ones are found only when asked for."""
    statement = select(Quiz).where(Quiz.tenant_id == session.tenant_id, Quiz.id == UUID(quiz_id))
    quiz: Quiz | None = await session.scalar(statement.with_for_update())
    return existing(quiz, "quiz", also_deleted=deleted)


async def get_quiz_row(session: ReadSession, quiz_id: str) -> Row[Any]:
    statement = QUIZ.where(Quiz.tenant_id == session.tenant_id, Quiz.id == UUID(quiz_id), Quiz.deleted_at.is_(None))
    return existing((await session.execute(statement)).one_or_none(), "quiz")


async def list_quizzes(session: ReadSession, page: Page, *, lesson_id: str, status: str) -> tuple[Rows, str]:
    statement = QUIZ.where(Quiz.tenant_id == session.tenant_id, Quiz.deleted_at.is_(None), visible("list", Quiz))
    if lesson_id:
        statement = statement.where(Quiz.lesson_id == UUID(lesson_id))
    if status:
        statement = statement.where(Quiz.status == status)
    rows = (await session.execute(page.apply(statement, Quiz.id))).all()
    return page.split(rows, key=lambda row: (row.id,))


async def list_quiz_items(session: ReadSession, quiz_id: UUID) -> list[Composed]:
    """The items of the quiz in order, whoever may see them."""
    of_quiz = (QuizDraw.tenant_id == session.tenant_id, QuizDraw.quiz_id == quiz_id)
    draws = (await session.execute(select(*columns(QuizDraw)).where(*of_quiz))).all()
    asked = (
        select(QuizQuestion.question_id, QuizQuestion.points, QuizQuestion.position, QuizQuestion.draw_id)
        .where(QuizQuestion.tenant_id == session.tenant_id, QuizQuestion.quiz_id == quiz_id)
        .order_by(QuizQuestion.position)
    )
    listed: dict[UUID, list[UUID]] = {draw.id: [] for draw in draws}
    found: dict[int, Composed] = {}
    for row in await session.execute(asked):
        if row.draw_id:
            listed[row.draw_id].append(row.question_id)
        else:
            found[row.position] = Composed(row.points, question_ids=(row.question_id,))
    for draw in draws:
        found[draw.position] = Composed(
            draw.points, tuple(listed[draw.id]), draw.draw_count, tuple(draw.tags), draw.type or "", drawn=True
        )
    return [found[position] for position in sorted(found)]


def may_read_some() -> bool:
    """Whether there may be any question at all that the caller may read."""
    try:
        require_any("read", Question)
    except PermissionDenied:
        return False
    return True


async def list_readable(session: ReadSession, question_ids: Collection[UUID]) -> set[UUID]:
    """Those of the questions that the caller may read."""
    if not question_ids or not may_read_some():
        return set()
    statement = select(Question.id).where(
        Question.tenant_id == session.tenant_id, Question.id.in_(question_ids), visible("read", Question)
    )
    return set((await session.execute(statement)).scalars())


async def check_questions(session: WriteSession, items: Iterable[Composed]) -> None:
    """Refuses unless all questions exist and the caller may read them. They stay until the transaction ends."""
    question_ids = [one for item in items for one in item.question_ids]
    statement = select(Question.id).where(
        Question.tenant_id == session.tenant_id,
        Question.id.in_(question_ids),
        Question.deleted_at.is_(None),
        visible("read", Question),
    )
    found = set((await session.execute(statement.with_for_update(read=True))).scalars())
    for one in question_ids:
        if one not in found:
            raise reference_not_found(f"There is no question {one}.", field="quiz.items", id=str(one))


async def replace_quiz_items(session: WriteSession, quiz_id: UUID, items: Sequence[Composed]) -> None:
    for model in (QuizQuestion, QuizDraw):
        await session.execute(delete(model).where(model.tenant_id == session.tenant_id, model.quiz_id == quiz_id))
    draws, questions, position = [], [], 0
    for item in items:
        row = {"tenant_id": session.tenant_id, "quiz_id": quiz_id, "points": item.points}
        draw_id = new_id() if item.drawn else None
        if item.drawn:
            position += 1
            told = {"tags": list(item.tags), "type": item.type or None, "listed": bool(item.question_ids)}
            draws.append({**row, **told, "id": draw_id, "position": position, "draw_count": item.count})
        for question_id in item.question_ids:
            position += 1
            questions.append({**row, "question_id": question_id, "position": position, "draw_id": draw_id})
    for model, rows in ((QuizDraw, draws), (QuizQuestion, questions)):
        if rows:
            await session.execute(insert(model).values(rows))


async def list_slots(session: ReadSession, quiz_id: UUID, seed: UUID) -> list[Slot]:
    """What an attempt of this id could ask, by place, in the latest versions of the questions."""
    statement = (
        select(
            QuizQuestion.question_id,
            QuestionVersion.id.label("version_id"),
            Question.version,
            QuestionVersion.exercise_id,
            QuizQuestion.points,
            func.coalesce(QuizDraw.position, QuizQuestion.position).label("position"),
            func.coalesce(QuizDraw.draw_count, 1).label("asked"),
        )
        .select_from(QuizQuestion)
        .join(Question, and_(Question.tenant_id == QuizQuestion.tenant_id, Question.id == QuizQuestion.question_id))
        .join(QuestionVersion, LATEST)
        .outerjoin(QuizDraw, and_(QuizDraw.tenant_id == QuizQuestion.tenant_id, QuizDraw.id == QuizQuestion.draw_id))
        .where(QuizQuestion.tenant_id == session.tenant_id, QuizQuestion.quiz_id == quiz_id)
    )
    slots: dict[int, Slot] = {}
    for row in await session.execute(statement):
        slot = slots.setdefault(row.position, Slot(row.asked, []))
        slot.picks.append(Pick(row.question_id, row.version_id, row.version, row.points, row.exercise_id))
    await _add_draws(session, quiz_id, seed, slots)
    return [slots[position] for position in sorted(slots)]


async def _add_draws(session: ReadSession, quiz_id: UUID, seed: UUID, slots: dict[int, Slot]) -> None:
    """The places for which attempts draw from the bank."""
    statement = select(QuizDraw.position, QuizDraw.draw_count, QuizDraw.points, QuizDraw.tags).where(
        QuizDraw.tenant_id == session.tenant_id, QuizDraw.quiz_id == quiz_id, QuizDraw.listed.is_(False)
    )
    draws = {row.position: row for row in await session.execute(statement)}
    if not draws:
        return
    slots |= {position: Slot(draw.draw_count, []) for position, draw in draws.items()}
    # Tags are kept as they were written, and looked for as those of questions are kept.
    tags = [(position, tag_key(tag)) for position, draw in draws.items() for tag in draw.tags]
    positions, keys = [position for position, _ in tags], [key for _, key in tags]
    for row in await session.fetch(CANDIDATES, quiz_id, seed, positions, keys):
        points = draws[row.position].points
        pick = Pick(row.question_id, row.version_id, row.version, points, row.exercise_id)
        slots[row.position].picks.append(pick)
