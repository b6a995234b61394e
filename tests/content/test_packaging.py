"""Packages as files: their bytes follow from the content, and whatever is not such a file is refused by what it is."""

import io
import struct
import tracemalloc
import zipfile
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.content import material, packaging
from services.content.material import Faulty, Material, sha256
from services.content.slices import Slice
from storyloom.content.v1.package_files_pb2 import PackageCourse, PackageStory
from tests.content.archives import archived, entries_of, forged, good, packed, story, word

GOOD = packed(good())
ENTRIES = entries_of(GOOD)
Change = Callable[[dict[str, Any]], Any]


def fault(data: bytes) -> str:
    """What is said to be wrong with the file."""
    with pytest.raises(Faulty) as caught:
        packaging.read(io.BytesIO(data))
    return str(caught.value)


def set_to(path: str, value: Any) -> Change:
    """Sets the field of this path."""

    def change(said: Any) -> None:
        *parents, last = path.split(".")
        for name in parents:
            said = said[int(name)] if name.isdigit() else said[name]
        if isinstance(said, list):
            said[int(last)] = value
        else:
            said[last] = value

    return change


class TestWrite:
    def test_gives_the_same_bytes_for_the_same_course(self) -> None:
        assert packed(good()) == GOOD

    def test_is_what_other_writers_of_archives_would_write(self) -> None:
        assert archived(ENTRIES) == GOOD

    def test_gives_back_what_went_in(self) -> None:
        unpacked = packaging.read(io.BytesIO(GOOD))
        assert unpacked.digest == sha256(dict(ENTRIES)["manifest.json"])
        assert [list(one) for one in unpacked.material.stories] == [list(one) for one in good().stories]
        assert list(unpacked.material.words) == list(good().words)
        assert packed(unpacked.material) == GOOD

    def test_stores_equal_stories_once(self) -> None:
        assert len(ENTRIES) == 1 + 2 + 2

    def test_names_every_file_by_its_hash_and_dates_none(self) -> None:
        with zipfile.ZipFile(io.BytesIO(GOOD)) as archive:
            for info in archive.infolist():
                assert info.date_time == (1980, 1, 1, 0, 0, 0)
                assert info.filename in {"manifest.json", f"blobs/{sha256(archive.read(info))}"}

    text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=40).filter(
        lambda one: bool(one.strip("\x1c\x1d\x1e\x1f\x85\v\f ").split())
    )

    @given(texts=st.lists(text, max_size=4), title=text, notes=st.lists(st.integers(0, 39), max_size=6, unique=True))
    @settings(max_examples=60)
    def test_round_trips_whatever_unicode(self, texts: list[str], title: str, notes: list[int]) -> None:
        course = PackageCourse(title=title, description=title, story_language="vi", learning_language="en")
        unit = course.units.add(title=title)
        stories: list[list[PackageStory]] = []
        for one in texts:
            unit.lessons.add(title=title)
            made = PackageStory(title=title, text=one, language="vi", learning_language="en")
            for start in sorted(notes):
                if start < len(one):
                    made.annotations.add(start=start, end=start + 1, word=1, replacement=title, explanation=one)
            stories.append([made])
        used = any(one.annotations for of_lesson in stories for one in of_lesson)
        content = Material(course=course, stories=stories, words=[word(title, title)] if used else [])
        data = packed(content)
        assert packed(packaging.read(io.BytesIO(data)).material) == data


