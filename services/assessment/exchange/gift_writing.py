"""One question in GIFT."""

import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

from services.assessment.exchange.drafts import Draft
from services.assessment.exchange.gift_text import escaped, spelled
from services.assessment.exchange.numbers import plain_number
from services.assessment.exchange.report import Place, Report
from services.assessment.exchange.shares import WHOLE, percents

RUN = re.compile("_{3,}")
TRUE_OR_FALSE = ("True", "False")


class Unspeakable(Exception):
    """GIFT has no way to say the question."""


def written(draft: Draft, report: Report, place: Place) -> str:
    """The question's lines; what is not in them is refused in the report. Raises `Unspeakable`."""
    return _Writing(draft, report, place).all()


class _Writing:
    def __init__(self, draft: Draft, report: Report, place: Place) -> None:
        self.draft, self.body, self.report, self.place = draft, draft.body, report, place
        self.kept: Mapping[str, Any] = draft.preserved.get("gift") or {}
        self.originals: Mapping[str, Any] = self.kept.get("texts") or {}
        self.base = "moodle"

    def all(self) -> str:
        self.tell_what_is_not_said()
        title = f"::{escaped(self.draft.name)}::" if self.draft.name else ""
        kind = self.body["type"]
        ways: Mapping[str, Callable[[], str]] = {
            "multiple_choice": self.choices,
            "fill_blank": self.blank,
            "short_answer": lambda: self.texts(self.body["accepted"], wildcards=self.body["wildcards"]),
            "numeric": self.numbers,
            "matching": self.pairs,
            "ordering": self.ordering,
        }
        prompt = self.prompt()
        answers = ways[kind]()
        if self.body["explanation"]:
            answers += f"\t####{self.text('explanation', self.body['explanation'])}\n"
        whole = prompt.replace("\0", f"{{{answers}}}", 1) if "\0" in prompt else f"{prompt} {{{answers}}}"
        return "\n".join([*self.comments(), title + whole])

    def refuse(self, element: str, message: str) -> None:
        self.report.refused(element, self.place, message)

    def tell_what_is_not_said(self) -> None:
        body = self.body
        if body["scoring"] != "partial":
            self.refuse("scoring", "GIFT has only partial credit")
        for field in ("case_sensitive", "ignore_accents", "most_typos"):
            if body.get(field):
                self.refuse(field, "GIFT does not say how texts are compared")
        if self.draft.points not in ("", "1"):
            self.refuse("points", "GIFT does not say what a question is worth")
        for name in self.draft.preserved:
            if name != "gift":
                self.refuse(f"preserved {name}", "what was kept of another format is not written in this one")

    def comments(self) -> list[str]:
        notes = [f"[id:{_noted(self.kept['id'])}]"] if self.kept.get("id") else []
        notes += [f"[tag:{_noted(tag)}]" for tag in self.draft.tags]
        lines = [f"// {' '.join(notes)}"] if notes else []
        return [*lines, *(f"// {one}" for one in self.kept.get("comments") or ())]

    def prompt(self) -> str:
        """The prompt; a NUL character stands for the answers where they are in it."""
        text, before = self.body["prompt"], self.draft.name
        original = self.originals.get("prompt")
        said, self.base = spelled(text, "moodle", tuple(original) if original else None)
        if not before and said.startswith("//"):
            said = f"[{self.base}]{said}"
        if self.body["type"] == "fill_blank":
            if len(self.body["blanks"]) != 1:
                raise Unspeakable("GIFT has one blank in a question at most")
            said = RUN.sub("\0", said, count=1)
            # Answers at the end would be those of a question that has no blank.
            said += "\\n" if said.endswith("\0") else ""
        return said

    def text(self, key: str, text: str) -> str:
        original = self.originals.get(key)
        return spelled(text, self.base, tuple(original) if original else None)[0]

    def feedback(self, number: int, text: str) -> str:
        return f"#{self.text(f'feedback {number}', text)}" if text else ""

    def choices(self) -> str:
        choices, shares = self.body["choices"], percents(self.body)
        multiple = self.body["multiple"]
        right = [one["correct"] for one in choices]
        if not multiple and tuple(one["text"] for one in choices) == TRUE_OR_FALSE and sorted(shares) == [0, WHOLE]:
            return self.true_or_false(right[0])
        if not multiple and WHOLE not in shares:
            raise Unspeakable("GIFT has no question with one choice of which none earns all points")
        lines = []
        for number, (one, share) in enumerate(zip(choices, shares, strict=True), 1):
            text = self.text(f"choice {number}", one["text"])
            sign = _sign(share, text, whole="~%100%" if multiple else "=")
            lines.append(f"\t{sign}{text}{self.feedback(number, one['feedback'])}\n")
        return "\n" + "".join(_choosable(lines))

    def true_or_false(self, true: bool) -> str:
        yes, no = (one["feedback"] for one in self.body["choices"])
        wrong, right = (no, yes) if true else (yes, no)
        said = "TRUE" if true else "FALSE"
        if wrong or right:
            said += f"#{self.text('feedback 1', wrong) if wrong else ''}"
        if right:
            said += f"#{self.text('feedback 2', right)}"
        return said + ("\n" if self.body["explanation"] else "")

    def blank(self) -> str:
        (blank,) = self.body["blanks"]
        if not blank["options"]:
            return self.texts(blank["accepted"], wildcards=False)
        known = {one["text"]: one for one in blank["accepted"]}
        lines = []
        for number, option in enumerate(blank["options"], 1):
            one = known.get(option, {"percent": "0", "feedback": ""})
            text = self.text(f"choice {number}", option)
            sign = _sign(Decimal(one["percent"] or "100"), text)
            lines.append(f"\t{sign}{text}{self.feedback(number, one['feedback'])}\n")
        if not any(line[1] == "=" for line in lines):
            raise Unspeakable("GIFT has no question with one choice of which none earns all points")
        return "\n" + "".join(_choosable(lines))

    def texts(self, known: Any, *, wildcards: bool) -> str:
        lines = []
        for number, one in enumerate(known, 1):
            text = one["text"] if wildcards else one["text"].replace("*", "\\*")
            weight = f"%{one['percent']}%" if one["percent"] else "%100%" if text[0] == "%" else ""
            said = spelled_raw(text, self.base)
            lines.append(f"\t={weight}{said}{self.feedback(number, one['feedback'])}\n")
        if any("->" in line for line in lines):
            raise Unspeakable("GIFT takes answers with `->` for pairs")
        return "\n" + "".join(lines)

    def numbers(self) -> str:
        lines = []
        for number, one in enumerate(self.body["numbers"], 1):
            weight = f"%{one['percent']}%" if one["percent"] else ""
            tolerance = f":{one['tolerance']}" if one["tolerance"] not in ("", "0") else ""
            lines.append(f"\t={weight}{one['value']}{tolerance}{self.feedback(number, one['feedback'])}\n")
        if said := self.kept.get("otherwise"):
            lines.append(f"\t~#{self.text('otherwise', said)}\n")
        return "#\n" + "".join(lines)

    def pairs(self) -> str:
        stems = {one["id"]: one["text"] for one in self.body["stems"]}
        targets = {one["id"]: one["text"] for one in self.body["targets"]}
        used = {target for _, target in self.body["pairs"]}
        pairs = [(stems[stem], targets[target]) for stem, target in self.body["pairs"]]
        pairs += [("", text) for one, text in targets.items() if one not in used]
        if any("->" in stem for stem, _ in pairs):
            raise Unspeakable("GIFT has no way to write `->` in what is matched")
        lines = [
            f"\t={self.text(f'stem {number}', stem) if stem else ''} -> {escaped(target)}\n"
            for number, (stem, target) in enumerate(pairs, 1)
        ]
        return "\n" + "".join(lines)

    def ordering(self) -> str:
        items = [one["text"] for one in self.body["items"]]
        if any(text.startswith("//") for text in items):
            raise Unspeakable("GIFT takes an item that begins with `//` for a comment")
        words = self.kept.get("ordering", "")
        return f">{words}\n" + "".join(f"\t{escaped(text)}\n" for text in items)


def _sign(share: Decimal, text: str, whole: str = "=") -> str:
    """What stands before a choice. A percent sign that is part of the text must not seem to begin a weight."""
    if share == WHOLE:
        return whole
    return f"~%{plain_number(share)}%" if share or text.startswith("%") else "~"


def _choosable(lines: list[str]) -> list[str]:
    """The lines with a choice that begins with a tilde: without one, they would be texts to type."""
    if all(line[1] == "=" for line in lines):
        lines[-1] = f"\t~%100%{lines[-1][2:]}"
    return lines


def spelled_raw(text: str, base: str) -> str:
    """A text that is compared as it is, whatever its format: only a prefix that is part of it needs another."""
    said = escaped(text)
    return f"[{base}]{said}" if re.match(r"\[(moodle|html|plain|markdown)\]", text) else said


def _noted(text: str) -> str:
    return re.sub(r"([\\\]])", r"\\\1", " ".join(text.split()))
