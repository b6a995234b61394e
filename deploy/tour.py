"""Walks the main job through the gateway, over JSON, and says what happened: `make tour`."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx

from deploy.demo import data
from deploy.demo.__main__ import publish_when_approved
from deploy.demo.authoring import WEAVE, add_vocabulary, create_quiz, create_story, request_approval
from deploy.local.secrets import read_secrets
from deploy.local.settings import Settings, read_settings
from deploy.rest import Rest, RestError

SLUG = "tran-bong-trong-mua"
EVENT_SECONDS = 5.0


class Tour:
    """The story of one story. Each step prints its call, what came back, and its trace."""

    def __init__(self, url: str, password: str) -> None:
        self.gateway, self.password = Rest(url), password
        self.number = 0

    def sign_in(self, tenant: str, name: str) -> Rest:
        person = self.gateway.sign_in(tenant, f"{name}@{tenant}.example", self.password)
        self.say(self.gateway, "POST /v1/sessions", f"{person.user['displayName']} ({'/'.join(person.user['roles'])})")
        return person

    def say(self, who: Rest, call: str, outcome: str) -> None:
        self.number += 1
        print(f"{self.number:3}  {call:46} {outcome}\n     trace {who.trace_id}")

    def walk(self) -> str:
        """Everything, in order; returns the trace of the approval, which crosses the most services."""
        teacher = self.sign_in("hoa-sen", "lan")
        lesson, course = self.build_course(teacher)
        story, trace = self.weave_and_publish(teacher, lesson)
        quiz = create_quiz(teacher, SLUG, "Câu hỏi", lesson["id"])
        outcome = f"{quiz['questionCount']} questions, {quiz['maxScore']} points"
        self.say(teacher, "POST /v1/quizzes/{id}:publish", outcome)
        student = self.study(teacher, course, lesson, story)
        self.take_quiz(student, quiz)
        self.look_into_the_audit_log(story)
        self.try_from_another_school(story)
        return trace

    def build_course(self, teacher: Rest) -> tuple[Any, Any]:
        languages = {"storyLanguage": "vi", "learningLanguage": "en"}
        course = teacher.post("/v1/courses", {"title": "Chuyến tham quan", **languages})
        self.say(teacher, "POST /v1/courses", f"“{course['title']}”, {course['status']}")
        teacher.post(f"/v1/courses/{course['id']}:publish")
        self.say(teacher, "POST /v1/courses/{id}:publish", "COURSE_STATUS_PUBLISHED")
        unit = teacher.post("/v1/units", {"courseId": course["id"], "title": "Chương 1"})
        self.say(teacher, "POST /v1/units", f"“{unit['title']}” at position {unit['position']}")
        lesson = teacher.post("/v1/lessons", {"unitId": unit["id"], "title": "Bài 1"})
        teacher.post(f"/v1/lessons/{lesson['id']}:publish")
        self.say(teacher, "POST /v1/lessons, :publish", f"“{lesson['title']}” at position {lesson['position']}")
        return lesson, course

    def weave_and_publish(self, teacher: Rest, lesson: Any) -> tuple[Any, str]:
        text = data.story(SLUG)
        words = data.vocabulary(text.text)
        new = add_vocabulary(teacher, words)
        self.say(teacher, "POST /v1/vocabularies:batchCreate", f"{len(words)} words of this story, {new} of them new")
        story = create_story(teacher, text, lesson["id"])
        self.say(teacher, "POST /v1/stories", f"“{story['title']}”, {text.word_count} words, {story['status']}")
        story = teacher.post(f"/v1/stories/{story['id']}:weave", WEAVE)
        self.say(teacher, "POST /v1/stories/{id}:weave", ratios(story["currentVersion"]))
        approval, trace = self.approve(teacher, story)
        published = publish_when_approved(teacher, story["id"])
        outcome = f"{published['status']}, bound to {approval['contentHash'][:12]}…"
        self.say(teacher, "POST /v1/stories/{id}:publish", outcome)
        return story, trace

    def approve(self, teacher: Rest, story: Any) -> tuple[Any, str]:
        approval = request_approval(teacher, story)
        trace = teacher.trace_id
        self.say(teacher, "POST /v1/approvals", f"{approval['state']} for version {story['currentVersion']['number']}")
        try:
            teacher.post(f"/v1/approvals/{approval['id']}:approve")
        except RestError as error:
            self.say(teacher, "POST /v1/approvals/{id}:approve", f"{error.status} {error.reason}: not one's own")
        approver = self.sign_in("hoa-sen", "minh")
        approval = approver.post(f"/v1/approvals/{approval['id']}:approve", {"comment": "Truyện hay."})
        self.say(approver, "POST /v1/approvals/{id}:approve", f"{approval['state']} by a second person")
        return approval, trace

    def study(self, teacher: Rest, course: Any, lesson: Any, story: Any) -> Rest:
        student = self.sign_in("hoa-sen", "mai")
        teacher.post("/v1/enrollments", {"courseId": course["id"], "userId": student.user["id"]})
        self.say(teacher, "POST /v1/enrollments", f"{student.user['displayName']} in “{course['title']}”")
        stories = student.get("/v1/stories", pageSize=20)["stories"]
        self.say(student, "GET /v1/stories", f"{len(stories)} stories, the newest “{stories[0]['title']}”")
        read = student.get(f"/v1/stories/{story['id']}", view="FULL")
        self.say(student, "GET /v1/stories/{id}?view=FULL", sample(read["currentVersion"]["chunks"]))
        session = student.post("/v1/learningSessions", {"lessonId": lesson["id"], "storyId": story["id"]})
        self.say(student, "POST /v1/learningSessions", session["state"])
        done = {"status": "PROGRESS_STATUS_COMPLETED", "positionPercent": 100}
        progress = student.patch(f"/v1/progress/{lesson['id']}", done)
        self.say(student, "PATCH /v1/progress/{lessonId}", f"{progress['status']}, {progress['positionPercent']} %")
        session = student.post(f"/v1/learningSessions/{session['id']}:end")
        self.say(student, "POST /v1/learningSessions/{id}:end", f"{session['state']} after {session['activeDuration']}")
        return student

    def take_quiz(self, student: Rest, quiz: Any) -> None:
        attempt = student.post(f"/v1/quizzes/{quiz['id']}/attempts")
        self.say(student, "POST /v1/quizzes/{quizId}/attempts", f"{len(attempt['questions'])} questions")
        responses = list(answers(attempt["questions"]))
        graded = student.post(f"/v1/attempts/{attempt['id']}:submit", {"responses": responses})
        result = graded["result"]
        self.say(
            student,
            "POST /v1/attempts/{id}:submit",
            f"{result['score']} of {result['maxScore']} points, {'passed' if result['passed'] else 'not passed'}",
        )

    def look_into_the_audit_log(self, story: Any) -> None:
        auditor = self.sign_in("hoa-sen", "auditor")
        give_up = time.monotonic() + EVENT_SECONDS
        while True:
            entries = auditor.get("/v1/auditLogs", entityType="story", entityId=story["id"])["auditLogs"]
            if any(entry["action"] == "publish" for entry in entries) or time.monotonic() > give_up:
                break
            time.sleep(0.1)
        self.say(auditor, "GET /v1/auditLogs?entityId=", f"{len(entries)} entries of the story, newest first:")
        for entry in entries:
            print(f"       {entry['action']:8} {entry['occurTime']}  {change(entry)}")
        recent = auditor.get("/v1/auditLogs", pageSize=100)["auditLogs"]
        kinds = sorted({f"{entry['entityType']}:{entry['action']}" for entry in recent})
        self.say(auditor, "GET /v1/auditLogs", ", ".join(kinds))

    def try_from_another_school(self, story: Any) -> None:
        outsider = self.sign_in("bamboo", "sophie")
        try:
            outsider.get(f"/v1/stories/{story['id']}")
        except RestError as error:
            self.say(outsider, "GET /v1/stories/{id}", f"{error.status} {error.reason}: another school's story")
            return
        sys.exit("A student of another school could read the story.")


def ratios(version: Any) -> str:
    parts = []
    for share in version["shares"]:
        word = share["partOfSpeech"].rpartition("_")[2].lower()
        parts.append(f"{word}s {share['woven']}/{share['occurrences']}")
    return f"version {version['number']}: " + ", ".join(parts)


def sample(chunks: list[Any]) -> str:
    woven = [chunk["text"] for chunk in chunks if chunk["kind"].endswith("CHEM")]
    return f"{len(chunks)} chunks, woven: {', '.join(woven[:6])}, …"


def answers(questions: list[Any]) -> Iterator[dict[str, Any]]:
    """What the student answers: the right choices as the demo data knows them, but the last question wrong."""
    known = {question["prompt"]: question for question in data.questions(SLUG)}
    for position, question in enumerate(questions):
        key = known[question["prompt"]]
        right = {choice["text"] for choice in key["choices"] if choice["correct"]}
        chosen = [choice["id"] for choice in question.get("choices", []) if choice["text"] in right]
        blanks = [blank["accepted"][0]["text"] for blank in key["blanks"]]
        if position == len(questions) - 1:
            chosen, blanks = chosen[:0], ["?" for _ in blanks]
        yield {"questionId": question["questionId"], "choiceIds": chosen, "blanks": blanks}


def change(entry: Any) -> str:
    old, new = entry.get("oldValues") or {}, entry.get("newValues") or {}
    parts = [f"{name}: {short(old.get(name))} → {short(new.get(name))}" for name in sorted({*old, *new})]
    return "; ".join(parts)[:110]


def short(value: Any) -> str:
    return "–" if value in (None, "") else str(value)[:24]


@contextmanager
def running_stack(settings: Settings) -> Iterator[None]:
    """The stack that runs already, or one that is started for the tour and stopped after it."""
    if is_up(settings):
        yield
        return
    print("No stack is running: starting one, and stopping it after the tour.")
    runner = subprocess.Popen([sys.executable, "-m", "deploy.local", "run"], stdout=subprocess.PIPE, text=True)
    try:
        wait_until_up(settings, runner)
        yield
    finally:
        runner.terminate()
        runner.wait(timeout=60)


def wait_until_up(settings: Settings, runner: "subprocess.Popen[str]") -> None:
    assert runner.stdout is not None
    for line in runner.stdout:
        print("  " + line, end="")
        if line.startswith("READY"):
            return
    sys.exit(runner.wait() or 1)


def is_up(settings: Settings) -> bool:
    try:
        return httpx.get(f"{settings.gateway_url}/healthz", timeout=2).status_code == httpx.codes.OK
    except httpx.HTTPError:
        return False


def show_trace(settings: Settings, trace_id: str) -> None:
    print(f"\nOne of them as a tree (make trace ID={trace_id}):\n", flush=True)
    # Spans are sent in batches, about once a second.
    time.sleep(3)
    subprocess.run([sys.executable, "-m", "deploy.local", "trace", trace_id], cwd=settings.root, check=False)


def main() -> None:
    settings = read_settings(os.environ)
    with running_stack(settings):
        password = os.environ.get("DEMO_PASSWORD") or read_secrets(settings.directory / "secrets.env")["DEMO_PASSWORD"]
        try:
            trace = Tour(settings.gateway_url, password).walk()
        except RestError as error:
            sys.exit(f"The tour stopped: {error}")
        show_trace(settings, trace)


if __name__ == "__main__":
    main()
