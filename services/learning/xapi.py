"""What learners did, in the words of xAPI 1.0.3 (https://github.com/adlnet/xAPI-Spec): who, did what, with what."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid5

VERSION = "1.0.3"
PLATFORM = "Storyloom"
VERBS = {
    name: {"id": f"http://adlnet.gov/expapi/verbs/{name}", "display": {"en": name}}
    for name in (
        *("initialized", "terminated", "experienced", "completed", "answered"),
        *("passed", "failed", "scored"),
    )
}
# Kinds of activities: the path of their resource, and the type that the vocabulary of ADL, or of Activity Streams, has.
TYPES = {
    "course": ("courses", "http://adlnet.gov/expapi/activities/course"),
    "lesson": ("lessons", "http://adlnet.gov/expapi/activities/lesson"),
    "story": ("stories", "http://activitystrea.ms/schema/1.0/article"),
    "vocabulary": ("vocabularies", "http://adlnet.gov/expapi/activities/question"),
    "quiz": ("quizzes", "http://adlnet.gov/expapi/activities/assessment"),
}
# What a statement is about: the first of these that it names.
OBJECTS = ("vocabulary", "quiz", "story", "lesson")
PROGRESS = "https://w3id.org/xapi/cmi5/result/extensions/progress"
# What else is counted: extensions of the result.
COUNTS = ("interactions", "words")
CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f]")
SCALE = Decimal("0.0001")


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What a statement is made of. `names` are the titles of the lesson and the course, where they are known; `ids`
    those of the course, the lesson and so on, by their kind; `said` what else is known."""

    row_id: UUID
    verb: str
    user_id: UUID
    happened: datetime
    stored: datetime
    ids: dict[str, str]
    names: dict[str, str]
    said: dict[str, Any]


def statement(base: str, told: Told) -> dict[str, Any]:
    """The statement; `base` is the URL of the deployment, whose accounts the learners have. Its id depends on the row
    alone, so it is the same whenever it is made."""
    object_kind = next(kind for kind in OBJECTS if kind in told.ids)
    made: dict[str, Any] = {
        "id": str(uuid5(told.row_id, told.verb)),
        "version": VERSION,
        "actor": {"objectType": "Agent", "account": {"homePage": base, "name": str(told.user_id)}},
        "verb": VERBS[told.verb],
        "object": _activity(base, told, object_kind),
        "context": _context(base, told, object_kind),
        "timestamp": instant(told.happened),
        "stored": instant(told.stored),
    }
    if result := _result(base, told):
        made["result"] = result
    return made


def _activity(base: str, told: Told, kind: str) -> dict[str, Any]:
    path, type_id = TYPES[kind]
    definition: dict[str, Any] = {"type": type_id}
    # In whatever language its author wrote it.
    if name := CONTROL.sub("", told.names.get(kind, "")).strip():
        definition["name"] = {"und": name}
    return {"objectType": "Activity", "id": f"{base}/v1/{path}/{told.ids[kind]}", "definition": definition}


def _context(base: str, told: Told, object_kind: str) -> dict[str, Any]:
    context: dict[str, Any] = {"platform": PLATFORM}
    if registration := told.said.get("registration"):
        context["registration"] = registration
    above = {"parent": "lesson", "grouping": "course"}
    around = {
        relation: [_activity(base, told, kind)]
        for relation, kind in above.items()
        if kind in told.ids and kind != object_kind
    }
    if around:
        context["contextActivities"] = around
    return context


def _result(base: str, told: Told) -> dict[str, Any]:
    said = told.said
    result: dict[str, Any] = {}
    if said.get("seconds"):
        result["duration"] = duration(said["seconds"])
    if told.verb == "answered":
        result |= {"success": said["rating"] != "again", "response": said["rating"]}
    if told.verb == "completed":
        result["completion"] = True
    if said.get("score") is not None:
        result |= {"success": said["passed"], "completion": True, "score": score(said["score"], said["max_score"])}
    counts = {f"{base}/xapi/{name}": said[name] for name in COUNTS if said.get(name) is not None}
    if extensions := counts | ({PROGRESS: 100} if told.verb == "completed" else {}):
        result["extensions"] = extensions
    return result


def score(raw: str, most: str) -> dict[str, float]:
    """A score of so many points. `scaled` is its share of the most there are, from -1 to 1, and left out where there
    are none; the range is left out where the score is not in it."""
    points, best = Decimal(raw), Decimal(most)
    if best <= 0:
        return {"raw": float(points)}
    scaled = max(min(points / best, Decimal(1)), Decimal(-1)).quantize(SCALE)
    found = {"raw": float(points), "scaled": float(scaled)}
    return found if points > best else found | {"min": float(min(points, Decimal(0))), "max": float(best)}


def duration(seconds: float) -> str:
    """ISO 8601, to hundredths of a second as xAPI compares them."""
    hundredths = round(seconds * 100)
    whole, part = divmod(hundredths, 100)
    minutes, whole = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    end = f"{whole}.{part:02}S" if part else f"{whole}S"
    return "PT" + (f"{hours}H" if hours else "") + (f"{minutes}M" if hours or minutes else "") + end


def instant(at: datetime) -> str:
    """ISO 8601 in UTC, to the millisecond."""
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def home_page(issuer: str) -> str:
    """The IRI that stands for the deployment: that of the issuer of its tokens, which is whose accounts users have."""
    text = issuer.rstrip("/")
    return text if re.fullmatch(r"[a-z][a-z0-9+.-]*:[^\s<>\"{}|\\^`]+", text) else f"urn:storyloom:{_slug(text)}"


def _slug(text: str) -> str:
    return re.sub("[^a-z0-9]+", "-", text.lower()).strip("-") or "platform"
