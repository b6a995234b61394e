"""The answer key through the gateway: no JSON, header or log of a learner's session tells it before release."""

from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest

from deploy.rest import Rest
from tests.running import Running

pytestmark = pytest.mark.slow
CHOICES = [{"text": "a", "correct": True, "feedback": "{mark}"}, {"text": "b", "feedback": "{mark}"}]
KEYS = {
    *("correct", "feedback", "accepted", "explanation", "awards", "result", "score", "correctResponse"),
    *("numbers", "value", "tolerance", "percent", "target", "pairs", "passed"),
}


def bank(mark: str) -> list[dict[str, Any]]:
    """A question of each type, whose answers and explanations have the mark."""
    known = [{"text": f"{mark} known", "feedback": mark}]
    content: dict[str, dict[str, Any]] = {
        "MULTIPLE_CHOICE": {"choices": [{**one, "feedback": mark} for one in CHOICES]},
        "FILL_BLANK": {"prompt": "The ___.", "blanks": [{"accepted": known}]},
        "SHORT_ANSWER": {"accepted": known},
        "NUMERIC": {"numbers": [{"value": "424242", "feedback": mark}]},
        "MATCHING": {"stems": [{"text": "s", "target": 1}], "targets": [{"text": "t"}, {"text": "u"}]},
        "ORDERING": {"items": [{"text": f"{n}"} for n in range(4)]},
    }
    common = {"prompt": "?", "explanation": mark}
    return [{**common, "type": f"QUESTION_TYPE_{kind}", **fields} for kind, fields in content.items()]


def answers(questions: list[dict[str, Any]]) -> list[dict[str, Any]]:
    found = []
    for one in questions:
        given: dict[str, Any] = {"questionId": one["questionId"]}
        match one["type"].removeprefix("QUESTION_TYPE_"):
            case "MULTIPLE_CHOICE":
                given["choiceIds"] = [one["choices"][0]["id"]]
            case "FILL_BLANK":
                given["blanks"] = ["x"]
            case "MATCHING":
                given["matches"] = [{"stemId": one["stems"][0]["id"], "targetId": one["targets"][0]["id"]}]
            case "ORDERING":
                given["itemIds"] = [item["id"] for item in one["items"]]
            case _:
                given["text"] = "7"
        found.append(given)
    return found


def names(value: Any) -> set[str]:
    """The names of all fields, but for those of review policies, which say when what is told."""
    if isinstance(value, list):
        return set().union(*map(names, value))
    if not isinstance(value, dict):
        return set()
    inner = (names(one) for name, one in value.items() if name != "reviewPolicy")
    return set(value).union(*inner)


def session(client: httpx.Client, quiz: str, question: str) -> list[httpx.Response]:
    """All that a learner can send of what has to do with the quiz, and what comes back."""
    started = client.post(f"/v1/quizzes/{quiz}/attempts", json={})
    attempt, given = started.json()["id"], answers(started.json()["questions"])
    wrong = [{"questionId": one["questionId"], "choiceIds": [str(uuid4())], "text": "x"} for one in given]
    return [
        started,
        client.post(f"/v1/attempts/{attempt}:saveResponses", json={"responses": given}),
        client.post(f"/v1/attempts/{attempt}:saveResponses", json={"responses": given, "etag": "99"}),
        client.post(f"/v1/attempts/{attempt}:saveResponses", json={"responses": wrong}),
        client.post(f"/v1/attempts/{attempt}:submit", json={"responses": wrong}),
        client.post(f"/v1/quizzes/{quiz}/attempts", json={}),
        client.get(f"/v1/attempts/{attempt}"),
        client.get("/v1/attempts", params={"quizId": quiz}),
        client.get(f"/v1/quizzes/{quiz}"),
        client.get("/v1/quizzes", params={"pageSize": 100}),
        client.post(f"/v1/quizzes/{quiz}:preview", json={"submit": True}),
        client.post(f"/v1/quizzes/{quiz}:duplicate", json={}),
        client.get(f"/v1/questions/{question}"),
        client.get("/v1/questions"),
    ]


class TestSecrecyOverRest:
    def test_nothing_of_a_session_tells_the_answers_before_they_are_released(self, platform: Running) -> None:
        mark = f"canary{uuid4().hex}"
        teacher, student = platform.sign_in("lan"), platform.sign_in("khoa")
        made = [teacher.post("/v1/questions", question) for question in bank(mark)]
        items = [{"questionId": one["id"]} for one in made]
        quiz = teacher.post("/v1/quizzes", {"title": "Quiz", "items": items, "attemptsAllowed": 1})["id"]
        teacher.post(f"/v1/quizzes/{quiz}:publish")
        with client_of(platform, student) as client:
            received = session(client, quiz, made[0]["id"])
            assert [one.status_code for one in received] == [
                *(200, 200, 409, 400, 400, 200, 200, 200, 200, 200, 403, 403, 403, 403)
            ]
            for one in received:
                told = one.text + str(one.headers)
                assert mark not in told
                assert "424242" not in told
                assert one.status_code != httpx.codes.OK or not names(one.json()) & KEYS
            graded = client.post(f"/v1/attempts/{received[0].json()['id']}:submit", json={})
        assert mark in graded.text
        assert "424242" in graded.text
        written = [path for path in Path(platform.settings.directory).rglob("*.log") if mark in path.read_text()]
        assert not written


def client_of(platform: Running, person: Rest) -> httpx.Client:
    return httpx.Client(base_url=platform.url, headers={"authorization": f"Bearer {person.token}"}, timeout=20)
