"""Recordings: what is said of them, their life, and when their chunks are heard."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

from google.protobuf.empty_pb2 import Empty

from kit import audit, fieldmask
from kit.access import may, require
from kit.audit import Action
from kit.auth import current
from kit.db import Database, ReadSession, WriteSession
from kit.errors import InvalidArgument, NotFound
from kit.models import check_etag, now, set_times
from kit.pagination import Page
from kit.turns import Worker
from services.content import captions, rules
from services.content.captions import Alignment, CaptionError, Cue, Piece
from services.content.enums import AUDIO_STATUS
from services.content.files import Files, note
from services.content.models import Audio
from services.content.queries import audios, stories, story_versions, vocabularies
from services.content.queries.audios import Times
from services.content.stories import optional_id
from storyloom.content.v1 import audios_pb2
from storyloom.content.v1.audios_pb2 import Audio as AudioMessage
from storyloom.content.v1.audios_pb2 import CaptionFormat, SetAudioTimestampsRequest

WRITABLE = ("title", "language", "voice", "version_id")
IS_VTT = {CaptionFormat.CAPTION_FORMAT_SRT: False, CaptionFormat.CAPTION_FORMAT_VTT: True}
MILLISECOND = timedelta(milliseconds=1)
# Captions that fit nowhere in a long text take a processor for seconds.
ALIGNER = Worker("align")


class AudioService:
    SERVICE = audios_pb2.DESCRIPTOR.services_by_name["AudioService"]

    def __init__(self, db: Database, files: Files) -> None:
        self.db, self._files = db, files

    async def CreateAudio(self, request: audios_pb2.CreateAudioRequest, context: Any) -> AudioMessage:
        async with self.db.write() as session:
            audio = await _new(session, request.audio)
            require("create", audio)
            session.add(audio)
            audit.record(session, Action.CREATE, audio)
            return await answer(session, audio)

    async def GetAudio(self, request: audios_pb2.GetAudioRequest, context: Any) -> AudioMessage:
        async with self.db.read() as session:
            row = await get_heard(session, UUID(request.id))
            times = await audios.list_times(session, row.id)
        return audio_to_proto(row, times)

    async def ListAudios(self, request: audios_pb2.ListAudiosRequest, context: Any) -> audios_pb2.ListAudiosResponse:
        page = Page.of(request)
        async with self.db.read() as session:
            rows = await audios.list_audios(session, request, AUDIO_STATUS.word[request.status], page)
        rows, token = page.split(rows, lambda row: (row.id,))
        return audios_pb2.ListAudiosResponse(audios=map(audio_to_proto, rows), next_page_token=token)

    async def UpdateAudio(self, request: audios_pb2.UpdateAudioRequest, context: Any) -> AudioMessage:
        wanted = fieldmask.changes(request.audio, request.update_mask, WRITABLE)
        async with self.db.write() as session:
            audio = await lock_to_update(session, UUID(request.audio.id))
            check_etag(audio, request.audio.etag)
            version_id = optional_id(wanted.pop("version_id", ""))
            for name, value in wanted.items():
                setattr(audio, name, value)
            if version_id not in (None, audio.version_id):
                await _rebind(session, audio, version_id)
            if wanted or version_id:
                audit.record(session, Action.UPDATE, audio)
            return await answer(session, audio)

    async def DeleteAudio(self, request: audios_pb2.DeleteAudioRequest, context: Any) -> AudioMessage:
        async with self.db.write() as session:
            audio = await audios.lock_audio(session, UUID(request.id))
            require("delete", audio)
            check_etag(audio, request.etag)
            audio.deleted_at = now()
            audit.record(session, Action.DELETE, audio)
            return await answer(session, audio)

    async def UndeleteAudio(self, request: audios_pb2.UndeleteAudioRequest, context: Any) -> AudioMessage:
        async with self.db.write() as session:
            audio = await audios.lock_audio(session, UUID(request.id), deleted=True)
            require("undelete", audio)
            check_etag(audio, request.etag)
            row = await audios.get_audio(session, audio.id, deleted=True)
            gone = row.of_story is None and row.of_vocabulary is None
            of = "vocabulary" if audio.story_id is None else "story"
            rules.check_deleted("audio", audio.deleted_at, of, parent_deleted=gone)
            audio.deleted_at = None
            audit.record(session, Action.UNDELETE, audio)
            return await answer(session, audio)

    async def PurgeAudio(self, request: audios_pb2.PurgeAudioRequest, context: Any) -> Empty:
        async with self.db.write() as session:
            audio = await audios.lock_audio(session, UUID(request.id), deleted=True)
            require("purge", audio)
            check_etag(audio, request.etag)
            rules.check_deleted("audio", audio.deleted_at)
            await audios.delete_parts(session, Audio.id == audio.id)
            if audio.storage_key:
                await note(session, audio.storage_key)
            await session.delete(audio)
            audit.record(session, "purge", audio)
        self._files.sweep_soon()
        return Empty()

    async def PublishAudio(self, request: audios_pb2.PublishAudioRequest, context: Any) -> AudioMessage:
        async with self.db.write() as session:
            audio = await lock_to_update(session, UUID(request.id), "publish")
            check_etag(audio, request.etag)
            audio.status = rules.step("audio", "publish", audio.status)
            audit.record(session, Action.PUBLISH, audio)
            return await answer(session, audio)

    async def SetAudioTimestamps(
        self, request: SetAudioTimestampsRequest, context: Any
    ) -> audios_pb2.SetAudioTimestampsResponse:
        async with self.db.read() as session:
            row = await get_heard(session, UUID(request.id), "update")
            chunks = await audios.list_chunks(session, row.version_id)
        duration = rules.check_times_of(row.duration, row.version_id)
        found = await ALIGNER.do(_aligned, request, duration, chunks)
        async with self.db.write() as session:
            audio = await lock_to_update(session, row.id)
            check_etag(audio, request.etag or str(row.revision))
            times = [(position, start * MILLISECOND, end * MILLISECOND) for position, start, end in found.times]
            await audios.replace_times(session, audio.id, audio.version_id, times)
            audio.updated_at = now()
            audit.write(session, "set_timestamps", "audio", audio.id, new={"timestamps": len(times)})
            message = await answer(session, audio)
        return audios_pb2.SetAudioTimestampsResponse(
            audio=message, unmatched_cues=found.cues, unmatched_positions=found.positions
        )

    async def GetAudioCaptions(
        self, request: audios_pb2.GetAudioCaptionsRequest, context: Any
    ) -> audios_pb2.GetAudioCaptionsResponse:
        async with self.db.read() as session:
            row = await get_heard(session, UUID(request.id))
            times = await audios.list_times(session, row.id)
            texts = {one.position: one.text for one in await audios.list_chunks(session, row.version_id)}
        cues = [
            (position, Cue(start // MILLISECOND, end // MILLISECOND, texts[position])) for position, start, end in times
        ]
        return audios_pb2.GetAudioCaptionsResponse(captions=captions.write_vtt(cues))


async def get_heard(session: ReadSession, audio_id: UUID, action: str = "read") -> Any:
    """The row of a recording that the caller may hear, or do this to, and whose story or word they may see."""
    row = await audios.get_audio(session, audio_id)
    require(action, row, resource="audio")
    await _check_seen(session, row)
    return row


async def lock_to_update(session: WriteSession, audio_id: UUID, action: str = "update") -> Audio:
    """The recording, locked, for whoever may do this to it."""
    audio = await audios.lock_audio(session, audio_id)
    require(action, audio)
    await _check_seen(session, audio)
    return audio


async def _check_seen(session: ReadSession, audio: Any) -> None:
    """Refuses whoever may not see what the recording is of; what of it is deleted takes the recording along."""
    try:
        if audio.story_id is None:
            require("read", await vocabularies.get_vocabulary(session, audio.vocabulary_id), resource="vocabulary")
        elif not _sees(await stories.get_story(session, audio.story_id), audio.version_id):
            raise NotFound("audio")
    except NotFound:
        raise NotFound("audio") from None


def _sees(story: Any, version_id: UUID) -> bool:
    """Whether the caller, who must be one to see the story, sees this version of it."""
    require("read", story, resource="story")
    return version_id == story.published_version_id or may("update", story, resource="story")


async def _new(session: WriteSession, sent: AudioMessage) -> Audio:
    """The caller's recording of what is there."""
    audio = Audio(title=sent.title, language=sent.language, voice=sent.voice, author_id=current().subject)
    if sent.vocabulary_id:
        word = await _referred("vocabulary", vocabularies.get_vocabulary(session, UUID(sent.vocabulary_id)))
        require("read", word, resource="vocabulary")
        audio.vocabulary_id, audio.language = word.id, sent.language or word.learning_language
        return audio
    story = await _referred("story", stories.get_story(session, UUID(sent.story_id)))
    audio.story_id, audio.language = story.id, sent.language or story.language
    audio.version_id = await _version_of(session, story, optional_id(sent.version_id) or story.current_version_id)
    return audio


