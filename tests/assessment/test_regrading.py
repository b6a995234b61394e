"""Regrades as pure rules: what is foreseen is what happens, once, in any order, and can be computed again."""

import json
from dataclasses import dataclass, replace
from decimal import Decimal
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.assessment.regrade_effects import Effect, Grader
from services.assessment.regrading import DROP, FULL_MARKS, KEY, ORIGINAL, Change, Tally, fits, in_force
from services.assessment.rules import Outcome

PASS_MARK = Decimal(60)
CHOICES = [str(UUID(int=n)) for n in range(1, 5)]
COMMON = {"prompt": "?", "explanation": "", "scoring": "partial"}
TEXTS = {"case_sensitive": False, "ignore_accents": False, "most_typos": 0, "wildcards": False}


def choices(*right: int, multiple: bool = True, ids: list[str] = CHOICES) -> dict[str, Any]:
    made = [{"id": one, "text": one, "correct": n in right, "feedback": "", "percent": ""} for n, one in enumerate(ids)]
    return {"type": "multiple_choice", "choices": made, "multiple": multiple, **COMMON}


def short(*accepted: str) -> dict[str, Any]:
    known = [{"text": text, "percent": "", "feedback": ""} for text in accepted]
    return {"type": "short_answer", "accepted": known, **TEXTS, **COMMON}


def blanks(*accepted: str, options: tuple[str, ...] = ()) -> dict[str, Any]:
    known = [{"text": text, "percent": "", "feedback": ""} for text in accepted]
    return {"type": "fill_blank", "blanks": [{"accepted": known, "options": list(options)}], **TEXTS, **COMMON}


def ordering(*ids: str) -> dict[str, Any]:
    return {"type": "ordering", "items": [{"id": one, "text": one} for one in ids], **COMMON}


def matching(*targets: str) -> dict[str, Any]:
    stems = [{"id": one, "text": one} for one in CHOICES[:2]]
    told = [{"id": one, "text": one} for one in CHOICES]
    pairs = [[stem["id"], target] for stem, target in zip(stems, targets, strict=True)]
    return {"type": "matching", "stems": stems, "targets": told, "pairs": pairs, **COMMON}


# The bodies of the versions of three questions: of the first the third has a choice less.
BODIES = (
    (choices(0), choices(1, 2), choices(0, ids=CHOICES[:3])),
    (short("sea"), short("sea", "ocean")),
    (ordering(*CHOICES), ordering(*reversed(CHOICES))),
)
QUESTIONS = [UUID(int=1000 + n) for n in range(len(BODIES))]
VERSIONS = {
    UUID(int=2000 + 10 * n + version): (QUESTIONS[n], version, body)
    for n, bodies in enumerate(BODIES)
    for version, body in enumerate(bodies, start=1)
}
ANSWERS = (
    st.sets(st.sampled_from(CHOICES[:3])).map(sorted),
    st.sampled_from([["sea"], ["ocean"], ["lake"], []]),
    st.permutations(CHOICES),
)


def version_id(question: int, version: int) -> UUID:
    return UUID(int=2000 + 10 * question + version)


@st.composite
def attempts(draw: st.DrawFn) -> Any:
    """An attempt that is over, with some of the questions, each in some version and with some answer or none."""
    asked = draw(st.lists(st.sampled_from(range(len(BODIES))), min_size=1, unique=True))
    ids = [version_id(one, draw(st.integers(1, len(BODIES[one])))) for one in asked]
    given = {str(one): draw(ANSWERS[n]) for one, n in zip(ids, asked, strict=True) if draw(st.booleans())}
    points = [draw(st.sampled_from([Decimal(1), Decimal("0.7"), Decimal("3.333333")])) for _ in asked]
    return SimpleNamespace(
        id=draw(st.uuids()), version_ids=ids, points=points, answers=json.dumps(given), pass_mark=PASS_MARK
    )


@st.composite
def changes(draw: st.DrawFn) -> Change:
    """A regrade; its number is given later."""
    question = draw(st.sampled_from(range(len(BODIES))))
    version = draw(st.integers(1, len(BODIES[question])))
    kind = draw(st.sampled_from([FULL_MARKS, DROP, KEY, ORIGINAL]))
    one = version_id(question, version)
    key = (one, VERSIONS[one][2]) if kind == KEY else (None, None)
    return Change(0, QUESTIONS[question], kind, version, *key)


@dataclass
class Gradebook:
    """The results of a quiz, as regrades change them."""

    attempts: list[Any]
    made: list[Change]
    results: dict[UUID, Outcome]

    @classmethod
    def of(cls, attempts: list[Any]) -> "Gradebook":
        return cls(attempts, [], {one.id: Grader([], VERSIONS).outcome(one) for one in attempts})

    def foreseen(self, change: Change) -> tuple[Tally, dict[UUID, Outcome]]:
        pinned = {one: told for one, told in VERSIONS.items() if told[0] == change.question_id}
        effect = Effect(replace(change, number=len(self.made) + 1), self.made, pinned)
        effect.versions.update(VERSIONS)
        about = [row for row in self.rows() if {*row.version_ids} & {*effect.version_ids}]
        return effect.tally, {row.id: outcome for row, outcome in effect.of(about)}

    def rows(self) -> list[Any]:
        return [
            SimpleNamespace(**vars(one), percent=self.results[one.id].percent, passed=self.results[one.id].passed)
            for one in self.attempts
        ]

    def make(self, change: Change) -> dict[UUID, Outcome]:
        """Returns what it changed."""
        _, new = self.foreseen(change)
        self.made.append(replace(change, number=len(self.made) + 1))
        self.results |= new
        return new


