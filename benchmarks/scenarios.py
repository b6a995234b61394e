"""What is measured: for each scenario the requests it sends and what they may cost."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from benchmarks.data import TENANT, School, open_attempts, right_answers
from benchmarks.load import Plan, Request, send
from benchmarks.stack import Stack
from storyloom.content.v1.stories_pb2 import GetStoryRequest, ListStoriesRequest
from storyloom.content.v1.story_versions_pb2 import FULL

CALLERS = 8
# More requests than that are not sent in a second, so a plan that is sent once need not be longer.
HIGHEST_RATE = 1500
CONTENT = "/storyloom.content.v1.StoryService"


class ScenarioError(Exception):
    """A scenario has nothing to send; the message says why."""


@dataclass(frozen=True, slots=True)
class Setting:
    """What a plan is made for: the stack, the school in it, and the time of each scenario."""

    stack: Stack
    school: School
    seconds: float
    driver: str

    @property
    def most(self) -> int:
        return int(self.seconds * HIGHEST_RATE)


@dataclass(frozen=True, slots=True)
class Scenario:
    """`target` is microseconds of processor time per request, of all programs, where one echo costs 250."""

    name: str
    plan: Callable[[Setting], Plan]
    target: float | None = None
    callers: int = CALLERS


def sign_in(setting: Setting) -> Plan:
    school = setting.school
    people = ({"tenant": TENANT, "email": email, "password": school.password} for email in school.emails)
    return Plan([_json("POST", "/v1/sessions", "", person) for person in people], setting.stack.gateway)


def list_stories(setting: Setting) -> Plan:
    requests = [Request("GET", "/v1/stories?pageSize=20", one.token) for one in setting.school.students]
    return Plan(requests, setting.stack.gateway)


def read_story(setting: Setting) -> Plan:
    requests = [Request("GET", f"/v1/stories/{story}?view=FULL", token) for token, story in _readings(setting)]
    return Plan(requests, setting.stack.gateway)


def report_progress(setting: Setting) -> Plan:
    requests = list(islice(_reports(setting.school), setting.most))
    return Plan(requests, setting.stack.gateway, once=True)


def start_quiz(setting: Setting) -> Plan:
    return _start(setting, setting.school.quizzes)


def submit_quiz(setting: Setting) -> Plan:
    return _submit(setting, setting.school.quizzes)


def submit_exam(setting: Setting) -> Plan:
    """Twenty questions."""
    return _submit(setting, setting.school.exams)


def _start(setting: Setting, quizzes: list[str]) -> Plan:
    """Attempts that are open from an interrupted run would only be returned, not started."""
    school = setting.school
    started = open_attempts(school)
    requests = [
        _json("POST", f"/v1/quizzes/{quiz}/attempts", student.token, {})
        for quiz in quizzes
        for place, student in enumerate(school.students)
        if (place, quiz) not in started
    ]
    return Plan(requests, setting.stack.gateway, once=True)


def _submit(setting: Setting, quizzes: list[str]) -> Plan:
    """Only the submission is measured; the attempts come from the scenario before, else they are started here."""
    school, wanted = setting.school, {*quizzes}
    attempts = {key: one for key, one in open_attempts(school).items() if key[1] in wanted}
    if len(attempts) < len(school.students) * len(quizzes) // 2:
        send(_start(setting, quizzes), CALLERS, setting.seconds, setting.driver)
        attempts = {key: one for key, one in open_attempts(school).items() if key[1] in wanted}
    if not attempts:
        raise ScenarioError("no attempt at a quiz could be started")
    (place, quiz), _ = next(iter(attempts.items()))
    # All quizzes have the same questions, so one attempt tells the ids for all.
    answers = {"responses": right_answers(school.students[place].post(f"/v1/quizzes/{quiz}/attempts"))}
    requests = [
        _json("POST", f"/v1/attempts/{attempt}:submit", school.students[place].token, answers)
        for (place, _), attempt in attempts.items()
    ]
    return Plan(requests, setting.stack.gateway, once=True)


def list_stories_directly(setting: Setting) -> Plan:
    message = ListStoriesRequest(page_size=20).SerializeToString()
    requests = [Request("GRPC", f"{CONTENT}/ListStories", one.token, message) for one in setting.school.students]
    return Plan(requests, setting.stack.address("content"))


def read_story_directly(setting: Setting) -> Plan:
    requests = []
    for token, story in _readings(setting):
        message = GetStoryRequest(id=story, view=FULL)
        requests.append(Request("GRPC", f"{CONTENT}/GetStory", token, message.SerializeToString()))
    return Plan(requests, setting.stack.address("content"))


def _json(method: str, path: str, token: str, body: dict[str, Any]) -> Request:
    return Request(method, path, token, json.dumps(body, ensure_ascii=False).encode())


def _readings(setting: Setting) -> Iterator[tuple[str, str]]:
    """Every story, each read by another student than the one before."""
    students = setting.school.students
    for nth, story in enumerate(setting.school.stories):
        yield students[nth % len(students)].token, story


def _reports(school: School) -> Iterator[Request]:
    """Each a percent more than recorded: students and lessons in turn, so that no two on the way are of one pair."""
    while len(school.progress) > CALLERS:
        for (place, lesson), percent in list(school.progress.items()):
            if percent >= 100:
                del school.progress[place, lesson]
                continue
            school.progress[place, lesson] = percent + 1
            yield _json(
                "PATCH", f"/v1/progress/{lesson}", school.students[place].token, {"positionPercent": percent + 1}
            )


# Hashing a password takes a processor to itself: more callers than processors would only wait.
SCENARIOS = (
    Scenario("sign-in", sign_in, 10_133, callers=2),
    Scenario("list-stories", list_stories, 747),
    Scenario("read-story", read_story, 853),
    Scenario("report-progress", report_progress, 1_967),
    Scenario("start-quiz", start_quiz),
    Scenario("submit-quiz", submit_quiz, 2_833),
    Scenario("submit-exam", submit_exam, 2_500),
    Scenario("list-stories-grpc", list_stories_directly),
    Scenario("read-story-grpc", read_story_directly),
)
