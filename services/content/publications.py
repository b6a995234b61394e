"""Stories and lessons published together, and what that would change."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from kit.access import require_any
from kit.db import Database, ReadSession
from kit.errors import NotFound, PermissionDenied
from services.content import diffing, publishing
from services.content.announcements import announce_lessons
from services.content.enums import PUBLICATION_OUTCOME
from services.content.models import Story
from services.content.publishing import LessonPart, Plan, StoryPart
from services.content.queries import publications, story_versions
from services.content.story_versions import COMPARER, changes_to_proto
from services.content.versioning import as_notes
from storyloom.content.v1 import publications_pb2

Counts = tuple[int, int, int]


class PublicationService:
    SERVICE = publications_pb2.DESCRIPTOR.services_by_name["PublicationService"]

    def __init__(self, db: Database) -> None:
        self.db = db

    async def CreatePublication(
        self, request: publications_pb2.CreatePublicationRequest, context: Any
    ) -> publications_pb2.Publication:
        async with self.db.write() as session:
            plan = await publishing.plan_locked(session, request.items)
            for refusal in plan.refusals():
                raise refusal
            plan.carry_out(session)
            await session.flush()
            await announce_lessons(session, [part.lesson.id for part in plan.lessons if part.outcome == "new"])
            return publication_to_proto(plan)

    async def PreviewPublication(
        self, request: publications_pb2.PreviewPublicationRequest, context: Any
    ) -> publications_pb2.Publication:
        require_any("publish", Story)
        async with self.db.read() as session:
            plan = await publishing.plan_seen(session, request.items)
            for refusal in plan.refusals():
                if isinstance(refusal, NotFound):
                    raise refusal
            audience = await _audience(session, plan)
        answer = publication_to_proto(plan)
        for part, story in zip(plan.stories, answer.stories, strict=True):
            if _is_changed(part):
                words, woven = await self._changes(part)
                story.words.CopyFrom(changes_to_proto(words))
                story.woven_words.CopyFrom(changes_to_proto(woven))
                story.learner_count = audience.of(part.story.lesson_id)
        for place, lesson in zip(plan.lessons, answer.lessons, strict=True):
            lesson.learner_count = audience.of(place.lesson.id) if lesson.becomes_visible else 0
        answer.learner_count = audience.learners.get(None, 0)
        return answer

    async def _changes(self, part: StoryPart) -> tuple[Counts, Counts]:
        """How many words of the text and how many woven ones differ from what is published."""
        versions = [part.version.id] if part.replaced is None else [part.version.id, part.replaced]
        async with self.db.read() as session:
            found = await story_versions.list_compared(session, part.story.id, versions)
        base = found[part.replaced] if part.replaced is not None else None
        return await COMPARER.do(_count_changes, base, found[part.version.id], part.story.language)


@dataclass(frozen=True, slots=True)
class Audience:
    """The courses that the caller may see, by lesson, and how many learners take each; under None how many any."""

    courses: Mapping[UUID, UUID]
    learners: Mapping[UUID | None, int]

    def of(self, lesson_id: UUID | None) -> int:
        course_id = self.courses.get(lesson_id) if lesson_id is not None else None
        return self.learners.get(course_id, 0) if course_id is not None else 0


async def _audience(session: ReadSession, plan: Plan) -> Audience:
    """Those whom what changes is for."""
    lessons = {part.story.lesson_id for part in plan.stories if _is_changed(part)} - {None}
    lessons |= {part.lesson.id for part in plan.lessons if _becomes_visible(part)}
    found = await publications.list_seen_courses(session, lessons)
    return Audience(found, await publications.count_learners(session, set(found.values())))


def _is_changed(part: StoryPart | LessonPart) -> bool:
    return part.refusal is None and part.outcome != "unchanged"


def _becomes_visible(part: LessonPart) -> bool:
    return _is_changed(part) and part.course_status == "published"


def _count_changes(base: Any, version: Any, language: str) -> tuple[Counts, Counts]:
    """Of the columns of `list_compared`; of no base everything is new."""
    text, notes = (base.text, base.annotations) if base else ("", [])
    words = diffing.compare(text, version.text, language)
    woven = diffing.compare_weaves(as_notes(notes), as_notes(version.annotations), words)
    return (words.added, words.removed, words.changed), diffing.count_changes(woven)


def publication_to_proto(plan: Plan) -> publications_pb2.Publication:
    """What is published, or would be; of a plan without missing parts."""
    return publications_pb2.Publication(
        stories=map(_story_to_proto, plan.stories), lessons=map(_lesson_to_proto, plan.lessons)
    )


def _story_to_proto(part: StoryPart) -> publications_pb2.StoryPublication:
    message = publications_pb2.StoryPublication(
        story_id=str(part.story.id), item=f"items[{part.item}]", outcome=_outcome(part), **_refusal(part)
    )
    if not isinstance(part.refusal, PermissionDenied):
        message.version_id, message.title, message.etag = str(part.version.id), part.version.title, part.story.etag
        message.replaced_version_id = str(part.replaced or "")
    return message


def _lesson_to_proto(part: LessonPart) -> publications_pb2.LessonPublication:
    message = publications_pb2.LessonPublication(
        lesson_id=str(part.lesson.id),
        item=f"items[{part.item}]",
        outcome=_outcome(part),
        becomes_visible=_becomes_visible(part),
        **_refusal(part),
    )
    if not isinstance(part.refusal, PermissionDenied):
        message.title, message.etag = part.lesson.title, part.lesson.etag
    return message


def _outcome(part: StoryPart | LessonPart) -> Any:
    return PUBLICATION_OUTCOME.number["blocked" if part.refusal else part.outcome]


def _refusal(part: StoryPart | LessonPart) -> dict[str, Any]:
    return {"reason": part.refusal.reason, "message": part.refusal.message} if part.refusal else {}
