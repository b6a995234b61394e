"""One question of Moodle XML."""

import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

from services.assessment.bodies import new_body, tag_key
from services.assessment.exchange.cloze import NoCloze, blanks_of
from services.assessment.exchange.documents import Element, settle
from services.assessment.exchange.drafts import (
    LONGEST_TAG,
    MOST_TAGS,
    Draft,
    Limits,
    accepted,
    accepted_number,
    choice,
    matching,
    numbered,
)
from services.assessment.exchange.markup import Plain, looks_marked, plain
from services.assessment.exchange.numbers import NotANumber, decimal, plain_number
from services.assessment.exchange.report import Place
from services.assessment.exchange.shares import WHOLE, shared_evenly, wild

REFUSED = {
    "essay": "it is an essay, which nobody but a person can grade",
    "description": "it is a description, which asks nothing",
}
YES = {"1", "true"}
GAP = re.compile(r"\[\[([0-9]{1,3})\]\]")
# What stands for a blank while a text is made plain: XML cannot have it.
BLANK = "___"


class Misfit(Exception):
    """A question that there is no way to have here."""


def reduced(text_format: str, raw: str) -> Plain:
    """What a text says without its marks, and what is lost by that."""
    raw = raw.replace("\r\n", "\n").replace("\r", "\n")
    if text_format == "html" or (text_format not in ("plain_text", "markdown") and looks_marked(raw)):
        return plain(raw, breaks=text_format != "html")
    return Plain(raw.strip(), ("markdown",) if text_format == "markdown" else ())


def read_question(element: Element, tags: tuple[str, ...], limits: Limits) -> Draft:
    """The question of an element. Raises `Misfit`."""
    kind = element.get("type")
    if kind in REFUSED:
        raise Misfit(REFUSED[kind])
    if kind not in KINDS:
        raise Misfit(f"there are no questions of the type {kind[:50]!r} here")
    return _Reading(element, kind, tags, limits).draft()


