"""A school of the bench's own, made through the API at the first run and kept: later runs add what is missing."""

import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from deploy.demo import data as demo
from deploy.demo.authoring import WEAVE, add_vocabulary, create_story
from deploy.local.environment import PLATFORM_ADMIN
from deploy.local.secrets import read_secrets
from deploy.local.settings import Settings
from deploy.rest import Rest, RestError

TENANT, ADMIN = "bench", "admin@bench.example"
STUDENTS, LESSONS, STORIES, QUIZZES, EXAMS = 20, 60, 240, 100, 40
# Of an exam: each of the demo story's questions so many times.
TIMES = 4
TEXTS = ("bi-mat-trong-thu-vien", "canh-dieu-cua-ba-ngoai", "tau-la-dua-tren-cho-noi")
# When less than this can still be reported, a new course begins: every report is to change something.
PROGRESS_LEFT = 40_000
EVENT_SECONDS = 20.0
PAGE = 100


@dataclass(slots=True)
class School:
    """What scenarios choose from: ids, and the students signed in.

    `emails` are of others, who sign in: so often that each sign-in ends a session that they have.
    """

    password: str
    students: list[Rest] = field(default_factory=list)
    emails: list[str] = field(default_factory=list)
    stories: list[str] = field(default_factory=list)
    # Of five questions, and of twenty.
    quizzes: list[str] = field(default_factory=list)
    exams: list[str] = field(default_factory=list)
    # Percent recorded by student (their place in the list) and lesson.
    progress: dict[tuple[int, str], int] = field(default_factory=dict)


def prepare(url: str, settings: Settings) -> School:
    """Everything there, every student signed in."""
    secrets = {**read_secrets(settings.directory / "secrets.env"), **os.environ}
    school = School(secrets["DEMO_PASSWORD"])
    admin = _administrator(Rest(url), secrets)
    _add_students(Rest(url), admin, school)
    lessons = _open_course(admin, school)
    school.stories = _stories(admin, lessons)
    school.quizzes = _quizzes(admin, lessons, "quiz", QUIZZES, 1)
    school.exams = _quizzes(admin, lessons, "exam", EXAMS, TIMES)
    _until_visible(school)
    return school


def pages(person: Rest, path: str, items: str, **query: Any) -> Iterator[dict[str, Any]]:
    """All entries of a list."""
    token = ""
    while True:
        page = person.get(path, pageSize=PAGE, **query, **({"pageToken": token} if token else {}))
        yield from page[items]
        if not (token := page["nextPageToken"]):
            return


def _administrator(gateway: Rest, secrets: Mapping[str, str]) -> Rest:
    password = secrets["DEMO_PASSWORD"]
    try:
        return gateway.sign_in(TENANT, ADMIN, password)
    except RestError as error:
        if error.reason != "INVALID_CREDENTIALS":
            raise
    email = secrets.get("PLATFORM_ADMIN_EMAIL", PLATFORM_ADMIN)
    platform = gateway.sign_in("platform", email, secrets["PLATFORM_ADMIN_PASSWORD"])
    languages = {"storyLanguage": "vi", "learningLanguage": "en"}
    tenant = {"slug": TENANT, "name": "Bench", "settings": {**languages, "approvalRequired": False}}
    administrator = {"email": ADMIN, "displayName": "Bench administrator", "password": password}
    platform.post("/v1/tenants", {"tenant": tenant, "administrator": administrator})
    return gateway.sign_in(TENANT, ADMIN, password)


def _add_students(gateway: Rest, admin: Rest, school: School) -> None:
    known = {user["email"] for user in pages(admin, "/v1/users", "users")}
    students, school.emails = (
        [f"{kind}{number:02}@bench.example" for number in range(STUDENTS)] for kind in ("student", "visitor")
    )
    for email in (*students, *school.emails):
        if email not in known:
            user = {"email": email, "displayName": email.partition("@")[0], "roles": ["student"]}
            admin.post("/v1/users", {"user": user, "password": school.password})
    school.students = [gateway.sign_in(TENANT, email, school.password) for email in students]


def _open_course(admin: Rest, school: School) -> list[str]:
    """The lessons of the newest course with room for progress; fills in the students' progress in it."""
    courses = list(pages(admin, "/v1/courses", "courses"))
    if not courses:
        courses = [_new_course(admin, 1)]
    lessons = _lessons(admin, courses[0]["id"])
    _enroll(admin, courses[0]["id"], school)
    _read_progress(courses[0]["id"], lessons, school)
    if sum(100 - percent for percent in school.progress.values()) < PROGRESS_LEFT:
        course = _new_course(admin, len(courses) + 1)
        lessons = _lessons(admin, course["id"])
        _enroll(admin, course["id"], school)
        school.progress = {(place, lesson): 0 for lesson in lessons for place in range(STUDENTS)}
    return lessons


