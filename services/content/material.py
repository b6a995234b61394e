"""A course with everything in it, outside of any tenant: what copies and packages are made of."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

from services.content.rules import has_circle, term_key
from storyloom.content.v1.package_files_pb2 import (
    PackageCourse,
    PackageLesson,
    PackageRecording,
    PackageStory,
    PackageVocabulary,
    PackageWord,
)

# What one call can write in its time, and hold in memory.
MOST: Mapping[str, int] = {
    "units": 200,
    "lessons": 1000,
    "stories": 400,
    "words": 10_000,
    "woven words": 40_000,
    "bytes of text": 8 << 20,
    "recordings": 1000,
    "bytes of sound": 256 << 20,
}
WORD_LISTS = ("words", "pinned", "banned")


class Faulty(ValueError):
    """Something is not as it is in a package: `where` it is, and `what` is wrong, a sentence without its subject."""

    def __init__(self, where: str, what: str) -> None:
        super().__init__(f"{where} {what}".strip())
        self.where, self.what = where, what


@dataclass(frozen=True, slots=True, kw_only=True)
class Material:
    """A course; the stories of each of its lessons, in the order of the lessons; the words that they name; and the
    sizes of the files of recordings, by their SHA-256.

    The lessons do not say yet how the files of their stories are called: `files` tells.
    """

    course: PackageCourse
    stories: Sequence[Sequence[PackageStory]]
    words: Sequence[PackageWord]
    sounds: Mapping[str, int] = field(default_factory=dict)

    @property
    def lessons(self) -> Iterator[PackageLesson]:
        """All lessons in the order of the course: the first has the number 1."""
        for unit in self.course.units:
            yield from unit.lessons

    @property
    def all_stories(self) -> Iterator[PackageStory]:
        """The stories of all lessons."""
        for of_lesson in self.stories:
            yield from of_lesson

    @property
    def recordings(self) -> Iterator[PackageRecording]:
        """Those of all stories, then those of all words."""
        for story in self.all_stories:
            yield from story.recordings
        for word in self.words:
            yield from word.recordings


@dataclass(frozen=True, slots=True, kw_only=True)
class Files:
    """The files of a package's content by their names: those that are text, and the sizes of those that are sound.
    Those of the stories are in the order of `all_stories`."""

    blobs: Mapping[str, bytes]
    sounds: Mapping[str, int]
    course: str
    vocabulary: str
    stories: Sequence[str]


def files(material: Material) -> Files:
    """The files that the material consists of. The same material always gives the same bytes."""
    stories = [[encode(story) for story in of_lesson] for of_lesson in material.stories]
    course = PackageCourse()
    course.CopyFrom(material.course)
    lessons = (lesson for unit in course.units for lesson in unit.lessons)
    for lesson, of_lesson in zip(lessons, stories, strict=True):
        lesson.stories[:] = map(sha256, of_lesson)
    first = encode(course), encode(PackageVocabulary(words=material.words))
    texts = [text for of_lesson in stories for text in of_lesson]
    return Files(
        blobs={sha256(text): text for text in (*first, *texts)},
        sounds=material.sounds,
        course=sha256(first[0]),
        vocabulary=sha256(first[1]),
        stories=list(map(sha256, texts)),
    )


def encode(message: Message) -> bytes:
    """The one spelling of a message as JSON; of one without any field, `{}`."""
    values = MessageToDict(message, preserving_proto_field_name=True)
    return json.dumps(values, ensure_ascii=False, separators=(",", ":"), sort_keys=True).encode()


def sha256(data: bytes) -> str:
    """The name of a file with these bytes."""
    return hashlib.sha256(data).hexdigest()


def word_order(language: str, learning_language: str, key: str, part_of_speech: int, sense: int) -> tuple[Any, ...]:
    """What tells words apart, in every tenant, and in which order they are in a package; `key` is the `term_key`."""
    return language, learning_language, key, part_of_speech, sense


def order_of(word: PackageWord) -> tuple[Any, ...]:
    """The same of a word in a package."""
    return word_order(word.language, word.learning_language, term_key(word.term), word.part_of_speech, word.sense)


def excess(counts: Mapping[str, int]) -> str:
    """What there is too much of, as `has more than 400 stories`; empty when all is within bounds."""
    for name, most in MOST.items():
        if counts.get(name, 0) > most:
            return f"has more than {most:,} {name}"
    return ""


def counts_of(material: Material) -> dict[str, int]:
    """How much there is of what is bounded."""
    return {
        "units": len(material.course.units),
        "lessons": sum(1 for _ in material.lessons),
        "stories": sum(map(len, material.stories)),
        "words": len(material.words),
        "woven words": sum(len(story.annotations) for story in material.all_stories),
        "bytes of text": sum(len(story.text.encode()) for story in material.all_stories),
        "recordings": sum(1 for _ in material.recordings),
        "bytes of sound": sum(material.sounds.values()),
    }


def check(material: Material) -> None:
    """Refuses, as `Faulty`, what the rules of the single messages do not see: sizes, and what refers to what."""
    if too_much := excess(counts_of(material)):
        raise Faulty("the course", too_much)
    _check_prerequisites(list(material.lessons))
    for where, tags in _tags(material):
        if not _ascending(map(term_key, tags)):
            raise Faulty(f"{where}, tags", "are not in their order, or one is there twice")
    if not _ascending(map(order_of, material.words)):
        raise Faulty("words", "are not in their order, or one is there twice")
    named: set[int] = set()
    for number, story in enumerate(material.all_stories, 1):
        named |= _check_story(f"story {number}", story, len(material.words))
    for number, word in enumerate(material.words, 1):
        _check_recordings(f"word {number}", word.recordings, chunks=0)
    if len(named) < len(material.words):
        unused = next(number for number in range(1, len(material.words) + 1) if number not in named)
        raise Faulty(f"word {unused}", "is used by no story")


def _tags(material: Material) -> Iterator[tuple[str, Sequence[str]]]:
    yield "the course", material.course.tags
    yield from ((f"lesson {number}", lesson.tags) for number, lesson in enumerate(material.lessons, 1))
    yield from ((f"story {number}", story.tags) for number, story in enumerate(material.all_stories, 1))


def _check_prerequisites(lessons: Sequence[PackageLesson]) -> None:
    edges: list[tuple[int, int]] = []
    for number, lesson in enumerate(lessons, 1):
        needed = lesson.prerequisites
        if not _ascending(needed):
            raise Faulty(f"lesson {number}", "has prerequisites that are not in ascending order")
        if needed and needed[-1] > len(lessons):
            raise Faulty(f"lesson {number}", f"has the prerequisite {needed[-1]}, which does not exist")
        edges += [(number, before) for before in needed]
    if has_circle(edges):
        raise Faulty("prerequisites", "form a circle")


def _check_story(where: str, story: PackageStory, words: int) -> set[int]:
    """The numbers of the words that the story names."""
    for name in (*WORD_LISTS, "paragraphs"):
        if not _ascending(getattr(story, name)):
            raise Faulty(f"{where}, {name}", "are not in ascending order")
    named = {number for name in WORD_LISTS for number in getattr(story, name)}
    named.update(note.word for note in story.annotations)
    if named and max(named) > words:
        raise Faulty(where, f"names the word {max(named)}, which does not exist")
    if set(story.pinned) & set(story.banned):
        raise Faulty(where, "has a word that is pinned and banned at once")
    if not _ascending(share.part_of_speech for share in story.shares):
        raise Faulty(f"{where}, shares", "are not in their order, or one is there twice")
    done = 0
    for note in story.annotations:
        if not done <= note.start < note.end <= len(story.text):
            raise Faulty(where, f"has an annotation {note.start}..{note.end} that overlaps another or leaves the text")
        done = note.end
    _check_recordings(where, story.recordings, chunks=len(story.text) * 2)
    return named


def _check_recordings(where: str, recordings: Sequence[PackageRecording], *, chunks: int) -> None:
    """A chunk has a code point at least, or explains one that has."""
    if not _ascending(map(encode, recordings)):
        raise Faulty(f"{where}, recordings", "are not in their order, or one is there twice")
    for recording in recordings:
        numbers = [time.chunk for time in recording.times]
        if not _ascending(numbers) or (numbers and numbers[-1] > chunks):
            raise Faulty(f"{where}, times", "are of chunks that do not exist, or not in their order")


def _ascending(values: Iterable[Any]) -> bool:
    return all(one < other for one, other in pairwise(values))
