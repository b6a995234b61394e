"""The picture of a learner's progress shows what the API says of a month that a phone told of, through the gateway."""

import asyncio
from datetime import date, datetime, timedelta
from random import Random
from typing import Any
from uuid import UUID
from xml.etree import ElementTree

import asyncpg
import httpx

from deploy.rest import Rest
from tests.gateway.test_files_over_http import web
from tests.learning.conftest import make_course
from tests.learning.reviewing import make_words
from tests.learning.test_learner_analytics import analytics, learner
from tests.learning.test_learning_sessions import publish_story
from tests.stack import PASSWORD, School
from tools.plot_progress import AHEAD, MINUTES, draw
from tools.svg import LEFT, RIGHT, WIDTH
from tools.tell_month import ZONE, Month, material, tell

__all__ = ["make_course", "web"]
SVG = "{http://www.w3.org/2000/svg}"


def drawn(answer: dict[str, Any]) -> ElementTree.Element:
    return ElementTree.fromstring(draw(answer))  # noqa: S314  # made here


def titled(picture: ElementTree.Element, kind: str) -> list[tuple[str, ElementTree.Element]]:
    """The boxes of a kind that say what they are, and what they say."""
    boxes = [one for one in picture.iter(f"{SVG}rect") if one.get("class") == kind]
    return [(str(one.findtext(f"{SVG}title")), one) for one in boxes if one.find(f"{SVG}title") is not None]


def told(**more: Any) -> dict[str, Any]:
    return {"startDay": "2026-11-01", "endDay": "2026-11-10", "today": "2026-11-10", "timeZone": "UTC", **more}


class TestDraw:
    def test_draws_a_bar_for_each_day_as_high_as_its_minutes(self) -> None:
        days = [{"day": "2026-11-02", "activeDuration": "1200s"}, {"day": "2026-11-10", "activeDuration": "300.5s"}]
        first, second = titled(drawn(told(days=days)), "bar")
        assert (first[0], second[0]) == ("2026-11-02: 20 minutes", "2026-11-10: 5 minutes")
        heights = [float(one.get("height", "")) for _, one in (first, second)]
        assert heights == [MINUTES[1], round(MINUTES[1] * 300.5 / 1200, 1)]
        step = (WIDTH - LEFT - RIGHT) / 10
        assert [float(one.get("x", "")) // 1 for _, one in (first, second)] == [
            (LEFT + place * step + step * 0.1) // 1 for place in (1, 9)
        ]

    def test_draws_what_falls_due_and_words_by_their_share(self) -> None:
        forecast = [{"day": "2026-11-10", "count": 3}, {"day": "2026-11-12", "count": 6}]
        picture = drawn(told(forecast=forecast, words={"learning": 3, "mastered": 1}))
        assert [said for said, _ in titled(picture, "due")] == ["2026-11-10: 3 words", "2026-11-12: 6 words"]
        assert [one.get("height") for _, one in titled(picture, "due")] == [f"{AHEAD[1] / 2:.1f}", f"{AHEAD[1]:.1f}"]
        wide = [float(titled(picture, status)[0][1].get("width", "")) for status in ("fresh", "learning", "mastered")]
        assert wide == [0.0, (WIDTH - LEFT - RIGHT) * 3 / 4, (WIDTH - LEFT - RIGHT) / 4]

    def test_draws_a_learner_who_has_done_nothing(self) -> None:
        picture = drawn(told())
        assert titled(picture, "bar") == []
        assert "0 minutes from 2026-11-01 to 2026-11-10" in [one.text for one in picture.iter(f"{SVG}text")]

    def test_says_nothing_but_text(self) -> None:
        assert "<script" not in draw(told(timeZone="<script>&"))


class TestMonth:
    def test_is_the_same_for_the_same_seed_and_lies_before_its_end(self) -> None:
        end = datetime(2026, 11, 22, 21, 30, tzinfo=ZONE)
        made = [list(Month(Random(3), lesson_id="l", story_id="s", words=["a", "b"]).events(end)) for _ in range(2)]
        assert made[0] == made[1]
        times = [datetime.fromisoformat(one["eventTime"]) for one in made[0]]
        assert end - timedelta(days=30) < min(times) < max(times) < end
        assert len({one["eventId"] for one in made[0]}) == len(made[0])


class TestThroughTheGateway:
    async def test_the_picture_shows_what_the_api_says(
        self, school: School, web: httpx.AsyncClient, make_course: Any
    ) -> None:
        person, course = await learner(school), await make_course()
        await course.enrol(person)
        await publish_story(school, course.lesson_ids[0])
        await make_words(school.teacher, 30)
        await school.settle()
        await enrol_long_ago(school, person.user_id)
        gateway = str(web.base_url).rstrip("/")
        rest = await asyncio.to_thread(Rest(gateway).sign_in, school.slug, person.email, PASSWORD)
        events = list(Month(Random(1), **await asyncio.to_thread(material, rest)).events(datetime.now(ZONE)))
        outcomes = await asyncio.to_thread(tell, rest, events, Random(1))
        assert outcomes == {"CLIENT_EVENT_OUTCOME_ACCEPTED": len(events)}
        seen = await asyncio.to_thread(rest.get, f"/v1/learnerAnalytics/{person.user_id}", forecastDays=30)
        picture = drawn(seen)
        found = await analytics(person)
        minutes = {day.day: day.active_duration.ToTimedelta() / timedelta(minutes=1) for day in found.days}
        assert len(minutes) > 15
        assert [said for said, _ in titled(picture, "bar")] == [
            f"{day}: {count:.0f} minutes" for day, count in minutes.items() if count
        ]
        due = [f"{one.day}: {one.count} words" for one in found.forecast]
        assert [said for said, _ in titled(picture, "due")] == due
        assert sum(day.reviews for day in found.days) == sum("reviewAnswered" in one for one in events)
        assert sum(day.sessions for day in found.days) == sum("sessionStarted" in one for one in events)
        assert date.fromisoformat(found.start_day) == date.fromisoformat(found.today) - timedelta(days=29)


async def enrol_long_ago(school: School, user_id: str) -> None:
    """Nobody can do this through the API: what happened in a lesson counts since its course is taken."""
    connection = await asyncpg.connect(school.stack.cluster.superuser_url)
    await connection.execute(
        "UPDATE learning.enrollments SET created_at = created_at - interval '40 days' WHERE user_id = $1", UUID(user_id)
    )
    await connection.close()
