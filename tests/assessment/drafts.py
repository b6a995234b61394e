"""Drafts of questions of every type, as readers make them, for round trips."""

from decimal import Decimal
from typing import Any

from hypothesis import strategies as st

from services.assessment.bodies import new_body, tag_key, violations
from services.assessment.exchange.drafts import Draft, accepted, accepted_number, choice, matching, numbered
from services.assessment.exchange.numbers import plain_number

# Whatever a format could take for one of its own signs, and letters that are more than one byte or code point.
SIGNS = "aB9 \n\t*_%~=#{}:\\[]<>&;\"'/|$-.,@!?()éñ漢字🙂е́"
WORDS = ["[html]", "//", "::", "$CATEGORY:", "->", "####", "&amp;", "<b>", "]]>", "{1:SA:=x}", "[[1]]", "%50%", "\\n"]


def texts(longest: int = 40) -> st.SearchStrategy[str]:
    """Texts without white space around them; blanks are put in by those that may have them."""
    parts = st.lists(st.one_of(st.sampled_from(WORDS), st.text(SIGNS, max_size=8)), min_size=1, max_size=4)
    said = parts.map("".join).map(lambda text: text.strip().replace("__", "_ "))
    return said.map(str.strip).filter(lambda text: 0 < len(text) <= longest)


def remarks() -> st.SearchStrategy[str]:
    return st.one_of(st.just(""), texts())


def percents() -> st.SearchStrategy[str]:
    """What a part of the points is, neither all nor nothing."""
    return st.decimals(1, 99, places=2).map(plain_number)


@st.composite
def choice_bodies(draw: st.DrawFn) -> dict[str, Any]:
    said = draw(st.lists(st.tuples(texts(), remarks()), min_size=2, max_size=5))
    multiple = draw(st.booleans())
    right = draw(st.lists(st.booleans(), min_size=len(said), max_size=len(said)).filter(any))
    if not multiple:
        right = [index == right.index(True) for index in range(len(said))]
    made = [choice(text, correct=one, feedback=told) for (text, told), one in zip(said, right, strict=True)]
    if draw(st.booleans()):
        for one in made:
            part = draw(percents())
            if multiple:
                one["percent"] = part if one["correct"] else f"-{part}"
            elif not one["correct"]:
                one["percent"] = draw(st.sampled_from([part, f"-{part}"]))
    return new_body("multiple_choice", draw(texts()), choices=made, multiple=multiple)


@st.composite
def known(draw: st.DrawFn, most: int = 4) -> list[dict[str, str]]:
    """Accepted texts; the first earns all."""
    said = draw(st.lists(texts().filter(lambda text: "*" not in text), min_size=1, max_size=most, unique=True))
    shares = [st.just(""), st.one_of(st.just(""), st.just("0"), percents())]
    return [accepted(text, draw(shares[index > 0]), draw(remarks())) for index, text in enumerate(said)]


@st.composite
def blank_bodies(draw: st.DrawFn) -> dict[str, Any]:
    """With blanks that are typed, or of which options are picked."""
    blanks = []
    for _ in range(draw(st.integers(1, 3))):
        answers = draw(known())
        if draw(st.booleans()) and len(answers) > 1:
            answers = [one for one in answers if one["percent"] != "0" or one["feedback"]]
            options = list(dict.fromkeys([*(one["text"] for one in answers), draw(texts())]))
            blanks.append({"accepted": answers, "options": options})
        else:
            blanks.append({"accepted": answers, "options": []})
    parts = [draw(texts()) for _ in range(len(blanks) + 1)]
    return new_body("fill_blank", " ___ ".join(parts).strip(), blanks=blanks)


@st.composite
def short_bodies(draw: st.DrawFn) -> dict[str, Any]:
    answers, wild = draw(known()), draw(st.booleans())
    if wild:
        answers.append(accepted("a*b", "", ""))
    return new_body("short_answer", draw(texts()), accepted=answers, wildcards=wild)


@st.composite
def number_bodies(draw: st.DrawFn) -> dict[str, Any]:
    numbers = st.decimals(Decimal(-1000), Decimal(1000), places=3).map(plain_number)
    away = st.decimals(Decimal(0), Decimal(10), places=2).map(plain_number)
    made = [accepted_number(draw(numbers), draw(away), "", draw(remarks()))]
    made += [accepted_number(draw(numbers), draw(away), draw(percents()), "") for _ in range(draw(st.integers(0, 2)))]
    return new_body("numeric", draw(texts()), numbers=made)


@st.composite
def match_bodies(draw: st.DrawFn) -> dict[str, Any]:
    pairs = draw(st.lists(st.tuples(texts(), texts()), min_size=2, max_size=4))
    return matching(draw(texts()), pairs, draw(st.lists(texts(), max_size=2)))


@st.composite
def order_bodies(draw: st.DrawFn) -> dict[str, Any]:
    items = draw(st.lists(texts(), min_size=2, max_size=4, unique=True))
    return new_body("ordering", draw(texts()), items=[{"id": "", "text": text} for text in items])


BODIES = st.one_of(choice_bodies(), blank_bodies(), short_bodies(), number_bodies(), match_bodies(), order_bodies())


@st.composite
def drafts(draw: st.DrawFn) -> Draft:
    """A valid one, as it is in the bank."""
    body = numbered(draw(BODIES.filter(lambda one: not list(violations(numbered(one))))))
    body["explanation"] = draw(remarks())
    name = " ".join(draw(remarks()).split())
    tags = dict.fromkeys(tag for tag in map(tag_key, draw(st.lists(texts(20), max_size=3))) if tag)
    return Draft(body=body, name=name, tags=tuple(tags))
