"""An attempt as people see it: its questions in its order, what was answered and, as far as they may, what came of
it."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any, TypeVar, cast
from uuid import UUID

from kit.auth import current
from services.assessment import rules
from services.assessment.answering import ANSWERED_BY, feedback, right_answer
from services.assessment.bodies import FILL_BLANK, MATCHING, MULTIPLE_CHOICE, NUMERIC, ORDERING, SHORT_ANSWER
from services.assessment.composing import shuffled
from services.assessment.question_messages import type_to_proto
from services.assessment.rules import Item, Taking
from storyloom.assessment.v1.answers_pb2 import (
    AttemptPart,
    AttemptQuestion,
    AwardReason,
    BlankOptions,
    Match,
    Response,
)
from storyloom.assessment.v1.attempts_pb2 import Attempt, AttemptResult

REASONS: dict[str, Any] = {
    name.removeprefix("AWARD_REASON_").lower(): number for name, number in AwardReason.items()
}
# What others than the learner see of an attempt that they may read, whatever the review policy.
OF_OTHERS = frozenset({"score", "responses"})
# What whoever may read a question sees of its result.
OF_READERS = frozenset({"feedback", "correct_answers", "explanations"})
# Of these types learners see the parts as they are stored, unless the quiz shuffles.
IN_STORED_ORDER = frozenset({MULTIPLE_CHOICE, SHORT_ANSWER, NUMERIC})
Made = TypeVar("Made")
Key = tuple[UUID, UUID]
# Of the versions of a process's last attempts; a message takes less than the body it is made of.
MOST_MADE = 2000
_QUESTIONS: dict[Key, AttemptQuestion] = {}
_RIGHT: dict[Key, Response] = {}
PARTS = {MULTIPLE_CHOICE: "choice_id", MATCHING: "stem_id", ORDERING: "item_id"}


def attempt_to_proto(attempt: Taking, at: datetime, readable: Collection[UUID] = ()) -> Attempt:
    """With its questions, and all else of `answered_to_proto`."""
    message = answered_to_proto(attempt, at, readable)
    message.questions.extend(question_to_proto(attempt.id, item, shuffle=attempt.shuffled) for item in attempt.items)
    return message


def answered_to_proto(attempt: Taking, at: datetime, readable: Collection[UUID] = ()) -> Attempt:
    """With responses and, once it is over, the result, each as far as the caller may see it. `readable` are the
    questions that the caller may read: correct answers are in nothing else than `rules.shown` lets through."""
    message = _facts_to_proto(attempt, attempt.state)
    seen = _seen(attempt, at)
    if "responses" in seen:
        message.responses.extend(
            response_to_proto(item, item.answer) for item in attempt.items if item.answer is not None
        )
    if attempt.result and (seen - {"responses"} or readable):
        message.result.CopyFrom(result_to_proto(attempt, seen, readable))
    return message


def row_to_proto(row: Any, at: datetime) -> Attempt:
    """Of a row of a list, whose result may be missing."""
    message = _facts_to_proto(row, rules.state_at(row, at))
    if row.score is not None and "score" in _seen(row, at):
        message.result.CopyFrom(_figures_to_proto(row))
    return message


def _seen(attempt: Any, at: datetime) -> frozenset[str]:
    seen = rules.shown(attempt.review_policy, rules.standing(attempt, at))
    return seen if attempt.user_id == current().subject else seen | OF_OTHERS


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


def question_to_proto(seed: UUID, item: Item, *, shuffle: bool) -> AttemptQuestion:
    """The question without what is right. The seed, an attempt's id, decides the order of its parts; where the stored
    order would tell the answer it does so whether the quiz shuffles or not."""
    body = item.body
    if shuffle or body["type"] not in IN_STORED_ORDER:
        return _question_to_proto(seed, item, shuffle=shuffle)
    key = current().tenant_id, item.version_id
    return _QUESTIONS.get(key) or _remember(_QUESTIONS, key, _question_to_proto(seed, item, shuffle=False))


def _remember(known: dict[Key, Made], key: Key, made: Made) -> Made:
    """Keeps what is made of a version, which never changes, for the next attempt that has it."""
    if len(known) >= MOST_MADE:
        known.clear()
    known[key] = made
    return made


def _question_to_proto(seed: UUID, item: Item, *, shuffle: bool) -> AttemptQuestion:
    body = item.body
    message = AttemptQuestion(
        question_id=str(item.question_id),
        version=item.version,
        type=type_to_proto(body["type"]),
        prompt=body["prompt"],
        exercise_id=body["exercise_id"],
    )
    if body["type"] == MULTIPLE_CHOICE:
        message.multiple = body["multiple"]
        message.choices.extend(_parts(seed, body["choices"], shuffle=shuffle))
    elif body["type"] == FILL_BLANK:
        message.blank_count = len(body["blanks"])
        if any(blank["options"] for blank in body["blanks"]):
            message.blank_options.extend(_options(seed, item, n) for n in range(message.blank_count))
    elif body["type"] == MATCHING:
        message.stems.extend(_parts(seed, body["stems"], shuffle=False))
        message.targets.extend(_parts(seed, body["targets"], shuffle=True))
    elif body["type"] == ORDERING:
        message.items.extend(_parts(seed, body["items"], shuffle=True))
    return message


def _parts(seed: UUID, parts: Sequence[Mapping[str, Any]], *, shuffle: bool) -> list[AttemptPart]:
    order = shuffled(seed, parts, key=lambda part: str(part["id"])) if shuffle else parts
    return [AttemptPart(id=part["id"], text=part["text"]) for part in order]


def _options(seed: UUID, item: Item, n: int) -> BlankOptions:
    return BlankOptions(
        options=shuffled(seed, item.body["blanks"][n]["options"], key=lambda text: f"{item.version_id} {n} {text}")
    )


def response_to_proto(item: Item, answer: Sequence[str]) -> Response:
    """An answer as it is stored."""
    kind, given = item.body["type"], cast(Any, answer)
    if kind == MATCHING:
        pairs = zip(item.body["stems"], answer, strict=False)
        given = [Match(stem_id=stem["id"], target_id=target) for stem, target in pairs if target]
    elif ANSWERED_BY[kind] == "text":
        given = answer[0] if answer else ""
    return Response(question_id=str(item.question_id), **{ANSWERED_BY[kind]: given})


def result_to_proto(attempt: Taking, seen: frozenset[str], readable: Collection[UUID] = ()) -> AttemptResult:
    """What may be `seen` of the result, and of single questions who may read them sees more."""
    result = attempt.result
    assert result is not None  # noqa: S101  # attempts that are over have one
    message = _figures_to_proto(result) if "score" in seen else AttemptResult()
    for item, entry in zip(attempt.items, result.detail, strict=True):
        more = OF_READERS if item.question_id in readable else frozenset()
        message.items.add(**_item_values(item, entry, seen | more))
    return message


def _figures_to_proto(result: Any) -> AttemptResult:
    return AttemptResult(
        score=rules.plain(result.score),
        max_score=rules.plain(result.max_score),
        percent=rules.plain(result.percent),
        passed=result.passed,
    )


def _item_values(item: Item, entry: Mapping[str, Any], seen: frozenset[str]) -> dict[str, Any]:
    """The fields of an `ItemResult`: made in its place, rather than copied there."""
    name, told = str(item.question_id), "correct_answers" in seen
    picked = item.answer if "feedback" in seen else None
    values: dict[str, Any] = {"question_id": name}
    values["feedback"] = feedback(item.said, picked, explained="explanations" in seen)
    if told:
        values["correct_response"] = _right_response(item)
    if "score" in seen:
        values |= {one: entry[one] for one in ("score", "max_score", "correct")}
        if "responses" in seen:
            given = (award for award in entry["awards"] if told or award[1] != rules.MISSED)
            values["awards"] = [_award_values(item.body["type"], name, *award) for award in given]
    return values


def _right_response(item: Item) -> Response:
    if item.change is not None:
        return response_to_proto(item, right_answer(item.said))
    key = current().tenant_id, item.version_id
    return _RIGHT.get(key) or _remember(_RIGHT, key, response_to_proto(item, right_answer(item.body)))


def _award_values(kind: str, question: str, subject: str, reason: str, points: str) -> dict[str, Any]:
    """The fields of an `Award`. `subject` is the id of a part of the question, the number of a blank, or the id of the
    `question` itself."""
    values = {"reason": REASONS[reason], "points": points}
    if subject != question and kind in PARTS:
        values[PARTS[kind]] = subject
    elif subject != question and kind == FILL_BLANK:
        values["blank"] = int(subject)
    return values