def books() -> st.SearchStrategy[Gradebook]:
    return st.lists(attempts(), max_size=6, unique_by=lambda one: one.id).map(Gradebook.of)


class TestRegrades:
    @given(books(), st.lists(changes(), max_size=5))
    def test_leave_the_results_that_attempts_would_have_from_the_start(
        self, book: Gradebook, several: list[Change]
    ) -> None:
        for one in several:
            book.make(one)
        grader = Grader(book.made, VERSIONS)
        assert book.results == {one.id: grader.outcome(one) for one in book.attempts}

    @given(books(), st.lists(changes(), min_size=1, max_size=4))
    def test_twice_are_once(self, book: Gradebook, several: list[Change]) -> None:
        for one in several:
            book.make(one)
        assert book.make(several[-1]) == {}

    @given(books(), changes())
    def test_count_what_they_change(self, book: Gradebook, change: Change) -> None:
        before = dict(book.results)
        tally, new = book.foreseen(change)
        assert book.make(change) == new
        moved = [(before[one], book.results[one]) for one in before if before[one] != book.results[one]]
        assert tally.changed == len(new) == len(moved)
        assert tally.raised == sum(after.percent > was.percent for was, after in moved)
        assert tally.lowered == sum(after.percent < was.percent for was, after in moved)
        assert tally.newly_passed == sum(after.passed > was.passed for was, after in moved)
        assert tally.newly_failed == sum(after.passed < was.passed for was, after in moved)

    @given(st.lists(attempts(), max_size=5, unique_by=lambda one: one.id), changes(), changes())
    def test_of_different_questions_come_in_any_order(self, over: list[Any], one: Change, other: Change) -> None:
        if one.question_id == other.question_id:
            another = QUESTIONS[(QUESTIONS.index(one.question_id) + 1) % 3]
            other = replace(other, question_id=another, kind=DROP, key=None)
        forth, back = Gradebook.of(over), Gradebook.of(over)
        for change in (one, other):
            forth.make(change)
        for change in (other, one):
            back.make(change)
        assert forth.results == back.results

    @given(books(), st.lists(changes(), max_size=4))
    def test_are_all_taken_back_by_originals(self, book: Gradebook, several: list[Change]) -> None:
        before = dict(book.results)
        for one in several:
            book.make(one)
        for question, bodies in zip(QUESTIONS, BODIES, strict=True):
            book.make(Change(0, question, ORIGINAL, len(bodies)))
        assert book.results == before


class TestInForce:
    def test_is_the_last_one_about_the_version(self) -> None:
        made = [Change(1, QUESTIONS[0], DROP, 2), Change(2, QUESTIONS[0], FULL_MARKS, 1)]
        made.append(Change(3, QUESTIONS[1], DROP, 9))
        body = BODIES[0][0]
        kinds = [getattr(in_force(made, QUESTIONS[0], version, body), "kind", None) for version in (1, 2, 3)]
        assert kinds == [FULL_MARKS, DROP, None]

    def test_is_not_a_key_that_does_not_fit(self) -> None:
        key = Change(2, QUESTIONS[0], KEY, 3, version_id(0, 3), BODIES[0][2])
        dropped = Change(1, QUESTIONS[0], DROP, 3)
        assert in_force([dropped, key], QUESTIONS[0], 1, BODIES[0][0]) == dropped
        assert in_force([dropped, key], QUESTIONS[0], 3, BODIES[0][2]) == key


class TestFits:
    @pytest.mark.parametrize(
        ("body", "key"),
        [
            (choices(0), choices(1, 2)),
            (short("a"), short("b", "c")),
            (blanks("a"), blanks("b")),
            (blanks("a", options=("a", "b")), blanks("b", options=("b", "a"))),
            (ordering(*CHOICES), ordering(*reversed(CHOICES))),
            (matching(*CHOICES[:2]), matching(*CHOICES[2:])),
        ],
    )
    def test_another_key_to_the_same(self, body: dict[str, Any], key: dict[str, Any]) -> None:
        assert fits(body, key)

    @pytest.mark.parametrize(
        ("body", "key"),
        [
            (choices(0), choices(0, multiple=False)),
            (choices(0), choices(0, ids=CHOICES[:3])),
            (short("a"), blanks("a")),
            (blanks("a", options=("a", "b")), blanks("a")),
            (ordering(*CHOICES), ordering(*CHOICES[:3])),
        ],
    )
    def test_nothing_that_asks_for_something_else(self, body: dict[str, Any], key: dict[str, Any]) -> None:
        assert not fits(body, key)
