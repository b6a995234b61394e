"""One question of a GIFT file, as its text says it."""

import json
import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from decimal import Decimal
from itertools import pairwise
from typing import Any, NamedTuple

from services.assessment.bodies import new_body, tag_key
from services.assessment.exchange import drafts
from services.assessment.exchange.drafts import Draft, Limits, accepted, choice, matching, numbered
from services.assessment.exchange.gift_text import BLANK, WEIGHT, Text, find, reduced, text_of, unescaped
from services.assessment.exchange.numbers import NotANumber, decimal, plain_number
from services.assessment.exchange.report import Place
from services.assessment.exchange.shares import WHOLE, shared_evenly, wild

TRUE, FALSE = {"T", "TRUE"}, {"F", "FALSE"}
# Of bounded length, so that many that are never closed are looked at in no time. What is longer is a comment.
NOTE = re.compile(r"\[(id|tag):((?:\\.|[^\]\\]){0,100})\]")
RUN = re.compile("_{3,}")
LONGEST_QUESTION = 64_000
LONGEST_OPTION = 200


class Line(NamedTuple):
    """A line and its number from 1."""

    number: int
    text: str


class Misspelled(Exception):
    """A question that GIFT has no sense for; `at` is where in its block."""

    def __init__(self, message: str, at: int) -> None:
        super().__init__(message)
        self.at = at


class Block(NamedTuple):
    """The lines of a question: their text without comments, in which a comment is an empty line, and the comments."""

    text: str
    comments: list[Line]
    numbers: list[int]
    starts: list[int]

    @classmethod
    def of(cls, lines: Sequence[Line]) -> "Block":
        """Made of the lines between blank ones."""
        comments = [one for one in lines if one.text.lstrip().startswith("//")]
        said = ["" if one.text.lstrip().startswith("//") else one.text for one in lines]
        starts, at = [], 0
        for one in said:
            starts.append(at)
            at += len(one) + 1
        return cls("\n".join(said), comments, [one.number for one in lines], starts)

    def line(self, at: int) -> int:
        """The number of the line in which a place of the text is."""
        return self.numbers[bisect_right(self.starts, at) - 1]


class Part(NamedTuple):
    """One answer: the sign before it, where it is, and where its feedback begins, or its end."""

    sign: str
    start: int
    feedback: int
    end: int


def read_question(block: Block, tags: tuple[str, ...], limits: Limits) -> Draft:
    """The question of a block of lines. Raises `Misspelled`."""
    if len(block.text) > LONGEST_QUESTION:
        raise Misspelled(f"it has more than {LONGEST_QUESTION:,} characters", 0)
    return _Reading(block, tags, limits).draft()