def _new_course(admin: Rest, number: int) -> dict[str, Any]:
    course: dict[str, Any] = admin.post("/v1/courses", {"title": f"Bench course {number}"})
    return course


def _lessons(admin: Rest, course_id: str) -> list[str]:
    if admin.get(f"/v1/courses/{course_id}")["status"] != "COURSE_STATUS_PUBLISHED":
        admin.post(f"/v1/courses/{course_id}:publish")
    units = list(pages(admin, "/v1/units", "units", courseId=course_id))
    unit = units[0] if units else admin.post("/v1/units", {"courseId": course_id, "title": "Bench unit"})
    found = [lesson["id"] for lesson in pages(admin, "/v1/lessons", "lessons", courseId=course_id)]
    for number in range(len(found), LESSONS):
        lesson = admin.post("/v1/lessons", {"unitId": unit["id"], "title": f"Bench lesson {number + 1}"})
        admin.post(f"/v1/lessons/{lesson['id']}:publish")
        found.append(lesson["id"])
    return found


def _enroll(admin: Rest, course_id: str, school: School) -> None:
    enrolled = {one["userId"] for one in pages(admin, "/v1/enrollments", "enrollments", courseId=course_id)}
    for student in school.students:
        if student.user["id"] not in enrolled:
            admin.post("/v1/enrollments", {"courseId": course_id, "userId": student.user["id"]})


def _read_progress(course_id: str, lessons: list[str], school: School) -> None:
    school.progress = {(place, lesson): 0 for lesson in lessons for place in range(STUDENTS)}
    for place, student in enumerate(school.students):
        for one in pages(student, "/v1/progress", "progress", courseId=course_id):
            school.progress[place, one["lessonId"]] = one["positionPercent"]


def _stories(admin: Rest, lessons: list[str]) -> list[str]:
    """Published stories, woven, so that they have chunks."""
    found = [one["id"] for one in pages(admin, "/v1/stories", "stories", status="STORY_STATUS_PUBLISHED")]
    texts = [demo.story(slug) for slug in TEXTS]
    if len(found) < STORIES:
        print(f"Making {STORIES - len(found)} stories for the bench, this once", flush=True)
        for text in texts:
            add_vocabulary(admin, demo.vocabulary(text.text))
    for number in range(len(found), STORIES):
        story = create_story(admin, texts[number % len(texts)], lessons[number % len(lessons)])
        admin.post(f"/v1/stories/{story['id']}:weave", WEAVE)
        admin.post(f"/v1/stories/{story['id']}:publish")
        found.append(story["id"])
    return found


def _quizzes(admin: Rest, lessons: list[str], kind: str, count: int, times: int) -> list[str]:
    """Published quizzes of the same questions; an attempt may be open at each of them."""
    published = pages(admin, "/v1/quizzes", "quizzes", status="QUIZ_STATUS_PUBLISHED")
    found = [one["id"] for one in published if one["title"].startswith(f"Bench {kind}")]
    if len(found) < count:
        made = [admin.post("/v1/questions", one) for _ in range(times) for one in demo.questions(TEXTS[0])]
        items = [{"questionId": question["id"], "points": "2"} for question in made]
    for number in range(len(found), count):
        place = {"title": f"Bench {kind} {number + 1}", "lessonId": lessons[number % len(lessons)]}
        quiz = admin.post("/v1/quizzes", {**place, "items": items})
        admin.post(f"/v1/quizzes/{quiz['id']}:publish")
        found.append(quiz["id"])
    return found


def open_attempts(school: School) -> dict[tuple[int, str], str]:
    """Ids of the open attempts by student and quiz."""
    return {
        (place, attempt["quizId"]): attempt["id"]
        for place, student in enumerate(school.students)
        for attempt in pages(student, "/v1/attempts", "attempts", state="ATTEMPT_STATE_OPEN")
    }


def right_answers(attempt: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Responses to the questions of an attempt, as the demo data knows them."""
    known = {question["prompt"]: question for question in demo.questions(TEXTS[0])}
    responses = []
    for question in attempt["questions"]:
        key = known[question["prompt"]]
        right = {choice["text"] for choice in key["choices"] if choice["correct"]}
        chosen = [choice["id"] for choice in question["choices"] if choice["text"] in right]
        blanks = [blank["accepted"][0]["text"] for blank in key["blanks"]]
        responses.append({"questionId": question["questionId"], "choiceIds": chosen, "blanks": blanks})
    return responses


def _until_visible(school: School) -> None:
    """Events on enrolments and lessons may still be on their way."""
    give_up = time.monotonic() + EVENT_SECONDS
    for student in school.students:
        while len(student.get("/v1/stories", pageSize=20)["stories"]) < 20 and time.monotonic() < give_up:
            time.sleep(0.1)
