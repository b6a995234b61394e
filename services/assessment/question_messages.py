"""Questions as messages: what a request says of one, and what an answer shows."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any
from uuid import UUID, uuid4

from kit.enums import stored_name
from kit.errors import InvalidArgument
from kit.models import set_times
from services.assessment.bodies import COMMON, CONTENT, MATCHING, Body, Violation, new_body
from services.assessment.rules import plain
from storyloom.assessment.v1.question_parts_pb2 import (
    AcceptedNumber,
    AcceptedText,
    Blank,
    Choice,
    OrderItem,
    QuestionType,
    Scoring,
    Stem,
    Target,
)
from storyloom.assessment.v1.questions_pb2 import Question

# What there is to say in a question, of whatever type.
CONTENTS = (*COMMON, *dict.fromkeys(name for content in CONTENT.values() for name in content if name != "pairs"))
PARTS = ("choices", "stems", "targets", "items")


def type_to_proto(stored: str) -> str:
    return f"QUESTION_TYPE_{stored.upper()}"


def stored_type(value: QuestionType) -> str:
    return stored_name(QuestionType, value)


def body_of(question: Question, kind: str, names: Collection[str], before: Body | None = None) -> dict[str, Any]:
    """The body that a question has with these fields, the others as before. Parts without id get one.

    INVALID_ARGUMENT naming fields that are not for the type, and parts that the question does not have.
    """
    body = dict(before or new_body(kind, ""))
    if wrong := [*_of_other_types(question, kind, names), *_strangers(question, names, body)]:
        raise InvalidArgument.fields([(f"question.{field}", text) for field, text in wrong])
    for name in names:
        if name in body:
            body[name] = CONVERT.get(name, _as_it_is)(getattr(question, name), name)
    if kind == MATCHING:
        body["pairs"] = _pairs(question, body, names)
        body["stems"] = [{"id": stem["id"], "text": stem["text"]} for stem in body["stems"]]
    return body


def _of_other_types(question: Question, kind: str, names: Collection[str]) -> list[Violation]:
    wrong = []
    for name in names:
        if name not in COMMON and name not in CONTENT[kind] and getattr(question, name):
            kinds = [other.upper() for other, content in CONTENT.items() if name in content]
            wrong.append((name, f"is for questions of type {' and '.join(kinds)} only"))
    return wrong


def _strangers(question: Question, names: Collection[str], body: Body) -> list[Violation]:
    wrong = []
    for name in PARTS:
        known = {part["id"] for part in body.get(name, ())}
        for index, part in enumerate(getattr(question, name) if name in names else ()):
            if part.id and str(UUID(part.id)) not in known:
                wrong.append((f"{name}[{index}].id", "is not a part of the question"))
    return wrong


def _as_it_is(value: Any, name: str) -> Any:
    return value


def _id(part: Any) -> str:
    """Of the part; a new one's tells nothing, neither its place nor when it was made."""
    return str(UUID(part.id)) if part.id else str(uuid4())


def _choices(choices: Sequence[Choice], name: str) -> list[dict[str, Any]]:
    return [
        {
            "id": _id(one),
            "text": one.text,
            "correct": one.correct,
            "feedback": one.feedback,
            "percent": one.percent,
        }
        for one in choices
    ]


def _blanks(blanks: Sequence[Blank], name: str) -> list[dict[str, Any]]:
    return [{"accepted": _accepted(blank.accepted, name), "options": list(blank.options)} for blank in blanks]


def _accepted(accepted: Sequence[AcceptedText], name: str) -> list[dict[str, Any]]:
    return [{"text": one.text, "percent": one.percent, "feedback": one.feedback} for one in accepted]


def _numbers(numbers: Sequence[AcceptedNumber], name: str) -> list[dict[str, Any]]:
    return [
        {"value": one.value, "tolerance": one.tolerance, "percent": one.percent, "feedback": one.feedback}
        for one in numbers
    ]


def _parts(parts: Sequence[Any], name: str) -> list[dict[str, Any]]:
    return [{"id": _id(part), "text": part.text} for part in parts]


def _scoring(value: Scoring, name: str) -> str:
    return stored_name(Scoring, value) or "partial"


CONVERT: Mapping[str, Callable[[Any, str], Any]] = {
    "choices": _choices,
    "blanks": _blanks,
    "accepted": _accepted,
    "numbers": _numbers,
    "stems": _parts,
    "targets": _parts,
    "items": _parts,
    "scoring": _scoring,
    "exercise_id": lambda value, name: str(UUID(value)) if value else "",
}


def _pairs(question: Question, body: Body, names: Collection[str]) -> list[list[str]]:
    """The targets of the stems by id: a number that no target has is told by an empty one."""
    if "stems" not in names:
        return [list(pair) for pair in body["pairs"]]
    targets = dict(enumerate((target["id"] for target in body["targets"]), start=1))
    pairs = zip(body["stems"], question.stems, strict=True)
    return [[stem["id"], targets.get(given.target, "")] for stem, given in pairs]


def content_to_proto(body: Body) -> dict[str, Any]:
    """What a body says, by the field of `Question`."""
    number = {target["id"]: n for n, target in enumerate(body.get("targets", ()), start=1)}
    paired = dict(body.get("pairs", ()))
    said: dict[str, Any] = {name: body[name] for name in CONTENTS if name in body}
    show: Mapping[str, Callable[[Any], Any]] = {
        "choices": lambda one: Choice(**one),
        "blanks": lambda one: Blank(accepted=map(_text_to_proto, one["accepted"]), options=one["options"]),
        "accepted": _text_to_proto,
        "numbers": lambda one: AcceptedNumber(**one),
        "stems": lambda one: Stem(**one, target=number[paired[one["id"]]]),
        "targets": lambda one: Target(**one),
        "items": lambda one: OrderItem(**one),
    }
    said |= {name: [show[name](one) for one in said[name]] for name in show if name in said}
    return said | {"type": type_to_proto(body["type"]), "scoring": f"SCORING_{body['scoring'].upper()}"}


def _text_to_proto(one: Mapping[str, Any]) -> AcceptedText:
    return AcceptedText(**one)


def question_to_proto(question: Any, body: Body) -> Question:
    """Of an entity or a row, with the body of its version."""
    message = Question(
        id=str(question.id),
        **content_to_proto(body),
        tags=question.tags,
        facility="" if question.facility is None else plain(question.facility),
        version=question.version,
        author_id=str(question.author_id),
        etag=str(question.revision),
    )
    set_times(message, question)
    if question.facility_time:
        message.facility_time.FromDatetime(question.facility_time)
    return message
