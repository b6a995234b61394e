"""What a question of each type may say."""

from collections.abc import Mapping
from typing import Any
from uuid import uuid4

import pytest

from kit.errors import InvalidArgument
from services.assessment.bodies import check_body, check_tags, new_body, violations


def choice(correct: bool = False, percent: str = "", **fields: Any) -> dict[str, Any]:
    return {"id": str(uuid4()), "text": "text", "correct": correct, "feedback": "", "percent": percent} | fields


def said(text: str = "text", percent: str = "", feedback: str = "") -> dict[str, Any]:
    return {"text": text, "percent": percent, "feedback": feedback}


def number(value: str = "1", tolerance: str = "", percent: str = "") -> dict[str, Any]:
    return {"value": value, "tolerance": tolerance, "percent": percent, "feedback": ""}


def part(text: str = "text", **fields: Any) -> dict[str, Any]:
    return {"id": str(uuid4()), "text": text} | fields


def choices(*made: Mapping[str, Any], multiple: bool = False) -> dict[str, Any]:
    return new_body("multiple_choice", "?", choices=list(made), multiple=multiple)


def blank(*accepted: dict[str, Any], options: tuple[str, ...] = ()) -> dict[str, Any]:
    return new_body("fill_blank", "A ___", blanks=[{"accepted": list(accepted), "options": list(options)}])


def short(*accepted: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return new_body("short_answer", "?", accepted=list(accepted), **fields)


def numeric(*numbers: dict[str, Any]) -> dict[str, Any]:
    return new_body("numeric", "?", numbers=list(numbers))


def matching(stems: int = 1, targets: int = 2, pairs: int | None = None) -> dict[str, Any]:
    body = new_body("matching", "?", stems=[part() for _ in range(stems)], targets=[part() for _ in range(targets)])
    first = body["targets"][0]["id"] if targets else ""
    return body | {"pairs": [[stem["id"], first] for stem in body["stems"][:pairs]]}


def ordering(*texts: str) -> dict[str, Any]:
    return new_body("ordering", "?", items=[part(text) for text in texts])


TWICE = str(uuid4())
RIGHT, WRONG = choice(correct=True), choice()


class TestCheckBody:
    @pytest.mark.parametrize(
        "body",
        [
            choices(RIGHT, WRONG),
            choices(RIGHT, choice(correct=True), multiple=True),
            choices(choice(correct=True, percent="100"), choice(correct=True, percent="100"), WRONG),
            choices(RIGHT, choice(percent="99.9999999"), choice(percent="-100")),
            choices(choice(correct=True, percent="0.0000001"), choice(percent="-50"), multiple=True),
            blank(said()),
            blank(said("a"), said("b", percent="0"), options=("a", "b", "c")),
            short(said(percent="1"), wildcards=True, most_typos=2, scoring="all_or_nothing"),
            numeric(number("-1.50", "0.05"), number("9" * 30, percent="0")),
            matching(),
            matching(20, 40),
            ordering("a", "a", "b"),
        ],
    )
    def test_takes_what_fits(self, body: dict[str, Any]) -> None:
        check_body(body)

    @pytest.mark.parametrize(
        ("body", "field"),
        [
            (choices(RIGHT, WRONG) | {"prompt": " "}, "prompt"),
            (choices(RIGHT, WRONG) | {"prompt": "a\0b"}, "prompt"),
            (choices(RIGHT, WRONG) | {"explanation": "x" * 5001}, "explanation"),
            (choices(RIGHT, WRONG) | {"scoring": "most"}, "scoring"),
            (choices(RIGHT), "choices"),
            (choices(*[RIGHT, *[choice() for _ in range(20)]]), "choices"),
            (choices(WRONG, choice()), "choices"),
            (choices(RIGHT, choice(correct=True)), "choices"),
            (choices(RIGHT, choice(text="\u2003")), "choices[1].text"),
            (choices(RIGHT, choice(feedback="x" * 1001)), "choices[1].feedback"),
            (choices(choice(correct=True, id=TWICE), choice(id=TWICE)), "choices[1].id"),
            (choices(RIGHT, choice(percent="100")), "choices[1].percent"),
            (choices(RIGHT, choice(percent="1e1")), "choices[1].percent"),
            (choices(RIGHT, choice(percent="-100.1")), "choices[1].percent"),
            (choices(choice(correct=True, percent="50"), WRONG), "choices[0].percent"),
            (choices(choice(correct=True, percent="0"), WRONG, multiple=True), "choices[0].percent"),
            (choices(RIGHT, choice(percent="1"), multiple=True), "choices[1].percent"),
            (blank() | {"blanks": []}, "blanks"),
            (blank(said()) | {"prompt": "___ and ___"}, "blanks"),
            (blank(), "blanks[0].accepted"),
            (blank(said(percent="0")), "blanks[0].accepted"),
            (blank(said("x" * 201)), "blanks[0].accepted[0].text"),
            (blank(said(percent="-1")), "blanks[0].accepted[0].percent"),
            (blank(said("a"), options=("a",)), "blanks[0].options"),
            (blank(said("a"), options=("a", " a ")), "blanks[0].options[1]"),
            (blank(said("A"), options=("a", "b")), "blanks[0].accepted[0].text"),
            (short(), "accepted"),
            (short(said(), most_typos=3), "most_typos"),
            (short(*[said()] * 21), "accepted"),
            (numeric(), "numbers"),
            (numeric(number("1e3")), "numbers[0].value"),
            (numeric(number("1", "-1")), "numbers[0].tolerance"),
            (numeric(number(percent="0")), "numbers"),
            (matching(0), "stems"),
            (matching(1, 1), "targets"),
            (matching(1, 41), "targets"),
            (matching(2, 2, pairs=1), "stems[1].target"),
            (ordering("a"), "items"),
            (ordering("a", "a"), "items"),
            (ordering("a", " "), "items[1].text"),
        ],
    )
    def test_names_what_does_not_fit(self, body: dict[str, Any], field: str) -> None:
        assert field in {one for one, _ in violations(body)}
        with pytest.raises(InvalidArgument):
            check_body(body)


class TestCheckTags:
    def test_keeps_them_in_one_spelling(self) -> None:
        assert check_tags(["  Động  Từ ", "B1"]) == ["động từ", "b1"]

    @pytest.mark.parametrize("tags", [["a", "A"], [" "], ["x" * 51], [str(n) for n in range(21)]])
    def test_refuses_what_is_no_tag(self, tags: list[str]) -> None:
        with pytest.raises(InvalidArgument):
            check_tags(tags)
