"""What publishing needs and what it does, for one story as for many things together."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any
from uuid import UUID

from kit import audit
from kit.access import denied, may, require
from kit.audit import Action
from kit.db import ReadSession, WriteSession
from kit.errors import InvalidArgument, NotFound, StoryloomError
from kit.models import check_etag
from services.content import rules
from services.content.models import Lesson, Story
from services.content.queries import courses, publications
from storyloom.content.v1.publications_pb2 import PublicationItem

MOST_STORIES = 100


async def publish_one(session: WriteSession, story: Story, version_id: UUID, etag: str) -> None:
    """Publishes a version of the story, which is locked."""
    version = (await publications.list_versions(session, [version_id])).get(version_id)
    required = (await courses.get_settings(session)).approval_required
    check_story(story, version, etag, required=required)
    _publish_story(session, story, version_id)


def check_story(story: Any, version: Any, etag: str, *, required: bool) -> None:
    """Refuses to publish the version, None when there is no such one. `required` says whether approvals are."""
    require("publish", story, resource="story")
    check_etag(story, etag)
    if version is None or version.story_id != story.id:
        raise NotFound("story_version")
    rules.check_publishable(
        story.status, required=required, content_hash=version.content_hash, approved_hash=version.approved_hash
    )


@dataclass(slots=True)
class StoryPart:
    """A story to be published, an entity or a row; `item` counts from 0, and `named` says whether it is the story's
    own and not its lesson's."""

    item: int
    story: Any
    version: Any
    named: bool
    outcome: str
    replaced: UUID | None
    refusal: StoryloomError | None = None


@dataclass(slots=True)
class LessonPart:
    """A lesson to be published; None when there is no such one."""

    item: int
    lesson: Any
    course_status: str
    outcome: str
    refusal: StoryloomError | None = None


@dataclass(slots=True)
class Plan:
    """What is published together, in the order of the items."""

    lessons: list[LessonPart]
    stories: list[StoryPart]

    def refusals(self) -> Iterator[StoryloomError]:
        """All of them, in the order of the items, the lesson's before those of its stories."""
        parts: list[LessonPart | StoryPart] = [*self.lessons, *self.stories]
        return (part.refusal for part in sorted(parts, key=lambda part: part.item) if part.refusal is not None)

    def carry_out(self, session: WriteSession) -> None:
        """Publishes what was planned under locks."""
        for part in self.lessons:
            if part.outcome == "new":
                _publish_lesson(session, part.lesson)
        for one in self.stories:
            _publish_story(session, one.story, one.version.id)


@dataclass(frozen=True, slots=True)
class Asked:
    """What the items name: the numbers of the items by story and by lesson."""

    items: Sequence[PublicationItem]
    stories: Mapping[UUID, int]
    lessons: Mapping[UUID, int]

    @classmethod
    def of(cls, items: Sequence[PublicationItem]) -> "Asked":
        stories: dict[UUID, int] = {}
        lessons: dict[UUID, int] = {}
        for number, item in enumerate(items):
            named, one = (stories, item.story_id) if item.story_id else (lessons, item.lesson_id)
            if named.setdefault(UUID(one), number) != number:
                raise InvalidArgument.fields([(f"items[{number}]", "names what an item before it names")])
        return cls(items, stories, lessons)

    def version_of(self, story: Any) -> UUID:
        """The version that is asked for: the current one unless the story's own item says another."""
        number = self.stories.get(story.id)
        wanted = self.items[number].version_id if number is not None else ""
        return UUID(wanted) if wanted else story.current_version_id


async def plan_locked(session: WriteSession, items: Sequence[PublicationItem]) -> Plan:
    """What the items come to; nobody changes any of it before the transaction ends."""
    asked = Asked.of(items)
    lessons = _lesson_parts(asked, await publications.lock_lessons(session, asked.lessons))
    found = await publications.lock_stories(session, asked.stories, _opened(lessons), MOST_STORIES + 1)
    return await _planned(session, asked, lessons, found)


async def plan_seen(session: ReadSession, items: Sequence[PublicationItem]) -> Plan:
    """The same as things are now."""
    asked = Asked.of(items)
    lessons = _lesson_parts(asked, await publications.list_lessons(session, asked.lessons))
    found = await publications.list_stories(session, asked.stories, _opened(lessons), MOST_STORIES + 1)
    return await _planned(session, asked, lessons, found)


