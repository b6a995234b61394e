"""`python -m benchmarks.growth FILE`: what a learner's acts cost and leave behind: processor time, rows, bytes a row;
of a stack started for it in a directory of its own, for tools/capacity.py to count with."""

import asyncio
import json
import os
import random
import secrets
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import asyncpg

from benchmarks.__main__ import AFTERWARDS_SECONDS, echo_cost, idle_use
from benchmarks.cpu import Moment, until_idle
from benchmarks.data import right_answers
from benchmarks.stack import Stack, quiet_gateway, running_stack
from deploy.demo import data as demo
from deploy.demo.authoring import WEAVE, add_vocabulary, create_quiz, create_story
from deploy.local.environment import PLATFORM_ADMIN
from deploy.local.secrets import read_secrets
from deploy.local.settings import Settings, read_settings
from deploy.rest import Rest
from kit.ids import new_id
from kit.migrations import DATABASE_NAME, in_database
from kit.settings import SERVICES

LEARNERS, LESSONS, SYNCS = 10, 20, 20
# A sitting: a session of three minutes, a story of ten known words, a step in a lesson, twenty reviews.
BEATS, MET, REVIEWS = 6, 10, 20
STORY = "bi-mat-trong-thu-vien"
COPIES = 20_000
TABLES = """
SELECT c.oid::regclass::text FROM pg_class c
WHERE c.relnamespace::regnamespace::text = ANY ($1) AND c.relkind IN ('r', 'p') AND NOT c.relispartition
"""
COLUMNS = """
SELECT a.attname AS name, format_type(a.atttypid, a.atttypmod) AS type, EXISTS (
  SELECT FROM pg_index i WHERE i.indrelid = a.attrelid AND i.indisunique AND a.attnum = ANY (i.indkey)) AS is_unique
FROM pg_attribute a
WHERE a.attrelid = $1::regclass AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = '' ORDER BY a.attnum
"""
# Copies differ by their ids alone: indexes of other columns need not be unique. This server is thrown away.
NOT_UNIQUE = """
UPDATE pg_index SET indisunique = false, indisprimary = false WHERE indrelid = 'public.copies'::regclass
"""


class GrowthError(Exception):
    """What is measured did not happen."""


