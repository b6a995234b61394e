"""The files of recordings: the same life over a folder and over a bucket, and what attackers would try."""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import asyncpg
import httpx
import obstore
import pytest
from obstore.store import LocalStore

from kit.settings import Settings
from services.content.audio_files import AudioFileService
from services.content.links import Grant, Links
from services.content.storage import Storage
from storyloom.content.v1 import audio_files_pb2, audios_pb2
from tests.content.conftest import ListEntries, PublishApproved
from tests.content.recording import FLAC, FOLDER, M4A, MP3, OGG, WAV, Narrator, Web, parts_of, sha256, tone
from tests.stack import School, Stack, refused
from tests.swift import bucket

LARGEST = 400_000
DONE, DRAFT = audios_pb2.AUDIO_STATUS_PROCESSED, audios_pb2.AUDIO_STATUS_DRAFT
# On one worker: the server of the bucket takes long to start.
pytestmark = pytest.mark.xdist_group("audio_files")


@dataclass
class Place:
    """A content service over one storage, and what is in that."""

    narrator: Narrator
    admin: Narrator
    student: Narrator
    outsider: Narrator
    web: Web
    store: Any
    service: Any

    def listed(self) -> set[str]:
        tenant = self.narrator.person.tenant_id
        return {one["path"] for page in obstore.list(self.store, prefix=tenant) for one in page}

    async def swept(self) -> set[str]:
        """The keys that are left when what is due has gone."""
        (servicer,) = (one for one in self.service._servicers if isinstance(one, AudioFileService))
        while await servicer._files.sweep():
            pass
        return self.listed()


@pytest.fixture(scope="module", params=["folder", "bucket"])
async def place(request: pytest.FixtureRequest, school: School, tmp_path_factory: Any) -> AsyncIterator[Place]:
    """Everything below happens over both."""
    if request.param == "folder":
        folder = tmp_path_factory.mktemp("files")
        async for one in serving(school, {"STORAGE_DIRECTORY": str(folder)}, LocalStore(folder)):
            yield one
    else:
        async with bucket() as found:
            async for one in serving(school, found.settings, found.store):
                yield one


async def serving(school: School, settings: dict[str, str], store: Any) -> AsyncIterator[Place]:
    """In place of the stack's own: two that share a database must share their files."""
    stack, usual = school.stack, school.stack.environments["content"]
    await _restart(stack, {**usual, **settings, "AUDIO_LARGEST_BYTES": str(LARGEST)})
    people = (school.teacher, school.admin, school.student, school.outsider_teacher)
    teacher, admin, student, outsider = map(Narrator.of, people)
    web = Web(stack.channel("content"))
    yield Place(teacher, admin, student, outsider, web, store, stack.services["content"])
    await _restart(stack, usual)


async def _restart(stack: Stack, environment: dict[str, str]) -> None:
    await stack.stop_service("content")
    stack.environments["content"] = environment
    await stack.start_service("content")
    await stack.channel("content").channel_ready()


