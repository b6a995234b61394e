"""What the rows of an import do to the words of a tenant, each as the RPC for one word would."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from google.rpc import error_details_pb2

from kit import audit
from kit.access import require
from kit.audit import Action
from kit.db import WriteSession
from kit.errors import Aborted, InvalidArgument, PermissionDenied
from kit.sheets import Memory, Problem
from kit.validation import validator
from services.content.enums import PART_OF_SPEECH
from services.content.models import Vocabulary
from services.content.queries import vocabularies
from services.content.rules import term_key
from services.content.vocabularies import insert_words, new_word
from services.content.wordlists import Word
from storyloom.content.v1 import vocabulary_files_pb2
from storyloom.content.v1.vocabularies_pb2 import Vocabulary as VocabularyMessage
from storyloom.content.v1.vocabularies_pb2 import VocabularyForm
from storyloom.content.v1.vocabulary_files_pb2 import ImportedVocabulary, VocabularyImportOptions, VocabularyOutcome

# Other calls need the processor as well.
ROWS_AT_A_STRETCH = 20
# What a row may change; the rest of it says which word it is about.
CHANGED = ("term", "translation", "level", "explanation", "forms")
_check = validator(VocabularyMessage)


@dataclass(frozen=True, slots=True)
class Entry:
    """A row of a file. With problems it says nothing else."""

    line: int
    says: Word | None
    problems: Sequence[Problem] = ()


@dataclass
class Terms:
    """How an import is done, the languages of rows that name none, and the words that rows were about so far."""

    options: VocabularyImportOptions
    story_language: str
    learning_language: str
    memory: Memory = field(default_factory=Memory)


class _Refused(Exception):
    """A row that is not imported: the column, and a sentence without its subject."""

    def __init__(self, column: str, sentence: str, outcome: Any = VocabularyOutcome.VOCABULARY_OUTCOME_INVALID) -> None:
        super().__init__(sentence)
        self.column, self.sentence, self.outcome = column, sentence, outcome


async def admit(session: WriteSession, terms: Terms, entries: Sequence[Entry]) -> list[ImportedVocabulary]:
    """Does what the rows say, as far as it may be done; ABORTED when another call creates one of the words."""
    wanted = {_key(terms, entry.says) for entry in entries if entry.says}
    locked = not terms.options.dry_run
    batch = _Batch(session, terms, await vocabularies.find_by_keys(session, wanted, lock=locked))
    rows = []
    for number, entry in enumerate(entries):
        if number % ROWS_AT_A_STRETCH == 0:
            await asyncio.sleep(0)
        rows.append(batch.row(entry))
    await batch.finish()
    return rows


class _Batch:
    """The rows' words that are there, and those that are new."""

    def __init__(self, session: WriteSession, terms: Terms, there: dict[vocabularies.Key, Vocabulary]) -> None:
        self.session, self.terms, self.there = session, terms, there
        self.new: list[Vocabulary] = []

    def row(self, entry: Entry) -> ImportedVocabulary:
        row = ImportedVocabulary(line=entry.line, outcome=VocabularyOutcome.VOCABULARY_OUTCOME_INVALID)
        for problem in entry.problems:
            row.problems.add(field=problem.field, description=problem.sentence)
        if entry.says is None:
            return row
        try:
            self._do(entry.says, row)
        except _Refused as refused:
            row.outcome = refused.outcome
            row.problems.add(field=refused.column, description=refused.sentence)
        except InvalidArgument as error:
            row.problems.extend(_problems(error))
        except PermissionDenied as error:
            row.problems.add(description=error.message)
        return row

    async def finish(self) -> None:
        if self.terms.options.dry_run:
            return
        await self.session.flush()
        if self.new and len(await insert_words(self.session, self.new)) < len(self.new):
            raise Aborted("Some of the words were created meanwhile; try again.")

    def _do(self, says: Word, row: ImportedVocabulary) -> None:
        sent = _message(says)
        _check(sent)
        key = _key(self.terms, says)
        if self.terms.memory.knows("word", repr(key)):
            raise _Refused("term", "is that of an earlier row", VocabularyOutcome.VOCABULARY_OUTCOME_DUPLICATE)
        if (word := self.there.get(key)) is None:
            self._create(sent, row)
        else:
            row.vocabulary_id = str(word.id)
            self._change(word, says, row)
        self.terms.memory.note("word", repr(key))

    def _create(self, sent: VocabularyMessage, row: ImportedVocabulary) -> None:
        if not sent.translation:
            raise _Refused("translation", "is required for a new word")
        word = new_word(sent, self.terms)
        require("create", word)
        self.new.append(word)
        row.outcome = VocabularyOutcome.VOCABULARY_OUTCOME_CREATED
        row.vocabulary_id = "" if self.terms.options.dry_run else str(word.id)

    def _change(self, word: Vocabulary, says: Word, row: ImportedVocabulary) -> None:
        if self.terms.options.on_existing == vocabulary_files_pb2.ON_EXISTING_VOCABULARY_SKIP:
            row.outcome = VocabularyOutcome.VOCABULARY_OUTCOME_UNCHANGED
            row.problems.add(description="is about a word that exists already")
            return
        values = {name: value for name in CHANGED if (value := _said(says, name)) and value != getattr(word, name)}
        if not values:
            row.outcome = VocabularyOutcome.VOCABULARY_OUTCOME_UNCHANGED
            return
        require("update", word)
        row.outcome = VocabularyOutcome.VOCABULARY_OUTCOME_UPDATED
        if not self.terms.options.dry_run:
            for name, value in values.items():
                setattr(word, name, value)
            audit.record(self.session, Action.UPDATE, word)


def _key(terms: Terms, says: Word) -> vocabularies.Key:
    return (
        says.language or terms.story_language,
        says.learning_language or terms.learning_language,
        term_key(says.term),
        says.part_of_speech,
        says.sense or 1,
    )


def _said(says: Word, name: str) -> Any:
    return [list(one) for one in says.forms] if name == "forms" else getattr(says, name)


def _message(says: Word) -> VocabularyMessage:
    """What `CreateVocabulary` would be sent."""
    return VocabularyMessage(
        term=says.term,
        translation=says.translation,
        part_of_speech=PART_OF_SPEECH.number[says.part_of_speech],
        sense=says.sense or 0,
        level=says.level,
        explanation=says.explanation,
        forms=(VocabularyForm(form=form, translation=translation) for form, translation in says.forms),
        language=says.language,
        learning_language=says.learning_language,
    )


def _problems(error: InvalidArgument) -> list[vocabulary_files_pb2.VocabularyProblem]:
    bad = [one for one in error.details if isinstance(one, error_details_pb2.BadRequest)]
    return [
        vocabulary_files_pb2.VocabularyProblem(field=one.field.partition("[")[0], description=one.description)
        for one in bad[0].field_violations
    ]
