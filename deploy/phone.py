"""A day in the life of an offline phone: two devices learn without a connection, and sync in the wrong order.

Everything goes through the gateway, over JSON; each step prints its call, what came back, and its trace."""

import os
import sys
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from deploy.local.secrets import read_secrets
from deploy.local.settings import read_settings
from deploy.rest import Rest, RestError
from deploy.tour import running_stack

LANGUAGES = {"language": "vi", "learningLanguage": "en"}
WORDS = (("xe buýt", "bus"), ("cơn mưa", "rain"), ("cái ô", "umbrella"))
# What differs though the learning is the same: whose it is, and how often it was written.
INCIDENTAL = {"id", "userId", "etag", "createTime", "updateTime"}
Event = dict[str, Any]


@dataclass
class Device:
    """A phone without a connection: it notes what happens, by its own clock, and keeps a copy of what it was told."""

    name: str
    person: Rest
    off: timedelta = timedelta(0)
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    noted: list[Event] = field(default_factory=list)
    copy: dict[str, Any] = field(default_factory=dict)
    cursor: str = ""

    def note(self, at: datetime, **happening: Any) -> None:
        """Notes what happened at this time, as its clock has it."""
        (name,) = happening
        event = {"eventId": str(uuid.uuid4()), "eventTime": (at + self.off).isoformat(), name: happening[name]}
        self.noted.append(event)

    def sync(self, events: list[Event]) -> Any:
        """Sends events, and takes over what has changed."""
        request = {
            "deviceId": self.id,
            "sendTime": (datetime.now(UTC) + self.off).isoformat(),
            "events": events,
            "cursor": self.cursor,
            "maxChanges": 3,
        }
        answer = self.person.post("/v1/clientEvents:sync", request)
        self.cursor = answer["nextCursor"]
        for kind, key in (("vocabularyProgress", "vocabularyId"), ("progress", "lessonId"), ("learningSessions", "id")):
            self.copy |= {f"{kind} {one[key]}": one for one in answer[kind]}
        return answer

    def catch_up(self) -> int:
        """Asks until there is nothing new; in how many parts that came."""
        parts = 1
        while self.sync([])["more"]:
            parts += 1
        return parts


