"""Moodle's embedded answers ("cloze"): blanks spelled out in the text, as in `{1:SHORTANSWER:=cat~%50%kitten}`."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any

from services.assessment.exchange.drafts import accepted
from services.assessment.exchange.markup import Plain
from services.assessment.exchange.numbers import plain_number
from services.assessment.exchange.shares import WHOLE

TYPED = {"SHORTANSWER", "SA", "MW"}
TYPED_WITH_CASE = {"SHORTANSWER_C", "SAC", "MWC"}
PICKED = {"MULTICHOICE", "MC", "MULTICHOICE_V", "MCV", "MULTICHOICE_H", "MCH", "MULTICHOICE_S", "MCS"}
PICKED |= {"MULTICHOICE_VS", "MCVS", "MULTICHOICE_HS", "MCHS"}
START = re.compile(r"\{([0-9]{0,4}):([A-Z_]{2,20}):")
WEIGHT = re.compile(r"%(-?[0-9]{1,3}(?:\.[0-9]{0,7})?)%")
SIGNS = re.compile(r"\\.|[~}#]", re.DOTALL)
ESCAPED = re.compile(r'\\([~=#}/"\\])')
SPECIAL = re.compile(r'([~=#}/"\\])')
HOLE, BLANK = "\0", "___"


class NoCloze(Exception):
    """The text has no blanks, or some that there is no way to have here."""


def blanks_of(raw: str, reduce: Callable[[str], Plain]) -> tuple[str, list[dict[str, Any]], bool, tuple[str, ...]]:
    """The prompt, its blanks, whether case counts in them, and what is lost. Raises `NoCloze`."""
    parts: list[str] = []
    blanks: list[dict[str, Any]] = []
    lost: dict[str, None] = {}
    cases, worths = set[bool](), set[str]()
    at = 0
    while found := START.search(raw, at):
        blank, end = _blank(raw, found, reduce, lost)
        parts += [raw[at : found.start()], HOLE]
        at = end
        blanks.append(blank)
        worths.add(found[1] or "1")
        if not blank["options"]:
            cases.add(found[2] in TYPED_WITH_CASE)
    if not blanks:
        raise NoCloze("it has no blank")
    if len(cases) > 1:
        raise NoCloze("case counts in some of its blanks and in others not")
    if len(worths) > 1:
        lost["that blanks are worth different points"] = None
    text, marks = reduce("".join([*parts, raw[at:]]))
    return text.replace(HOLE, BLANK), blanks, True in cases, (*marks, *lost)


def _blank(raw: str, found: re.Match[str], reduce: Callable[[str], Plain], lost: dict[str, None]) -> tuple[Any, int]:
    kind = found[2]
    if kind not in TYPED | TYPED_WITH_CASE | PICKED:
        raise NoCloze(f"a blank is of the type {kind}")
    known, end = _answers(raw, found.end())
    answers: list[dict[str, str]] = []
    for share, text, feedback in known:
        plain_text, marks = reduce(text)
        said, more = reduce(feedback)
        lost |= dict.fromkeys((*marks, *more))
        if share < 0:
            raise NoCloze("only a choice can take points away")
        if plain_text == "*" and kind not in PICKED:
            if share > 0:
                raise NoCloze("anything is right in a blank")
            lost["what is said to any other answer"] = None
        elif "*" in plain_text and kind not in PICKED:
            raise NoCloze("a star stands for anything in a blank")
        else:
            answers.append(accepted(plain_text, "" if share == WHOLE else plain_number(share), said))
    if kind not in PICKED:
        return {"accepted": answers, "options": []}, end
    earning = [one for one in answers if one["percent"] != "0" or one["feedback"]]
    return {"accepted": earning, "options": [one["text"] for one in answers]}, end


def _answers(raw: str, at: int) -> tuple[list[tuple[Decimal, str, str]], int]:
    """The answers from here to the brace that ends them, with what each earns, and where that is."""
    made: list[tuple[Decimal, str, str]] = []
    pieces, start, hash_at = list[tuple[str, str]](), at, -1
    for found in SIGNS.finditer(raw, at):
        sign = found[0]
        if sign[0] == "\\":
            continue
        if sign == "#":
            hash_at = found.start() if hash_at < 0 else hash_at
            continue
        text = raw[start : hash_at if hash_at >= 0 else found.start()]
        pieces.append((text, raw[hash_at + 1 : found.start()] if hash_at >= 0 else ""))
        start, hash_at = found.end(), -1
        if sign == "}":
            made += [_weighed(*piece) for piece in pieces if piece[0].strip()]
            return made, found.end()
    raise NoCloze("a blank is never closed")


def _weighed(text: str, feedback: str) -> tuple[Decimal, str, str]:
    text, share = text.strip(), Decimal(0)
    if text.startswith("="):
        text, share = text[1:], WHOLE
    elif found := WEIGHT.match(text):
        text, share = text[found.end() :], Decimal(found[1])
    return share, ESCAPED.sub(r"\1", text).strip(), ESCAPED.sub(r"\1", feedback).strip()


def holds(text: str) -> bool:
    """Whether a text has what begins a blank."""
    return bool(START.search(text))


def spelled(blank: Mapping[str, Any], *, case: bool) -> str:
    """A blank as it is written. Raises `NoCloze`."""
    known: Sequence[Mapping[str, str]] = blank["accepted"]
    if any("*" in one["text"] for one in known) and not blank["options"]:
        raise NoCloze("a star in a blank would stand for anything")
    if not blank["options"]:
        kind = "SHORTANSWER_C" if case else "SHORTANSWER"
        return f"{{1:{kind}:{'~'.join(_spelled_answer(one['text'], one) for one in known)}}}"
    by_text = {one["text"]: one for one in known}
    return f"{{1:MULTICHOICE:{'~'.join(_options(blank, by_text))}}}"


def _options(blank: Mapping[str, Any], known: Mapping[str, Mapping[str, str]]) -> Iterator[str]:
    for option in blank["options"]:
        yield _spelled_answer(option, known.get(option, {"percent": "0", "feedback": ""}))


def _spelled_answer(text: str, one: Mapping[str, str]) -> str:
    share = Decimal(one["percent"] or "100")
    sign = "=" if share == WHOLE else f"%{plain_number(share)}%"
    said, feedback = (SPECIAL.sub(r"\\\1", part) for part in (text, one["feedback"]))
    return f"{sign}{said}#{feedback}" if feedback else sign + said
