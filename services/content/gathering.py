"""Reads a course with everything in it, as its caller sees it."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar
from uuid import UUID

from kit.access import may, require
from kit.db import Database, ReadSession
from kit.errors import wrong_state
from kit.turns import Worker
from services.content import rules
from services.content.enums import PART_OF_SPEECH
from services.content.material import Files, Material, encode, excess, files, sha256, word_order
from services.content.packaging import manifest
from services.content.queries import courses, materials
from services.content.slices import Slice
from storyloom.content.v1.package_files_pb2 import (
    PackageAnnotation,
    PackageCourse,
    PackageLesson,
    PackageRecording,
    PackageShare,
    PackageStory,
    PackageUnit,
    PackageWord,
)
from storyloom.content.v1.vocabularies_pb2 import VocabularyForm

# A large course takes a processor for seconds, several times; what is begun with it may wait for another.
COPIER = Worker("copy", longest_wait=60)
# More than anybody gives one thing; what is beyond stays behind.
MOST_OF_ONE, MOST_TAGS = 50, 100
Outcome = TypeVar("Outcome")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """A course as it stands in the tables; `versions` are by the ids of stories, `shares` by those of versions."""

    course: Any
    units: Sequence[Any]
    lessons: Sequence[Any]
    stories: Sequence[Any]
    versions: Mapping[UUID, Any]
    shares: Mapping[UUID, Sequence[Any]]
    words: Sequence[Any]
    tags: Mapping[UUID, Sequence[Any]]
    recordings: Sequence[Any]
    times: Mapping[UUID, Sequence[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sound:
    """A recording's file, in the tenant's storage or in a package. How long that lasts is not known yet."""

    mime_type: str
    size: int
    key: str = ""
    duration: timedelta | None = None
    part: Slice | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A course that was read, and what a copy remembers of it. `stories` are story and version of each story of the
    material, `word_ids` the words of it; `sounds` are by the SHA-256 of the files."""

    course_id: UUID | None
    material: Material
    content: Files
    digest: str
    stories: Sequence[tuple[UUID | None, UUID | None]]
    word_ids: Sequence[UUID | None]
    sounds: Mapping[str, Sound]


async def in_thread(work: Callable[..., Outcome], *values: Any) -> Outcome:
    """Does the work, which takes no transaction, off the event loop."""
    return await COPIER.do(work, *values)


async def take(db: Database, course_id: UUID, *, away: bool = False) -> Source:
    """The course as the caller sees it; `away` when it is to leave the tenant."""
    async with db.read() as session:
        await materials.hold_still(session)
        rows = await _read(session, course_id, away=away)
    return await in_thread(_source, rows)


async def check(db: Database, course_id: UUID) -> None:
    """Refuses whoever may not take the course away."""
    async with db.read() as session:
        await _get_course(session, course_id, away=True)


async def _get_course(session: ReadSession, course_id: UUID, *, away: bool) -> tuple[Any, Mapping[str, Any]]:
    """The course, and what the rules know of it and of the caller."""
    course = await courses.get_course(session, course_id)
    known = {"course.status": course.status, "user.course_ids": await courses.list_taken_courses(session)}
    require("read", course, resource="course", known=known)
    if away:
        require("export", course, resource="course", known=known)
    return course, known


