"""Regrades: how a question of a quiz is graded instead, and what that does to results."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any
from uuid import UUID

from kit import audit, outbox
from kit.access import may, require
from kit.auth import current, renew
from kit.db import Database, ReadSession, WriteSession
from kit.enums import stored_name
from kit.errors import wrong_state
from kit.ids import NIL
from kit.limiter import Limiter
from kit.models import now
from kit.pagination import Page
from kit.turns import in_turn
from services.assessment import models
from services.assessment.queries import quizzes
from services.assessment.queries import regrades as queries
from services.assessment.queries.versions import REMEMBERED
from services.assessment.regrade_effects import Effect
from services.assessment.rules import Outcome, hides_score, plain
from storyloom.assessment.v1 import regrades_pb2
from storyloom.assessment.v1.events_pb2 import AttemptGraded
from storyloom.assessment.v1.regrades_pb2 import (
    CreateRegradeRequest,
    GetRegradeRequest,
    ListRegradeChangesRequest,
    ListRegradeChangesResponse,
    ListRegradesRequest,
    ListRegradesResponse,
    PreviewRegradeRequest,
    PreviewRegradeResponse,
    Regrade,
    RegradeChange,
    RegradeEffect,
    RegradeKind,
    Standing,
)

# A transaction each, of a fraction of a second.
ATTEMPTS_AT_ONCE = 200
# Grading takes a processor: one regrade at a time has it.
AT_ONCE, LONGEST_WAIT_SECONDS = 1, 10.0


class RegradeService:
    SERVICE = regrades_pb2.DESCRIPTOR.services_by_name["RegradeService"]

    def __init__(self, db: Database) -> None:
        self.db, self.turns = db, Limiter(AT_ONCE, LONGEST_WAIT_SECONDS)

    async def PreviewRegrade(self, request: PreviewRegradeRequest, context: Any) -> PreviewRegradeResponse:
        page = Page.of(request)
        after = page.after[0] if page.after else NIL
        changes: list[tuple[Any, Outcome]] = []
        async with in_turn(self.turns, current().tenant_id), self.db.read() as session:
            quiz = await quizzes.get_quiz_row(session, request.regrade.quiz_id)
            require("regrade", quiz, resource="quiz")
            effect = await _foreseen(session, quiz, request.regrade)
            async for one in _differences(session, quiz.id, effect):
                if one[0].id > after and len(changes) <= page.size and may("list", one[0], resource="attempt"):
                    changes.append(one)
        shown, token = page.split(changes, key=lambda one: (one[0].id,))
        return PreviewRegradeResponse(
            effect=RegradeEffect(**asdict(effect.tally)),
            changes=[_change_to_proto(row, row, outcome) for row, outcome in shown],
            next_page_token=token,
        )

    async def CreateRegrade(self, request: CreateRegradeRequest, context: Any) -> Regrade:
        async with in_turn(self.turns, current().tenant_id):
            async with self.db.write() as session:
                made = await _made(session, request.regrade)
            going = True
            while going:
                await renew()
                async with self.db.write() as session:
                    going = await _apply(session, made.quiz_id)
            async with self.db.read() as session:
                row = await queries.get_regrade(session, made.id)
        return regrade_to_proto(row)

    async def GetRegrade(self, request: GetRegradeRequest, context: Any) -> Regrade:
        async with self.db.read() as session:
            return regrade_to_proto(await _get(session, request.id))

    async def ListRegrades(self, request: ListRegradesRequest, context: Any) -> ListRegradesResponse:
        page = Page.of(request)
        async with self.db.read() as session:
            quiz = await quizzes.get_quiz_row(session, request.quiz_id)
            require("regrade", quiz, resource="quiz")
            rows, token = await queries.list_regrades(session, page, quiz.id)
        return ListRegradesResponse(regrades=[regrade_to_proto(row) for row in rows], next_page_token=token)

    async def ListRegradeChanges(
        self, request: ListRegradeChangesRequest, context: Any
    ) -> ListRegradeChangesResponse:
        page = Page.of(request)
        async with self.db.read() as session:
            regrade = await _get(session, request.regrade_id)
            rows, token = await queries.list_regrade_changes(session, page, regrade)
        return ListRegradeChangesResponse(changes=[_row_to_proto(row) for row in rows], next_page_token=token)


async def _get(session: ReadSession, regrade_id: str) -> Any:
    regrade = await queries.get_regrade(session, UUID(regrade_id))
    require("regrade", await quizzes.get_quiz_row(session, str(regrade.quiz_id)), resource="quiz")
    return regrade


async def _made(session: WriteSession, regrade: Regrade) -> models.Regrade:
    """The regrade, new unless it is in force already. From here on whoever grades an attempt knows it: the quiz is
    locked, and says how many regrades it has."""
    quiz = await quizzes.get_quiz(session, regrade.quiz_id)
    require("regrade", quiz)
    change = (await _foreseen(session, quiz, regrade)).change
    latest = await queries.find_latest(session, quiz.id, change.question_id)
    if latest and (latest.kind, latest.version) == (change.kind, change.version):
        return latest
    facts = {name: getattr(change, name) for name in ("question_id", "kind", "version", "number")}
    made = models.Regrade(quiz_id=quiz.id, key_version_id=change.key_id, author_id=current().subject, **facts)
    session.add(made)
    await queries.count_regrade(session, quiz.id, made.number)
    audit.write(session, "regrade", "quiz", quiz.id, new=facts)
    return made


async def _foreseen(session: ReadSession, quiz: Any, regrade: Regrade) -> Effect:
    """What the regrade would do as the next one of the quiz."""
    pinned = await queries.list_pinned(session, quiz.id, UUID(regrade.question_id))
    version = await queries.find_version(session, UUID(regrade.question_id), regrade.version)
    number, kind = quiz.regrade_count + 1, stored_name(RegradeKind, regrade.kind)
    change = await queries.change_to(session, number, kind, version)
    effect = Effect(change, await queries.list_changes(session, quiz.id, number), pinned)
    if effect.version_ids and len(effect.unfitting) == len(effect.version_ids):
        raise wrong_state("The key of this version fits none of the versions that attempts have.", "unfitting")
    return effect


async def _apply(session: WriteSession, quiz_id: UUID) -> bool:
    """Brings some more results up to date with the first regrade that is not through; False when all are."""
    regrade = await queries.find_applying(session, quiz_id)
    if regrade is None:
        return False
    changes = await queries.list_changes(session, quiz_id, regrade.number)
    change = next(one for one in changes if one.number == regrade.number)
    effect = Effect(change, changes, await queries.list_pinned(session, quiz_id, regrade.question_id))
    rows = await _batch(session, quiz_id, effect, regrade.last_attempt_id)
    changed, at = await asyncio.to_thread(effect.of, rows), now()
    await queries.replace_results(session, regrade, {row.id: outcome for row, outcome in changed}, at)
    for row, outcome in changed:
        _tell(session, regrade, row, outcome, at)
    last = rows[-1].id if rows else regrade.last_attempt_id
    queries.advance(regrade, effect.tally, last, through=len(rows) < ATTEMPTS_AT_ONCE)
    return True


async def _differences(session: ReadSession, quiz_id: UUID, effect: Effect) -> AsyncIterator[tuple[Any, Outcome]]:
    """All attempts whose results the regrade changes, with the new ones."""
    rows: Sequence[Any] = await _batch(session, quiz_id, effect, NIL)
    while rows:
        for one in await asyncio.to_thread(effect.of, rows):
            yield one
        rows = await _batch(session, quiz_id, effect, rows[-1].id)


async def _batch(session: ReadSession, quiz_id: UUID, effect: Effect, after: UUID) -> list[Any]:
    """The next attempts that the regrade is about; the effect knows their questions then."""
    number = effect.change.number
    rows = await queries.list_over(session, quiz_id, effect.version_ids, number, after, ATTEMPTS_AT_ONCE)
    effect.versions.update(await REMEMBERED.get(session, {one for row in rows for one in row.version_ids}))
    return rows


def _tell(session: WriteSession, regrade: models.Regrade, row: Any, outcome: Outcome, at: datetime) -> None:
    """Says in the log, and to other services, what became of an attempt's result."""
    old, new = _facts(row), _facts(outcome) | {"regrade_id": regrade.id}
    audit.write(session, "regrade", "attempt", row.id, old=old, new=new, subject_id=row.user_id)
    graded = AttemptGraded(
        attempt_id=str(row.id),
        quiz_id=str(row.quiz_id),
        lesson_id=str(row.lesson_id or ""),
        user_id=str(row.user_id),
        number=row.number,
        regraded=True,
        score_hidden=hides_score(json.loads(row.review_policy)),
        **_facts(outcome),
    )
    graded.grade_time.FromDatetime(at)
    outbox.publish(session, "attempt", row.id, graded)


