"""Vocabularies: what makes one unique, and many at once."""

from typing import Any

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from google.rpc import error_details_pb2

from kit.ids import new_id
from storyloom.content.v1 import audios_pb2, vocabularies_pb2
from storyloom.content.v1.audios_pb2_grpc import AudioServiceStub
from storyloom.content.v1.vocabularies_pb2 import Vocabulary, VocabularyForm
from tests.content.conftest import Author, ListEntries, outcomes
from tests.stack import School, refused

NOUN, VERB = vocabularies_pb2.PART_OF_SPEECH_NOUN, vocabularies_pb2.PART_OF_SPEECH_VERB


def word(term: str, translation: str = "thing", **more: Any) -> Vocabulary:
    return Vocabulary(**({"term": term, "translation": translation, "part_of_speech": NOUN} | more))


async def create(author: Author, one: Vocabulary) -> Vocabulary:
    return await author.words.CreateVocabulary(vocabularies_pb2.CreateVocabularyRequest(vocabulary=one))


async def create_all(author: Author, *many: Vocabulary) -> list[vocabularies_pb2.BatchCreateVocabularyResult]:
    request = vocabularies_pb2.BatchCreateVocabulariesRequest(vocabularies=many)
    return list((await author.words.BatchCreateVocabularies(request)).results)


async def some(author: Author, *ids: str) -> list[Vocabulary]:
    request = vocabularies_pb2.BatchGetVocabulariesRequest(ids=ids)
    return list((await author.words.BatchGetVocabularies(request)).vocabularies)


async def terms(author: Author, **wanted: Any) -> list[str]:
    request = vocabularies_pb2.ListVocabulariesRequest(page_size=2, **wanted)
    found: list[str] = []
    while True:
        answer = await author.words.ListVocabularies(request)
        found += [one.term for one in answer.vocabularies]
        if not answer.next_page_token:
            return found
        request.page_token = answer.next_page_token


async def delete(author: Author, word_id: str) -> Vocabulary:
    return await author.words.DeleteVocabulary(vocabularies_pb2.DeleteVocabularyRequest(id=word_id))


async def undelete(author: Author, word_id: str) -> Vocabulary:
    return await author.words.UndeleteVocabulary(vocabularies_pb2.UndeleteVocabularyRequest(id=word_id))


@pytest.fixture
def admin(school: School) -> Author:
    return Author(school.admin)


class TestCreateVocabulary:
    async def test_fills_in_the_tenants_languages_and_the_first_sense(self, teacher: Author) -> None:
        forms = [VocabularyForm(form="chiếc bàn"), VocabularyForm(form="những cái bàn", translation="tables")]
        made = await create(teacher, word("cái bàn", "table", forms=forms, level="A1"))
        assert (made.language, made.learning_language, made.sense) == ("vi", "en", 1)
        assert (list(made.forms), made.level) == (forms, "A1")
        assert await teacher.words.GetVocabulary(vocabularies_pb2.GetVocabularyRequest(id=made.id)) == made

    @pytest.mark.parametrize("term", ["Cây bút", "CÂY  BÚT", "cây bút"])
    async def test_a_sense_exists_once_whatever_its_spelling(self, teacher: Author, term: str) -> None:
        await create_all(teacher, word("cây bút"))
        async with refused("RESOURCE_ALREADY_EXISTS", code=grpc.StatusCode.ALREADY_EXISTS):
            await create(teacher, word(term, "pen"))

    @pytest.mark.parametrize(
        "other", [{"sense": 2}, {"part_of_speech": VERB}, {"learning_language": "fr"}, {"language": "th"}]
    )
    async def test_other_senses_parts_of_speech_and_languages_are_other_words(
        self, teacher: Author, other: dict[str, Any]
    ) -> None:
        await create_all(teacher, word("đá"))
        assert (await create(teacher, word("đá", **other))).id

    async def test_keeps_no_white_space_around_texts(self, teacher: Author) -> None:
        forms = [VocabularyForm(form=" gọn gàng ", translation="\ttidy")]
        made = await create(teacher, word(" gọn ", " neat\n", explanation=" Neat. ", forms=forms))
        assert (made.term, made.translation, made.explanation) == ("gọn", "neat", "Neat.")
        assert list(made.forms) == [VocabularyForm(form="gọn gàng", translation="tidy")]

    async def test_tenants_do_not_get_in_each_others_way(self, teacher: Author, outsider: Author) -> None:
        await create(teacher, word("riêng"))
        assert (await create(outsider, word("riêng"))).id

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("term", ""),
            ("term", " "),
            ("translation", ""),
            ("part_of_speech", 0),
            ("part_of_speech", 99),
            ("sense", 101),
            ("level", "D1"),
            ("level", "a1"),
            ("forms", [VocabularyForm(form=" ")]),
            ("forms", [VocabularyForm(form="a"), VocabularyForm(form="a", translation="b")]),
        ],
    )
    async def test_refuses_fields_out_of_range(self, teacher: Author, field: str, value: Any) -> None:
        async with refused("INVALID_FIELD"):
            await create(teacher, word("x", **{field: value}) if field != "term" else word(value))

    async def test_is_not_for_students(self, student: Author) -> None:
        async with refused("PERMISSION_REQUIRED"):
            await create(student, word("không"))


