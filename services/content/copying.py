"""Writes a course that was read, from a tenant or a package, anew: everything in it, as drafts of the caller."""

from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from types import SimpleNamespace
from uuid import UUID

from sqlalchemy import insert

from kit import audit
from kit.access import require
from kit.audit import Action
from kit.auth import current
from kit.db import Database, ReadSession, WriteSession
from kit.errors import Aborted
from kit.ids import new_id
from services.content import rules, versioning
from services.content.announcements import announce_course, announce_lessons
from services.content.enums import PART_OF_SPEECH
from services.content.files import Files
from services.content.gathering import Sound, Source, in_thread
from services.content.material import Material
from services.content.models import (
    Audio,
    Course,
    CourseOrigin,
    Lesson,
    LessonAuthor,
    LessonPrerequisite,
    Story,
    StoryOrigin,
    StoryVersion,
    Tag,
    Unit,
    Vocabulary,
)
from services.content.queries import audios, materials, story_versions, vocabularies
from services.content.queries.audios import Times
from services.content.queries.bulk import execute_for_each
from services.content.queries.tags import JOINS
from services.content.storage import Stored
from services.content.story_versions import make_version
from services.content.versioning import Draft
from services.content.vocabularies import insert_words, new_word
from services.content.weaving import Share
from storyloom.content.v1.package_files_pb2 import PackageRecording, PackageStory, PackageWord

COPY, FOREIGN_COPY, PACKAGE = "copy", "foreign_copy", "package"
# What the entry of the new course says was done.
ACTIONS: Mapping[str, str] = {COPY: "copy", FOREIGN_COPY: "copy", PACKAGE: "import"}
MILLISECOND = timedelta(milliseconds=1)
LATE = "The vocabulary was changed meanwhile; try again."


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """How to make a course: under which title, its own if empty; where it comes from; and whose it will be."""

    kind: str
    author_id: UUID
    title: str = ""
    source_tenant_id: UUID | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """A course that is made, and not yet written. `words` are those that the tenant lacks, `matched` the ids of the
    others."""

    course: Course
    origin: CourseOrigin
    words: Sequence[Vocabulary]
    matched: frozenset[UUID]
    units: list[Unit] = field(default_factory=list)
    lessons: list[Lesson] = field(default_factory=list)
    prerequisites: list[tuple[UUID, UUID]] = field(default_factory=list)
    stories: list[tuple[Story, StoryVersion, Draft]] = field(default_factory=list)
    recordings: list[tuple[Audio, Times]] = field(default_factory=list)
    new_tags: list[Tag] = field(default_factory=list)
    tagged: list[tuple[str, UUID, UUID]] = field(default_factory=list)
    story_origins: list[StoryOrigin] = field(default_factory=list)


async def make(db: Database, source: Source, wish: Wish) -> Made:
    """The course with everything in it, as the caller may create it in their tenant."""
    async with db.read() as session:
        words = source.material.words
        word_ids = source.word_ids if wish.kind == COPY else await _find_words(session, words)
        tag_ids = await materials.find_tags(session, {rules.term_key(name) for name in _tag_names(source.material)})
    made = await in_thread(_make, source, wish, word_ids, dict(tag_ids))
    stories = [story for story, _, _ in made.stories]
    recordings = [audio for audio, _ in made.recordings]
    for entity in (made.course, *made.words, *made.units, *made.lessons, *stories, *recordings, *made.new_tags):
        require("create", entity)
    return made


def _tag_names(material: Material) -> Iterator[str]:
    yield from material.course.tags
    for lesson in material.lessons:
        yield from lesson.tags
    for story in material.all_stories:
        yield from story.tags


async def _find_words(session: ReadSession, words: Sequence[PackageWord]) -> list[UUID | None]:
    """The tenant's words that are these."""
    senses = [
        (
            word.language,
            word.learning_language,
            rules.term_key(word.term),
            PART_OF_SPEECH.word[word.part_of_speech],
            word.sense,
        )
        for word in words
    ]
    found = await vocabularies.find_ids(session, senses)
    return [found.get(sense) for sense in senses]


