"""Vocabularies."""

from collections.abc import Iterable, Sequence
from typing import Any
from uuid import UUID

from google.protobuf.empty_pb2 import Empty

from kit import audit, fieldmask
from kit.access import require
from kit.audit import Action
from kit.db import Database, WriteSession
from kit.errors import AlreadyExists, to_status
from kit.models import check_etag, now, set_times
from kit.pagination import Page
from services.content import rules
from services.content.enums import PART_OF_SPEECH
from services.content.models import Vocabulary
from services.content.queries import courses, vocabularies
from services.content.queries.purging import purge
from storyloom.content.v1 import vocabularies_pb2
from storyloom.content.v1.package_files_pb2 import PackageWord
from storyloom.content.v1.vocabularies_pb2 import BatchCreateVocabularyResult, VocabularyForm
from storyloom.content.v1.vocabularies_pb2 import Vocabulary as VocabularyMessage

WRITABLE = ("term", "translation", "part_of_speech", "sense", "level", "explanation", "forms")


def forms_of(sent: Iterable[VocabularyForm]) -> list[list[str]]:
    """Forms as they are stored: each with its translation."""
    return [[one.form.strip(), one.translation.strip()] for one in sent]


CONVERT = {
    "term": str.strip,
    "translation": str.strip,
    "part_of_speech": PART_OF_SPEECH.word.__getitem__,
    "explanation": str.strip,
    "forms": forms_of,
}


class VocabularyService:
    SERVICE = vocabularies_pb2.DESCRIPTOR.services_by_name["VocabularyService"]

    def __init__(self, db: Database) -> None:
        self.db = db

    async def CreateVocabulary(
        self, request: vocabularies_pb2.CreateVocabularyRequest, context: Any
    ) -> VocabularyMessage:
        async with self.db.write() as session:
            word = new_word(request.vocabulary, await courses.get_settings(session))
            require("create", word)
            session.add(word)
            return await _record(session, Action.CREATE, word)

    async def BatchCreateVocabularies(
        self, request: vocabularies_pb2.BatchCreateVocabulariesRequest, context: Any
    ) -> vocabularies_pb2.BatchCreateVocabulariesResponse:
        async with self.db.write() as session:
            settings = await courses.get_settings(session)
            words = [new_word(sent, settings) for sent in request.vocabularies]
            for word in words:
                require("create", word)
            created = await insert_words(session, words)
        return vocabularies_pb2.BatchCreateVocabulariesResponse(results=(_result(one, created) for one in words))

    async def GetVocabulary(self, request: vocabularies_pb2.GetVocabularyRequest, context: Any) -> VocabularyMessage:
        async with self.db.read() as session:
            row = await vocabularies.get_vocabulary(session, UUID(request.id))
        require("read", row, resource="vocabulary")
        return vocabulary_to_proto(row)

    async def BatchGetVocabularies(
        self, request: vocabularies_pb2.BatchGetVocabulariesRequest, context: Any
    ) -> vocabularies_pb2.BatchGetVocabulariesResponse:
        wanted = list(map(UUID, request.ids))
        async with self.db.read() as session:
            found = {row.id: row for row in await vocabularies.list_some(session, wanted)}
        rows = (found[one] for one in wanted if one in found)
        return vocabularies_pb2.BatchGetVocabulariesResponse(vocabularies=map(vocabulary_to_proto, rows))

    async def ListVocabularies(
        self, request: vocabularies_pb2.ListVocabulariesRequest, context: Any
    ) -> vocabularies_pb2.ListVocabulariesResponse:
        page = Page.of(request)
        async with self.db.read() as session:
            part_of_speech = PART_OF_SPEECH.word[request.part_of_speech]
            rows = await vocabularies.list_vocabularies(session, request, part_of_speech, page)
        by_term = request.order_by.startswith("term")
        rows, token = page.split(rows, lambda row: (row.term_key, row.id) if by_term else (row.id,))
        return vocabularies_pb2.ListVocabulariesResponse(
            vocabularies=map(vocabulary_to_proto, rows), next_page_token=token
        )

    async def UpdateVocabulary(
        self, request: vocabularies_pb2.UpdateVocabularyRequest, context: Any
    ) -> VocabularyMessage:
        async with self.db.write() as session:
            word = await vocabularies.lock_vocabulary(session, UUID(request.vocabulary.id))
            require("update", word)
            check_etag(word, request.vocabulary.etag)
            fieldmask.apply(word, request.vocabulary, request.update_mask, WRITABLE, CONVERT)
            word.term_key = rules.term_key(word.term)
            return await _record(session, Action.UPDATE, word)

    async def DeleteVocabulary(
        self, request: vocabularies_pb2.DeleteVocabularyRequest, context: Any
    ) -> VocabularyMessage:
        async with self.db.write() as session:
            word = await vocabularies.lock_vocabulary(session, UUID(request.id))
            require("delete", word)
            check_etag(word, request.etag)
            word.deleted_at = now()
            return await _record(session, Action.DELETE, word)

    async def UndeleteVocabulary(
        self, request: vocabularies_pb2.UndeleteVocabularyRequest, context: Any
    ) -> VocabularyMessage:
        async with self.db.write() as session:
            word = await vocabularies.lock_vocabulary(session, UUID(request.id), deleted=True)
            require("undelete", word)
            check_etag(word, request.etag)
            rules.check_deleted("vocabulary", word.deleted_at)
            word.deleted_at = None
            return await _record(session, Action.UNDELETE, word)

    async def PurgeVocabulary(self, request: vocabularies_pb2.PurgeVocabularyRequest, context: Any) -> Empty:
        async with self.db.write() as session:
            word = await vocabularies.lock_vocabulary(session, UUID(request.id), deleted=True)
            await purge(session, word, request.etag)
        return Empty()