async def _read(session: ReadSession, course_id: UUID, *, away: bool) -> Rows:
    course, known = await _get_course(session, course_id, away=away)

    def seen(resource: str, rows: Sequence[Any]) -> list[Any]:
        return [row for row in rows if may("read", row, resource=resource, known=known)]

    units = seen("unit", await materials.list_units(session, course_id))
    shown = {unit.id for unit in units}
    lessons = seen("lesson", [row for row in await materials.list_lessons(session, course_id) if row.unit_id in shown])
    stories = seen("story", await materials.list_stories(session, [lesson.id for lesson in lessons]))
    chosen = {story.id: version_id for story in stories if (version_id := _version_of(story))}
    counts = {"units": len(units), "lessons": len(lessons), "stories": len(chosen)}
    _check_size({**counts, **await materials.measure(session, chosen.values())})
    versions = await materials.list_versions(session, chosen.values())
    stories = [story for story in stories if story.id in chosen]
    words = await materials.list_words(session, _words_of(stories, versions.values()))
    _check_size({"words": len(words)})
    for word in words if away else ():
        require("read", word, resource="vocabulary")
    found = await materials.list_recordings(session, chosen.values(), [word.id for word in words])
    recordings = seen("audio", found)
    _check_size({"recordings": len(recordings), "bytes of sound": sum(_sizes(recordings).values())})
    return Rows(
        course=course,
        units=units,
        lessons=lessons,
        stories=stories,
        versions={story_id: versions[version_id] for story_id, version_id in chosen.items()},
        shares=await materials.list_shares(session, chosen.values()),
        words=words,
        tags={
            **await materials.list_tags(session, "course", [course_id]),
            **await materials.list_tags(session, "lesson", [lesson.id for lesson in lessons]),
            **await materials.list_tags(session, "story", [story.id for story in stories]),
        },
        recordings=recordings,
        times=await materials.list_times(session, [one.id for one in recordings]),
    )


def _sizes(recordings: Iterable[Any]) -> dict[str, int]:
    return {one.sha256: one.size_bytes for one in recordings}


def _version_of(story: Any) -> UUID | None:
    """What the caller is shown as the current version."""
    found: UUID | None = story.published_version_id
    return story.current_version_id if may("update", story, resource="story") else found


def _check_size(counts: Mapping[str, int]) -> None:
    if too_much := excess(counts):
        raise wrong_state(f"The course {too_much}.", "too_large")


def _words_of(stories: Iterable[Any], versions: Iterable[Any]) -> set[UUID]:
    found = {one for story in stories for one in story.vocabulary_ids}
    for version in versions:
        found.update(version.pinned_vocabulary_ids, version.banned_vocabulary_ids)
        found.update(UUID(note[2]) for note in version.annotations)
    return found


def _source(rows: Rows) -> Source:
    words, numbers = _numbered(rows.words)
    heard = _heard(rows, numbers)
    lesson_numbers = {lesson.id: number for number, lesson in enumerate(rows.lessons, 1)}
    course = PackageCourse(
        title=rows.course.title,
        description=rows.course.description,
        story_language=rows.course.story_language,
        learning_language=rows.course.learning_language,
        units=[_unit(rows, unit, lesson_numbers) for unit in rows.units],
        tags=_tags(rows, rows.course.id),
    )
    by_lesson: dict[UUID, list[Any]] = {lesson.id: [] for lesson in rows.lessons}
    for story in rows.stories:
        by_lesson[story.lesson_id].append(story)
    stories = [[_story(rows, story, numbers, heard) for story in of_lesson] for of_lesson in by_lesson.values()]
    spoken = [_word(word, heard.get(number, ())) for number, word in enumerate(words, 1)]
    used, sizes = {one.file for of in heard.values() for one in of}, _sizes(rows.recordings)
    sounds = {name: sizes[name] for name in used}
    material = Material(course=course, stories=stories, words=spoken, sounds=sounds)
    versions = [
        (story.id, rows.versions[story.id].id) for of_lesson in by_lesson.values() for story in of_lesson
    ]
    files_of = {
        one.sha256: Sound(mime_type=one.mime_type, size=one.size_bytes, key=one.storage_key, duration=one.duration)
        for one in rows.recordings
        if one.sha256 in used
    }
    ids = [word.id for word in words]
    return source_of(material, course_id=rows.course.id, stories=versions, word_ids=ids, sounds=files_of)


def source_of(
    material: Material,
    *,
    course_id: UUID | None = None,
    stories: Sequence[tuple[UUID | None, UUID | None]] = (),
    word_ids: Sequence[UUID | None] = (),
    sounds: Mapping[str, Sound],
) -> Source:
    """The material with its digests; of a package, nothing is known of where it comes from."""
    content = files(material)
    return Source(
        course_id=course_id,
        material=material,
        content=content,
        digest=sha256(manifest(content)),
        stories=stories or [(None, None)] * len(content.stories),
        word_ids=word_ids or [None] * len(material.words),
        sounds=sounds,
    )


