"""Tells the API of a month of a learner, as a phone without a connection would: `python -m tools.tell_month --help`."""

import argparse
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from deploy.rest import Rest
from tools.asking import parser, run

AT_ONCE, BEAT, DAY = 500, timedelta(seconds=40), timedelta(days=1)
NO_PROBLEM = "CLIENT_EVENT_PROBLEM_UNSPECIFIED"
# Days after which a word is asked for again while it is remembered, much as the server would have it.
STEPS = (0, 2, 10, 40)
ZONE = ZoneInfo("Asia/Ho_Chi_Minh")


class Month:
    """What a learner does in a month: on most days a session of some minutes, with a reading and reviews."""

    def __init__(self, random: Random, *, lesson_id: str, story_id: str, words: Sequence[str]) -> None:
        self._random, self._lesson_id, self._story_id, self._words = random, lesson_id, story_id, words
        # Of each word begun: how often it was remembered in a row, and when it is asked for next.
        self._known: dict[str, tuple[int, datetime]] = {}

    def events(self, end: datetime, days: int = 30) -> Iterator[dict[str, Any]]:
        """The events of the days before `end`, and of its own evening if that is over."""
        for ago in range(days - 1, -1, -1):
            evening = (end - ago * DAY).replace(hour=19, minute=self._random.randrange(60), second=0, microsecond=0)
            if self._random.random() < 0.85 and evening + timedelta(hours=1) < end:
                yield from self._session(evening)

    def _session(self, at: datetime) -> Iterator[dict[str, Any]]:
        session_id = self._new_id()
        yield self._event(at, sessionStarted={"sessionId": session_id, "lessonId": self._lesson_id})
        seen = self._random.sample(self._words, min(20, len(self._words)))
        yield self._event(at + BEAT, storyRead={"storyId": self._story_id, "vocabularyIds": seen})
        wanted = [word for word, (_, due) in self._known.items() if due <= at]
        fresh = [word for word in self._words if word not in self._known][: self._random.randint(3, 8)]
        for word in [*wanted, *fresh]:
            at += timedelta(seconds=self._random.randint(6, 20))
            yield self._review(word, at)
        for _ in range(self._random.randint(4, 14)):
            at += BEAT
            yield self._event(at, sessionHeartbeat={"sessionId": session_id, "interactions": 5})
        yield self._event(at + BEAT, sessionEnded={"sessionId": session_id})

    def _review(self, word: str, at: datetime) -> dict[str, Any]:
        times, _ = self._known.get(word, (0, at))
        remembered = self._random.random() < 0.88
        times = min(times + 1, len(STEPS) - 1) if remembered else 0
        self._known[word] = times, at + STEPS[times] * DAY - timedelta(hours=3)
        rating = self._random.choice(("GOOD", "GOOD", "EASY")) if remembered else "AGAIN"
        return self._event(at, reviewAnswered={"vocabularyId": word, "rating": f"REVIEW_RATING_{rating}"})

    def _event(self, at: datetime, **happened: Any) -> dict[str, Any]:
        return {"eventId": self._new_id(), "eventTime": said(at), **happened}

    def _new_id(self) -> str:
        return str(UUID(int=self._random.getrandbits(128), version=4))


def said(at: datetime) -> str:
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z")


def tell(learner: Rest, events: Sequence[dict[str, Any]], random: Random) -> dict[str, int]:
    """Sends the events in no particular order, and counts what became of them."""
    shuffled, outcomes = random.sample(events, len(events)), dict[str, int]()
    device_id = str(UUID(int=random.getrandbits(128), version=4))
    for start in range(0, len(shuffled), AT_ONCE):
        sent = {"deviceId": device_id, "sendTime": said(datetime.now(UTC)), "events": shuffled[start : start + AT_ONCE]}
        answer = learner.post("/v1/clientEvents:sync", sent)
        for result in answer["results"]:
            outcome = result["outcome"] if result["problem"] == NO_PROBLEM else result["problem"]
            outcomes[outcome] = outcomes.get(outcome, 0) + 1
    return outcomes


def material(learner: Rest) -> dict[str, Any]:
    """A lesson that the learner takes, a story of it, and words to learn."""
    course = learner.get("/v1/home")["courses"][0]
    lesson_id = course["nextLesson"]["lessonId"]
    [story, *_] = learner.get("/v1/stories", lessonId=lesson_id)["stories"]
    words = [word["id"] for word in learner.get("/v1/vocabularies", pageSize=100)["vocabularies"]]
    return {"lesson_id": lesson_id, "story_id": story["id"], "words": words}


def tell_month(learner: Rest, chosen: argparse.Namespace) -> None:
    user_id = learner.user["id"]
    learner.patch(f"/v1/learnerSettings/{user_id}", {"userId": user_id, "timeZone": ZONE.key})
    random = Random(chosen.seed)  # noqa: S311  # a story, not a secret
    month = Month(random, **material(learner))
    print(tell(learner, list(month.events(datetime.now(ZONE))), random))


def main() -> None:
    asked = parser("tools.tell_month", __doc__, user="mai@hoa-sen.example")
    asked.add_argument("--seed", type=int, default=7, help="another number makes another month")
    run(tell_month, asked.parse_args())


if __name__ == "__main__":
    main()