class TestCreateAudioUpload:
    async def test_a_file_sent_to_the_link_becomes_the_recordings(self, place: Place) -> None:
        story = await place.narrator.story()
        audio = await place.narrator.create(story_id=story.id)
        assert (audio.status, audio.size_bytes) == (DRAFT, 0)
        data = tone(2.5)
        assert await place.web.put(await place.narrator.begin(audio.id, data), data) == 200
        done = await place.narrator.complete(audio.id)
        assert (done.status, done.mime_type, done.size_bytes, done.sha256) == (DONE, WAV, len(data), sha256(data))
        assert (done.duration.ToMilliseconds(), done.error) == (2500, "")
        link = (await place.narrator.download(audio.id)).url
        got, headers = await place.web.get(link)
        assert got == data
        assert (headers["content-type"], headers["content-disposition"]) == (WAV, "attachment")

    async def test_a_part_of_the_file_is_served(self, place: Place) -> None:
        audio = await place.narrator.spoken(story_id=(await place.narrator.story()).id)
        link, data = (await place.narrator.download(audio.id)).url, tone(1)
        got, headers = await place.web.get(link, part="bytes=100-299")
        assert got == data[100:300]
        assert headers["content-range"] == f"bytes 100-299/{len(data)}"
        assert (await place.web.get(link, part="bytes=-7"))[0] == data[-7:]
        assert (await place.web.get(link, part=f"bytes={len(data) - 3}-"))[0] == data[-3:]

    async def test_what_was_sent_is_gone_once_it_was_taken_and_what_was_replaced_too(self, place: Place) -> None:
        audio = await place.narrator.create(story_id=(await place.narrator.story()).id)
        before = await place.swept()
        for data in (tone(1), tone(2)):
            await place.web.put(await place.narrator.begin(audio.id, data), data)
            await place.narrator.complete(audio.id)
        (key,) = await place.swept() - before
        assert key.startswith(f"{place.narrator.person.tenant_id}/audio/")
        assert bytes(obstore.get(place.store, key).bytes()) == tone(2)

    @pytest.mark.parametrize(
        ("sent", "said", "why"),
        [
            (tone(1), {"sha256": sha256(b"other")}, "SHA-256"),
            (tone(1)[:-1], {"size_bytes": len(tone(1)), "sha256": sha256(tone(1))}, "shorter"),
            (b"<html><script>alert(1)</script></html>", {}, "audio/wav"),
            (tone(1), {"mime_type": MP3}, "audio/mpeg"),
            ((FOLDER / "video.mp4").read_bytes(), {"mime_type": M4A}, "audio/mp4"),
            (b"RIFF\xff\xff\xff\xffWAVEfmt ", {}, "audio/wav"),
            (b"ID3\x04\x00\x00\x7f\x7f\x7f\x7f" + b"\0" * 99, {"mime_type": MP3}, "audio/mpeg"),
            (b"OggS" + b"\0" * 24 + b"OpusHead" + b"\xff" * 99, {"mime_type": OGG}, "audio/ogg"),
        ],
        ids=["hash", "short", "page", "format", "film", "header", "tag", "ogg"],
    )
    async def test_others_than_announced_are_refused_removed_and_remembered(
        self, place: Place, sent: bytes, said: dict[str, Any], why: str
    ) -> None:
        audio = await place.narrator.create(story_id=(await place.narrator.story()).id)
        before = await place.swept()
        link = await place.narrator.begin(audio.id, sent, **said)
        await place.web.put(link, sent)
        async with refused("INVALID_FIELD", field="file"):
            await place.narrator.complete(audio.id)
        after = await place.narrator.get(audio.id)
        assert after.status == DRAFT
        assert why in after.error
        assert await place.swept() == before
        async with refused("WRONG_STATE"):
            await place.narrator.complete(audio.id)

    async def test_a_larger_file_than_allowed_is_refused_at_once(self, place: Place) -> None:
        audio = await place.narrator.create(story_id=(await place.narrator.story()).id)
        async with refused("INVALID_FIELD", field="size_bytes"):
            await place.narrator.begin(audio.id, b"x", size_bytes=LARGEST + 1)

    async def test_nothing_is_completed_twice_or_without_a_file(self, place: Place) -> None:
        audio = await place.narrator.create(story_id=(await place.narrator.story()).id)
        async with refused("WRONG_STATE"):
            await place.narrator.complete(audio.id)
        data = tone(1)
        link = await place.narrator.begin(audio.id, data)
        async with refused("WRONG_STATE"):
            await place.narrator.complete(audio.id)
        await place.web.put(link, data)
        done = await asyncio.gather(*(place.narrator.complete(audio.id) for _ in range(4)), return_exceptions=True)
        assert sum(not isinstance(one, Exception) for one in done) == 1
        async with refused("WRONG_STATE"):
            await place.narrator.complete(audio.id)

    async def test_a_link_cannot_change_what_was_verified_or_published(self, place: Place) -> None:
        audio = await place.narrator.create(story_id=(await place.narrator.story()).id)
        data, other = tone(1), tone(1, pitch=880)
        link = await place.narrator.begin(audio.id, data)
        await place.web.put(link, data)
        await place.narrator.complete(audio.id)
        await place.web.put(link, other)
        assert (await place.web.get((await place.narrator.download(audio.id)).url))[0] == data
        late = await place.narrator.begin(audio.id, other)
        await place.narrator.act("Publish", audio.id)
        await place.web.put(late, other)
        async with refused("WRONG_STATE"):
            await place.narrator.complete(audio.id)
        async with refused("WRONG_STATE"):
            await place.narrator.begin(audio.id, other)
        async with refused("WRONG_STATE"):
            await place.narrator.upload(audio.id, other)
        assert (await place.web.get((await place.narrator.download(audio.id)).url))[0] == data

    async def test_a_newer_link_ends_the_one_before(self, place: Place) -> None:
        audio = await place.narrator.create(story_id=(await place.narrator.story()).id)
        first, second = tone(1), tone(2)
        old = await place.narrator.begin(audio.id, first)
        new = await place.narrator.begin(audio.id, second)
        await place.web.put(old, first)
        async with refused("WRONG_STATE"):
            await place.narrator.complete(audio.id)
        await place.web.put(new, second)
        assert (await place.narrator.complete(audio.id)).sha256 == sha256(second)


