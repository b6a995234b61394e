"""Packages over the API: out of one tenant, into another, and out of it again as the same bytes."""

import asyncio
import io

import grpc
import pytest

from services.content import packaging
from storyloom.content.v1.course_copies_pb2 import CourseOriginKind
from storyloom.content.v1.courses_pb2 import ListCoursesRequest
from storyloom.content.v1.vocabularies_pb2 import (
    DeleteVocabularyRequest,
    GetVocabularyRequest,
    UpdateVocabularyRequest,
    Vocabulary,
)
from tests.content.archives import archived, entries_of, forged, good, packed, with_sound
from tests.content.conftest import Author, ListEntries
from tests.content.copies import bring, export, full_course, heard, origin, spoken_course, terms, told
from tests.content.recording import FOLDER, tone
from tests.contract.population import ask
from tests.stack import PASSWORD, School, refused

LIST = ListCoursesRequest(page_size=100)
ABSENT = "00000000-0000-4000-8000-000000000000"


@pytest.fixture
def admin(school: School) -> Author:
    return Author(school.admin)


@pytest.fixture
def outside_admin(school: School) -> Author:
    return Author(school.outsider_admin)


@pytest.fixture(scope="module")
async def founded(school: School) -> Author:
    """The administrator of a tenant that has nothing yet."""
    tenant = await ask(
        school.root,
        "CreateTenant",
        tenant={"slug": "packages", "name": "Packages"},
        administrator={"email": "admin@packages.example", "display_name": "Admin", "password": PASSWORD},
    )
    person = await school.stack.sign_in("packages", "admin@packages.example")
    person.tenant_id = tenant.id
    return Author(person)