class Day:
    """The story of Mai's day with a phone and a tablet, and of Khoa, who did the same with a connection."""

    def __init__(self, url: str, password: str) -> None:
        self.gateway, self.password = Rest(url), password
        self.number = 0

    def sign_in(self, name: str) -> Rest:
        person = self.gateway.sign_in("hoa-sen", f"{name}@hoa-sen.example", self.password)
        self.say(self.gateway, "POST /v1/sessions", f"{person.user['displayName']} ({'/'.join(person.user['roles'])})")
        return person

    def say(self, who: Rest, call: str, outcome: str) -> None:
        self.number += 1
        print(f"{self.number:3}  {call:34} {outcome}\n     trace {who.trace_id}")

    def live(self) -> None:
        """Everything, in order."""
        teacher, mai, khoa = (self.sign_in(name) for name in ("lan", "mai", "khoa"))
        lessons = self.build_course(teacher, mai, khoa)
        words = self.add_words(teacher)
        # The clock of the phone is seven hours slow, that of the tablet two days fast.
        phone = Device("phone", mai, -timedelta(hours=7))
        tablet = Device("tablet", mai, timedelta(days=2))
        for device in (phone, tablet):
            device.catch_up()
        print("\n     Mai is out of reach. She learns on both.\n")
        moment = datetime.now(UTC).replace(microsecond=0)
        learn(phone, tablet, lessons, words, moment)
        for device in (phone, tablet):
            self.tell(device, words)
        print("\n     In the evening there is a connection again, for one after the other.\n")
        self.arrive(phone, tablet)
        self.agree(mai, phone, tablet, words, lessons)
        self.compare(khoa, phone, tablet, words, lessons)

    def build_course(self, teacher: Rest, *students: Rest) -> list[str]:
        languages = {"storyLanguage": "vi", "learningLanguage": "en"}
        course = teacher.post("/v1/courses", {"title": "Trên xe buýt", **languages})
        teacher.post(f"/v1/courses/{course['id']}:publish")
        unit = teacher.post("/v1/units", {"courseId": course["id"], "title": "Chương 1"})
        lessons: list[str] = []
        for title in ("Bài 1", "Bài 2"):
            lesson = {"unitId": unit["id"], "title": title, "prerequisiteIds": lessons[-1:]}
            lessons.append(teacher.post("/v1/lessons", lesson)["id"])
            teacher.post(f"/v1/lessons/{lessons[-1]}:publish")
        for student in students:
            teacher.post("/v1/enrollments", {"courseId": course["id"], "userId": student.user["id"]})
        self.say(teacher, "POST /v1/lessons, …/enrollments", "two lessons, the second locked until the first is done")
        return lessons

    def add_words(self, teacher: Rest) -> list[tuple[str, str]]:
        """Ids and translations of words that nobody has met."""
        mark = uuid.uuid4().hex[:6]
        word = {"partOfSpeech": "PART_OF_SPEECH_NOUN", **LANGUAGES}
        made = [{"term": f"{term} {mark}", "translation": told, **word} for term, told in WORDS]
        results = teacher.post("/v1/vocabularies:batchCreate", {"vocabularies": made})["results"]
        self.say(teacher, "POST /v1/vocabularies:batchCreate", ", ".join(told for _, told in WORDS))
        return [(one["vocabulary"]["id"], one["vocabulary"]["translation"]) for one in results]

    def tell(self, device: Device, words: list[tuple[str, str]]) -> None:
        clock = f"clock {'slow' if device.off < timedelta(0) else 'fast'} by {abs(device.off)}"
        print(f"     {device.name}, {clock}:")
        for event in device.noted:
            print(f"       {event['eventTime'][5:16].replace('T', ' ')}  {described(event, dict(words))}")

    def arrive(self, phone: Device, tablet: Device) -> None:
        """The newest first, some of it twice, and some of it tampered with."""
        for device, events, note in (
            (tablet, tablet.noted[2:], "the last of it first"),
            (phone, phone.noted[3:], "the session before its beginning"),
            (phone, phone.noted[3:], "again: the answer was lost"),
            (phone, [*phone.noted[:3]], "the morning after the afternoon"),
            (tablet, [*reversed(tablet.noted)], "all of it, backwards"),
        ):
            self.send(device, events, note)
        first = phone.noted[0]
        other = {**first["reviewAnswered"], "rating": "REVIEW_RATING_EASY"}
        self.send(phone, [{**first, "reviewAnswered": other}], "another answer under an id that was used")

    def send(self, device: Device, events: list[Event], note: str) -> None:
        answer = device.sync(events)
        self.say(device.person, "POST /v1/clientEvents:sync", f"{device.name}: {counted(answer)} ({note})")

    def agree(
        self, mai: Rest, phone: Device, tablet: Device, words: list[tuple[str, str]], lessons: list[str]
    ) -> None:
        for device in (phone, tablet):
            parts = device.catch_up()
            outcome = f"{device.name}: up to date, the rest in {parts} part{'s' * (parts > 1)}"
            self.say(mai, "POST /v1/clientEvents:sync", outcome)
        found = server_state(mai, [one for one, _ in words], lessons)
        self.say(mai, "GET /v1/…", f"{len(found)} rows on the server")
        for device in (phone, tablet):
            if {key: device.copy.get(key) for key in found} != found:
                sys.exit(f"The {device.name} and the server do not agree.")
        print("     The phone, the tablet and the server have the same:")
        for line in table(found, dict(words), lessons):
            print(f"       {line}")

    def compare(
        self, khoa: Rest, phone: Device, tablet: Device, words: list[tuple[str, str]], lessons: list[str]
    ) -> None:
        """The same events again, by somebody else, from one phone with the right time, one by one as they happened."""
        device = Device("khoa", khoa)
        shifted = [(true_time(one, of), one) for of in (phone, tablet) for one in of.noted]
        for at, one in sorted(shifted, key=lambda pair: pair[0]):
            device.sync([{**one, "eventTime": at.isoformat()}])
        self.say(khoa, "POST /v1/clientEvents:sync", f"Khoa did the same online: {len(shifted)} calls, in order")
        device.catch_up()
        ids = {*(one for one, _ in words), *lessons}
        both = [[learned(one) for one in of.copy.values() if is_about(one, ids)] for of in (phone, device)]
        if not both[0] or sorted(map(str, both[0])) != sorted(map(str, both[1])):
            sys.exit("The order in which events arrived made a difference.")
        print("     What they know and have done is the same to the last digit.")