async def _version_of(session: ReadSession, story: Any, version_id: UUID) -> UUID:
    """The version, if the story has it and the caller sees it."""
    if not _sees(story, version_id):
        raise rules.missing("story_version")
    await _referred("story_version", story_versions.get_source(session, story.id, version_id))
    return version_id


async def _referred(resource: str, found: Any) -> Any:
    try:
        return await found
    except NotFound:
        raise rules.missing(resource) from None


async def _rebind(session: WriteSession, audio: Audio, version_id: UUID) -> None:
    """Binds the recording to another version. Its times stay if all chunks are the same."""
    if audio.story_id is None:
        raise rules.missing("story_version")
    story = await stories.get_story(session, audio.story_id)
    await _version_of(session, story, version_id)
    before, after = [await audios.list_chunks(session, one) for one in (audio.version_id, version_id)]
    times = await audios.list_times(session, audio.id)
    audio.version_id = version_id
    await audios.replace_times(session, audio.id, version_id, times if before == after else ())


def _aligned(request: SetAudioTimestampsRequest, duration: timedelta, chunks: Sequence[Any]) -> Alignment:
    pieces = [Piece(one.position, one.text, one.kind == "explain") for one in chunks]
    try:
        cues = captions.within(captions.read(request.captions, vtt=IS_VTT.get(request.format)), duration // MILLISECOND)
        return captions.in_order(pieces, cues) if request.in_order else captions.by_text(pieces, cues)
    except CaptionError as error:
        raise InvalidArgument.fields([("captions", str(error))]) from error


async def answer(session: WriteSession, audio: Audio) -> AudioMessage:
    """Writes what is pending; the recording as it is now."""
    await session.flush()
    row = await audios.get_audio(session, audio.id, deleted=True)
    return audio_to_proto(row, await audios.list_times(session, audio.id))


def audio_to_proto(row: Any, times: Times = ()) -> AudioMessage:
    """Of a row of `audios.get_audio`."""
    message = AudioMessage(
        id=str(row.id),
        story_id=str(row.story_id or ""),
        version_id=str(row.version_id or ""),
        vocabulary_id=str(row.vocabulary_id or ""),
        title=row.title,
        language=row.language,
        voice=row.voice,
        status=AUDIO_STATUS.number[row.status],
        mime_type=row.mime_type,
        size_bytes=row.size_bytes,
        sha256=row.sha256,
        error=row.error,
        stale=row.version_id is not None and row.version_id not in (row.current_version_id, row.published_version_id),
        author_id=str(row.author_id),
        etag=str(row.revision),
    )
    if row.duration is not None:
        message.duration.FromTimedelta(row.duration)
    for position, start, end in times:
        one = message.timestamps.add(position=position)
        one.start_offset.FromTimedelta(start)
        one.end_offset.FromTimedelta(end)
    set_times(message, row)
    return message