class _Reading:
    def __init__(self, element: Element, kind: str, tags: tuple[str, ...], limits: Limits) -> None:
        self.element, self.kind, self.limits = element, kind, limits
        self.made = Draft(body={}, tags=tags, place=Place(element.line))
        self.report = self.made.report
        self.texts: dict[str, list[str]] = {}
        self.left = limits.preserved

    def draft(self) -> Draft:
        made, element = self.made, self.element
        if name := element.one("name"):
            made.name = " ".join(name.text_of("text").split())
        grade = element.text_of("defaultgrade").strip()
        if grade:
            made.points = plain_number(self.number(grade))
        made.tags = self.tags()
        explanation = self.said("generalfeedback")
        made.body = numbered(KINDS[self.kind](self)) | {"explanation": explanation}
        for one in element.walk():
            if not "".join(part for part in one.content if isinstance(part, str)).strip():
                one.text()
        kept = settle(element, self.report, most=self.left)
        preserved: dict[str, Any] = {"type": self.kind} if self.kind in TOLD else {}
        preserved |= {"texts": self.texts} if self.texts else {}
        preserved |= {"rest": kept} if kept else {}
        made.preserved = {"moodle": preserved} if preserved else {}
        self.report.mapped("question", made.place, f"it is of type {made.body['type'].upper()}")
        return made

    def number(self, text: str) -> Decimal:
        try:
            return decimal(text)
        except NotANumber:
            raise Misfit(f"what should be a number is none: {text[:50]!r}") from None

    def tags(self) -> tuple[str, ...]:
        found = dict.fromkeys(self.made.tags)
        listed = self.element.one("tags")
        for tag in () if listed is None else listed.elements:
            said = tag_key(_text_in(tag))
            fits = 0 < len(said) <= LONGEST_TAG and (said in found or len(found) < MOST_TAGS)
            if tag.name == "tag" and fits:
                tag.claim().text_of("text")
                found[said] = None
        return tuple(found)

    def said(self, name: str) -> str:
        found = self.element.one(name)
        return "" if found is None else self.tell(found, name)

    def tell(self, element: Element, key: str) -> str:
        """The text of an element that has a format and a text; its original is kept where that is more."""
        form, text = element.get("format", "moodle_auto_format"), element.one("text")
        raw = "" if text is None else text.text()
        said, lost = reduced(form, raw)
        if lost:
            self.keep_text(element, key, form, raw, lost)
        return said

    def keep_text(self, element: Element, key: str, form: str, raw: str, lost: tuple[str, ...]) -> None:
        names, place = ", ".join(lost), Place(element.line)
        size = len(key) + len(form) + len(raw)
        if size > self.left:
            message = f"the text is without its marks ({names}), and the original is too long to be kept"
            self.report.refused(f"question/{key}/text", place, message)
            return
        self.left -= size
        self.texts[key] = [form, raw]
        message = f"the text is without its marks ({names}); the original is kept for the export"
        self.report.preserved(f"question/{key}/text", place, message)

    def share(self, answer: Element) -> Decimal:
        share = round(self.number(answer.get("fraction", "0") or "0"), 7)
        if abs(share) > WHOLE:
            raise Misfit("an answer earns more than 100 percent")
        return share

    def positive(self, answer: Element) -> str:
        share = self.share(answer)
        if share < 0:
            raise Misfit("only a choice can take points away")
        return "" if share == WHOLE else plain_number(share)

    def feedback(self, answer: Element, number: int) -> str:
        found = answer.one("feedback")
        return "" if found is None else self.tell(found, f"answer[{number}]/feedback")

    def raw(self, element: Element) -> str:
        """The text of an answer that is compared as it is. Old files have it without an element of its own."""
        element.get("format")
        text = element.one("text")
        return (element.text() if text is None else text.text()).strip()

    def prompt(self) -> str:
        return self.said("questiontext")

    def choices(self) -> dict[str, Any]:
        multiple = self.element.text_of("single", "true").strip().lower() not in YES
        made, shares = [], []
        for number, answer in enumerate(self.element.all("answer"), 1):
            text = self.tell(answer, f"answer[{number}]")
            made.append(choice(text, correct=False, feedback=self.feedback(answer, number)))
            shares.append(self.share(answer))
        if multiple and not any(share > 0 for share in shares):
            raise Misfit("no choice is right")
        choices = shared_evenly(made, shares, multiple)
        return new_body("multiple_choice", self.prompt(), choices=choices, multiple=multiple)

    def true_or_false(self) -> dict[str, Any]:
        made: list[dict[str, Any]] = []
        shares: list[Decimal] = []
        for number, answer in enumerate(self.element.all("answer"), 1):
            said = self.raw(answer).lower()
            if said not in ("true", "false"):
                raise Misfit("an answer is neither true nor false")
            made.append(choice(said.title(), correct=False, feedback=self.feedback(answer, number)))
            shares.append(self.share(answer))
        return new_body("multiple_choice", self.prompt(), choices=shared_evenly(made, shares, multiple=False))

    def short(self) -> dict[str, Any]:
        made = []
        for number, answer in enumerate(self.element.all("answer"), 1):
            made.append(accepted(self.raw(answer), self.positive(answer), self.feedback(answer, number)))
        case = self.element.text_of("usecase").strip() in YES
        stars = wild(made)
        return new_body("short_answer", self.prompt(), accepted=made, wildcards=stars, case_sensitive=case)

    def numeric(self) -> dict[str, Any]:
        made: list[dict[str, Any]] = []
        for answer in [*self.element.elements]:
            if answer.name != "answer" or self.is_any_other(answer):
                continue
            answer.claim()
            value = plain_number(self.number(self.raw(answer)))
            tolerance = self.number(answer.text_of("tolerance").strip() or "0")
            if tolerance < 0:
                raise Misfit("a tolerance is less than 0")
            feedback = self.feedback(answer, len(made) + 1)
            made.append(accepted_number(value, plain_number(tolerance), self.positive(answer), feedback))
        return new_body("numeric", self.prompt(), numbers=made)

    def is_any_other(self, answer: Element) -> bool:
        """Whether it is what is said to all numbers that are not known, which are wrong."""
        text = next((one for one in answer.elements if one.name == "text"), answer)
        if "".join(part for part in text.content if isinstance(part, str)).strip() != "*":
            return False
        if self.number(answer.attributes.get("fraction") or "0") > 0:
            raise Misfit("any number is right")
        return True

    def pairs(self) -> dict[str, Any]:
        found = self.element.all("subquestion")
        # What has no stem comes last, here and in what is written.
        spare = [one for one in found if not _text_in(one)]
        for one in spare:
            self.element.content.remove(one)
        self.element.content += spare
        made: list[tuple[str, str]] = []
        rest = []
        for number, one in enumerate([*(one for one in found if one not in spare), *spare], 1):
            stem, answer = self.tell(one, f"subquestion[{number}]"), one.one("answer")
            target = "" if answer is None else self.raw(answer)
            if stem:
                made.append((stem, target))
            else:
                rest.append(target)
        return matching(self.prompt(), made, rest)

    def gaps(self) -> dict[str, Any]:
        """Blanks that one of several texts is put in."""
        text = self.element.one("questiontext")
        if text is None:
            raise Misfit("it has no text")
        boxes = [one for one in self.element.elements if one.name in ("selectoption", "dragbox")]
        texts, groups = [], []
        for box in boxes:
            texts.append(" ".join(_text_in(box).split()))
            group = next((one for one in box.elements if one.name in ("group", "draggroup")), None)
            groups.append("1" if group is None else _own_text(group))
        prompt = self.tell(text, "questiontext")
        numbers = [int(one) - 1 for one in GAP.findall(prompt)]
        if any(not 0 <= one < len(boxes) for one in numbers):
            raise Misfit("a blank has no text that is right for it")
        used = list(dict.fromkeys(groups[one] for one in numbers))
        self.sort_boxes(boxes, groups, used)
        blanks = [
            {
                "accepted": [accepted(texts[one])],
                "options": list(dict.fromkeys(t for t, g in zip(texts, groups, strict=True) if g == groups[one])),
            }
            for one in numbers
        ]
        return new_body("fill_blank", GAP.sub(BLANK, prompt), blanks=blanks)

    def sort_boxes(self, boxes: list[Element], groups: list[str], used: list[str]) -> None:
        """Takes the boxes of the groups that are used, in the order in which they are written again."""
        for name in used:
            for box, group in zip(boxes, groups, strict=True):
                if group == name:
                    self.element.content.remove(box)
                    self.element.content.append(box)
                    box.claim().text_of("text")
                    for one in box.elements:
                        if one.name in ("group", "draggroup"):
                            one.take()

    def cloze(self) -> dict[str, Any]:
        text = self.element.one("questiontext")
        if text is None:
            raise Misfit("it has no text")
        form, inner = text.get("format", "moodle_auto_format"), text.one("text")
        raw = "" if inner is None else inner.text()
        try:
            prompt, blanks, case, lost = blanks_of(raw, lambda part: reduced(form, part))
        except NoCloze as error:
            raise Misfit(str(error)) from None
        if lost:
            self.keep_text(text, "questiontext", form, raw, lost)
        return new_body("fill_blank", prompt, blanks=blanks, case_sensitive=case)

    def ordering(self) -> dict[str, Any]:
        found = self.element.all("answer")
        placed = sorted(found, key=lambda one: self.number(one.get("fraction", "0") or "0"))
        for one in placed:
            self.element.content.remove(one)
        self.element.content += placed
        items = [{"id": str(n), "text": self.tell(one, f"answer[{n}]")} for n, one in enumerate(placed, 1)]
        return new_body("ordering", self.prompt(), items=items)


def _own_text(element: Element) -> str:
    return "".join(part for part in element.content if isinstance(part, str)).strip()


def _text_in(element: Element) -> str:
    """The text of the element's `text`, which stays untaken."""
    return next((_own_text(one) for one in element.elements if one.name == "text"), "")


KINDS: Mapping[str, Callable[[_Reading], dict[str, Any]]] = {
    "multichoice": _Reading.choices,
    "truefalse": _Reading.true_or_false,
    "shortanswer": _Reading.short,
    "numerical": _Reading.numeric,
    "matching": _Reading.pairs,
    "match": _Reading.pairs,
    "gapselect": _Reading.gaps,
    "ddwtos": _Reading.gaps,
    "cloze": _Reading.cloze,
    "multianswer": _Reading.cloze,
    "ordering": _Reading.ordering,
}
# Of these another type says the same, so that it has to be kept.
TOLD = {"ddwtos"}