def _make(source: Source, wish: Wish, word_ids: Sequence[UUID | None], tag_ids: dict[str, UUID]) -> Made:
    material = source.material
    missing = [word for word, word_id in zip(material.words, word_ids, strict=True) if word_id is None]
    words = [new_word(word, material.course) for word in missing]
    fresh = iter(words)
    ids = [word_id or next(fresh).id for word_id in word_ids]
    course = Course(
        title=wish.title or material.course.title,
        description=material.course.description,
        story_language=material.course.story_language,
        learning_language=material.course.learning_language,
        author_id=wish.author_id,
    )
    origin = CourseOrigin(
        course_id=course.id,
        kind=wish.kind,
        digest=source.digest,
        user_id=wish.author_id,
        source_tenant_id=wish.source_tenant_id,
        source_course_id=source.course_id,
    )
    made = Made(course=course, origin=origin, words=words, matched=frozenset(filter(None, word_ids)))
    _add_lessons(made, source)
    _add_stories(made, source, wish, ids)
    for word, said in zip(words, missing, strict=True):
        _add_recordings(made, source, wish, said.recordings, vocabulary_id=word.id)
    _add_tags(made, material, tag_ids)
    return made


def _add_recordings(
    made: Made, source: Source, wish: Wish, recordings: Iterable[PackageRecording], **of: UUID | None
) -> None:
    """As processed ones: whoever publishes them has to hear them first."""
    for said in recordings:
        sound = source.sounds[said.file]
        audio = Audio(
            **({"story_id": None, "version_id": None, "vocabulary_id": None} | of),
            title=said.title,
            language=said.language,
            voice=said.voice,
            author_id=wish.author_id,
            status="processed",
            mime_type=said.mime_type,
            size_bytes=sound.size,
            sha256=said.file,
            duration=sound.duration,
            storage_key=sound.key,
        )
        times = [(one.chunk, one.start * MILLISECOND, one.end * MILLISECOND) for one in said.times]
        made.recordings.append((audio, times))


def _add_tags(made: Made, material: Material, tag_ids: dict[str, UUID]) -> None:
    bearers: list[tuple[str, UUID, Sequence[str]]] = [("course", made.course.id, material.course.tags)]
    bearers += [("lesson", row.id, said.tags) for row, said in zip(made.lessons, material.lessons, strict=True)]
    stories = zip(made.stories, material.all_stories, strict=True)
    bearers += [("story", story.id, said.tags) for (story, _, _), said in stories]
    for kind, bearer_id, names in bearers:
        for name in names:
            key = rules.term_key(name)
            if key not in tag_ids:
                tag = Tag(name=name, name_key=key)
                made.new_tags.append(tag)
                tag_ids[key] = tag.id
            made.tagged.append((kind, bearer_id, tag_ids[key]))


def _add_lessons(made: Made, source: Source) -> None:
    needed: list[tuple[UUID, Sequence[int]]] = []
    for place, unit in enumerate(source.material.course.units, 1):
        row = Unit(course_id=made.course.id, title=unit.title, description=unit.description, position=place)
        made.units.append(row)
        for number, lesson in enumerate(unit.lessons, 1):
            one = Lesson(
                unit_id=row.id,
                course_id=made.course.id,
                title=lesson.title,
                description=lesson.description,
                position=number,
            )
            made.lessons.append(one)
            needed.append((one.id, lesson.prerequisites))
    made.prerequisites.extend((one, made.lessons[before - 1].id) for one, of_it in needed for before in of_it)


def _add_stories(made: Made, source: Source, wish: Wish, word_ids: Sequence[UUID]) -> None:
    names = zip(source.content.stories, source.stories, strict=True)
    for lesson, stories in zip(made.lessons, source.material.stories, strict=True):
        for place, said in enumerate(stories, 1):
            digest, (story_id, version_id) = next(names)
            story = Story(
                id=new_id(),
                title=said.title,
                language=said.language,
                learning_language=said.learning_language,
                lesson_id=lesson.id,
                position=place,
                vocabulary_ids=[word_ids[number - 1] for number in said.words],
                author_id=wish.author_id,
            )
            draft = _draft(said, word_ids)
            version = make_version(story.id, 1, wish.author_id, draft)
            story.current_version_id = version.id
            made.stories.append((story, version, draft))
            _add_recordings(made, source, wish, said.recordings, story_id=story.id, version_id=version.id)
            origin = StoryOrigin(
                story_id=story.id,
                digest=digest,
                user_id=wish.author_id,
                source_tenant_id=wish.source_tenant_id,
                source_story_id=story_id,
                source_version_id=version_id,
            )
            made.story_origins.append(origin)


def _draft(story: PackageStory, word_ids: Sequence[UUID]) -> Draft:
    """The version of the story, with these words in place of numbers."""

    def named(numbers: Iterable[int]) -> list[UUID]:
        return [word_ids[number - 1] for number in numbers]

    version = SimpleNamespace(
        text=story.text,
        annotations=[
            (note.start, note.end, str(word_ids[note.word - 1]), note.replacement, note.explanation)
            for note in story.annotations
        ],
        seed=story.seed if story.HasField("seed") else None,
        paragraphs=list(story.paragraphs),
        pinned_vocabulary_ids=named(story.pinned),
        banned_vocabulary_ids=named(story.banned),
    )
    shares = [
        Share.of(PART_OF_SPEECH.word[one.part_of_speech], one.occurrences, one.woven, Decimal(one.target))
        for one in story.shares
    ]
    return versioning.remade(story.title, story.language, version, shares)


