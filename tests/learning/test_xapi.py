"""Statements are xAPI 1.0.3, as an independent validator has it, whatever they are made of."""

import copy
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from uuid import UUID, uuid5

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from ralph.models.xapi.base.statements import BaseXapiStatement

from kit.ids import new_id
from services.learning.xapi import VERBS, Told, duration, home_page, instant, score, statement
from tests.profile import PROOF

pytestmark = pytest.mark.slow

BASE = "https://school.example"
AT = datetime(2026, 11, 22, 7, 30, 1, 234567, tzinfo=UTC)
ROW = UUID("01a20431-6e0b-7d06-a3a6-0c2d9a5f6a11")


def valid(found: dict[str, Any]) -> None:
    """Raises ValidationError unless it is a statement, read from its JSON."""
    BaseXapiStatement.model_validate(json.loads(json.dumps(found)))


def told(verb: str = "passed", **others: Any) -> Told:
    said = {"registration": str(ROW), "score": "7.5", "max_score": "10", "passed": True, "seconds": 61.25}
    values: dict[str, Any] = {
        "row_id": ROW,
        "verb": verb,
        "user_id": new_id(),
        "happened": AT,
        "stored": AT + timedelta(seconds=5),
        "ids": {"quiz": str(new_id()), "lesson": str(new_id()), "course": str(new_id())},
        "names": {"lesson": "Bài 1", "course": "Tiếng Anh"},
        "said": said,
    }
    return Told(**(values | others))


class TestStatement:
    def test_says_who_did_what_with_what_and_how_well(self) -> None:
        one = told()
        found = statement(BASE, one)
        valid(found)
        assert found["id"] == str(uuid5(ROW, "passed"))
        assert found["actor"] == {
            "objectType": "Agent", "account": {"homePage": BASE, "name": str(one.user_id)},
        }  # fmt: skip
        assert found["verb"]["id"] == "http://adlnet.gov/expapi/verbs/passed"
        assert found["object"]["id"] == f"{BASE}/v1/quizzes/{one.ids['quiz']}"
        assert found["result"] == {
            "duration": "PT1M1.25S", "success": True, "completion": True,
            "score": {"raw": 7.5, "min": 0.0, "max": 10.0, "scaled": 0.75},
        }  # fmt: skip
        (parent,) = found["context"]["contextActivities"]["parent"]
        assert parent["id"] == f"{BASE}/v1/lessons/{one.ids['lesson']}"
        assert parent["definition"]["name"] == {"und": "Bài 1"}
        assert found["context"]["registration"] == str(ROW)
        assert (found["timestamp"], found["stored"]) == ("2026-11-22T07:30:01.234Z", "2026-11-22T07:30:06.234Z")

    def test_of_a_completed_lesson_has_the_lesson_as_its_object(self) -> None:
        ids = {"lesson": str(new_id()), "course": str(new_id())}
        found = statement(BASE, told("completed", ids=ids, said={}))
        valid(found)
        assert found["object"]["id"].endswith(ids["lesson"])
        assert found["result"]["completion"] is True
        assert list(found["result"]["extensions"].values()) == [100]
        assert list(found["context"]["contextActivities"]) == ["grouping"]

    def test_of_a_review_says_how_it_went(self) -> None:
        said = {"rating": "again", "seconds": 2.5}
        found = statement(BASE, told("answered", ids={"vocabulary": str(new_id())}, said=said))
        valid(found)
        assert found["result"] == {"duration": "PT2.50S", "success": False, "response": "again"}

    @settings(max_examples=2_000 if PROOF else 60, deadline=None)
    @given(
        verb=st.sampled_from(sorted(VERBS)),
        title=st.text(max_size=60),
        points=st.decimals(-5, 200, places=3),
        best=st.decimals(0, 100, places=2),
        seconds=st.floats(0, 10**7),
        at=st.integers(0, 10**9).map(lambda seconds: AT + timedelta(seconds=seconds, microseconds=seconds % 10**6)),
        kinds=st.sets(st.sampled_from(["vocabulary", "quiz", "story", "lesson"]), min_size=1),
    )
    def test_is_valid_whatever_it_is_made_of(
        self, verb: str, title: str, points: Any, best: Any, seconds: float, at: datetime, kinds: set[str]
    ) -> None:
        said = {
            "score": str(points), "max_score": str(best), "passed": True, "seconds": seconds, "rating": "hard",
            "interactions": 3,
        }  # fmt: skip
        ids = {kind: str(new_id()) for kind in kinds} | {"course": str(new_id())}
        # PostgreSQL keeps neither of these.
        names = {"lesson": title.encode("utf-8", "ignore").decode().replace("\0", ""), "course": " "}
        valid(statement(BASE, told(verb, happened=at, ids=ids, names=names, said=said)))


