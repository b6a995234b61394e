"""Attempts: learners take quizzes by the server's clock and are graded on the versions they started with."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, cast
from uuid import UUID

from kit import audit, outbox
from kit.access import denied, require
from kit.audit import Action
from kit.auth import current
from kit.db import Database, ReadSession, WriteSession
from kit.enums import stored_name
from kit.errors import wrong_state
from kit.ids import new_id
from kit.models import check_etag, now
from kit.pagination import Page
from services.assessment import rules
from services.assessment.composing import asked
from services.assessment.papers import answered_to_proto, attempt_to_proto, row_to_proto
from services.assessment.queries import attempts as queries
from services.assessment.queries.quizzes import list_readable, list_slots
from services.assessment.rules import EXPIRED, OPEN, Taking
from storyloom.assessment.v1 import attempts_pb2
from storyloom.assessment.v1.attempts_pb2 import (
    Attempt,
    AttemptState,
    CreateAttemptRequest,
    GetAttemptRequest,
    ListAttemptsRequest,
    ListAttemptsResponse,
    SaveResponsesRequest,
    SubmitAttemptRequest,
)
from storyloom.assessment.v1.events_pb2 import AttemptGraded


class AttemptService:
    SERVICE = attempts_pb2.DESCRIPTOR.services_by_name["AttemptService"]

    def __init__(self, db: Database) -> None:
        self.db = db

    async def CreateAttempt(self, request: CreateAttemptRequest, context: Any) -> Attempt:
        at, user_id, quiz_id = now(), current().subject, UUID(request.quiz_id)
        async with self.db.write() as session:
            await queries.take_turn(session, quiz_id, user_id)
            quiz = await queries.get_quiz_to_take(session, quiz_id, user_id)
            if quiz.open_id:
                open_one = await queries.get_attempt(session, quiz.open_id)
                if open_one.state_at(at) == OPEN:
                    return attempt_to_proto(open_one, at)
                # Whoever looked at it may have closed it since the quiz was read.
                if open_one.state == OPEN:
                    await close(session, open_one, {}, at)
            require("read", quiz, resource="quiz")
            rules.check_start(quiz, at)
            attempt = await _begin(session, quiz, user_id, at)
            require("create", attempt, resource="attempt")
            await queries.insert_attempt(session, attempt)
            _record(session, Action.CREATE, attempt, new=_facts(attempt))
        return attempt_to_proto(attempt, at)

    async def GetAttempt(self, request: GetAttemptRequest, context: Any) -> Attempt:
        at, attempt_id = now(), UUID(request.id)
        async with self.db.read() as session:
            attempt = await queries.get_attempt(session, attempt_id)
            require("read", attempt, resource="attempt")
            readable = await _readable(session, attempt, at)
        if attempt.state_at(at) != attempt.state:
            async with self.db.write() as session:
                attempt = await queries.get_attempt(session, attempt_id)
                if attempt.state == OPEN:
                    await close(session, attempt, {}, at)
        return attempt_to_proto(attempt, at, readable)

    async def ListAttempts(self, request: ListAttemptsRequest, context: Any) -> ListAttemptsResponse:
        page, at = Page.of(request), now()
        state = stored_name(AttemptState, request.state)
        async with self.db.read() as session:
            rows, token = await queries.list_attempts(
                session, page, quiz_id=request.quiz_id, user_id=request.user_id, state=state, at=at
            )
        return ListAttemptsResponse(attempts=[row_to_proto(row, at) for row in rows], next_page_token=token)

    async def SaveResponses(self, request: SaveResponsesRequest, context: Any) -> Attempt:
        at = now()
        async with self.db.write() as session:
            attempt = await _get_own(session, "update", request.id)
            if attempt.state_at(at) == EXPIRED:
                raise rules.not_allowed("The deadline of the attempt has passed.")
            if attempt.state != OPEN:
                raise wrong_state("The attempt is over.", attempt.state)
            check_etag(cast(Any, attempt), request.etag)
            answers = rules.answered(attempt.items, request.responses)
            attempt.answer(answers)
            attempt.updated_at = at
            await queries.save_attempt(session, attempt, answers)
            _record(session, Action.UPDATE, attempt, new=_answers(attempt, answers))
        return answered_to_proto(attempt, at)

    async def SubmitAttempt(self, request: SubmitAttemptRequest, context: Any) -> Attempt:
        at = now()
        async with self.db.write() as session:
            attempt = await _get_own(session, "submit", request.id)
            late = attempt.state_at(at) == EXPIRED
            if attempt.state == OPEN:
                answers = {} if late else rules.answered(attempt.items, request.responses)
                check_etag(cast(Any, attempt), "" if late else request.etag)
                await close(session, attempt, answers, at)
            readable = await _readable(session, attempt, at)
        # The grade of what was saved in time is committed by now, so that it stands whatever this answer says.
        if late and request.responses:
            raise rules.not_allowed("The deadline has passed; the attempt is graded on the responses saved in time.")
        return answered_to_proto(attempt, at, readable)


async def _get_own(session: WriteSession, action: str, attempt_id: str) -> Taking:
    """The attempt, for a change: whatever roles may do, only who started it answers."""
    attempt = await queries.get_attempt(session, UUID(attempt_id))
    require(action, attempt, resource="attempt")
    if attempt.user_id != current().subject:
        raise denied("attempt", action)
    return attempt


async def _readable(session: ReadSession, attempt: Taking, at: datetime) -> set[UUID]:
    """The questions of an attempt that is over which the caller may read, and so see the right answers of."""
    ids = [item.question_id for item in attempt.items]
    return set() if attempt.state_at(at) == OPEN else await list_readable(session, ids)


async def _begin(session: WriteSession, quiz: Any, user_id: UUID, at: datetime) -> Taking:
    """The user's next attempt, whose id decides what it asks."""
    attempt_id = new_id()
    picks = asked(attempt_id, await list_slots(session, quiz.id, attempt_id), shuffle=quiz.shuffle)
    return rules.start(attempt_id, quiz, await queries.list_items(session, picks), user_id, at)


