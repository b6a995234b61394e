"""What may answer a question of each type, and how both are told to grading."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any
from uuid import UUID

from services.assessment import grading
from services.assessment.arranging import Matching, Ordering
from services.assessment.bodies import (
    FILL_BLANK,
    MATCHING,
    MULTIPLE_CHOICE,
    NUMERIC,
    ORDERING,
    SHORT_ANSWER,
    Body,
    Violation,
    percent,
)
from services.assessment.marks import Answer, Filled, Matched, Ordered, Scoring, Selected, Typed
from services.assessment.texts import TextPolicy, repeated

# What answers a question of each type, as a `Response` has it. Stored is a list of texts: ids of choices, what fills
# the blanks, the text typed, the target of each stem (empty for none), or ids of items.
ANSWERED_BY = {
    MULTIPLE_CHOICE: "choice_ids",
    FILL_BLANK: "blanks",
    SHORT_ANSWER: "text",
    NUMERIC: "text",
    MATCHING: "matches",
    ORDERING: "item_ids",
}
# Prepared questions that a process keeps: those of a few thousand learners at once, in some megabytes.
MOST_PREPARED = 1000
_PREPARED: dict[tuple[UUID, Decimal], grading.Question] = {}


def misfits(body: Body, response: Any) -> Iterator[Violation]:
    """What is wrong with a response to the question, by the field of `Response`."""
    own = ANSWERED_BY[body["type"]], "question_id"
    for field in sorted(given.name for given, _ in response.ListFields() if given.name not in own):
        kinds = [kind.upper() for kind, name in ANSWERED_BY.items() if name == field]
        yield field, f"is for questions of type {' and '.join(kinds)} only"
    yield from MISFITS.get(body["type"], _nothing)(body, response)


def _nothing(_body: Body, _response: Any) -> Iterator[Violation]:
    yield from ()


def _choice_misfits(body: Body, response: Any) -> Iterator[Violation]:
    if len({*_ids(response.choice_ids)}) > 1 and not body["multiple"]:
        yield "choice_ids", "must have one item at most: only one choice may be picked"
    yield from _strangers("choice_ids", response.choice_ids, body["choices"], "a choice")


def _blank_misfits(body: Body, response: Any) -> Iterator[Violation]:
    if len(response.blanks) > len(body["blanks"]):
        yield "blanks", f"must have {len(body['blanks'])} items at most, as the question has blanks"
    for index, (text, blank) in enumerate(zip(response.blanks, body["blanks"], strict=False)):
        if text and blank["options"] and text not in blank["options"]:
            yield f"blanks[{index}]", "is not an option of the blank"


def _match_misfits(body: Body, response: Any) -> Iterator[Violation]:
    stems = _ids(match.stem_id for match in response.matches)
    for index in repeated(stems):
        yield f"matches[{index}].stem_id", "is there twice"
    known = {"stem_id": {one["id"] for one in body["stems"]}, "target_id": {one["id"] for one in body["targets"]}}
    for index, match in enumerate(response.matches):
        for field, ids in known.items():
            if str(UUID(getattr(match, field))) not in ids:
                yield f"matches[{index}].{field}", f"is not a {field.removesuffix('_id')} of the question"


def _order_misfits(body: Body, response: Any) -> Iterator[Violation]:
    yield from _strangers("item_ids", response.item_ids, body["items"], "an item")
    if response.item_ids and len({*_ids(response.item_ids)}) < len(body["items"]):
        yield "item_ids", "must have every item of the question once"


MISFITS: Mapping[str, Callable[[Body, Any], Iterator[Violation]]] = {
    MULTIPLE_CHOICE: _choice_misfits,
    FILL_BLANK: _blank_misfits,
    MATCHING: _match_misfits,
    ORDERING: _order_misfits,
}


def _strangers(field: str, ids: Sequence[str], parts: Sequence[Mapping[str, Any]], what: str) -> Iterator[Violation]:
    known, given = {part["id"] for part in parts}, _ids(ids)
    for index, one in enumerate(given):
        if one not in known:
            yield f"{field}[{index}]", f"is not {what} of the question"
    # Validation compares the ids as they are written, and a UUID can be written in two ways.
    for index in repeated(given):
        yield f"{field}[{index}]", "is there twice"


def _ids(written: Iterable[str]) -> list[str]:
    """The ids as they are stored: only in lower or upper case can a valid one be written in two ways."""
    return [one.lower() for one in written]


def answer_in(body: Body, response: Any) -> list[str]:
    """The answer that a response without misfits gives; empty when it takes back what was saved."""
    given = getattr(response, ANSWERED_BY[body["type"]])
    if body["type"] in (SHORT_ANSWER, NUMERIC):
        return [given] if given else []
    if body["type"] == MATCHING:
        targets = dict(zip(_ids(one.stem_id for one in given), _ids(one.target_id for one in given), strict=True))
        return [targets.get(stem["id"], "") for stem in body["stems"]] if targets else []
    return list(given) if body["type"] == FILL_BLANK else _ids(given)


def prepared(version_id: UUID, body: Body, name: str, points: Decimal) -> grading.Question:
    """The question of this version as grading takes it, made once however often it is graded: versions never change."""
    question = _PREPARED.get((version_id, points))
    if question is None:
        if len(_PREPARED) >= MOST_PREPARED:
            _PREPARED.clear()
        question = _PREPARED[version_id, points] = to_grade(body, name, points)
    return question


def to_grade(body: Body, name: str, points: Decimal) -> grading.Question:
    """The question as grading takes it, under this name."""
    return QUESTIONS[body["type"]](body, name, points, Scoring(body["scoring"]))


def _choices_to_grade(body: Body, name: str, points: Decimal, scoring: Scoring) -> grading.Question:
    choices = [
        grading.Choice(one["id"], one["correct"], Decimal(one["percent"]) if one["percent"] else None)
        for one in body["choices"]
    ]
    return grading.MultipleChoice(name, points, tuple(choices), body["multiple"], scoring)


def _blanks_to_grade(body: Body, name: str, points: Decimal, scoring: Scoring) -> grading.Question:
    blanks = [
        grading.Blank(str(n), _accepted_texts(one["accepted"]), picked=bool(one["options"]))
        for n, one in enumerate(body["blanks"], start=1)
    ]
    return grading.FillBlank(name, points, tuple(blanks), _policy(body), scoring)


def _short_to_grade(body: Body, name: str, points: Decimal, scoring: Scoring) -> grading.Question:
    return grading.ShortAnswer(name, points, _accepted_texts(body["accepted"]), _policy(body), scoring)


def _numeric_to_grade(body: Body, name: str, points: Decimal, scoring: Scoring) -> grading.Question:
    ranges = [
        grading.Range(Decimal(one["value"]), Decimal(one["tolerance"] or 0), percent(one)) for one in body["numbers"]
    ]
    return grading.Numeric(name, points, tuple(ranges), scoring)


def _matching_to_grade(body: Body, name: str, points: Decimal, scoring: Scoring) -> grading.Question:
    texts = {target["id"]: target["text"] for target in body["targets"]}
    alike = {right: frozenset(one for one in texts if texts[one] == texts[right]) for right in texts}
    pairs = {stem: alike[target] for stem, target in body["pairs"]}
    wanted = {stem["id"]: pairs[stem["id"]] for stem in body["stems"]}
    return Matching(name, points, wanted, frozenset(texts), scoring)


def _ordering_to_grade(body: Body, name: str, points: Decimal, scoring: Scoring) -> grading.Question:
    return Ordering(name, points, tuple((one["id"], one["text"]) for one in body["items"]), scoring)


QUESTIONS: Mapping[str, Callable[[Body, str, Decimal, Scoring], grading.Question]] = {
    MULTIPLE_CHOICE: _choices_to_grade,
    FILL_BLANK: _blanks_to_grade,
    SHORT_ANSWER: _short_to_grade,
    NUMERIC: _numeric_to_grade,
    MATCHING: _matching_to_grade,
    ORDERING: _ordering_to_grade,
}


def _accepted_texts(accepted: Sequence[Mapping[str, Any]]) -> tuple[grading.Accepted, ...]:
    return tuple(grading.Accepted(one["text"], percent(one)) for one in accepted)


def _policy(body: Body) -> TextPolicy:
    return TextPolicy(
        body["case_sensitive"], not body["ignore_accents"], body["most_typos"], body.get("wildcards", False)
    )


def given_to_grade(body: Body, given: Sequence[str]) -> Answer:
    """The answer as grading takes it."""
    kind = body["type"]
    if kind == MULTIPLE_CHOICE:
        return Selected(frozenset(given))
    if kind == FILL_BLANK:
        return Filled({str(n): text for n, text in enumerate(given, start=1)})
    if kind == MATCHING:
        return Matched({stem["id"]: one for stem, one in zip(body["stems"], given, strict=False)})
    return Ordered(tuple(given)) if kind == ORDERING else Typed(given[0] if given else "")


def feedback(body: Body, answer: Sequence[str] | None, *, explained: bool) -> str:
    """What a learner is told of the answer: a line for each choice picked, or accepted answer given, that has feedback,
    then the explanation."""
    lines = [one["feedback"] for one in _given(body, answer or ())]
    return "\n".join(line for line in (*lines, body["explanation"] if explained else "") if line)


def _given(body: Body, answer: Sequence[str]) -> Iterator[Mapping[str, Any]]:
    """The choices, or known answers, that an answer has."""
    if body["type"] == MULTIPLE_CHOICE:
        yield from (choice for choice in body["choices"] if choice["id"] in answer)
        return
    if not any(one["feedback"] for one in _known(body)):
        return
    question = to_grade(body, "", Decimal(1))
    match question:
        case grading.FillBlank():
            for n, text in enumerate(answer, start=1):
                if (found := question.found(str(n), text)) is not None:
                    yield body["blanks"][n - 1]["accepted"][found]
        case grading.ShortAnswer() | grading.Numeric():
            if answer and (found := question.found(answer[0])) is not None:
                yield body["numbers" if body["type"] == NUMERIC else "accepted"][found]


def _known(body: Body) -> list[Mapping[str, Any]]:
    """The answers that a question of texts or numbers knows."""
    blanks = [one for blank in body.get("blanks", ()) for one in blank["accepted"]]
    return [*blanks, *body.get("accepted", ()), *body.get("numbers", ())]


def right_answer(body: Body) -> list[str]:
    """An answer, as it is stored, that is right in every part."""
    kind = body["type"]
    if kind == MULTIPLE_CHOICE:
        return [choice["id"] for choice in body["choices"] if choice["correct"]][: None if body["multiple"] else 1]
    if kind == FILL_BLANK:
        return [_best(blank["accepted"])["text"] for blank in body["blanks"]]
    if kind == SHORT_ANSWER:
        best: str = _best(body["accepted"])["text"]
        return [best.replace("\\*", "*") if body["wildcards"] else best]
    if kind == NUMERIC:
        return [_best(body["numbers"])["value"]]
    if kind == MATCHING:
        targets = dict(body["pairs"])
        return [targets[stem["id"]] for stem in body["stems"]]
    return [item["id"] for item in body["items"]]


def _best(known: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    return max(known, key=percent)