def _numbered(rows: Sequence[Any]) -> tuple[list[Any], dict[UUID, int]]:
    """The words in their order, and the number of each id. One that was deleted is the one that took its place."""
    words: dict[tuple[Any, ...], Any] = {}
    for row in sorted(rows, key=lambda row: (row.deleted_at is not None, row.id)):
        words.setdefault(_order_of(row), row)
    numbers = {order: number for number, order in enumerate(sorted(words), 1)}
    return [words[order] for order in numbers], {row.id: numbers[_order_of(row)] for row in rows}


def _order_of(row: Any) -> tuple[Any, ...]:
    part = PART_OF_SPEECH.number[row.part_of_speech]
    return word_order(row.language, row.learning_language, row.term_key, part, row.sense)


def _word(row: Any, recordings: Sequence[PackageRecording]) -> PackageWord:
    return PackageWord(
        language=row.language,
        learning_language=row.learning_language,
        term=row.term,
        part_of_speech=PART_OF_SPEECH.number[row.part_of_speech],
        sense=row.sense,
        translation=row.translation,
        level=row.level,
        explanation=row.explanation,
        forms=[VocabularyForm(form=form, translation=translation) for form, translation in row.forms],
        recordings=recordings,
    )


def _heard(rows: Rows, numbers: Mapping[UUID, int]) -> Mapping[UUID | int, list[PackageRecording]]:
    """The recordings of each version, by its id, and of each word, by its number."""
    found: dict[UUID | int, dict[bytes, PackageRecording]] = {}
    for row in rows.recordings:
        made = PackageRecording(
            title=row.title, language=row.language, voice=row.voice, mime_type=row.mime_type, file=row.sha256
        )
        for one in rows.times.get(row.id, ()):
            made.times.add(
                chunk=one.position, start=_milliseconds(one.start_offset), end=_milliseconds(one.end_offset)
            )
        found.setdefault(row.version_id or numbers[row.vocabulary_id], {})[encode(made)] = made
    return {of: [spelled[one] for one in sorted(spelled)][:MOST_OF_ONE] for of, spelled in found.items()}


def _milliseconds(offset: timedelta) -> int:
    return offset // timedelta(milliseconds=1)


def _tags(rows: Rows, bearer_id: UUID) -> list[str]:
    return [tag.name for tag in rows.tags.get(bearer_id, ())][:MOST_TAGS]


def _unit(rows: Rows, unit: Any, numbers: Mapping[UUID, int]) -> PackageUnit:
    return PackageUnit(
        title=unit.title,
        description=unit.description,
        lessons=[
            PackageLesson(
                title=lesson.title,
                description=lesson.description,
                prerequisites=sorted(numbers[one] for one in lesson.prerequisite_ids or () if one in numbers),
                tags=_tags(rows, lesson.id),
            )
            for lesson in rows.lessons
            if lesson.unit_id == unit.id
        ],
    )


def _story(
    rows: Rows, story: Any, numbers: Mapping[UUID, int], heard: Mapping[UUID | int, list[PackageRecording]]
) -> PackageStory:
    version = rows.versions[story.id]

    def named(ids: Iterable[UUID]) -> set[int]:
        return {numbers[one] for one in ids if one in numbers}

    banned = named(version.banned_vocabulary_ids)
    return PackageStory(
        title=version.title,
        text=version.text,
        language=story.language,
        learning_language=story.learning_language,
        words=sorted(named(story.vocabulary_ids)),
        annotations=[
            PackageAnnotation(start=start, end=end, word=numbers[UUID(word)], replacement=replacement, explanation=more)
            for start, end, word, replacement, more in version.annotations
            if UUID(word) in numbers
        ],
        seed=version.seed,
        paragraphs=sorted(version.paragraphs),
        pinned=sorted(named(version.pinned_vocabulary_ids) - banned),
        banned=sorted(banned),
        shares=_shares(rows.shares.get(version.id, ())),
        tags=_tags(rows, story.id),
        recordings=heard.get(version.id, ()),
    )


def _shares(rows: Iterable[Any]) -> list[PackageShare]:
    found = [
        PackageShare(
            part_of_speech=PART_OF_SPEECH.number[row.part_of_speech],
            target=rules.decimal_text(row.target),
            occurrences=row.occurrences,
            woven=row.woven,
        )
        for row in rows
    ]
    return sorted(found, key=lambda share: share.part_of_speech)
