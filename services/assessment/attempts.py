"""Attempts: learners take quizzes by the server's clock and are graded on the versions they started with."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, cast
from uuid import UUID

from kit import audit
from kit.access import denied, may, require
from kit.audit import Action
from kit.auth import current
from kit.db import Database, WriteSession
from kit.models import check_etag, now
from kit.pagination import Page
from services.assessment import rules
from services.assessment.bodies import MULTIPLE_CHOICE, feedback
from services.assessment.queries import attempts as queries
from services.assessment.questions import type_to_proto
from services.assessment.rules import EXPIRED, OPEN, Item, Taking
from storyloom.assessment.v1 import attempts_pb2
from storyloom.assessment.v1.attempts_pb2 import (
    Attempt,
    AttemptChoice,
    AttemptQuestion,
    AttemptResult,
    AttemptState,
    Award,
    CreateAttemptRequest,
    GetAttemptRequest,
    ItemResult,
    ListAttemptsRequest,
    ListAttemptsResponse,
    Response,
    SaveResponsesRequest,
    SubmitAttemptRequest,
)


class AttemptService:
    SERVICE = attempts_pb2.DESCRIPTOR.services_by_name["AttemptService"]

    def __init__(self, db: Database) -> None:
        self.db = db

    async def CreateAttempt(self, request: CreateAttemptRequest, context: Any) -> Attempt:
        at, user_id = now(), current().subject
        async with self.db.write() as session:
            quiz = await queries.get_quiz_to_take(session, request.quiz_id, user_id)
            if quiz.open_id:
                open_one = await queries.get_attempt(session, quiz.open_id)
                if open_one.state_at(at) == OPEN:
                    return attempt_to_proto(open_one, at)
                await _close(session, open_one, {}, at)
            require("read", quiz, resource="quiz")
            rules.check_start(quiz, at)
            attempt = rules.start(quiz, await queries.list_latest_items(session, quiz.id), user_id, at)
            require("create", attempt, resource="attempt")
            await queries.insert_attempt(session, attempt)
            _record(session, Action.CREATE, attempt, new=_facts(attempt))
        return attempt_to_proto(attempt, at)

    async def GetAttempt(self, request: GetAttemptRequest, context: Any) -> Attempt:
        at, attempt_id = now(), UUID(request.id)
        async with self.db.read() as session:
            attempt = await queries.get_attempt(session, attempt_id)
            require("read", attempt, resource="attempt")
        if attempt.state_at(at) != attempt.state:
            async with self.db.write() as session:
                attempt = await queries.get_attempt(session, attempt_id)
                if attempt.state == OPEN:
                    await _close(session, attempt, {}, at)
        return attempt_to_proto(attempt, at)

    async def ListAttempts(self, request: ListAttemptsRequest, context: Any) -> ListAttemptsResponse:
        page, at = Page.of(request), now()
        state = AttemptState.Name(request.state).removeprefix("ATTEMPT_STATE_").lower() if request.state else ""
        async with self.db.read() as session:
            rows, token = await queries.list_attempts(
                session, page, quiz_id=request.quiz_id, user_id=request.user_id, state=state, at=at
            )
        return ListAttemptsResponse(attempts=[_row_to_proto(row, at) for row in rows], next_page_token=token)

    async def SaveResponses(self, request: SaveResponsesRequest, context: Any) -> Attempt:
        at = now()
        async with self.db.write() as session:
            attempt = await _get_own(session, "update", request.id)
            if attempt.state_at(at) == EXPIRED:
                raise rules.not_allowed("The deadline of the attempt has passed.")
            if attempt.state != OPEN:
                raise rules.wrong_state("The attempt is over.", attempt.state)
            check_etag(cast(Any, attempt), request.etag)
            answers = rules.answered(attempt.items, request.responses)
            attempt.answer(answers)
            attempt.updated_at = at
            await queries.save_attempt(session, attempt, answers)
            _record(session, Action.UPDATE, attempt, new=_answers(attempt, answers))
        return attempt_to_proto(attempt, at)

    async def SubmitAttempt(self, request: SubmitAttemptRequest, context: Any) -> Attempt:
        at = now()
        async with self.db.write() as session:
            attempt = await _get_own(session, "submit", request.id)
            late = attempt.state_at(at) == EXPIRED
            if attempt.state == OPEN:
                answers = {} if late else rules.answered(attempt.items, request.responses)
                check_etag(cast(Any, attempt), "" if late else request.etag)
                await _close(session, attempt, answers, at)
        # The grade of what was saved in time is committed by now, so that it stands whatever this answer says.
        if late and request.responses:
            raise rules.not_allowed("The deadline has passed; the attempt is graded on the responses saved in time.")
        return attempt_to_proto(attempt, at)


async def _get_own(session: WriteSession, action: str, attempt_id: str) -> Taking:
    """The attempt, for a change: whatever roles may do, only who started it answers."""
    attempt = await queries.get_attempt(session, UUID(attempt_id))
    require(action, attempt, resource="attempt")
    if attempt.user_id != current().subject:
        raise denied("attempt", action)
    return attempt


async def _close(session: WriteSession, attempt: Taking, answers: Mapping[UUID, list[str]], at: datetime) -> None:
    """Ends and grades the attempt, with these answers besides those saved."""
    attempt.answer(answers)
    attempt.close(at)
    attempt.updated_at = at
    await queries.save_attempt(session, attempt, answers)
    action = "expire" if attempt.state == EXPIRED else "submit"
    _record(session, action, attempt, old={"state": OPEN}, new=_facts(attempt) | _answers(attempt, answers))


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


def attempt_to_proto(attempt: Taking, at: datetime) -> Attempt:
    """With questions, responses and, once it is over, the result: correct answers are in nothing else, and there only
    for those who cannot use them any more or may read questions."""
    message = _facts_to_proto(attempt, attempt.state)
    message.questions.extend(_question_to_proto(attempt, item) for item in attempt.items)
    message.responses.extend(_response_to_proto(item) for item in attempt.items if item.answer is not None)
    if attempt.result:
        message.result.CopyFrom(_result_to_proto(attempt.result))
        told = not attempt.may_be_repeated(at) or may("read", attempt, resource="question")
        pairs = zip(attempt.items, attempt.result.detail, strict=True)
        message.result.items.extend(_item_to_proto(*pair, told=told) for pair in pairs)
    return message


def _row_to_proto(row: Any, at: datetime) -> Attempt:
    """Of a row of a list, whose result may be missing."""
    overdue = row.state == OPEN and row.deadline_time is not None and row.deadline_time <= at
    message = _facts_to_proto(row, EXPIRED if overdue else row.state)
    if row.score is not None:
        message.result.CopyFrom(_result_to_proto(row))
    return message


def _facts_to_proto(attempt: Any, state: str) -> Attempt:
    message = Attempt(
        id=str(attempt.id),
        quiz_id=str(attempt.quiz_id),
        lesson_id=str(attempt.lesson_id or ""),
        user_id=str(attempt.user_id),
        number=attempt.number,
        state=f"ATTEMPT_STATE_{state.upper()}",
        etag=str(attempt.revision),
    )
    message.create_time.FromDatetime(attempt.created_at)
    message.update_time.FromDatetime(attempt.updated_at)
    if attempt.deadline_time:
        message.deadline_time.FromDatetime(attempt.deadline_time)
    if attempt.submit_time:
        message.submit_time.FromDatetime(attempt.submit_time)
        message.time_spent.FromTimedelta(attempt.submit_time - attempt.created_at)
    return message


def _question_to_proto(attempt: Taking, item: Item) -> AttemptQuestion:
    choices: Sequence[Any] = item.body["choices"]
    if attempt.shuffled:
        choices = rules.shuffled(attempt.id, choices, key=lambda choice: str(choice["id"]))
    return AttemptQuestion(
        question_id=str(item.question_id),
        version=item.version,
        type=type_to_proto(item.body["type"]),
        prompt=item.body["prompt"],
        choices=[AttemptChoice(id=choice["id"], text=choice["text"]) for choice in choices],
        multiple=item.body["multiple"],
        blank_count=len(item.body["blanks"]),
    )


def _response_to_proto(item: Item) -> Response:
    field = "choice_ids" if item.body["type"] == MULTIPLE_CHOICE else "blanks"
    return Response(question_id=str(item.question_id), **{field: item.answer})


def _result_to_proto(result: Any) -> AttemptResult:
    return AttemptResult(
        score=rules.plain(result.score),
        max_score=rules.plain(result.max_score),
        percent=rules.plain(result.percent),
        passed=result.passed,
    )


def _item_to_proto(item: Item, entry: Mapping[str, Any], *, told: bool) -> ItemResult:
    """`told` is whether the result may say what would have been right."""
    return ItemResult(
        question_id=str(item.question_id),
        score=entry["score"],
        max_score=entry["max_score"],
        correct=entry["correct"],
        feedback=feedback(item.body, item.answer, explained=told),
        awards=[_award_to_proto(item, *award) for award in entry["awards"] if told or award[1] != rules.MISSED],
    )


def _award_to_proto(item: Item, subject: str, reason: str, points: str) -> Award:
    award = Award(reason=f"AWARD_REASON_{reason.upper()}", points=points)
    if item.body["type"] != MULTIPLE_CHOICE:
        award.blank = int(subject)
    elif subject != str(item.question_id):
        award.choice_id = subject
    return award