class TestBatchCreateVocabularies:
    async def test_tells_of_each_what_became_of_it(self, teacher: Author) -> None:
        await create(teacher, word("lô cũ"))
        results = await create_all(teacher, word("lô một"), word("Lô cũ"), word("lô hai"), word("LÔ MỘT", "again"))
        assert [one.WhichOneof("result") for one in results] == ["vocabulary", "error", "vocabulary", "error"]
        assert results[0].vocabulary.translation == "thing"
        info = error_details_pb2.ErrorInfo()
        results[1].error.details[0].Unpack(info)
        assert info.reason == "RESOURCE_ALREADY_EXISTS"
        async with refused("RESOURCE_ALREADY_EXISTS") as single:
            await create(teacher, word("lô cũ"))
        assert single.status == results[1].error

    async def test_what_it_answers_is_what_is_there(self, teacher: Author) -> None:
        forms = [VocabularyForm(form="a", translation="as"), VocabularyForm(form="b")]
        (result,) = await create_all(teacher, word("đúng như", forms=forms))
        request = vocabularies_pb2.GetVocabularyRequest(id=result.vocabulary.id)
        assert await teacher.words.GetVocabulary(request) == result.vocabulary

    async def test_takes_five_hundred_at_a_time_in_one_statement(self, teacher: Author, statements: Any) -> None:
        many = [word(f"từ {number}", language="lo") for number in range(500)]
        with statements() as sent:
            results = await create_all(teacher, *many)
        assert all(one.HasField("vocabulary") for one in results)
        assert sum("INSERT INTO content.vocabularies" in one for one in sent) == 1
        async with refused("INVALID_FIELD", field="vocabularies"):
            await create_all(teacher, *many, word("một nữa"))

    async def test_creates_none_when_one_is_out_of_range(self, teacher: Author) -> None:
        async with refused("INVALID_FIELD", field="vocabularies[1].translation"):
            await create_all(teacher, word("trước đó"), word("sai", "x" * 101))
        assert await terms(teacher, query="trước đó") == []

    async def test_at_once_each_sense_is_made_once(self, teacher: Author, teacher2: Author) -> None:
        many = [word(f"cùng lúc {number}") for number in range(50)]
        done = await outcomes(
            *(create_all(who, *some) for who, some in ((teacher, many), (teacher2, many[::-1]), (teacher, many)))
        )
        made = [one for results in done if isinstance(results, list) for one in results if one.HasField("vocabulary")]
        assert len({one.vocabulary.term for one in made}) == len(made) == 50

    async def test_each_is_in_the_audit_log(self, teacher: Author, entries_of: ListEntries) -> None:
        results = await create_all(teacher, word("ghi một"), word("ghi hai"))
        for one in results:
            (entry,) = await entries_of(entity_type="vocabulary", entity_id=one.vocabulary.id)
            assert (entry.action, entry.new_values["term"]) == ("create", one.vocabulary.term)


