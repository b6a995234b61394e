"""Recordings: what is said of them, who hears them, and when their chunks are heard."""

from itertools import pairwise
from typing import Any

import pytest
from buf.validate import validate_pb2
from google.protobuf.field_mask_pb2 import FieldMask

from services.content import sounds
from storyloom.content.v1 import audios_pb2
from storyloom.content.v1.audio_files_pb2 import CreateAudioUploadRequest
from storyloom.content.v1.audios_pb2 import Audio
from storyloom.content.v1.package_files_pb2 import PackageRecording
from storyloom.content.v1.stories_pb2 import DeleteStoryRequest, UndeleteStoryRequest
from tests.content.conftest import Author, ListEntries, PublishApproved
from tests.content.recording import Narrator, tone
from tests.stack import School, refused

CUES = """1
00:00:00,000 --> 00:00:01,200
Con mèo ngủ.

2
00:00:01,200 --> 00:00:02,400
CON CHÓ   sủa!
"""


@pytest.fixture(scope="module")
def narrator(school: School) -> Narrator:
    return Narrator.of(school.teacher)


@pytest.fixture(scope="module")
def student_narrator(school: School) -> Narrator:
    return Narrator.of(school.student)


@pytest.fixture(scope="module")
def foreign(school: School) -> Narrator:
    return Narrator.of(school.outsider_teacher)


async def update(who: Narrator, audio: Audio, *paths: str) -> Audio:
    request = audios_pb2.UpdateAudioRequest(audio=audio, update_mask=FieldMask(paths=paths) if paths else None)
    changed: Audio = await who.audios.UpdateAudio(request)
    return changed


async def set_times(
    who: Narrator, audio_id: str, captions: str = CUES, **more: object
) -> audios_pb2.SetAudioTimestampsResponse:
    request = audios_pb2.SetAudioTimestampsRequest(id=audio_id, captions=captions, **more)  # type: ignore[arg-type]
    found: audios_pb2.SetAudioTimestampsResponse = await who.audios.SetAudioTimestamps(request)
    return found


def milliseconds(audio: Audio) -> list[tuple[int, int, int]]:
    return [
        (one.position, one.start_offset.ToMilliseconds(), one.end_offset.ToMilliseconds()) for one in audio.timestamps
    ]


class TestCreateAudio:
    async def test_takes_version_and_language_of_the_story(self, narrator: Narrator) -> None:
        story = await narrator.story()
        made = await narrator.create(story_id=story.id, voice="Cô Lan")
        assert (made.version_id, made.language, made.voice) == (story.current_version.id, "vi", "Cô Lan")
        assert (made.status, made.stale, made.author_id) == (1, False, narrator.person.user_id)
        assert await narrator.get(made.id) == made

    async def test_of_a_word_takes_the_language_of_its_translation(self, narrator: Narrator, teacher: Author) -> None:
        words = await teacher.learn_words(("con voi", "elephant", "noun"))
        made = await narrator.create(vocabulary_id=words["con voi"])
        assert (made.story_id, made.version_id, made.language) == ("", "", "en")
        assert await narrator.list(vocabulary_id=words["con voi"]) == [made.id]

    async def test_is_of_one_thing_that_is_there(self, narrator: Narrator, foreign: Narrator) -> None:
        story = await narrator.story()
        async with refused("INVALID_FIELD", field="audio"):
            await narrator.create()
        async with refused("INVALID_FIELD", field="audio"):
            await narrator.create(story_id=story.id, vocabulary_id=story.id)
        for wrong in ({"story_id": story.current_version.id}, {"vocabulary_id": story.id}):
            async with refused("REFERENCE_NOT_FOUND"):
                await narrator.create(**wrong)
        other = await narrator.story("Khác.")
        async with refused("REFERENCE_NOT_FOUND"):
            await narrator.create(story_id=story.id, version_id=other.current_version.id)
        async with refused("REFERENCE_NOT_FOUND"):
            await foreign.create(story_id=story.id)

    async def test_learners_may_not(self, narrator: Narrator, student_narrator: Narrator) -> None:
        async with refused("PERMISSION_REQUIRED"):
            await student_narrator.create(story_id=(await narrator.story()).id)