def learn(phone: Device, tablet: Device, lessons: list[str], words: list[tuple[str, str]], now: datetime) -> None:
    """The day: words since the morning, lessons in the last minute, in which the course was taken."""
    bus, rain, umbrella = (word for word, _ in words)
    first, second = lessons

    def hours(count: int) -> datetime:
        return now - timedelta(hours=count)

    def seconds(count: int) -> datetime:
        return now - timedelta(seconds=count)

    phone.note(hours(10), reviewAnswered={"vocabularyId": bus, "rating": "REVIEW_RATING_AGAIN"})
    tablet.note(hours(9), storyRead={"storyId": str(uuid.uuid4()), "vocabularyIds": [bus, rain, umbrella]})
    phone.note(hours(8), reviewAnswered={"vocabularyId": bus, "rating": "REVIEW_RATING_GOOD"})
    tablet.note(hours(5), reviewAnswered={"vocabularyId": rain, "rating": "REVIEW_RATING_EASY"})
    phone.note(hours(3), reviewAnswered={"vocabularyId": rain, "rating": "REVIEW_RATING_HARD"})
    session = str(uuid.uuid4())
    phone.note(seconds(45), sessionStarted={"sessionId": session, "lessonId": first})
    phone.note(seconds(44), lessonViewed={"lessonId": first})
    phone.note(seconds(35), interacted={"sessionId": session, "interactions": 12})
    phone.note(seconds(25), lessonProgressed={"lessonId": first, "positionPercent": 60})
    phone.note(seconds(22), sessionEnded={"sessionId": session})
    tablet.note(seconds(15), lessonProgressed={"lessonId": first, "status": "PROGRESS_STATUS_COMPLETED"})
    tablet.note(seconds(10), lessonViewed={"lessonId": second})
    tablet.note(seconds(5), lessonProgressed={"lessonId": second, "positionPercent": 20})


def described(event: Event, words: dict[str, str]) -> str:
    name = next(one for one in event if one not in {"eventId", "eventTime"})
    said = event[name]
    parts = [words.get(said.get("vocabularyId", ""), ""), said.get("rating", "").rpartition("_")[2].lower()]
    parts += [", ".join(words[one] for one in said.get("vocabularyIds", ()))]
    parts += [f"{said['positionPercent']} %" if "positionPercent" in said else ""]
    parts += [said.get("status", "").rpartition("_")[2].lower()]
    parts += [f"{said['interactions']} taps" if "interactions" in said else ""]
    return " ".join((name, *filter(None, parts)))


def counted(answer: Any) -> str:
    names = [one["outcome"].rpartition("_")[2].lower() for one in answer["results"]]
    problems = {one["problem"].removeprefix("CLIENT_EVENT_PROBLEM_") for one in answer["results"]} - {"UNSPECIFIED"}
    counts = ", ".join(f"{names.count(name)} {name}" for name in dict.fromkeys(names))
    return f"{counts}{''.join(f': {one}' for one in sorted(problems))}"


def true_time(event: Event, device: Device) -> datetime:
    return datetime.fromisoformat(event["eventTime"]) - device.off


def learned(one: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in one.items() if name not in INCIDENTAL}


def is_about(one: dict[str, Any], ids: set[str]) -> bool:
    """Whether it is of one of these words or lessons: the people of the demo school have learned before."""
    return one.get("vocabularyId", one.get("lessonId")) in ids


def server_state(person: Rest, words: list[str], lessons: list[str]) -> dict[str, Any]:
    """What the calls for each kind of thing say."""
    found = {}
    for word in words:
        (one,) = person.get("/v1/vocabularyProgress", userId=person.user["id"], vocabularyId=word)["vocabularyProgress"]
        found[f"vocabularyProgress {word}"] = one
    for lesson in lessons:
        found[f"progress {lesson}"] = person.get(f"/v1/progress/{lesson}")
        for one in person.get("/v1/learningSessions", lessonId=lesson)["learningSessions"]:
            found[f"learningSessions {one['id']}"] = one
    return found


def table(found: dict[str, Any], words: dict[str, str], lessons: list[str]) -> list[str]:
    lines = []
    for key, one in found.items():
        kind, _, row_id = key.partition(" ")
        if kind == "vocabularyProgress":
            status = one["status"].rpartition("_")[2]
            due = one.get("dueTime", "–")[:16]
            counts = f"{one['reviewCount']} reviews, seen {one['exposureCount']}×"
            lines.append(f"{words[row_id]:9} {status:10} {counts}, due {due}")
        elif kind == "progress":
            status = one["status"].removeprefix("PROGRESS_STATUS_")
            lines.append(f"Bài {lessons.index(row_id) + 1}     {status:10} {one['positionPercent']} %")
        else:
            state = one["state"].rpartition("_")[2]
            lines.append(f"session   {state:10} {one['activeDuration']} active, {one['interactions']} taps")
    return lines


def main() -> None:
    settings = read_settings(os.environ)
    with running_stack(settings):
        password = os.environ.get("DEMO_PASSWORD") or read_secrets(settings.directory / "secrets.env")["DEMO_PASSWORD"]
        try:
            Day(settings.gateway_url, password).live()
        except RestError as error:
            sys.exit(f"The day stopped: {error}")


if __name__ == "__main__":
    main()