class TestBatchGetVocabularies:
    async def test_answers_what_is_there_in_the_order_of_the_request(self, teacher: Author, outsider: Author) -> None:
        first, second, gone = [one.vocabulary for one in await create_all(teacher, *map(word, ("một", "hai", "ba")))]
        foreign = await create(outsider, word("của người khác"))
        await delete(teacher, gone.id)
        wanted = [second.id, foreign.id, gone.id, str(new_id()), first.id]
        assert await some(teacher, *wanted) == [second, first]

    async def test_refuses_an_id_twice_and_more_than_five_hundred(self, teacher: Author) -> None:
        for ids in (["0" * 8 + "-0000-0000-0000-" + "0" * 12] * 2, [str(new_id()) for _ in range(501)], []):
            async with refused("INVALID_FIELD", field="ids"):
                await some(teacher, *ids)


class TestListVocabularies:
    async def test_filters_and_orders(self, teacher: Author) -> None:
        await create_all(
            teacher,
            word("Zebra", "ngựa vằn", language="en", learning_language="vi"),
            word("ant", "kiến", language="en", learning_language="vi"),
            word("run", "chạy", part_of_speech=VERB, language="en", learning_language="vi"),
        )
        assert await terms(teacher, language="en", order_by="term") == ["ant", "run", "Zebra"]
        assert await terms(teacher, language="en", order_by="term desc") == ["Zebra", "run", "ant"]
        assert await terms(teacher, language="en", part_of_speech=VERB) == ["run"]
        assert await terms(teacher, language="en", query="ZE") == ["Zebra"]
        assert await terms(teacher, learning_language="vi", query="Ngựa") == ["Zebra"]
        assert await terms(teacher, language="en", query="%") == []

    async def test_shows_a_tenant_its_own(self, teacher: Author, outsider: Author) -> None:
        await create(teacher, word("của trường"))
        assert await terms(outsider, query="của trường") == []


class TestUpdateVocabulary:
    async def test_writes_what_the_mask_names(self, teacher: Author) -> None:
        made = await create(teacher, word("sửa từ", forms=[VocabularyForm(form="x")]))
        sent = Vocabulary(id=made.id, translation="fix", etag=made.etag)
        mask = FieldMask(paths=["translation", "forms"])
        request = vocabularies_pb2.UpdateVocabularyRequest(vocabulary=sent, update_mask=mask)
        changed = await teacher.words.UpdateVocabulary(request)
        assert (changed.translation, list(changed.forms), changed.term) == ("fix", [], "sửa từ")
        async with refused("STALE_ETAG"):
            await teacher.words.UpdateVocabulary(request)

    async def test_refuses_the_place_of_another(self, teacher: Author) -> None:
        await create(teacher, word("chỗ một"))
        second = await create(teacher, word("chỗ hai"))
        sent = Vocabulary(id=second.id, term="Chỗ một")
        async with refused("RESOURCE_ALREADY_EXISTS"):
            await teacher.words.UpdateVocabulary(vocabularies_pb2.UpdateVocabularyRequest(vocabulary=sent))

    async def test_never_writes_languages(self, teacher: Author) -> None:
        made = await create(teacher, word("ngôn ngữ"))
        request = vocabularies_pb2.UpdateVocabularyRequest(
            vocabulary=Vocabulary(id=made.id, language="fr"), update_mask=FieldMask(paths=["language"])
        )
        async with refused("INVALID_UPDATE_MASK"):
            await teacher.words.UpdateVocabulary(request)