async def close(session: WriteSession, attempt: Taking, answers: Mapping[UUID, list[str]], at: datetime) -> None:
    """Ends and grades the attempt, with these answers besides those saved, and tells of it."""
    attempt.answer(answers)
    with session.telemetry.timed("grade"):
        attempt.close(at)
    attempt.updated_at = at
    await queries.save_attempt(session, attempt, answers)
    action = "expire" if attempt.state == EXPIRED else "submit"
    _record(session, action, attempt, old={"state": OPEN}, new=_facts(attempt) | _answers(attempt, answers))
    outbox.publish(session, "attempt", attempt.id, graded_event(attempt, at))


def graded_event(attempt: Taking, at: datetime) -> AttemptGraded:
    """Tells of the result that the attempt was given."""
    result = attempt.result
    assert result is not None  # noqa: S101  # told of graded ones only
    event = AttemptGraded(
        attempt_id=str(attempt.id),
        quiz_id=str(attempt.quiz_id),
        lesson_id=str(attempt.lesson_id or ""),
        user_id=str(attempt.user_id),
        number=attempt.number,
        score=rules.plain(result.score),
        max_score=rules.plain(result.max_score),
        percent=rules.plain(result.percent),
        passed=result.passed,
        score_hidden=rules.hides_score(attempt.review_policy),
    )
    event.grade_time.FromDatetime(at)
    return event


def _record(
    session: WriteSession, action: str, attempt: Taking, *, new: dict[str, Any], old: dict[str, Any] | None = None
) -> None:
    audit.write(
        session, action, "attempt", attempt.id, old=old, new=new, sensitive={"responses"}, subject_id=attempt.user_id
    )


def _answers(attempt: Taking, answers: Mapping[UUID, list[str]]) -> dict[str, Any]:
    """The answers that came with a call, by question; nothing without any."""
    found = {str(one.question_id): answers[one.version_id] for one in attempt.items if one.version_id in answers}
    return {"responses": found} if found else {}


def _facts(attempt: Taking) -> dict[str, Any]:
    """What the audit log says of an attempt, but for its answers."""
    facts = {name: getattr(attempt, name) for name in ("quiz_id", "user_id", "number", "state", "deadline_time")}
    if result := attempt.result:
        facts |= {"submit_time": attempt.submit_time, "passed": result.passed}
        facts |= {name: rules.plain(getattr(result, name)) for name in ("score", "max_score", "percent")}
    return {name: value for name, value in facts.items() if value is not None}