def new_word(sent: VocabularyMessage | PackageWord, settings: Any) -> Vocabulary:
    """The word, in the languages of the settings unless it says others."""
    return Vocabulary(
        term=sent.term.strip(),
        term_key=rules.term_key(sent.term),
        translation=sent.translation.strip(),
        part_of_speech=PART_OF_SPEECH.word[sent.part_of_speech],
        sense=sent.sense or 1,
        level=sent.level,
        explanation=sent.explanation.strip(),
        forms=forms_of(sent.forms),
        language=sent.language or settings.story_language,
        learning_language=sent.learning_language or settings.learning_language,
    )


async def insert_words(session: WriteSession, words: Sequence[Vocabulary]) -> set[UUID]:
    """Writes and audits those whose sense is not there yet; returns their ids."""
    for word in words:
        word.tenant_id, word.revision = session.tenant_id, 1
    created = await vocabularies.insert_new(session, words)
    for word in words:
        if word.id in created:
            audit.record(session, Action.CREATE, word)
    return created


def _result(word: Vocabulary, created: set[UUID]) -> BatchCreateVocabularyResult:
    if word.id in created:
        return BatchCreateVocabularyResult(vocabulary=vocabulary_to_proto(word))
    return BatchCreateVocabularyResult(error=to_status(AlreadyExists("Another resource has the same unique value.")))


async def _record(session: WriteSession, action: Action, word: Vocabulary) -> VocabularyMessage:
    """Audits and writes the change; returns the vocabulary as it is now."""
    audit.record(session, action, word)
    await session.flush()
    return vocabulary_to_proto(word)


def vocabulary_to_proto(row: Any) -> VocabularyMessage:
    """Of the entity, or of a row of its columns."""
    message = VocabularyMessage(
        id=str(row.id),
        term=row.term,
        translation=row.translation,
        part_of_speech=PART_OF_SPEECH.number[row.part_of_speech],
        sense=row.sense,
        level=row.level,
        explanation=row.explanation,
        forms=(VocabularyForm(form=form, translation=translation) for form, translation in row.forms),
        language=row.language,
        learning_language=row.learning_language,
        etag=str(row.revision),
    )
    set_times(message, row)
    return message