class School:
    """A tenant of the bench's own in the stack, with learners who have done everything once."""

    def __init__(self, url: str, known: dict[str, str]) -> None:
        self.slug, self.password, self.gateway = f"growth-{secrets.token_hex(4)}", known["DEMO_PASSWORD"], Rest(url)
        platform = self.gateway.sign_in("platform", PLATFORM_ADMIN, known["PLATFORM_ADMIN_PASSWORD"])
        languages = {"storyLanguage": "vi", "learningLanguage": "en"}
        tenant = {"slug": self.slug, "name": "Growth", "settings": {**languages, "approvalRequired": False}}
        who = {"email": "admin@growth.example", "displayName": "Admin", "password": self.password}
        platform.post("/v1/tenants", {"tenant": tenant, "administrator": who})
        self.admin = self.sign_in("admin")
        self.learners: list[Rest] = []
        self.lessons, self.quizzes = self._course()

    def sign_in(self, name: str) -> Rest:
        return self.gateway.sign_in(self.slug, f"{name}@growth.example", self.password)

    def _course(self) -> tuple[list[str], list[str]]:
        admin, text = self.admin, demo.story(STORY)
        self.course = admin.post("/v1/courses", {"title": "Growth"})["id"]
        admin.post(f"/v1/courses/{self.course}:publish")
        unit = admin.post("/v1/units", {"courseId": self.course, "title": "Unit"})["id"]
        add_vocabulary(admin, demo.vocabulary(text.text))
        self.words = [one["id"] for one in admin.get("/v1/vocabularies", pageSize=100)["vocabularies"]]
        lessons, quizzes = [], []
        for number in range(LESSONS):
            lesson = admin.post("/v1/lessons", {"unitId": unit, "title": f"Lesson {number}"})["id"]
            admin.post(f"/v1/lessons/{lesson}:publish")
            quizzes.append(create_quiz(admin, STORY, f"Quiz {number}", lesson)["id"])
            lessons.append(lesson)
        story = create_story(admin, text, lessons[0])
        self.story = admin.post(f"/v1/stories/{story['id']}:weave", WEAVE)["id"]
        admin.post(f"/v1/stories/{self.story}:publish")
        return lessons, quizzes

    def join(self) -> Iterator[Callable[[], Any]]:
        """A user who is enrolled."""
        for number in range(LEARNERS):
            yield partial(self._join, f"learner{number}")

    def _join(self, name: str) -> None:
        user = {"email": f"{name}@growth.example", "displayName": name, "roles": ["student"]}
        made = self.admin.post("/v1/users", {"user": user, "password": self.password})
        self.admin.post("/v1/enrollments", {"courseId": self.course, "userId": made["id"]})

    def meet(self) -> Iterator[Callable[[], Any]]:
        """Twenty reviews of words that are new to the learner."""
        for learner in self.learners:
            for start in range(0, len(self.words) - REVIEWS + 1, REVIEWS):
                some = self.words[start : start + REVIEWS]
                yield partial(self._sync, learner, 85, 0, some, sitting=False)

    def begin(self) -> None:
        """Everybody's first sitting, which is unlike those after it."""
        for learner in self.learners:
            self._sync(learner, 80, 0, self.words[:REVIEWS])

    def sit(self) -> Iterator[Callable[[], Any]]:
        """A sitting on a phone, which syncs after it."""
        for turn in range(SYNCS):
            for learner in self.learners:
                some = random.sample(self.words, REVIEWS)
                yield partial(self._sync, learner, SYNCS - turn, turn, some)

    def _sync(self, learner: Rest, days: float, turn: int, words: list[str], *, sitting: bool = True) -> None:
        at, events = datetime.now(UTC) - timedelta(days=days), []

        def note(seconds: float, **happening: Any) -> None:
            when = (at + timedelta(seconds=seconds)).isoformat().replace("+00:00", "Z")
            events.append({"eventId": str(new_id()), "eventTime": when, **happening})

        if sitting:
            session, lesson = str(new_id()), self.lessons[0]
            note(0, sessionStarted={"sessionId": session, "lessonId": lesson})
            for beat in range(BEATS):
                note(30 * beat, sessionHeartbeat={"sessionId": session, "interactions": 7})
            note(30 * BEATS, sessionEnded={"sessionId": session})
            note(100, storyRead={"storyId": self.story, "vocabularyIds": self.words[:MET]})
            note(120, lessonProgressed={"lessonId": lesson, "positionPercent": 1 + turn})
        for number, word in enumerate(words):
            note(200 + number, reviewAnswered={"vocabularyId": word, "rating": "REVIEW_RATING_GOOD"})
        sent = {"deviceId": f"{learner.user['id']}", "events": events, "sendTime": datetime.now(UTC).isoformat()}
        answer = learner.post("/v1/clientEvents:sync", sent)
        if problems := [one for one in answer["results"] if not one["problem"].endswith("_UNSPECIFIED")]:
            raise GrowthError(f"{problems[0]} and {len(problems) - 1} more")

    def start(self) -> Iterator[Callable[[], Any]]:
        for quiz in self.quizzes:
            for learner in self.learners:
                yield partial(learner.post, f"/v1/quizzes/{quiz}/attempts")

    def submit(self) -> Iterator[Callable[[], Any]]:
        """All attempts that are open; their answers are put together before."""
        sent = []
        for learner in self.learners:
            for quiz in self.quizzes:
                attempt = learner.post(f"/v1/quizzes/{quiz}/attempts")
                sent.append((learner, attempt["id"], {"responses": right_answers(attempt)}))
        for learner, attempt, answers in sent:
            yield partial(learner.post, f"/v1/attempts/{attempt}:submit", answers)

    def each(self, path: str, times: int = 20, **query: Any) -> Iterator[Callable[[], Any]]:
        for _ in range(times):
            for learner in self.learners:
                yield partial(learner.get, path, **query)

    def arrive(self) -> Iterator[Callable[[], Any]]:
        for _ in range(3):
            for number in range(LEARNERS):
                yield partial(self._arrive, f"learner{number}")

    def _arrive(self, name: str) -> None:
        self.learners.append(self.sign_in(name))


def main() -> int:
    file = Path(sys.argv[1])
    with own_stack() as stack, quiet_gateway(stack.settings):
        school = School(stack.state.gateway, {**read_secrets(stack.settings.directory / "secrets.env")})
        found: dict[str, Any] = {"echo": echo_cost(), "actions": {}}
        idle = idle_use(stack.programs)

        def act(name: str, calls: Iterator[Callable[[], Any]]) -> None:
            ready = list(calls)
            found["actions"][name] = measured(stack, idle, ready)
            print(f"  {name}: {len(ready)} times", flush=True)

        act("join", school.join())
        asyncio.run(date_back(stack.settings))
        act("sign-in", school.arrive())
        school.learners = school.learners[-LEARNERS:]
        act("meet-words", school.meet())
        school.begin()
        act("home", school.each("/v1/home"))
        act("list-stories", school.each("/v1/stories", pageSize=20))
        act("read-story", school.each(f"/v1/stories/{school.story}", view="FULL"))
        act("sync", school.sit())
        act("start-quiz", school.start())
        act("submit-quiz", school.submit())
        grown = {table for one in found["actions"].values() for table in one["rows"]}
        file.write_text(json.dumps(found, indent=1) + "\n")
        found["bytes"] = asyncio.run(bytes_a_row(stack.settings, sorted(grown)))
    file.write_text(json.dumps(found, indent=1) + "\n")
    return 0