class TestGetAudio:
    async def test_learners_hear_published_recordings_of_the_published_version(
        self, narrator: Narrator, student_narrator: Narrator, teacher: Author, publish_approved: PublishApproved
    ) -> None:
        story = await publish_approved((await narrator.story()).id)
        draft = await narrator.create(story_id=story.id)
        spoken = await narrator.spoken(story_id=story.id)
        assert (await student_narrator.get(spoken.id)).id == spoken.id
        assert await student_narrator.list(story_id=story.id) == [spoken.id]
        async with refused("PERMISSION_REQUIRED"):
            await student_narrator.get(draft.id)
        await teacher.rewrite(story.id, "Con mèo chạy.")
        later = await narrator.spoken(story_id=story.id)
        assert await student_narrator.list(story_id=story.id) == [spoken.id]
        async with refused("RESOURCE_NOT_FOUND"):
            await student_narrator.get(later.id)
        assert await narrator.list(story_id=story.id) == [later.id, spoken.id, draft.id]

    async def test_nothing_is_heard_of_a_story_that_is_no_longer_there(
        self, narrator: Narrator, teacher: Author
    ) -> None:
        story = await narrator.story()
        made = await narrator.create(story_id=story.id)
        await teacher.stories.DeleteStory(DeleteStoryRequest(id=story.id))
        assert await narrator.list(story_id=story.id) == []
        async with refused("RESOURCE_NOT_FOUND"):
            await narrator.get(made.id)
        await narrator.act("Delete", made.id)
        async with refused("WRONG_STATE"):
            await narrator.act("Undelete", made.id)
        await teacher.stories.UndeleteStory(UndeleteStoryRequest(id=story.id))
        assert (await narrator.act("Undelete", made.id)).id == made.id

    async def test_another_tenants_is_absent(self, narrator: Narrator, foreign: Narrator) -> None:
        story = await narrator.story()
        made = await narrator.create(story_id=story.id)
        async with refused("RESOURCE_NOT_FOUND") as there:
            await foreign.get(made.id)
        async with refused("RESOURCE_NOT_FOUND") as nowhere:
            await foreign.get(story.id)
        assert there.status == nowhere.status
        assert await foreign.list(story_id=story.id) == []
        for verb in ("Delete", "Undelete", "Publish"):
            async with refused("RESOURCE_NOT_FOUND"):
                await foreign.act(verb, made.id)

    async def test_is_stale_once_the_story_has_moved_on(
        self, narrator: Narrator, teacher: Author, publish_approved: PublishApproved
    ) -> None:
        story = await publish_approved((await narrator.story()).id)
        made = await narrator.create(story_id=story.id)
        await teacher.rewrite(story.id, "Con mèo bay.")
        assert not (await narrator.get(made.id)).stale
        await publish_approved(story.id)
        assert (await narrator.get(made.id)).stale


class TestListAudios:
    async def test_filters_and_pages(self, narrator: Narrator) -> None:
        story = await narrator.story()
        made = [await narrator.create(story_id=story.id) for _ in range(3)]
        await narrator.upload(made[1].id, tone(1))
        ids = [one.id for one in made]
        assert await narrator.list(story_id=story.id, order_by="create_time") == ids
        assert await narrator.list(version_id=story.current_version.id) == ids[::-1]
        assert await narrator.list(story_id=story.id, status=2) == [ids[1]]
        first = await narrator.audios.ListAudios(audios_pb2.ListAudiosRequest(story_id=story.id, page_size=2))
        rest = audios_pb2.ListAudiosRequest(story_id=story.id, page_token=first.next_page_token)
        found = [*first.audios, *(await narrator.audios.ListAudios(rest)).audios]
        assert [one.id for one in found] == ids[::-1]