class TestDeleteVocabulary:
    async def test_it_is_woven_no_more_and_comes_back_unless_its_place_is_taken(self, teacher: Author) -> None:
        text = "Cái trống kêu."
        made = await create(teacher, word("trống", "drum"))
        await delete(teacher, made.id)
        story = await teacher.story(text=text)
        assert len((await teacher.weave(story.id, "1")).current_version.chunks) == 1
        await undelete(teacher, made.id)
        assert len((await teacher.weave(story.id, "1")).current_version.chunks) == 3
        await delete(teacher, made.id)
        await create(teacher, word("trống", "empty"))
        async with refused("RESOURCE_ALREADY_EXISTS"):
            await undelete(teacher, made.id)

    async def test_undeleting_what_is_there_is_refused(self, teacher: Author) -> None:
        async with refused("WRONG_STATE"):
            await undelete(teacher, (await create(teacher, word("còn đây"))).id)

    async def test_another_tenants_word_is_absent(self, teacher: Author, outsider: Author) -> None:
        made = await create(teacher, word("vắng mặt"))
        async with refused("RESOURCE_NOT_FOUND"):
            await delete(outsider, made.id)


class TestPurgeVocabulary:
    async def test_removes_what_was_deleted_for_good(self, teacher: Author, admin: Author) -> None:
        made = await create(teacher, word("bỏ hẳn"))
        request = vocabularies_pb2.PurgeVocabularyRequest(id=made.id)
        async with refused("PERMISSION_REQUIRED"):
            await teacher.words.PurgeVocabulary(request)
        async with refused("WRONG_STATE"):
            await admin.words.PurgeVocabulary(request)
        gone = await delete(teacher, made.id)
        async with refused("STALE_ETAG"):
            await admin.words.PurgeVocabulary(vocabularies_pb2.PurgeVocabularyRequest(id=made.id, etag=made.etag))
        await admin.words.PurgeVocabulary(vocabularies_pb2.PurgeVocabularyRequest(id=made.id, etag=gone.etag))
        async with refused("RESOURCE_NOT_FOUND"):
            await undelete(teacher, made.id)

    async def test_takes_its_recordings_with_it(self, teacher: Author, admin: Author) -> None:
        made = await create(teacher, word("đọc to"))
        audios = teacher.person.stub(AudioServiceStub, "content")
        audio = audios_pb2.Audio(title="đọc to", vocabulary_id=made.id)
        recorded = await audios.CreateAudio(audios_pb2.CreateAudioRequest(audio=audio))
        await delete(teacher, made.id)
        await admin.words.PurgeVocabulary(vocabularies_pb2.PurgeVocabularyRequest(id=made.id))
        async with refused("RESOURCE_NOT_FOUND"):
            await audios.GetAudio(audios_pb2.GetAudioRequest(id=recorded.id))

    async def test_leaves_stories_as_they_are(self, teacher: Author, admin: Author) -> None:
        made = await create(teacher, word("cái quạt", "fan"))
        story = await teacher.story(text="Cái quạt quay.")
        before = (await teacher.weave(story.id, "1")).current_version
        await delete(teacher, made.id)
        await admin.words.PurgeVocabulary(vocabularies_pb2.PurgeVocabularyRequest(id=made.id))
        assert (await teacher.read(story.id)).current_version.chunks == before.chunks

    async def test_tells_the_audit_log_what_it_was(
        self, teacher: Author, admin: Author, entries_of: ListEntries
    ) -> None:
        made = await create(teacher, word("lần cuối", "last time"))
        await delete(teacher, made.id)
        await admin.words.PurgeVocabulary(vocabularies_pb2.PurgeVocabularyRequest(id=made.id))
        entry = (await entries_of(entity_type="vocabulary", entity_id=made.id))[-1]
        assert (entry.action, entry.old_values["title"]) == ("purge", "lần cuối")