class TestCompleteAudioUpload:
    async def test_each_step_is_one_entry_and_links_are_in_none(
        self, place: Place, entries_of: ListEntries
    ) -> None:
        audio = await place.narrator.create(story_id=(await place.narrator.story()).id)
        data = tone(1)
        for sent in (data[:-1], data):
            await place.web.put(await place.narrator.begin(audio.id, sent, sha256=sha256(data)), sent)
            if sent is data:
                await place.narrator.complete(audio.id)
            else:
                async with refused("INVALID_FIELD", field="file"):
                    await place.narrator.complete(audio.id)
        entries = await entries_of(entity_type="audio", entity_id=audio.id)
        told = [one.action for one in entries]
        assert sorted(told) == sorted(["create", "begin_upload", "reject_upload", "begin_upload", "upload"])
        assert not [one for one in entries if "url" in one.new_values or "storage_key" in one.new_values]


    async def test_with_a_key_it_takes_effect_once_and_a_refusal_is_remembered(self, place: Place) -> None:
        audio = await place.narrator.create(story_id=(await place.narrator.story()).id)
        data, request = tone(1), audio_files_pb2.CompleteAudioUploadRequest(audio_id=audio.id)
        await place.web.put(await place.narrator.begin(audio.id, data, MP3), data)
        async with refused("INVALID_FIELD", field="file"):
            await place.narrator.files.CompleteAudioUpload(request, metadata=(("idempotency-key", f"{audio.id} 1"),))
        assert "audio/mpeg" in (await place.narrator.get(audio.id)).error
        await place.web.put(await place.narrator.begin(audio.id, data), data)
        key = (("idempotency-key", f"{audio.id} 2"),)
        first, again = [await place.narrator.files.CompleteAudioUpload(request, metadata=key) for _ in range(2)]
        assert first == again
        assert (await place.narrator.get(audio.id)).etag == first.etag


class TestSweep:
    async def test_removes_what_no_recording_has_and_looks_at_the_rest_again(
        self, place: Place, tables: "asyncpg.Connection[asyncpg.Record]"
    ) -> None:
        kept, gone = [await place.narrator.spoken(story_id=(await place.narrator.story()).id) for _ in range(2)]
        before = await place.swept()
        # As whoever purges a whole tenant does, and as a crash between writing and committing leaves it.
        await tables.execute("DELETE FROM content.audios WHERE id = $1", UUID(gone.id))
        assert await place.swept() == before
        await tables.execute("UPDATE content.stored_files SET due_at = now() WHERE key LIKE '%/audio/%'")
        assert len(before - await place.swept()) == 1
        assert (await place.web.get((await place.narrator.download(kept.id)).url))[0] == tone(1)
        later = """
            SELECT due_at > now() + interval '23 hours' FROM content.stored_files
            WHERE key = (SELECT storage_key FROM content.audios WHERE id = $1)
        """
        assert await tables.fetchval(later, UUID(kept.id))