def _opened(lessons: Iterable[LessonPart]) -> list[UUID]:
    """The lessons whose stories come along: of one that the caller may not publish, nothing is told."""
    return [part.lesson.id for part in lessons if part.refusal is None]


def _lesson_parts(asked: Asked, found: Iterable[tuple[Any, str]]) -> list[LessonPart]:
    by_id = {lesson.id: (lesson, status) for lesson, status in found}
    parts = []
    for lesson_id, number in asked.lessons.items():
        lesson, status = by_id.get(lesson_id, (None, ""))
        outcome = "unchanged" if lesson is not None and lesson.status == "published" else "new"
        refusal = _refusal(number, partial(_check_lesson, lesson, status, asked.items[number].etag))
        parts.append(LessonPart(number, lesson, status, outcome, refusal))
    return parts


def _check_lesson(lesson: Any, course_status: str, etag: str) -> None:
    if lesson is None:
        raise NotFound("lesson")
    require("publish", lesson, resource="lesson")
    check_etag(lesson, etag)
    rules.check_open("course", course_status)


def _publish_story(session: WriteSession, story: Story, version_id: UUID) -> None:
    """Makes the version the published one, unless it is that already."""
    if story.published_version_id != version_id:
        story.status, story.published_version_id = "published", version_id
        audit.record(session, Action.PUBLISH, story)


def _publish_lesson(session: WriteSession, lesson: Lesson) -> None:
    lesson.status = rules.step("lesson", "publish", lesson.status)
    audit.record(session, Action.PUBLISH, lesson)


async def _planned(session: ReadSession, asked: Asked, lessons: list[LessonPart], found: Sequence[Any]) -> Plan:
    if len(found) > MOST_STORIES:
        raise InvalidArgument.fields([("items", f"come to more than {MOST_STORIES} stories")])
    versions = await publications.list_versions(session, [asked.version_of(story) for story in found])
    required = (await courses.get_settings(session)).approval_required
    parts = [_story_part(asked, story, versions.get(asked.version_of(story)), required=required) for story in found]
    parts.sort(key=lambda part: (part.item, part.story.position or 0, part.story.id))
    missing = asked.stories.keys() - {story.id for story in found}
    parts += [_missing_part(number) for story_id, number in asked.stories.items() if story_id in missing]
    return Plan(lessons, _without_unseen(lessons, parts))


def _story_part(asked: Asked, story: Any, version: Any, *, required: bool) -> StoryPart:
    named = story.id in asked.stories
    number = asked.stories[story.id] if named else asked.lessons[story.lesson_id]
    etag = asked.items[number].etag if named else ""
    outcome = "new" if story.published_version_id is None else "updated"
    if version is not None and version.id == story.published_version_id:
        outcome = "unchanged"
    check = partial(check_story, story, version, etag, required=required)
    refusal = _refusal(number, check, **({} if named else {"story_id": str(story.id)}))
    return StoryPart(number, story, version, named, outcome, story.published_version_id, refusal)


def _missing_part(number: int) -> StoryPart:
    return StoryPart(number, None, None, True, "", None, _about(number, NotFound("story")))


def _without_unseen(lessons: Iterable[LessonPart], parts: Iterable[StoryPart]) -> list[StoryPart]:
    """Of a story that a lesson brings along and that the caller may not even read, only the lesson tells."""
    seen = []
    for part in parts:
        if part.refusal is None or part.named or may("read", part.story, resource="story"):
            seen.append(part)
        else:
            lesson = next(one for one in lessons if one.item == part.item)
            lesson.refusal = _about(part.item, denied("story", "publish"))
    return seen


def _refusal(number: int, check: Callable[[], None], **more: str) -> StoryloomError | None:
    """What the check raises, with the item that it is about."""
    try:
        check()
    except StoryloomError as error:
        return _about(number, error, **more)
    return None


def _about(number: int, error: StoryloomError, **more: str) -> StoryloomError:
    error.metadata |= {"item": f"items[{number}]", **more}
    return error