class TestUpdateAudio:
    async def test_writes_what_the_mask_names(self, narrator: Narrator) -> None:
        made = await narrator.create(story_id=(await narrator.story()).id, voice="A")
        changed = await update(narrator, Audio(id=made.id, title="Khác", etag=made.etag), "title", "voice")
        assert (changed.title, changed.voice, changed.language) == ("Khác", "", "vi")
        async with refused("STALE_ETAG"):
            await update(narrator, Audio(id=made.id, title="x", etag=made.etag))
        async with refused("INVALID_UPDATE_MASK"):
            await update(narrator, Audio(id=made.id), "status")

    async def test_a_new_version_keeps_the_times_of_the_same_chunks_only(
        self, narrator: Narrator, teacher: Author
    ) -> None:
        story = await narrator.story()
        made = await narrator.create(story_id=story.id)
        await narrator.upload(made.id, tone(2.5))
        await set_times(narrator, made.id)
        retitled = await teacher.retitle(story.id, "Tên khác")
        moved = await update(narrator, Audio(id=made.id, version_id=retitled.current_version.id))
        assert moved.version_id == retitled.current_version.id
        assert len(moved.timestamps) == 1
        rewritten = await teacher.rewrite(story.id, "Không còn gì.")
        moved = await update(narrator, Audio(id=made.id, version_id=rewritten.current_version.id))
        assert not moved.timestamps
        other = await narrator.story("Khác.")
        async with refused("REFERENCE_NOT_FOUND"):
            await update(narrator, Audio(id=made.id, version_id=other.current_version.id))


class TestPublishAudio:
    async def test_publishes_what_is_processed_once(self, narrator: Narrator) -> None:
        made = await narrator.create(story_id=(await narrator.story()).id)
        async with refused("WRONG_STATE"):
            await narrator.act("Publish", made.id)
        sent = await narrator.upload(made.id, tone(1))
        async with refused("STALE_ETAG"):
            await narrator.act("Publish", made.id, etag=made.etag)
        assert (await narrator.act("Publish", made.id, etag=sent.etag)).status == 3
        async with refused("WRONG_STATE"):
            await narrator.act("Publish", made.id)


class TestPurgeAudio:
    async def test_is_for_administrators_and_of_what_is_deleted(self, school: School, narrator: Narrator) -> None:
        admin = Narrator.of(school.admin)
        made = await narrator.spoken(story_id=(await narrator.story()).id)
        async with refused("WRONG_STATE"):
            await admin.act("Purge", made.id)
        await narrator.act("Delete", made.id)
        async with refused("PERMISSION_REQUIRED"):
            await narrator.act("Purge", made.id)
        await admin.act("Purge", made.id)
        async with refused("RESOURCE_NOT_FOUND"):
            await narrator.act("Undelete", made.id)

    async def test_each_change_is_in_the_audit_log(
        self, school: School, narrator: Narrator, entries_of: ListEntries
    ) -> None:
        made = await narrator.spoken(story_id=(await narrator.story()).id)
        await set_times(narrator, made.id, "1\n00:00:00,000 --> 00:00:01,000\nCon mèo ngủ.")
        await narrator.act("Delete", made.id)
        await Narrator.of(school.admin).act("Purge", made.id)
        entries = await entries_of(entity_type="audio", entity_id=made.id)
        actions = [one.action for one in entries]
        assert sorted(actions) == sorted(["create", "upload", "publish", "set_timestamps", "delete", "purge"])