@contextmanager
def own_stack() -> Iterator[Stack]:
    """A stack beside any other: its data and its ports are its own."""
    with tempfile.TemporaryDirectory(prefix="sl-growth-") as folder:
        ports = {f"{name.upper()}_ADDRESS": f"127.0.0.1:{free_port()}" for name in (*SERVICES, "gateway", "trace")}
        os.environ.update(ports | {"RUN_DIRECTORY": folder, "LOAD_DEMO": "0"})
        settings = read_settings(os.environ)
        with running_stack(settings) as stack:
            yield stack


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as one:
        return int(one.getsockname()[1])


def measured(stack: Stack, idle: dict[str, float], calls: list[Callable[[], Any]]) -> dict[str, Any]:
    """Of one call: microseconds by program, as the echo's of the same run, and rows by table when all is delivered."""
    before = asyncio.run(rows(stack.settings))
    until_idle(stack.programs, AFTERWARDS_SECONDS)
    start = Moment.now(stack.programs)
    for call in calls:
        call()
    until_idle(stack.programs, AFTERWARDS_SECONDS)
    used = Moment.now(stack.programs).since(start, idle)
    after = asyncio.run(rows(stack.settings))
    grown = {name: (count - before[name]) / len(calls) for name, count in after.items()}
    return {
        "cpu": {name: round(spent / len(calls) * 1e6, 1) for name, spent in used.programs.items()},
        "rows": {name: round(count, 3) for name, count in grown.items() if count > 0},
    }


async def date_back(settings: Settings) -> None:
    """What they do is told of days that lie behind, when they have to be enrolled."""
    database = await asyncpg.connect(in_database(settings.admin_url, DATABASE_NAME))
    await database.execute("UPDATE learning.enrollments SET created_at = now() - interval '90 days'")
    await database.close()


async def rows(settings: Settings) -> dict[str, int]:
    database = await asyncpg.connect(in_database(settings.admin_url, DATABASE_NAME))
    names = [row[0] for row in await database.fetch(TABLES, list(SERVICES))]
    found = {name: await database.fetchval(f"SELECT count(*) FROM {name}") for name in names}  # noqa: S608
    await database.close()
    return found


async def bytes_a_row(settings: Settings, names: list[str]) -> dict[str, int]:
    """With indexes and what is stored apart, of many copies of the rows that are there: each has ids of its own."""
    database = await asyncpg.connect(in_database(settings.admin_url, DATABASE_NAME))
    found = {}
    for name in names:
        columns = await database.fetch(COLUMNS, name)
        await database.execute(
            f"CREATE TABLE public.copies (LIKE {name} INCLUDING ALL EXCLUDING CONSTRAINTS)"
        )
        await database.execute(NOT_UNIQUE)
        values = ", ".join(_copied(column) for column in columns)
        known = ", ".join(f'"{column["name"]}"' for column in columns)
        # The newest first: they are the learners'.
        await database.execute(
            f"INSERT INTO public.copies ({known}) OVERRIDING SYSTEM VALUE"  # noqa: S608
            f" SELECT {values} FROM generate_series(1, {COPIES}) WITH ORDINALITY s (g)"
            f" JOIN (SELECT *, row_number() OVER (ORDER BY ctid DESC) AS nth, count(*) OVER () AS of FROM"
            f" (SELECT ctid, * FROM {name} ORDER BY ctid DESC LIMIT 200) r) t ON t.nth = 1 + s.g % t.of"
        )
        size = await database.fetchval("SELECT pg_total_relation_size('public.copies')")
        found[name] = round(size / COPIES)
        await database.execute("DROP TABLE public.copies")
    await database.close()
    return found


def _copied(column: Any) -> str:
    name, kind = f't."{column["name"]}"', column["type"]
    if kind == "uuid" and column["name"] != "tenant_id":
        return f"CASE WHEN {name} IS NOT NULL THEN {'uuidv7()' if column['name'] == 'id' else 'gen_random_uuid()'} END"
    return "s.g" if column["is_unique"] and kind in {"integer", "bigint"} else name


if __name__ == "__main__":
    sys.exit(main())