class TestUploadAudio:
    @pytest.mark.parametrize(
        ("name", "mime_type"),
        [("tone.mp3", MP3), ("tone.m4a", M4A), ("tone.ogg", OGG), ("tone.opus", OGG), ("tone.flac", FLAC)],
    )
    async def test_takes_every_format(self, place: Place, name: str, mime_type: str) -> None:
        audio = await place.narrator.create(story_id=(await place.narrator.story()).id)
        data = (FOLDER / name).read_bytes()
        done = await place.narrator.upload(audio.id, data, mime_type)
        assert (done.status, done.mime_type, done.sha256) == (DONE, mime_type, sha256(data))
        assert 1450 <= done.duration.ToMilliseconds() <= 1600
        got, headers = await place.web.get((await place.narrator.download(audio.id)).url)
        assert (got, headers["content-type"]) == (data, mime_type)

    async def test_nothing_is_written_of_what_is_not_as_announced(self, place: Place) -> None:
        audio = await place.narrator.create(story_id=(await place.narrator.story()).id)
        before, data = await place.swept(), tone(1)
        for said in ({"sha256": sha256(b"")}, {"size_bytes": len(data) - 1}, {"size_bytes": len(data) + 1}):
            async with refused("INVALID_FIELD", field="file"):
                await place.narrator.upload(audio.id, data, **said)
        assert await place.swept() == before
        assert (await place.narrator.get(audio.id)).error

    async def test_says_what_the_first_message_lacks(self, place: Place) -> None:
        audio = await place.narrator.create(story_id=(await place.narrator.story()).id)
        async with refused("INVALID_FIELD", field="sha256"):
            await place.narrator.upload(audio.id, tone(1), sha256="")
        async with refused("INVALID_FIELD", field="file.content_type"):
            await place.narrator.upload(audio.id, tone(1), "text/html")
        async with refused("INVALID_FIELD", field="file"):
            await place.narrator.files.UploadAudio(iter([]))

    async def test_learners_and_other_tenants_may_not(self, place: Place) -> None:
        audio = await place.narrator.create(story_id=(await place.narrator.story()).id)
        async with refused("PERMISSION_REQUIRED"):
            await place.student.upload(audio.id, tone(1))
        async with refused("RESOURCE_NOT_FOUND"):
            await place.outsider.upload(audio.id, tone(1))
        async with refused("RESOURCE_NOT_FOUND"):
            await place.outsider.begin(audio.id, tone(1))
        async with refused("RESOURCE_NOT_FOUND"):
            await place.outsider.complete(audio.id)


class TestGetAudioDownload:
    async def test_learners_hear_what_is_published_of_what_they_read(
        self, place: Place, publish_approved: PublishApproved
    ) -> None:
        story = await publish_approved((await place.narrator.story()).id)
        audio = await place.narrator.create(story_id=story.id)
        await place.narrator.upload(audio.id, tone(1))
        async with refused("PERMISSION_REQUIRED"):
            await place.student.download(audio.id)
        await place.narrator.act("Publish", audio.id)
        assert (await place.web.get((await place.student.download(audio.id)).url))[0] == tone(1)
        async with refused("RESOURCE_NOT_FOUND"):
            await place.outsider.download(audio.id)

    async def test_nobody_hears_what_has_no_file_or_is_of_a_draft(self, place: Place) -> None:
        story = await place.narrator.story()
        empty = await place.narrator.create(story_id=story.id)
        async with refused("WRONG_STATE"):
            await place.narrator.download(empty.id)
        spoken = await place.narrator.spoken(story_id=story.id)
        async with refused("PERMISSION_REQUIRED"):
            await place.student.download(spoken.id)

    async def test_the_bytes_go_when_the_recording_is_purged_and_never_before(self, place: Place) -> None:
        before = await place.swept()
        audio = await place.narrator.spoken(story_id=(await place.narrator.story()).id)
        link = (await place.narrator.download(audio.id)).url
        await place.narrator.act("Delete", audio.id)
        assert len(await place.swept() - before) == 1
        await place.admin.act("Purge", audio.id)
        assert await place.swept() - before == set()
        with pytest.raises(Exception, match=r"404|no such file"):
            await place.web.get(link)


