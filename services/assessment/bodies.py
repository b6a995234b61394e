"""What a question of each type may say, what may answer it, and how both are told to grading."""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from decimal import Decimal
from fractions import Fraction
from typing import Any

from kit.errors import InvalidArgument
from services.assessment import grading

# A question as it is stored: `type`, `prompt`, `choices` (each with `id`, `text`, `correct`, `feedback`), `multiple`,
# `blanks` (each a list of accepted texts), `case_sensitive`, `ignore_accents`, `explanation`.
Body = Mapping[str, Any]
Violation = tuple[str, str]

MULTIPLE_CHOICE, FILL_BLANK = "multiple_choice", "fill_blank"
BLANK = re.compile("_{3,}")
FEWEST_CHOICES = 2


def check_body(body: Body, known: Collection[str] = ()) -> None:
    """Refuses a body that does not fit its type. `known` are the ids of the choices that the question has so far; new
    choices have an empty id."""
    shape = _choice_violations(body, known) if body["type"] == MULTIPLE_CHOICE else _blank_violations(body)
    if wrong := [(f"question.{field}", text) for field, text in shape]:
        raise InvalidArgument.fields(wrong)


def _choice_violations(body: Body, known: Collection[str]) -> Iterator[Violation]:
    choices = body["choices"]
    right = sum(choice["correct"] for choice in choices)
    if len(choices) < FEWEST_CHOICES:
        yield "choices", f"must have at least {FEWEST_CHOICES} items"
    elif right == 0:
        yield "choices", "must have at least one correct choice"
    elif right > 1 and not body["multiple"]:
        yield "choices", "must have only one correct choice unless `multiple` is set"
    ids = [choice["id"] for choice in choices if choice["id"]]
    for index, choice in enumerate(choices):
        if choice["id"] and choice["id"] not in known:
            yield f"choices[{index}].id", "is not a choice of the question"
        elif ids.count(choice["id"]) > 1:
            yield f"choices[{index}].id", "is there twice"
    for field in ("blanks", "case_sensitive", "ignore_accents"):
        if body[field]:
            yield field, "is for questions of type FILL_BLANK only"


def _blank_violations(body: Body) -> Iterator[Violation]:
    count, shown = len(body["blanks"]), len(BLANK.findall(body["prompt"]))
    if not count:
        yield "blanks", "must have at least one item"
    elif count != shown:
        yield "blanks", f"must have one item for each ___ of the prompt, which has {shown}"
    for index, accepted in enumerate(body["blanks"]):
        for nth, text in enumerate(accepted):
            if not text.strip():
                yield f"blanks[{index}].accepted[{nth}]", "must not be white space only"
    for field in ("choices", "multiple"):
        if body[field]:
            yield field, "is for questions of type MULTIPLE_CHOICE only"


def misfits(body: Body, picked: Sequence[str], response: Any) -> Iterator[Violation]:
    """What is wrong with a response to the question; `picked` are the ids of its choices."""
    if body["type"] == MULTIPLE_CHOICE:
        ids = {choice["id"] for choice in body["choices"]}
        if response.blanks:
            yield "blanks", "is for questions of type FILL_BLANK only"
        if len(set(picked)) > 1 and not body["multiple"]:
            yield "choice_ids", "must have one item at most: the question has one right choice"
        for index, one in enumerate(picked):
            if one not in ids:
                yield f"choice_ids[{index}]", "is not a choice of the question"
        return
    if picked:
        yield "choice_ids", "is for questions of type MULTIPLE_CHOICE only"
    if len(response.blanks) > len(body["blanks"]):
        yield "blanks", f"must have {len(body['blanks'])} items at most, as the question has blanks"


def to_grade(body: Body, name: str, points: Decimal) -> grading.Question:
    """The question as grading takes it, under this name."""
    if body["type"] == MULTIPLE_CHOICE:
        choices = tuple(grading.Choice(choice["id"], choice["correct"]) for choice in body["choices"])
        return grading.MultipleChoice(name, points, choices, body["multiple"])
    share = Fraction(points) / len(body["blanks"])
    blanks = tuple(grading.Blank(str(n), share, tuple(one)) for n, one in enumerate(body["blanks"], start=1))
    return grading.FillBlank(name, blanks, grading.TextPolicy(body["case_sensitive"], not body["ignore_accents"]))


def given_to_grade(body: Body, given: Sequence[str]) -> grading.Answer:
    """The answer as grading takes it."""
    if body["type"] == MULTIPLE_CHOICE:
        return grading.Selected(frozenset(given))
    return grading.Filled({str(n): text for n, text in enumerate(given, start=1)})


def feedback(body: Body, answer: Sequence[str] | None, *, explained: bool) -> str:
    """What a learner is told of the answer: a line for each choice picked that has feedback, then the explanation."""
    lines = [choice["feedback"] for choice in body["choices"] if choice["id"] in (answer or ())]
    return "\n".join(line for line in (*lines, body["explanation"] if explained else "") if line)