class _Reading:
    def __init__(self, block: Block, tags: tuple[str, ...], limits: Limits) -> None:
        self.block, self.source, self.left = block, block.text, limits.preserved
        first = len(block.text) - len(block.text.lstrip())
        self.begin = first
        self.made = Draft(body={}, tags=tags, place=Place(block.line(first)))
        self.report = self.made.report
        self.kept: dict[str, Any] = {}
        self.base = "moodle"

    def draft(self) -> Draft:
        self.note_comments()
        self.begin = self.title(self.begin)
        opening, closing = self.braces()
        general = self.general_feedback(opening + 1, closing)
        prompt, inline = self.prompt(opening, closing)
        answers_end = general if general is not None else closing
        explanation = "" if general is None else self.say("explanation", "general feedback", general + 4, closing)
        body = self.answers(prompt, inline, opening + 1, answers_end)
        self.made.body = numbered(body) | {"explanation": explanation}
        self.report.mapped("question", self.made.place, f"it is of type {body['type'].upper()}")
        if self.kept:
            self.made.preserved = {"gift": self.kept}
        return self.made

    def place(self, at: int) -> Place:
        return Place(self.block.line(at))

    def keep(self, element: str, place: Place, message: str, name: str, value: Any) -> None:
        """Keeps something beside the question, if there is room."""
        size = len(json.dumps(value, ensure_ascii=False)) + len(name)
        if size > self.left:
            self.report.refused(element, place, f"{message}, and there is too much to keep it")
            return
        self.left -= size
        self.report.preserved(element, place, message)
        if isinstance(value, dict):
            self.kept.setdefault(name, {}).update(value)
        elif isinstance(value, list):
            self.kept.setdefault(name, []).extend(value)
        else:
            self.kept[name] = value

    def note_comments(self) -> None:
        tags = dict.fromkeys(self.made.tags)
        for line in self.block.comments:
            place, said = Place(line.number), line.text.strip()[2:].strip()
            for kind, spelled in NOTE.findall(said):
                value = re.sub(r"\\(.)", r"\1", spelled).strip()
                value = tag_key(value) if kind == "tag" else value
                if kind == "id" and "id" not in self.kept:
                    self.keep("id", place, "it is kept for the export in the same format", "id", value)
                elif kind == "tag" and value in tags:
                    self.report.mapped("tag", place, "it is there twice")
                elif kind == "tag" and 0 < len(value) <= drafts.LONGEST_TAG and len(tags) < drafts.MOST_TAGS:
                    tags[value] = None
                    self.report.mapped("tag", place)
                else:
                    self.report.refused(kind, place, "it is too long, empty, or one too many")
            if rest := NOTE.sub("", said).strip():
                self.keep("comment", place, "it is kept for the export in the same format", "comments", [rest])
        self.made.tags = tuple(tags)

    def title(self, at: int) -> int:
        if not self.source.startswith("::", at):
            return at
        colons = find(self.source, ":", at + 2)
        end = next((one for one in colons if self.source.startswith("::", one)), -1)
        if end < 0:
            raise Misspelled("its title is never closed by `::`", at)
        self.made.name = " ".join(unescaped(self.source[at + 2 : end]).split())
        self.report.mapped("title", self.place(at))
        return end + 2

    def braces(self) -> tuple[int, int]:
        signs = [(one, self.source[one]) for one in find(self.source, "{}", self.begin)]
        if not signs:
            raise Misspelled("it is a description, which asks nothing", self.begin)
        if signs[0][1] == "}":
            raise Misspelled("a brace is closed that was not opened", signs[0][0])
        if len(signs) == 1:
            raise Misspelled("a brace is never closed in the lines up to the next blank one", signs[0][0])
        if signs[1][1] == "{" or len(signs) > 2:
            raise Misspelled("it has a brace too many; one of a text is written with a backslash", signs[-1][0])
        return signs[0][0], signs[1][0]

    def general_feedback(self, start: int, end: int) -> int | None:
        found = [one for one in find(self.source, "#", start, end) if self.source.startswith("####", one)]
        return found[-1] if found and found[-1] + 4 <= end else None

    def prompt(self, opening: int, closing: int) -> tuple[str, bool]:
        """The prompt, and whether the answers stand in it."""
        before = text_of(self.source, self.begin, opening)
        self.base = before.format
        after = unescaped(self.source[closing + 1 :])
        # A line break that is spelled out is text as well, so that a question may end with a blank.
        inline = bool(self.source[closing + 1 :].strip())
        raw = before.raw
        if inline:
            start = self.source[:opening]
            space = start[len(start.rstrip()) :] if before.raw else ""
            raw = (before.raw + space.replace("\n", " ") + BLANK + after).strip()
        return self.tell("prompt", "prompt", Text(before.format, raw, before.at)), inline

    def say(self, key: str, element: str, start: int, end: int) -> str:
        """A text that may have a format, as plain text; the original is kept where that is less."""
        found = text_of(self.source, start, end, self.base)
        return self.tell(key, element, found) if found.raw else ""

    def tell(self, key: str, element: str, text: Text) -> str:
        said, lost = reduced(text.format, text.raw)
        self.report.mapped(element, self.place(text.at))
        if lost:
            message = f"the text is without its marks ({', '.join(lost)}); the original is kept for the export"
            self.keep(f"{element} markup", self.place(text.at), message, "texts", {key: [text.format, text.raw]})
        return said

    def raw(self, element: str, start: int, end: int) -> str:
        """A text that is compared, or has no format."""
        found = text_of(self.source, start, end, self.base)
        self.report.mapped(element, self.place(min(found.at, max(start, end - 1))))
        return found.raw

    def answers(self, prompt: str, inline: bool, start: int, end: int) -> dict[str, Any]:
        said = self.source[start:end].strip()
        start += len(self.source[start:end]) - len(self.source[start:end].lstrip())
        signs = {self.source[one] for one in find(self.source, "~=", start, end)}
        if not said:
            raise Misspelled("it is an essay, which nobody but a person can grade", start)
        if said[0] == "#":
            return self.numbers(prompt, start + 1, end)
        if said[0] == ">":
            return self.ordering(prompt, start + 1, end)
        if "~" in signs:
            return self.choices(prompt, inline, start, end)
        if "=" in signs and "->" in said:
            return self.pairs(prompt, start, end)
        word = self.source[start : next(find(self.source, "#", start, end), end)].strip()
        if not signs and word in TRUE | FALSE:
            return self.true_or_false(prompt, word, start, end)
        return self.texts(prompt, inline, start, end)

    def parts(self, start: int, end: int, signs: str = "~=") -> Iterator[Part]:
        """The answers between these places. Before the first sign nothing may stand, unless there is no sign."""
        at = list(find(self.source, signs, start, end))
        if not at:
            yield Part("=", start, next(find(self.source, "#", start, end), end), end)
            return
        if self.source[start : at[0]].strip():
            raise Misspelled("something stands before the first answer, without a sign of its own", start)
        for one, following in zip(at, [*at[1:], end], strict=True):
            feedback = next(find(self.source, "#", one + 1, following), following)
            yield Part(self.source[one], one + 1, feedback, following)

    def weighed(self, part: Part, default: Decimal) -> tuple[int, Decimal]:
        """Where the answer begins behind its weight, and that."""
        start = part.start
        while start < part.feedback and self.source[start].isspace():
            start += 1
        found = WEIGHT.match(self.source, start, part.feedback)
        if found is None:
            return start, default
        share = round(Decimal(found[1]), 7)
        if abs(share) > WHOLE:
            raise Misspelled("a weight is more than 100 percent", start)
        self.report.mapped("weight", self.place(start))
        return found.end(), share

    def feedback_of(self, part: Part, number: int) -> str:
        return self.say(f"feedback {number}", "feedback", part.feedback + 1, part.end)

    def choices(self, prompt: str, inline: bool, start: int, end: int) -> dict[str, Any]:
        found = list(self.parts(start, end))
        single = any(part.sign == "=" for part in found)
        made, shares = [], []
        for number, part in enumerate(found, 1):
            at, share = (part.start, WHOLE) if part.sign == "=" else self.weighed(part, Decimal(0))
            text = self.say(f"choice {number}", "choice", at, part.feedback)
            if not text:
                raise Misspelled("a choice is empty", part.start - 1)
            made.append(choice(text, correct=False, feedback=self.feedback_of(part, number)))
            shares.append(share)
        if inline and single and len(RUN.findall(prompt)) == 1 and _fits_a_blank(made, shares):
            return new_body("fill_blank", prompt, blanks=[_picked(made, shares)])
        return new_body("multiple_choice", prompt, choices=shared_evenly(made, shares, not single), multiple=not single)

    def true_or_false(self, prompt: str, word: str, start: int, end: int) -> dict[str, Any]:
        at = [*find(self.source, "#", start, end), end][:3]
        self.report.mapped("true or false", self.place(start))
        said = ["", ""]
        for number, (one, following) in enumerate(pairwise(at if at[-1] == end else [*at[:2], end])):
            said[number] = self.say(f"feedback {number + 1}", "feedback", one + 1, following)
        wrong, right = said
        true = word in TRUE
        both = [
            choice("True", correct=true, feedback=right if true else wrong),
            choice("False", correct=not true, feedback=wrong if true else right),
        ]
        shares = [WHOLE * true, WHOLE * (not true)]
        return new_body("multiple_choice", prompt, choices=shared_evenly(both, shares, multiple=False))

    def texts(self, prompt: str, inline: bool, start: int, end: int) -> dict[str, Any]:
        made = []
        for number, part in enumerate(self.parts(start, end, "="), 1):
            at, share = self.weighed(part, WHOLE)
            text = self.raw("answer", at, part.feedback)
            if not text:
                raise Misspelled("an answer is empty", part.start - 1)
            made.append(accepted(text, self.positive(share, part), self.feedback_of(part, number)))
        stars = wild(made)
        if inline and not stars and len(RUN.findall(prompt)) == 1:
            return new_body("fill_blank", prompt, blanks=[{"accepted": made, "options": []}])
        return new_body("short_answer", prompt, accepted=made, wildcards=stars)

    def positive(self, share: Decimal, part: Part) -> str:
        if share < 0:
            raise Misspelled("only a choice can take points away", part.start)
        return "" if share == WHOLE else plain_number(share)

    def numbers(self, prompt: str, start: int, end: int) -> dict[str, Any]:
        other = next(find(self.source, "~", start, end), None)
        stop = end if other is None else other
        made = []
        for number, part in enumerate(self.parts(start, stop, "="), 1):
            at, share = self.weighed(part, WHOLE)
            said = self.raw("number", at, part.feedback)
            feedback = self.feedback_of(part, number)
            if said == "*" and share == 0:
                self.otherwise(feedback, part.start)
            else:
                value, tolerance = self.range(said, part)
                made.append(drafts.accepted_number(value, tolerance, self.positive(share, part), feedback))
        if other is not None:
            hash_at = next(find(self.source, "#", other, end), end)
            if self.source[other + 1 : hash_at].strip(" \t\n*"):
                raise Misspelled("a wrong answer is no part of a question for a number, only its feedback is", other)
            self.otherwise(self.say("otherwise", "feedback", hash_at + 1, end), other)
        return new_body("numeric", prompt, numbers=made)

    def otherwise(self, feedback: str, at: int) -> None:
        if feedback:
            message = "that of all other numbers is kept for the export"
            self.keep("feedback", self.place(at), message, "otherwise", feedback)

    def range(self, said: str, part: Part) -> tuple[str, str]:
        """The middle of what is accepted, and how far it goes."""
        between = said.find("..")
        if between > 0:
            low, high = self.number(said[:between], part), self.number(said[between + 2 :], part)
            if high < low:
                raise Misspelled("the range ends before it begins", part.start)
            return plain_number((low + high) / 2), plain_number((high - low) / 2)
        value, _, tolerance = said.partition(":")
        away = self.number(tolerance or "0", part)
        if away < 0:
            raise Misspelled("the tolerance is less than 0", part.start)
        return plain_number(self.number(value, part)), plain_number(away)

    def number(self, text: str, part: Part) -> Decimal:
        try:
            return decimal(text)
        except NotANumber:
            raise Misspelled("what should be a number is none", part.start) from None

    def pairs(self, prompt: str, start: int, end: int) -> dict[str, Any]:
        made: list[tuple[str, str]] = []
        spare: list[str] = []
        for part in self.parts(start, end, "="):
            arrow = self.source.find("->", part.start, part.end)
            if arrow < 0:
                raise Misspelled("a pair has no `->`", part.start)
            target = unescaped(self.source[arrow + 2 : part.end]).strip()
            stem = self.say(f"stem {len(made) + 1}", "pair", part.start, arrow)
            if not target:
                raise Misspelled("a pair has no second part", arrow)
            if stem:
                made.append((stem, target))
            else:
                self.report.mapped("pair", self.place(part.start), "without its first part it is a target to spare")
                spare.append(target)
        return matching(prompt, made, spare)

    def ordering(self, prompt: str, start: int, end: int) -> dict[str, Any]:
        head, _, rest = self.source[start:end].partition("\n")
        if words := head.strip():
            message = "how it is shown and scored is kept for the export"
            self.keep("layout", self.place(start), message, "ordering", words)
        at, made = start + len(head) + 1, list[str]()
        for line in rest.split("\n") if rest else ():
            if line.strip():
                made.append(unescaped(line).strip())
                self.report.mapped("item", self.place(at))
            at += len(line) + 1
        items = [{"id": str(number), "text": text} for number, text in enumerate(made, 1)]
        return new_body("ordering", prompt, items=items)


def _fits_a_blank(made: Sequence[Any], shares: Sequence[Decimal]) -> bool:
    texts = [one["text"] for one in made]
    return min(shares) >= 0 and len(set(texts)) == len(texts) > 1 and max(map(len, texts)) <= LONGEST_OPTION


def _picked(made: Sequence[Any], shares: Sequence[Decimal]) -> dict[str, Any]:
    """The choices as a blank of which one is picked."""
    known = [
        accepted(one["text"], "" if share == WHOLE else plain_number(share), one["feedback"])
        for one, share in zip(made, shares, strict=True)
        if share or one["feedback"]
    ]
    return {"accepted": known, "options": [one["text"] for one in made]}


