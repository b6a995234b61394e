"""Packages that are as they should be, and archives that are not."""

import io
import json
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from services.content import material, packaging
from services.content.material import Material, sha256
from services.content.slices import Slice
from storyloom.content.v1.package_files_pb2 import PackageCourse, PackageStory, PackageWord
from storyloom.content.v1.vocabularies_pb2 import PART_OF_SPEECH_NOUN, VocabularyForm

Entries = list[tuple[str, bytes]]
TEXT = "Con mèo và con chó.\r\n\r\nCon mèo ngủ 🐈."


def word(term: str, translation: str, **more: Any) -> PackageWord:
    values = {"language": "vi", "learning_language": "en", "part_of_speech": PART_OF_SPEECH_NOUN, "sense": 1}
    return PackageWord(term=term, translation=translation, **(values | more))


def story(**more: Any) -> PackageStory:
    made = PackageStory(title="Mèo", text=TEXT, language="vi", learning_language="en", seed=0, words=[1])
    made.annotations.add(start=11, end=18, word=1, replacement="dog", explanation="")
    made.annotations.add(start=23, end=30, word=2, replacement="Cat", explanation="cat: con mèo")
    made.shares.add(part_of_speech=PART_OF_SPEECH_NOUN, target="0.5", occurrences=3, woven=2)
    made.MergeFrom(PackageStory(**more))
    return made


def good() -> Material:
    """A course with two lessons, the second after the first, and three stories, two of which are the same."""
    course = PackageCourse(title="Tiếng Anh", story_language="vi", learning_language="en")
    unit = course.units.add(title="Chương 1")
    unit.lessons.add(title="Bài 1", description="Mở đầu")
    unit.lessons.add(title="Bài 2", prerequisites=[1])
    plain = PackageStory(title="Không chêm", text="Một câu.", language="vi", learning_language="en")
    words = [word("con chó", "dog"), word("con mèo", "cat", forms=[VocabularyForm(form="mèo", translation="kitty")])]
    return Material(course=course, stories=[[story(), plain], [story()]], words=words)


def long_course(stories: int, text: str) -> Material:
    """A course of stories in as many lessons, each after the one before it, every other word of them woven in."""
    course = PackageCourse(title="Dài", story_language="vi", learning_language="en")
    unit = course.units.add(title="Chương")
    made: list[list[PackageStory]] = []
    for number in range(stories):
        unit.lessons.add(title=f"Bài {number}", prerequisites=[number] if number else [])
        one = PackageStory(title=f"Truyện {number}", text=text, language="vi", learning_language="en")
        for start in range(0, len(text) - 7, 120):
            one.annotations.add(start=start, end=start + 7, word=1, replacement="cat")
        made.append([one])
    return Material(course=course, stories=made, words=[word("con mèo", "cat")])


def packed(content: Material, sounds: Mapping[str, Slice] | None = None) -> bytes:
    """What an export writes; nothing is checked."""
    return b"".join(packaging.pieces(material.files(content), sounds or {}))


def with_sound(sound: bytes, *mime_types: str, end: int = 50) -> bytes:
    """A package whose first story is read aloud, in these formats."""
    content, name = good(), sha256(sound)
    for mime_type in sorted(mime_types or ["audio/wav"]):
        made = content.stories[0][1].recordings.add(title="Đọc", language="vi", mime_type=mime_type, file=name)
        made.times.add(chunk=1, end=end)
    read_aloud = replace(content, sounds={name: len(sound)})
    return packed(read_aloud, {name: Slice.of(sound)})


def entries_of(data: bytes) -> Entries:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return [(info.filename, archive.read(info)) for info in archive.infolist()]


def archived(entries: Iterable[tuple[str, bytes]], **more: Any) -> bytes:
    """An archive like a package, of any files; `more` are attributes of the last entry."""
    file, entries = io.BytesIO(), list(entries)
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for number, (name, data) in enumerate(entries, 1):
            info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            info.create_system, info.external_attr = 3, packaging.MODE
            for attribute, value in more.items() if number == len(entries) else ():
                setattr(info, attribute, value)
            archive.writestr(info, data)
    return file.getvalue()


def forged(kind: str, change: Any) -> bytes:
    """A package with all hashes right, whose manifest, course, vocabulary or (first) story has other bytes: those that
    `change` makes of its own, or of what they spell."""
    files = material.files(good())
    names = {"course": files.course, "vocabulary": files.vocabulary, "story": files.stories[0]}
    blobs = dict(files.blobs)
    if kind in names:
        old = names[kind]
        data = changed(blobs.pop(old), change)
        new = sha256(data)
        blobs = {name: blob.replace(old.encode(), new.encode()) for name, blob in blobs.items()} | {new: data}
        names[kind] = new
    if kind == "story":
        course = next(blob for name, blob in blobs.items() if b'"units"' in blob)
        blobs = {name: blob for name, blob in blobs.items() if blob != course} | {sha256(course): course}
        names["course"] = sha256(course)
    said: Any = {
        "format": packaging.FORMAT,
        "version": packaging.VERSION,
        "course": names["course"],
        "vocabulary": names["vocabulary"],
        "blobs": [{"sha256": name, "size": len(blobs[name])} for name in sorted(blobs)],
    }
    manifest = spelled(said)
    if kind == "manifest":
        manifest = changed(manifest, change)
    return archived([("manifest.json", manifest), *((f"blobs/{name}", blobs[name]) for name in sorted(blobs))])


def changed(data: bytes, change: Any) -> bytes:
    if isinstance(change, bytes):
        return change
    said = json.loads(data)
    said = change(said) or said
    return said if isinstance(said, bytes) else spelled(said)


def spelled(values: Any) -> bytes:
    return json.dumps(values, ensure_ascii=False, separators=(",", ":"), sort_keys=True).encode()