def put(*path: Any, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(found: dict[str, Any]) -> None:
        *above, last = path
        for name in above:
            found = found[name]
        found[last] = value

    return change


WRONG = {
    "no verb": lambda found: found.pop("verb"),
    "a verb that is no IRI": put("verb", "id", value="passed"),
    "an empty actor": put("actor", value={}),
    "two identities": put("actor", "mbox", value="mailto:an@school.example"),
    "an account without a name": lambda found: found["actor"]["account"].pop("name"),
    "a home page that is no IRI": put("actor", "account", "homePage", value="school"),
    "an id that is no UUID": put("id", value="1"),
    "a duration that is none": put("result", "duration", value="1 minute"),
    "a score beyond its scale": put("result", "score", "scaled", value=1.5),
    "a score above the best": put("result", "score", "raw", value=11),
    "success that is no truth": put("result", "success", value="perhaps"),
    "a language that is none": put("verb", "display", value={"a language": "passed"}),
    "an activity that is no IRI": put("object", "id", value="lessons/1"),
    "a registration that is no UUID": put("context", "registration", value="first"),
    "an extension whose name is no IRI": put("result", "extensions", value={"progress": 100}),
    "a platform of an agent": put("object", value={"objectType": "Agent", "mbox": "mailto:an@school.example"}),
    "null": put("result", "duration", value=None),
    "a time that is none": put("timestamp", value="yesterday"),
    "another version": put("version", value="2.0.0"),
    "more than there is": put("mood", value="good"),
}


class TestValidator:
    """That it finds what is wrong, or it would prove nothing."""

    @pytest.mark.parametrize("what", WRONG)
    def test_refuses(self, what: str) -> None:
        right = statement(BASE, told())
        valid(right)
        wrong = copy.deepcopy(right)
        WRONG[what](wrong)
        with pytest.raises(ValidationError):
            valid(wrong)


class TestIds:
    def test_depend_on_the_row_and_what_is_said_of_it(self) -> None:
        said = {"rating": "good"}
        times = [AT + timedelta(days=day) for day in (1, 2)]
        ids = {statement(BASE, told(verb, stored=at, said=said))["id"] for verb in VERBS for at in times}
        assert len(ids) == len(VERBS)
        assert {UUID(one).version for one in ids} == {5}


class TestParts:
    @pytest.mark.parametrize(
        ("seconds", "wanted"),
        [
            (0, "PT0S"), (0.004, "PT0S"), (2.5, "PT2.50S"), (59.999, "PT1M0S"), (61, "PT1M1S"), (3600, "PT1H0M0S"),
            (90_061.5, "PT25H1M1.50S"),
        ],
    )  # fmt: skip
    def test_durations_are_to_the_hundredth(self, seconds: float, wanted: str) -> None:
        assert duration(seconds) == wanted

    def test_scores_are_scaled(self) -> None:
        assert score("1", "3") == {"raw": 1.0, "min": 0.0, "max": 3.0, "scaled": 0.3333}
        assert score("-1", "2") == {"raw": -1.0, "min": -1.0, "max": 2.0, "scaled": -0.5}
        assert score("0", "0") == {"raw": 0.0}
        assert score("3", "2") == {"raw": 3.0, "scaled": 1.0}

    def test_times_are_in_utc(self) -> None:
        assert instant(AT.astimezone(timezone(timedelta(hours=7)))) == "2026-11-22T07:30:01.234Z"

    @pytest.mark.parametrize(
        ("issuer", "wanted"),
        [
            ("https://school.example/", "https://school.example"),
            ("urn:x-school:1", "urn:x-school:1"),
            ("Our School", "urn:storyloom:our-school"),
            ("", "urn:storyloom:platform"),
        ],
    )
    def test_home_pages_are_iris(self, issuer: str, wanted: str) -> None:
        assert home_page(issuer) == wanted
