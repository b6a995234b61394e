"""Questions on their way in or out, which no format is special to."""

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any, Protocol

from services.assessment.bodies import new_body
from services.assessment.exchange.report import Place, Report


@dataclass(frozen=True, slots=True)
class Limits:
    """What a file may have, so that reading one takes a bounded time and memory."""

    bytes: int = 8 << 20
    questions: int = 2_000
    # Of XML: elements and attributes in all, how deep elements are in one another, and attributes of one.
    elements: int = 150_000
    depth: int = 64
    attributes: int = 64
    # Characters of one text, and of what is kept beside one question, as JSON.
    text: int = 64_000
    preserved: int = 48_000


LIMITS = Limits()
# Of the tags that a question may have.
LONGEST_TAG, MOST_TAGS = 50, 20


class Unreadable(Exception):
    """The file cannot be read, or not any further: nothing of it is taken. The message is a sentence without its period
    that begins in lower case, as in `line 3: a brace is never closed`."""


@dataclass(slots=True, kw_only=True)
class Draft:
    """A question that is not in the bank, or no longer.

    `body` is that of `services/assessment/bodies.py`, except for its ids, which are numbers as texts by list: "1", "2"
    and so on for choices, stems, targets and items (`numbered` makes them of a stored body, `identified` makes stored
    ones of them). Texts have no white space around them. `tags` are as the bank takes them. `preserved` has what the
    formats keep, by their names, as JSON: `{"moodle": [["answer[1]", "<file …/>"]]}`; the module of a format looks at
    its own only, and passes on the others' (a question is read from one format, so there is one). `points` is the worth
    that the file gives it, a plain decimal, or empty. `report` is about what is in the question, and its place is where
    it begins.
    """

    body: dict[str, Any]
    name: str = ""
    tags: tuple[str, ...] = ()
    points: str = ""
    preserved: dict[str, Any] = field(default_factory=dict)
    place: Place = field(default_factory=Place)
    report: Report = field(default_factory=Report)

    def content(self) -> tuple[Any, ...]:
        """What a round trip must not change."""
        return self.body, self.name, self.tags, self.points, self.preserved


@dataclass(slots=True)
class Imported:
    """What was read: the questions, in the order of the file (or of the test in it), the file's title for a quiz of
    them if it has one, and what became of all that is in no draft's own report."""

    drafts: list[Draft] = field(default_factory=list)
    report: Report = field(default_factory=Report)
    title: str = ""


@dataclass(slots=True)
class Written:
    """A file, and what of the drafts is not in it: the places are their numbers from 1. What is refused there is in the
    question and not in the file, or only approximately."""

    data: bytes
    report: Report


class Format(Protocol):
    """What a module of a format offers. Neither function looks at a clock, a network or a disk.

    `read` raises `Unreadable` for what is no such file, is not whole, or has more than the limits. Whatever is inside
    of a question that cannot be taken is refused in the report, and the questions around it are read. Drafts need not
    be valid: whoever calls checks their bodies as those of any question, and reports of those that are not are `lost`.
    Reading what `write` made gives drafts of the same content, for all drafts that were read.
    """

    MEDIA_TYPE: str

    def recognises(self, data: bytes) -> bool: ...

    def read(self, data: bytes, limits: Limits = LIMITS) -> Imported: ...

    def write(self, drafts: Sequence[Draft], title: str = "") -> Written: ...


# Where ids are, by the field that has them.
IDENTIFIED = ("choices", "stems", "targets", "items")


def choice(text: str, *, correct: bool, feedback: str = "", percent: str = "") -> dict[str, Any]:
    """A choice without its id, which `numbered` gives."""
    return {"id": "", "text": text, "correct": correct, "feedback": feedback, "percent": percent}


def accepted(text: str, percent: str = "", feedback: str = "") -> dict[str, Any]:
    """An accepted text of a blank or a short answer."""
    return {"text": text, "percent": percent, "feedback": feedback}


def accepted_number(value: str, tolerance: str = "", percent: str = "", feedback: str = "") -> dict[str, Any]:
    """An accepted number, and how far from it what is accepted may be."""
    away = "" if tolerance == "0" else tolerance
    return {"value": value, "tolerance": away, "percent": percent, "feedback": feedback}


def matching(prompt: str, pairs: Sequence[tuple[str, str]], spare: Sequence[str] = (), **fields: Any) -> dict[str, Any]:
    """A matching body of stems with the targets that are right for them, and targets that are right for none."""
    texts = list(dict.fromkeys([*(target for _, target in pairs), *spare]))
    stems = [{"id": str(n), "text": stem} for n, (stem, _) in enumerate(pairs, 1)]
    targets = [{"id": str(n), "text": text} for n, text in enumerate(texts, 1)]
    joined = [[stem["id"], str(texts.index(target) + 1)] for stem, (_, target) in zip(stems, pairs, strict=True)]
    return new_body("matching", prompt, stems=stems, targets=targets, pairs=joined, **fields)


def numbered(body: Mapping[str, Any]) -> dict[str, Any]:
    """The body with numbers for ids, as drafts have them."""
    return _renamed(body, str)


def identified(body: Mapping[str, Any], make: Callable[[], str]) -> dict[str, Any]:
    """The body with ids that `make` makes."""
    return _renamed(body, lambda number: make())


def _renamed(body: Mapping[str, Any], name: Callable[[int], str]) -> dict[str, Any]:
    """New ids for everything that has one; pairs follow."""
    made = deepcopy(dict(body))
    ids: dict[tuple[str, str], str] = {}
    for field_name in IDENTIFIED:
        for number, one in enumerate(made.get(field_name) or (), 1):
            old, one["id"] = one["id"], name(number)
            ids[field_name, old] = one["id"]
    if made.get("pairs"):
        made["pairs"] = [[ids["stems", stem], ids["targets", target]] for stem, target in made["pairs"]]
    return made
