"""What a question of each type may say.

A body is a question as it is stored: `type`, COMMON and what CONTENT has for the type, as docs/assessment.md tells.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any

from kit.errors import InvalidArgument
from services.assessment.arranging import FEWEST_TO_ORDER
from services.assessment.grading import HUNDRED, PICKED
from services.assessment.marks import Scoring
from services.assessment.texts import TextPolicy, normalise, repeated

Body = Mapping[str, Any]
Violation = tuple[str, str]

MULTIPLE_CHOICE, FILL_BLANK, SHORT_ANSWER = "multiple_choice", "fill_blank", "short_answer"
NUMERIC, MATCHING, ORDERING = "numeric", "matching", "ordering"
COMMON: Mapping[str, Any] = {"prompt": "", "explanation": "", "scoring": "partial", "exercise_id": ""}
TYPING: Mapping[str, Any] = {"case_sensitive": False, "ignore_accents": False, "most_typos": 0}
CONTENT: Mapping[str, Mapping[str, Any]] = {
    MULTIPLE_CHOICE: {"choices": [], "multiple": False},
    FILL_BLANK: {"blanks": [], **TYPING},
    SHORT_ANSWER: {"accepted": [], "wildcards": False, **TYPING},
    NUMERIC: {"numbers": []},
    MATCHING: {"stems": [], "targets": [], "pairs": []},
    ORDERING: {"items": []},
}
BLANK = re.compile("_{3,}")
PERCENT = re.compile(r"-?(100(\.0{1,7})?|[0-9]{1,2}(\.[0-9]{1,7})?)")
EXACT = re.compile(r"-?[0-9]{1,30}(\.[0-9]{1,30})?")
MOST_TYPOS = 2
MOST_TARGETS = 40
MOST = 20
FEWEST_CHOICES = 2
LONGEST_PROMPT, LONGEST_TEXT, LONGEST_ANSWER, LONGEST_TAG = 5000, 1000, 200, 50
TAG = TextPolicy()


def new_body(kind: str, prompt: str, **content: Any) -> dict[str, Any]:
    """A body of this type that has these fields, and the others as they are when nobody says anything. Parts of it
    (choices, stems, targets, items) have ids that their maker draws at random: UUIDs of version 4 as text."""
    return {"type": kind, **COMMON, **CONTENT[kind], "prompt": prompt, **content}


def check_body(body: Body) -> None:
    """Refuses a body that does not fit its type."""
    if wrong := [(f"question.{field}", text) for field, text in violations(body)]:
        raise InvalidArgument.fields(wrong)


def violations(body: Body) -> Iterator[Violation]:
    """What is wrong with a body, by the field of `Question`."""
    yield from _text("prompt", body["prompt"], LONGEST_PROMPT)
    yield from _remark("explanation", body["explanation"], LONGEST_PROMPT)
    if body["scoring"] not in list(Scoring):
        yield "scoring", "must be one of partial, all_or_nothing"
    if not 0 <= body.get("most_typos", 0) <= MOST_TYPOS:
        yield "most_typos", f"must be from 0 to {MOST_TYPOS}"
    yield from SHAPES[body["type"]](body)


def tag_key(tag: str) -> str:
    """A tag as it is kept: in lower case, Unicode normalization form C, single spaces."""
    return normalise(tag, TAG)


def check_tags(tags: Sequence[str]) -> list[str]:
    """The tags as they are kept; INVALID_ARGUMENT when there are too many, or one is there twice, empty or too long."""
    kept = [tag_key(tag) for tag in tags]
    wrong = [*_count("tags", kept, 0), *((f"tags[{index}]", "is there twice") for index in repeated(kept))]
    for index, tag in enumerate(kept):
        wrong += _text(f"tags[{index}]", tag, LONGEST_TAG)
    if wrong:
        raise InvalidArgument.fields([(f"question.{field}", text) for field, text in wrong])
    return kept


def _choice_violations(body: Body) -> Iterator[Violation]:
    choices = body["choices"]
    right = [choice for choice in choices if choice["correct"]]
    yield from _parts("choices", choices, FEWEST_CHOICES)
    if not right:
        yield "choices", "must have at least one correct choice"
    elif len(right) > 1 and not body["multiple"] and not all(choice["percent"] for choice in right):
        yield "choices", "must have only one correct choice unless `multiple` is set"
    for index, choice in enumerate(choices):
        yield from _remark(f"choices[{index}].feedback", choice["feedback"], LONGEST_TEXT)
        if choice["percent"]:
            yield from _choice_percent(f"choices[{index}].percent", choice, multiple=body["multiple"])


def _choice_percent(field: str, choice: Mapping[str, Any], *, multiple: bool) -> Iterator[Violation]:
    if not PERCENT.fullmatch(choice["percent"]):
        yield field, "must be a decimal from -100 to 100"
        return
    percent = Decimal(choice["percent"])
    if choice["correct"] and percent <= 0:
        yield field, "must be more than 0 for a right choice"
    elif choice["correct"] and not multiple and percent < HUNDRED:
        yield field, "must be 100 for a right choice where only one may be picked"
    elif not choice["correct"] and (percent > 0 if multiple else percent >= HUNDRED):
        yield field, "must be at most 0 for a wrong choice" if multiple else "must be less than 100 for a wrong choice"


def _blank_violations(body: Body) -> Iterator[Violation]:
    count, shown = len(body["blanks"]), len(BLANK.findall(body["prompt"]))
    yield from _count("blanks", body["blanks"], 1)
    if count and count != shown:
        yield "blanks", f"must have one item for each ___ of the prompt, which has {shown}"
    for index, blank in enumerate(body["blanks"]):
        yield from _accepted(f"blanks[{index}].accepted", blank["accepted"])
        if blank["options"]:
            yield from _options(f"blanks[{index}]", blank)


def _options(field: str, blank: Mapping[str, Any]) -> Iterator[Violation]:
    options = [normalise(option, PICKED) for option in blank["options"]]
    yield from _count(f"{field}.options", options, FEWEST_CHOICES)
    for index, option in enumerate(blank["options"]):
        yield from _text(f"{field}.options[{index}]", option, LONGEST_ANSWER)
    for index in repeated(options):
        yield f"{field}.options[{index}]", "is there twice"
    for index, one in enumerate(blank["accepted"]):
        if normalise(one["text"], PICKED) not in options:
            yield f"{field}.accepted[{index}].text", "must be one of the options"


def _short_violations(body: Body) -> Iterator[Violation]:
    yield from _accepted("accepted", body["accepted"])


def _accepted(field: str, accepted: Sequence[Mapping[str, Any]]) -> Iterator[Violation]:
    yield from _earning(field, accepted)
    for index, one in enumerate(accepted):
        yield from _text(f"{field}[{index}].text", one["text"], LONGEST_ANSWER)


def _number_violations(body: Body) -> Iterator[Violation]:
    yield from _earning("numbers", body["numbers"])
    for index, one in enumerate(body["numbers"]):
        if not EXACT.fullmatch(one["value"]):
            yield f"numbers[{index}].value", "must be a decimal with at most 30 digits before and after the point"
        if one["tolerance"] and (one["tolerance"][0] == "-" or not EXACT.fullmatch(one["tolerance"])):
            yield f"numbers[{index}].tolerance", "must be a decimal of 0 or more"


def _earning(field: str, accepted: Sequence[Mapping[str, Any]]) -> Iterator[Violation]:
    """Of answers that a question knows, whatever they are."""
    yield from _count(field, accepted, 1)
    for index, one in enumerate(accepted):
        yield from _remark(f"{field}[{index}].feedback", one["feedback"], LONGEST_TEXT)
        if one["percent"] and (one["percent"][0] == "-" or not PERCENT.fullmatch(one["percent"])):
            yield f"{field}[{index}].percent", "must be a decimal from 0 to 100"
            return
    if accepted and not any(percent(one) > 0 for one in accepted):
        yield field, "must have at least one answer that earns something"


def _match_violations(body: Body) -> Iterator[Violation]:
    yield from _parts("stems", body["stems"], 1)
    yield from _parts("targets", body["targets"], FEWEST_CHOICES, MOST_TARGETS)
    paired, targets = dict(body["pairs"]), {target["id"] for target in body["targets"]}
    for index, stem in enumerate(body["stems"]):
        if paired.get(stem["id"]) not in targets:
            yield f"stems[{index}].target", "is not a target of the question"


def _order_violations(body: Body) -> Iterator[Violation]:
    yield from _parts("items", body["items"], FEWEST_TO_ORDER)
    if len({item["text"] for item in body["items"]}) < FEWEST_TO_ORDER:
        yield "items", "must have two items with different texts"


SHAPES: Mapping[str, Callable[[Body], Iterator[Violation]]] = {
    MULTIPLE_CHOICE: _choice_violations,
    FILL_BLANK: _blank_violations,
    SHORT_ANSWER: _short_violations,
    NUMERIC: _number_violations,
    MATCHING: _match_violations,
    ORDERING: _order_violations,
}


def _parts(field: str, parts: Sequence[Mapping[str, Any]], fewest: int, most: int = MOST) -> Iterator[Violation]:
    """Of choices, stems, targets or items."""
    yield from _count(field, parts, fewest, most)
    for index, part in enumerate(parts):
        yield from _text(f"{field}[{index}].text", part["text"], LONGEST_TEXT)
    for index in repeated([part["id"] for part in parts]):
        yield f"{field}[{index}].id", "is there twice"


def _count(field: str, parts: Sequence[Any], fewest: int, most: int = MOST) -> Iterator[Violation]:
    if len(parts) < fewest:
        yield field, f"must have at least {fewest} item{'s' if fewest > 1 else ''}"
    elif len(parts) > most:
        yield field, f"must have at most {most} items"


def _text(field: str, text: str, longest: int) -> Iterator[Violation]:
    if not text.strip():
        yield field, "must not be white space only"
    yield from _remark(field, text, longest)


def _remark(field: str, text: str, longest: int) -> Iterator[Violation]:
    if len(text) > longest:
        yield field, f"must be at most {longest} characters"
    if "\0" in text:
        yield field, "must not have the character NUL"


def percent(one: Mapping[str, Any]) -> Decimal:
    """What an answer that a question knows earns, in percent."""
    return Decimal(one["percent"]) if one["percent"] else HUNDRED