class TestExportPackage:
    async def test_gives_the_same_bytes_for_the_same_course(self, admin: Author, teacher: Author) -> None:
        course = await full_course(teacher)
        first, second = await asyncio.gather(export(admin, course.id), export(admin, course.id))
        assert first == second
        assert packaging.read(io.BytesIO(first)).material.course.title == course.title

    async def test_names_no_id_person_or_tenant(self, school: School, admin: Author, teacher: Author) -> None:
        course = await full_course(teacher)
        said = (await export(admin, course.id)).decode("utf-8", "replace")
        for secret in (course.id, school.teacher.user_id, school.admin.tenant_id, school.slug, school.teacher.email):
            assert secret not in said

    async def test_is_in_the_log_before_it_begins(
        self, admin: Author, teacher: Author, entries_of: ListEntries
    ) -> None:
        course = await full_course(teacher)
        await export(admin, course.id)
        entry = (await entries_of(entity_id=course.id))[-1]
        assert (entry.action, entry.user_id) == ("export", admin.person.user_id)
        assert entry.new_values["stories"] == 3

    async def test_is_not_for_teachers_unless_they_are_allowed(self, teacher: Author) -> None:
        course = await teacher.course()
        async with refused("PERMISSION_REQUIRED") as refusal:
            await export(teacher, course.id)
        assert refusal.metadata["permission"] == "course:export"

    async def test_of_what_is_not_there_or_not_ours_is_refused_alike(self, admin: Author, outsider: Author) -> None:
        course = await outsider.course()
        async with refused("RESOURCE_NOT_FOUND") as foreign:
            await export(admin, course.id)
        async with refused("RESOURCE_NOT_FOUND") as absent:
            await export(admin, ABSENT)
        assert foreign.status == absent.status

    async def test_of_too_much_is_refused(
        self, admin: Author, teacher: Author, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        course = await full_course(teacher)
        monkeypatch.setattr("services.content.material.MOST", {"bytes of text": 10})
        async with refused("WRONG_STATE") as refusal:
            await export(admin, course.id)
        assert refusal.metadata == {"state": "too_large"}


class TestImportPackage:
    async def test_and_export_again_give_the_same_bytes(
        self, admin: Author, teacher: Author, founded: Author
    ) -> None:
        course = await full_course(teacher)
        data = await export(admin, course.id)
        made = await bring(founded, data)
        assert (made.units, made.lessons, made.stories) == (2, 3, 3)
        assert await export(founded, made.course_id) == data
        assert await told(founded, made.course_id) == await told(teacher, course.id)

    async def test_has_recordings_of_stories_and_words(
        self, admin: Author, teacher: Author, founded: Author
    ) -> None:
        course = await spoken_course(teacher)
        data = await export(admin, course.id)
        assert data.count(b"RIFF") == 2
        made = await bring(founded, data)
        assert await export(founded, made.course_id) == data
        assert await told(founded, made.course_id) == await told(teacher, course.id)
        words = {term: word_id for word_id, term in (await terms(founded)).items()}
        assert len(await heard(founded, vocabulary_id=words["ghe"])) == 1
        again = await bring(founded, data)
        assert again.words_created == 0
        assert len(await heard(founded, vocabulary_id=words["ghe"])) == 1

    async def test_refuses_sound_that_is_none(self, outsider: Author) -> None:
        for sound in (b"RIFF but no sound", b"<html>", packed(good())):
            async with refused("INVALID_FIELD", field="file") as refusal:
                await bring(outsider, with_sound(sound))
            assert "is not audio/wav" in refusal.status.message

    async def test_refuses_times_beyond_the_end_of_the_sound(self, outsider: Author) -> None:
        async with refused("INVALID_FIELD", field="file") as refusal:
            await bring(outsider, with_sound(tone(0.1), end=101))
        assert "longer than it lasts" in refusal.status.message

    async def test_refuses_one_sound_in_two_formats(self, outsider: Author) -> None:
        async with refused("INVALID_FIELD", field="file") as refusal:
            await bring(outsider, with_sound((FOLDER / "tone.flac").read_bytes(), "audio/flac", "audio/wav"))
        assert "has two formats" in refusal.status.message

    async def test_sent_in_any_pieces_is_the_same(self, founded: Author) -> None:
        data = packed(good())
        first, second = [await bring(founded, data, piece=piece) for piece in (7, 100_000)]
        assert first.digest == second.digest
        assert await export(founded, first.course_id) == data == await export(founded, second.course_id)

    async def test_uses_the_words_that_are_there(self, outside_admin: Author) -> None:
        data = packed(good())
        await bring(outside_admin, data)
        made = await bring(outside_admin, data)
        assert (made.words_created, made.words_matched) == (0, 2)

    async def test_creates_the_words_that_are_not(self, outside_admin: Author) -> None:
        data = packed(good())
        await bring(outside_admin, data)
        ids = {term: word_id for word_id, term in (await terms(outside_admin)).items()}
        await outside_admin.words.DeleteVocabulary(DeleteVocabularyRequest(id=ids["con chó"]))
        made = await bring(outside_admin, data)
        assert (made.words_created, made.words_matched) == (1, 1)

    async def test_leaves_the_words_that_are_there_as_they_are(self, outside_admin: Author) -> None:
        data = packed(good())
        await bring(outside_admin, data)
        ids = {term: word_id for word_id, term in (await terms(outside_admin)).items()}
        word = Vocabulary(id=ids["con mèo"], translation="pussycat")
        await outside_admin.words.UpdateVocabulary(UpdateVocabularyRequest(vocabulary=word))
        await bring(outside_admin, data)
        found = await outside_admin.words.GetVocabulary(GetVocabularyRequest(id=ids["con mèo"]))
        assert found.translation == "pussycat"

    async def test_tried_only_says_what_it_would_do(self, outside_admin: Author) -> None:
        data = packed(good())
        await bring(outside_admin, data)
        before = await outside_admin.courses.ListCourses(LIST)
        made = await bring(outside_admin, data, dry_run=True, piece=100)
        assert (made.course_id, made.stories, made.words_matched) == ("", 3, 2)
        assert await outside_admin.courses.ListCourses(LIST) == before

    async def test_says_that_it_comes_from_a_package(self, outside_admin: Author) -> None:
        made = await bring(outside_admin, packed(good()))
        found = await origin(outside_admin, made.course_id)
        assert found.kind == CourseOriginKind.COURSE_ORIGIN_KIND_PACKAGE
        assert (found.digest, found.source_course_id, found.source_tenant_id) == (made.digest, "", "")

    async def test_takes_what_creating_takes(self, student: Author) -> None:
        async with refused("PERMISSION_REQUIRED") as refusal:
            await bring(student, packed(good()))
        assert refusal.metadata["permission"] == "course:create"

    async def test_of_teachers_is_theirs(self, outsider: Author) -> None:
        made = await bring(outsider, packed(good()))
        assert (await origin(outsider, made.course_id)).user_id == outsider.person.user_id

    @pytest.mark.parametrize(
        ("data", "wrong"),
        [
            (b"x", "was cut off, or is none"),
            (archived([("../evil", b"x")]), "leads out of the archive"),
            (archived(entries_of(packed(good()))[:-1]), "is missing"),
            (forged("story", lambda said: {**said, "text": " "}), "text: "),
        ],
    )
    async def test_of_a_hostile_file_says_what_is_wrong_with_it(
        self, outsider: Author, data: bytes, wrong: str
    ) -> None:
        before = await outsider.courses.ListCourses(LIST)
        async with refused("INVALID_FIELD", field="file") as refusal:
            await bring(outsider, data)
        assert wrong in refusal.status.message
        assert await outsider.courses.ListCourses(LIST) == before

    async def test_of_nothing_is_refused(self, outsider: Author) -> None:
        async with refused("INVALID_FIELD", field="file"):
            await bring(outsider, b"")

    async def test_of_an_endless_file_is_refused_when_it_is_too_long(
        self, outsider: Author, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(packaging, "MOST_BYTES", 2 << 20)
        async with refused("INVALID_FIELD", field="file"):
            await bring(outsider, bytes(5 << 20))

    async def test_refuses_pieces_that_are_too_long(self, outsider: Author) -> None:
        with pytest.raises(grpc.aio.AioRpcError):
            await bring(outsider, bytes(5 << 20), piece=5 << 20)