class TestSetAudioTimestamps:
    async def test_cues_are_found_by_their_letters_and_share_their_time(
        self, narrator: Narrator, teacher: Author
    ) -> None:
        await teacher.learn_words(("cá voi", "whale", "noun"))
        story = await narrator.story("Xa kia cá voi bơi.")
        woven = await teacher.weave(story.id, "1")
        texts = [one.text for one in woven.current_version.chunks]
        assert len(texts) == 4
        made = await narrator.create(story_id=story.id)
        await narrator.upload(made.id, tone(2))
        told = "".join(text for text, one in zip(texts, woven.current_version.chunks, strict=True) if one.kind != 3)
        found = await set_times(narrator, made.id, f"WEBVTT\n\n00:00.000 --> 00:02.000\n<v Lan>{told}\n")
        times = milliseconds(found.audio)
        assert [one[0] for one in times] == [1, 2, 4]
        assert times[0][1] == 0
        assert times[-1][2] == 2000
        assert all(one[2] == next_[1] for one, next_ in pairwise(times))
        assert list(found.unmatched_positions) == [3]
        assert list(found.unmatched_cues) == []
        assert milliseconds(await narrator.get(made.id)) == times

    async def test_says_which_cues_are_of_something_else(self, narrator: Narrator) -> None:
        made = await narrator.create(story_id=(await narrator.story()).id)
        await narrator.upload(made.id, tone(2.5))
        found = await set_times(narrator, made.id, CUES.replace("Con mèo ngủ", "Nhạc mở đầu"))
        assert list(found.unmatched_cues) == [1]
        assert milliseconds(found.audio) == [(1, 1200, 2400)]

    async def test_in_order_takes_one_cue_for_each_chunk(self, narrator: Narrator) -> None:
        made = await narrator.create(story_id=(await narrator.story()).id)
        await narrator.upload(made.id, tone(2.5))
        async with refused("INVALID_FIELD", field="captions"):
            await set_times(narrator, made.id, in_order=True)
        found = await set_times(narrator, made.id, "1\n00:00:00,5 --> 00:00:01,000\nx", in_order=True)
        assert milliseconds(found.audio) == [(1, 500, 1000)]

    @pytest.mark.parametrize(
        "captions",
        [
            "not captions",
            "WEBVTT\n\n00:01.000 --> 00:00.500\nCon mèo ngủ",
            "WEBVTT\n\n00:01.000 --> 00:59.500\nCon mèo ngủ",
            "WEBVTT\n\n00:01.000 --> 00:02.000\nCon mèo ngủ\n\n00:00.500 --> 00:01.000\nCon chó sủa",
            "WEBVTT\n\n00:01.000 --> 00:02.000\nKhông có trong truyện",
        ],
    )
    async def test_refuses_what_cannot_be_used_and_leaves_what_was_there(
        self, narrator: Narrator, captions: str
    ) -> None:
        made = await narrator.create(story_id=(await narrator.story()).id)
        await narrator.upload(made.id, tone(2.5))
        before = (await set_times(narrator, made.id)).audio
        async with refused("INVALID_FIELD", field="captions"):
            await set_times(narrator, made.id, captions)
        assert await narrator.get(made.id) == before

    async def test_takes_a_file_and_chunks(self, narrator: Narrator, teacher: Author) -> None:
        draft = await narrator.create(story_id=(await narrator.story()).id)
        async with refused("WRONG_STATE"):
            await set_times(narrator, draft.id)
        words = await teacher.learn_words(("con cò", "stork", "noun"))
        of_word = await narrator.create(vocabulary_id=words["con cò"])
        await narrator.upload(of_word.id, tone(1))
        async with refused("WRONG_STATE"):
            await set_times(narrator, of_word.id)

    async def test_another_file_takes_the_times_away(self, narrator: Narrator) -> None:
        made = await narrator.create(story_id=(await narrator.story()).id)
        await narrator.upload(made.id, tone(2.5))
        before = (await set_times(narrator, made.id)).audio
        after = await narrator.upload(made.id, tone(3))
        assert before.timestamps
        assert not after.timestamps


class TestGetAudioCaptions:
    async def test_what_is_exported_gives_the_same_times(self, narrator: Narrator) -> None:
        made = await narrator.create(story_id=(await narrator.story("Một & hai < ba.\n\nBốn.")).id)
        await narrator.upload(made.id, tone(2.5))
        before = (await set_times(narrator, made.id, "1\n00:00:00,250 --> 00:00:02,400\nMột hai ba bốn")).audio
        request = audios_pb2.GetAudioCaptionsRequest(id=made.id)
        captions = (await narrator.audios.GetAudioCaptions(request)).captions
        assert captions.startswith("WEBVTT\n")
        assert "Một &amp; hai &lt; ba." in captions
        again = await set_times(narrator, made.id, captions)
        assert milliseconds(again.audio) == milliseconds(before)


class TestFormats:
    @pytest.mark.parametrize("message", [CreateAudioUploadRequest, PackageRecording])
    def test_that_can_be_asked_for_are_those_that_can_be_measured(self, message: Any) -> None:
        options = message.DESCRIPTOR.fields_by_name["mime_type"].GetOptions().Extensions[validate_pb2.field]
        assert sorted(getattr(options.string, "in")) == sorted(sounds.FORMATS)