@asynccontextmanager
async def kept(files: Files, made: Made, sounds: Mapping[str, Sound]) -> AsyncIterator[None]:
    """Writes the files of the recordings for the caller's tenant, unless the block, which writes the rest, fails."""
    async with AsyncExitStack() as stack:
        keys: dict[str, str] = {}
        for audio, _ in made.recordings:
            if audio.sha256 not in keys:
                sound = sounds[audio.sha256]
                pieces = sound.part.sent() if sound.part else files.storage.read(sound.key)
                expected = Stored(audio.size_bytes, audio.sha256)
                writing = files.kept(current().tenant_id, pieces, expected, audio.mime_type)
                keys[audio.sha256] = await stack.enter_async_context(writing)
            audio.storage_key = keys[audio.sha256]
        yield


async def write(session: WriteSession, made: Made) -> None:
    """Writes all of it, with its entries in the audit log."""
    await _write_words(session, made)
    session.add(made.course)
    _record_course(session, made)
    await session.flush()
    levels: tuple[Sequence[Unit | Lesson], ...] = (made.units, made.lessons)
    for level in levels:
        for part in level:
            session.add(part)
            audit.record(session, Action.CREATE, part)
        await session.flush()
    await _write_order(session, made)
    await _write_stories(session, made)
    session.add(made.origin)
    for origin in made.story_origins:
        session.add(origin)
    await session.flush()
    await _write_recordings(session, made)
    await _write_tags(session, made)
    announce_course(session, made.course)
    await announce_lessons(session, [lesson.id for lesson in made.lessons])


async def _write_words(session: WriteSession, made: Made) -> None:
    """ABORTED when the words that the tenant lacks, or has, are no longer those."""
    if made.words and len(await insert_words(session, made.words)) != len(made.words):
        raise Aborted(LATE)
    if made.origin.kind == COPY:
        return
    if made.matched and await vocabularies.count_vocabularies(session, made.matched) != len(made.matched):
        raise Aborted(LATE)


async def _write_recordings(session: WriteSession, made: Made) -> None:
    keys = {str(audio.storage_key) for audio, _ in made.recordings}
    # Files that are new here are kept by whoever wrote them.
    if made.origin.kind == COPY and len(await materials.keep_files(session, keys)) != len(keys):
        raise Aborted("A recording was removed meanwhile; try again.")
    for audio, _ in made.recordings:
        session.add(audio)
        audit.record(session, Action.CREATE, audio)
    await session.flush()
    for audio, times in made.recordings:
        if times:
            await audios.replace_times(session, audio.id, audio.version_id, times)


async def _write_tags(session: WriteSession, made: Made) -> None:
    for tag in made.new_tags:
        session.add(tag)
        audit.record(session, Action.CREATE, tag)
    await session.flush()
    for kind, (join, bearer) in JOINS.items():
        keys = {"tenant_id": session.tenant_id}
        rows = [keys | {bearer.key: one, "tag_id": tag} for what, one, tag in made.tagged if what == kind]
        if rows:
            await execute_for_each(session, insert(join), rows)


def _record_course(session: WriteSession, made: Made) -> None:
    course, origin = made.course, made.origin
    values = {
        name: getattr(course, name)
        for name in ("title", "description", "story_language", "learning_language", "status", "author_id")
    }
    # The log has other readers than those who may know of the other tenant.
    source = origin.source_course_id if origin.kind == COPY else None
    values |= {"digest": origin.digest} | ({"source_course_id": source} if source else {})
    audit.write(session, ACTIONS[origin.kind], "course", course.id, new=values)


async def _write_order(session: WriteSession, made: Made) -> None:
    keys = {"tenant_id": session.tenant_id, "course_id": made.course.id}
    rows = [keys | {"lesson_id": one, "prerequisite_id": before} for one, before in made.prerequisites]
    if rows:
        await execute_for_each(session, insert(LessonPrerequisite), rows)
    for lesson in made.lessons:
        session.add(LessonAuthor(lesson_id=lesson.id, user_id=current().subject))


async def _write_stories(session: WriteSession, made: Made) -> None:
    for story, _, _ in made.stories:
        session.add(story)
        audit.record(session, Action.CREATE, story)
    await session.flush()
    await story_versions.insert_versions(session, [(version, draft) for _, version, draft in made.stories])