class TestHostileArchives:
    @pytest.mark.parametrize(
        ("name", "wrong"),
        [
            ("../evil", "leads out of the archive"),
            ("blobs/../../evil", "leads out of the archive"),
            ("/etc/passwd", "has an absolute name"),
            ("C:/evil", "has an absolute name"),
            ("blobs\\evil", "has a backslash in its name"),
            ("..\\evil", "has a backslash in its name"),
            ("blobs/", "is a folder"),
            ("readme.txt", "is no file of a package"),
            ("blobs/" + "A" * 64, "is no file of a package"),
            ("blobs/" + "a" * 64 + "\0.txt", "is no file of a package"),
            ("course.zip", "is no file of a package"),
            ("manifest.json\n", "is no file of a package"),
        ],
    )
    def test_have_names_that_are_refused(self, name: str, wrong: str) -> None:
        info_name = name.replace("\0", "\x01")
        data = archived([*ENTRIES, (info_name, b"x")])
        # The library that writes archives would leave out what comes after a NUL.
        data = data.replace(info_name.encode(), name.encode())
        assert wrong in fault(data)

    def test_have_entries_twice(self) -> None:
        with pytest.warns(UserWarning, match="Duplicate name"):
            data = archived([*ENTRIES, ENTRIES[-1]])
        assert fault(data).endswith("is there twice")

    def test_have_links(self) -> None:
        data = archived([*ENTRIES, ("blobs/" + "a" * 64, b"/etc/passwd")], external_attr=0o120777 << 16)
        assert fault(data).endswith("is a link")

    def test_are_compressed(self) -> None:
        bomb = bytes(50 << 20)
        data = archived([*ENTRIES, (f"blobs/{sha256(bomb)}", bomb)], compress_type=zipfile.ZIP_DEFLATED)
        assert len(data) < 100_000
        tracemalloc.start()
        assert fault(data).endswith("is compressed")
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 5 << 20

    def test_say_that_they_are_not_compressed(self) -> None:
        bomb = bytes(1 << 20)
        data = archived([*ENTRIES, (f"blobs/{sha256(bomb)}", bomb)], compress_type=zipfile.ZIP_DEFLATED)
        # The method in the list of entries, and not in front of the entry.
        at = data.rindex(b"PK\x01\x02") + 10
        assert fault(data[:at] + b"\0\0" + data[at + 2 :])

    def test_have_overlapping_entries(self) -> None:
        """As in the bomb of many names for one kernel (D. Fifield, WOOT 2019)."""
        data = bytearray(archived([*ENTRIES, ("blobs/" + "a" * 64, b"x")]))
        at = data.rindex(b"PK\x01\x02")
        first = data.index(b"PK\x03\x04")
        data[at + 42 : at + 46] = struct.pack("<L", first)
        assert "overlaps another" in fault(bytes(data))

    def test_have_too_many_entries(self) -> None:
        data = archived([(f"{number}", b"") for number in range(2002)])
        assert "has more than 2,001 entries" in fault(data)

    def test_have_more_entries_than_they_say(self) -> None:
        data = bytearray(archived([(f"{number}", b"") for number in range(60_000)]))
        data[-14:-10] = struct.pack("<HH", 5, 5)
        tracemalloc.start()
        assert "a list of entries that is not" in fault(bytes(data))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        # The file itself, and not an object for each of its entries.
        assert peak < 2 * len(data)

    def test_are_of_64_bits(self) -> None:
        record = struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, 1, 1, 46, 0)
        locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, len(GOOD) - 22, 1)
        assert "64-bit" in fault(GOOD[:-22] + record + locator + GOOD[-22:])

    def test_are_too_large(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(packaging, "MOST_BYTES", 1 << 20)
        assert "has more than 1 MiB" in fault(bytes(1 << 20) + GOOD)

    @pytest.mark.parametrize("data", [b"", b"PK", b"PK\x05\x06", b"x" * 1000, GOOD[:-1], GOOD[: len(GOOD) // 2]])
    def test_are_no_archives_or_were_cut_off(self, data: bytes) -> None:
        assert "was cut off, or is none" in fault(data)

    def test_are_nested(self) -> None:
        data = archived([("manifest.json", GOOD), (f"blobs/{sha256(GOOD)}", GOOD)])
        assert fault(data).startswith("manifest.json is not")

    def test_have_something_before_between_or_behind_their_entries(self) -> None:
        with_comment = io.BytesIO(GOOD)
        with zipfile.ZipFile(with_comment, "a") as archive:
            archive.comment = b"hello"
        for data in (b"#!/bin/sh\n" + GOOD, GOOD + b"x", with_comment.getvalue()):
            fault(data)

    @pytest.mark.parametrize(
        "attribute", [{"date_time": (2024, 1, 1, 0, 0, 0)}, {"comment": b"c"}, {"extra": b"\x99\x99\x01\0a"}]
    )
    def test_are_not_what_an_export_writes(self, attribute: dict[str, Any]) -> None:
        assert fault(archived(ENTRIES, **attribute))

    def test_have_their_entries_in_another_order(self) -> None:
        assert "byte for byte" in fault(archived([ENTRIES[0], *reversed(ENTRIES[1:])]))

    @given(data=st.data())
    @settings(max_examples=150)
    def test_with_any_byte_changed_are_refused_for_a_reason(self, data: st.DataObject) -> None:
        at = data.draw(st.integers(0, len(GOOD) - 1))
        bit = data.draw(st.integers(0, 7))
        broken = bytearray(GOOD)
        broken[at] ^= 1 << bit
        assert fault(bytes(broken))

    @given(data=st.binary(max_size=300))
    @settings(max_examples=100)
    def test_of_random_bytes_are_refused(self, data: bytes) -> None:
        assert fault(data)
        assert fault(GOOD[: len(GOOD) // 2] + data + GOOD[-22:])


class TestHostileFiles:
    def test_have_another_hash_than_their_name(self) -> None:
        name, content = ENTRIES[1]
        swapped = [ENTRIES[0], (name, content[:-1] + b" "), *ENTRIES[2:]]
        assert "has another hash than its name says" in fault(archived(swapped))

    def test_are_missing(self) -> None:
        assert fault(archived(ENTRIES[:-1])).endswith("is missing")
        assert fault(archived(ENTRIES[1:])) == "manifest.json is missing"

    def test_are_not_in_the_manifest(self) -> None:
        data = archived([*ENTRIES, (f"blobs/{sha256(b'x')}", b"x")])
        assert fault(data).endswith("is not in the manifest")

    def test_are_used_by_nothing(self) -> None:
        unused = good()
        files = material.files(unused)
        extra = b'{"title":"x"}'
        blobs = {**files.blobs, sha256(extra): extra}
        more = replace(files, blobs=blobs)
        assert fault(b"".join(packaging.pieces(more, {}))).endswith("is used by nothing")

    def test_are_stories_of_more_woven_words_than_a_course_may_have(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Told before all of them are read: each of the stories may have as many as a course."""
        monkeypatch.setitem(material.MOST, "woven words", 1)  # type: ignore[arg-type]  # the mapping is a dict
        monkeypatch.setattr(packaging, "check", None)
        assert fault(packed(good())) == "the course has more than 1 woven words"

    @pytest.mark.parametrize(
        ("change", "wrong"),
        [
            (set_to("version", 2), "version: must equal 1"),
            (set_to("format", "zip"), "format: must equal"),
            (set_to("course", "0" * 64), "which is not in the manifest"),
            (set_to("course", "../x"), "course: "),
            (set_to("blobs.0.size", 1), "has another size than the manifest says"),
            (set_to("blobs.0.size", -1), "blobs[0].size"),
            (set_to("extra", 1), "is not JSON of this kind"),
            (b"{", "is not JSON of this kind"),
            (b"[]", "manifest.json "),
            (b"null", "is not JSON of this kind"),
            (b"\xff", "is not UTF-8"),
            (b"[" * 100_000, "nested"),
            (b'{"blobs":' * 50_000, "nested"),
            (b"9" * 10_000, "is not JSON of this kind"),
            (b'{"blobs":[' + b"{}," * 800_000 + b"{}]}", "has more than 1,500,000 values"),
        ],
    )
    def test_of_the_manifest_say_what_it_must_not(self, change: Any, wrong: str) -> None:
        assert wrong in fault(forged("manifest", change))

    @pytest.mark.parametrize(
        ("change", "wrong"),
        [
            (set_to("title", "x" * 201), "title: "),
            (set_to("title", " "), "title: "),
            (set_to("description", "a\0b"), "description: "),
            (set_to("story_language", "../"), "story_language: "),
            (set_to("units.0.lessons.0.prerequisites", [1]), "form a circle"),
            (set_to("units.0.lessons.0.prerequisites", [2]), "form a circle"),
            (set_to("units.0.lessons.0.prerequisites", [3]), "has the prerequisite 3, which does not exist"),
            (set_to("units.0.lessons.0.prerequisites", [0]), "prerequisites[0]"),
            (set_to("units.0.lessons.0.stories", ["a" * 64]), "which is not in the manifest"),
            (set_to("units.0.lessons.0.stories", ["../../x"]), "stories[0]"),
            (set_to("units", [{"title": "x"}] * 201), "units: must contain no more than 200"),
            (set_to("units.0", {"title": "x", "lessons": [{"title": "x"}] * 501}), "no more than 500"),
            (lambda said: b'{"title":"a","title":"b"}', "is not JSON of this kind"),
            (lambda said: b'{"title":NaN}', "is not JSON of this kind"),
            (lambda said: b'{"title":"\\ud800"}', "is not"),
            (lambda said: {"TITLE": "x"}, "is not JSON of this kind"),
            (lambda said: b" " + str(said).encode(), "is not JSON of this kind"),
            (lambda said: {**said, "description": ""}, "is not spelled as an export spells it"),
        ],
    )
    def test_of_the_course_say_what_it_must_not(self, change: Any, wrong: str) -> None:
        assert wrong in fault(forged("course", change))

    @pytest.mark.parametrize(
        ("change", "wrong"),
        [
            (set_to("text", "x" * 100_001), "text: "),
            (set_to("text", ""), "text: "),
            (set_to("annotations.0.word", 3), "names the word 3, which does not exist"),
            (set_to("annotations.0.word", 0), "annotations[0].word"),
            (set_to("annotations.0.end", 30), "overlaps another or leaves the text"),
            (set_to("annotations.1.end", 10_000), "overlaps another or leaves the text"),
            (set_to("annotations.0.start", 18), "overlaps another or leaves the text"),
            (set_to("annotations.0.start", -1), "annotations[0].start"),
            (set_to("annotations.0.replacement", "x" * 301), "annotations[0].replacement"),
            (set_to("annotations", [{"end": 1, "word": 1, "replacement": "x"}] * 40_001), "no more than 40000"),
            (set_to("words", [9]), "names the word 9"),
            (set_to("words", [2, 1]), "not in ascending order"),
            (set_to("words", [1, 1]), "words: "),
            (set_to("pinned", [2, 2]), "not in ascending order"),
            (lambda said: {**said, "pinned": [1], "banned": [1]}, "pinned and banned at once"),
            (set_to("shares.0.woven", 4), "woven must not be more than occurrences"),
            (set_to("shares.0.target", "2"), "target: "),
            (set_to("shares.0.target", "0.50"), "target: "),
            (set_to("shares.0.part_of_speech", "PART_OF_SPEECH_UNSPECIFIED"), "part_of_speech"),
            (set_to("shares.0.part_of_speech", 99), "part_of_speech"),
            (set_to("seed", 2**40), "is not JSON of this kind"),
            (set_to("paragraphs", [0]), "paragraphs[0]"),
        ],
    )
    def test_of_stories_say_what_they_must_not(self, change: Any, wrong: str) -> None:
        assert wrong in fault(forged("story", change))

    @pytest.mark.parametrize(
        ("change", "wrong"),
        [
            (set_to("words.0.term", "z"), "words are not in their order"),
            (set_to("words.0.term", "CON MÈO"), "words are not in their order"),
            (set_to("words.0.sense", 101), "sense"),
            (set_to("words.0.translation", ""), "translation"),
            (set_to("words.1.forms", [{"form": "a"}, {"form": "a"}]), "forms must not repeat a form"),
            (lambda said: {"words": [*said["words"], {**said["words"][1], "sense": 2}]}, "word 3 is used by no story"),
            (lambda said: {"words": said["words"][:1]}, "names the word 2, which does not exist"),
            (set_to("words", [{"term": "x"}] * 10_001), "no more than 10000"),
        ],
    )
    def test_of_the_vocabulary_say_what_they_must_not(self, change: Any, wrong: str) -> None:
        assert wrong in fault(forged("vocabulary", change))

    @pytest.mark.parametrize(
        ("chunk", "wrong"), [(0, "times[0].chunk"), (17, "are of chunks that do not exist"), (1, "")]
    )
    def test_of_sound_say_what_they_must_not(self, chunk: int, wrong: str) -> None:
        content, sound = good(), b"any bytes"
        name = sha256(sound)
        recording = content.stories[0][1].recordings.add(title="x", language="vi", mime_type="audio/wav", file=name)
        recording.times.add(chunk=chunk, end=1)
        data = packed(replace(content, sounds={name: len(sound)}), {name: Slice.of(sound)})
        assert not wrong or wrong in fault(data)
        assert wrong or packaging.read(io.BytesIO(data)).sounds[name].size == len(sound)

    def test_lack_the_sound_that_they_name(self) -> None:
        content = good()
        content.stories[0][1].recordings.add(title="x", language="vi", mime_type="audio/wav", file="a" * 64)
        assert "a recording is the blob" in fault(packed(content))

    @pytest.mark.parametrize("tags", [["b", "a"], ["a", "A"]])
    def test_have_tags_in_their_order(self, tags: list[str]) -> None:
        content = good()
        content.course.tags.extend(tags)
        assert "the course, tags are not in their order" in fault(packed(content))

    def test_stand_for_more_stories_than_a_course_has(self) -> None:
        """One file of a few hundred kilobytes, named often, would be gigabytes of stories."""
        many = good()
        lesson = next(many.lessons)
        stories = [[many.stories[0][0]] * 300, [many.stories[0][0]] * 300]
        assert lesson.title
        data = packed(Material(course=many.course, stories=stories, words=many.words))
        assert "has more than 400 stories" in fault(data)

    def test_stand_for_more_text_than_a_course_has(self) -> None:
        long = PackageStory(title="x", text="x" * 100_000, language="vi", learning_language="en")
        many = good()
        data = packed(Material(course=many.course, stories=[[long] * 200, [story()]], words=many.words))
        assert "bytes of text" in fault(data)

    def test_have_prerequisites_in_a_long_circle(self) -> None:
        course = PackageCourse(title="x", story_language="vi", learning_language="en")
        unit = course.units.add(title="x")
        for number in range(400):
            unit.lessons.add(title="x", prerequisites=[number or 400])
        data = packed(Material(course=course, stories=[[] for _ in range(400)], words=[]))
        assert "form a circle" in fault(data)