class TestLinks:
    async def test_do_not_work_damaged_for_another_recording_or_the_other_way(self, place: Place) -> None:
        story = await place.narrator.story()
        one, two = [await place.narrator.spoken(story_id=story.id) for _ in range(2)]
        link = (await place.narrator.download(one.id)).url
        if urlsplit(link).netloc:
            for wrong in (link[:-1] + ("0" if link[-1] != "0" else "1"), link.split("?")[0], link):
                async with httpx.AsyncClient() as client:
                    assert (await client.put(wrong, content=b"x")).status_code in (400, 403)
            return
        _, token = parts_of(link)
        swapped = token[:20] + ("A" if token[20] != "A" else "B") + token[21:]
        for audio_id, wrong in ((one.id, swapped), (two.id, token), (one.id, "AAAA"), (one.id, token[:-4])):
            async with refused("INVALID_TOKEN"):
                await place.web.get(f"/v1/audios/{audio_id}/file?token={wrong}")
        async with refused("INVALID_TOKEN"):
            await place.web.put(link, tone(1))
        up = await place.narrator.begin((await place.narrator.create(story_id=story.id)).id, tone(1))
        async with refused("INVALID_TOKEN"):
            await place.web.get(up)

    async def test_take_no_more_bytes_than_were_announced(self, place: Place) -> None:
        audio = await place.narrator.create(story_id=(await place.narrator.story()).id)
        data = tone(1)
        link = await place.narrator.begin(audio.id, data)
        if urlsplit(link).netloc:
            # A bucket takes what it gets: it is refused, and removed, at the end.
            await place.web.put(link, data + b"more")
            async with refused("INVALID_FIELD", field="file"):
                await place.narrator.complete(audio.id)
            return
        async with refused("INVALID_FIELD", field="file"):
            await place.web.put(link, data + b"more")

    async def test_end(self, place: Place) -> None:
        audio = await place.narrator.spoken(story_id=(await place.narrator.story()).id)
        found = await place.narrator.download(audio.id)
        assert 590 < found.expire_time.ToSeconds() - time.time() <= 601
        if urlsplit(found.url).netloc:
            assert "X-Amz-Expires=600&" in found.url
            return
        storage: Any = SimpleNamespace(signs=False, lifetime=timedelta(seconds=-1))
        ended, _ = await Links(storage, place.service.settings.secret).make("GET", UUID(audio.id), Grant("k", 1, WAV))
        async with refused("INVALID_TOKEN"):
            await place.web.get(ended)


class TestStorageKeys:
    async def test_are_the_tenants_own_whatever_a_caller_says(self, place: Place) -> None:
        audio = await place.narrator.create(story_id=(await place.narrator.story()).id)
        await place.narrator.upload(audio.id, tone(1))
        assert all(key.startswith(f"{place.narrator.person.tenant_id}/") for key in place.listed())
        for wrong in ("../x", "..%2f", f"{audio.id}/../{audio.id}"):
            async with refused("INVALID_FIELD"):
                await place.narrator.download(wrong)


class TestFolder:
    def test_of_recordings_is_not_readable_by_others(self, tmp_path: Path) -> None:
        environment = {"STORAGE_DIRECTORY": str(tmp_path / "new"), "DATABASE_URL": "", "SECRET_KEY": "x"}
        settings = Settings.from_environment(
            "content", {**environment, "SERVICE_CREDENTIAL": "{}", "SERVICE_KEYS": "{}"}
        )
        assert Storage(settings)._store is not None
        assert (tmp_path / "new").stat().st_mode & 0o077 == 0