def _facts(result: Any) -> dict[str, Any]:
    figures = {name: plain(getattr(result, name)) for name in ("score", "max_score", "percent")}
    return {**figures, "passed": result.passed}


def _change_to_proto(attempt: Any, before: Any, after: Any) -> RegradeChange:
    return RegradeChange(
        attempt_id=str(attempt.id),
        user_id=str(attempt.user_id),
        number=attempt.number,
        before=Standing(**_facts(before)),
        after=Standing(**_facts(after)),
    )


def _row_to_proto(row: Any) -> RegradeChange:
    """Of a row of `list_regrade_changes`."""
    change = _change_to_proto(row, row, row)
    change.after.CopyFrom(
        Standing(
            score=plain(row.new_score),
            max_score=plain(row.new_max_score),
            percent=plain(row.new_percent),
            passed=row.new_passed,
        )
    )
    return change


def regrade_to_proto(row: Any) -> Regrade:
    """Of a row of the table."""
    message = Regrade(
        id=str(row.id),
        quiz_id=str(row.quiz_id),
        question_id=str(row.question_id),
        kind=f"REGRADE_KIND_{row.kind.upper()}",
        version=row.version,
        number=row.number,
        state=f"REGRADE_STATE_{row.state.upper()}",
        effect=RegradeEffect(**{field.name: getattr(row, field.name) for field in RegradeEffect.DESCRIPTOR.fields}),
        author_id=str(row.author_id),
    )
    message.create_time.FromDatetime(row.created_at)
    return message
