"""Words from files, as rows with outcomes; and all words as a file."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest

from services.content import vocabulary_files
from storyloom.content.v1 import vocabularies_pb2, vocabulary_files_pb2
from storyloom.content.v1.vocabularies_pb2 import Vocabulary, VocabularyForm
from storyloom.content.v1.vocabulary_files_pb2 import (
    ImportedVocabulary,
    ImportVocabulariesRequest,
    ImportVocabularyTextRequest,
    VocabularyImportOptions,
    VocabularyOutcome,
)
from storyloom.content.v1.vocabulary_files_pb2_grpc import VocabularyFileServiceStub
from storyloom.identity.v1 import roles_pb2
from storyloom.identity.v1.roles_pb2_grpc import RoleServiceStub
from tests.content.conftest import Author, ListEntries
from tests.stack import School, add_person, refused

SKIP, UPDATE = vocabulary_files_pb2.ON_EXISTING_VOCABULARY_SKIP, vocabulary_files_pb2.ON_EXISTING_VOCABULARY_UPDATE
HEADER = "term,translation,part_of_speech,sense,level,explanation,forms\n"


@dataclass
class Done:
    rows: list[ImportedVocabulary]
    unknown_columns: list[str]
    summary: vocabulary_files_pb2.VocabularyImportSummary

    @property
    def words(self) -> list[str]:
        """What became of each row."""
        names = (VocabularyOutcome.Name(row.outcome) for row in self.rows)
        return [name.removeprefix("VOCABULARY_OUTCOME_").lower() for name in names]

    @property
    def problems(self) -> list[tuple[int, str, str]]:
        return [(row.line, one.field, one.description) for row in self.rows for one in row.problems]

    def comparable(self) -> list[Any]:
        """Without the ids of what was created, which a dry run cannot know."""
        unnamed = [(row.line, row.outcome, list(map(str, row.problems))) for row in self.rows]
        return [unnamed, self.unknown_columns, self.summary]


def files(author: Author) -> Any:
    return author.person.stub(VocabularyFileServiceStub, "content")


async def requests(data: bytes, options: VocabularyImportOptions, size: int) -> AsyncIterator[Any]:
    yield ImportVocabulariesRequest(options=options)
    for at in range(0, len(data), size):
        yield ImportVocabulariesRequest(data=data[at : at + size])


async def import_file(author: Author, text: str | bytes, *, size: int = 40_000, **options: Any) -> Done:
    data = text.encode() if isinstance(text, str) else text
    given = VocabularyImportOptions(**({"on_existing": UPDATE} | options))
    call = files(author).ImportVocabularies(requests(data, given, size), timeout=60)
    answers = [one async for one in call]
    rows = [row for answer in answers for row in answer.rows]
    return Done(rows, [name for answer in answers for name in answer.unknown_columns], answers[-1].summary)


async def import_text(author: Author, text: str, **options: Any) -> Done:
    given = VocabularyImportOptions(**({"on_existing": UPDATE} | options))
    answer = await files(author).ImportVocabularyText(ImportVocabularyTextRequest(options=given, text=text))
    return Done(list(answer.rows), list(answer.unknown_columns), answer.summary)


async def in_every_way(author: Author, text: str, **options: Any) -> Done:
    """The outcome, which dry runs of both kinds before it have told already."""
    told = [await way(author, text, dry_run=True, **options) for way in (import_file, import_text)]
    done = await import_file(author, text, **options)
    assert [one.comparable() for one in told] == [done.comparable()] * 2
    return done


async def export(author: Author, **wanted: Any) -> bytes:
    call = files(author).ExportVocabularies(vocabulary_files_pb2.ExportVocabulariesRequest(**wanted))
    return b"".join([answer.body.data async for answer in call])


async def word(author: Author, word_id: str) -> Vocabulary:
    return await author.words.GetVocabulary(vocabularies_pb2.GetVocabularyRequest(id=word_id))


class TestImportVocabularies:
    async def test_makes_words_of_rows(self, teacher: Author) -> None:
        row = 'con sóc,squirrel,noun,2,a2,"Squirrel: nhỏ, nhanh.",những con sóc=squirrels|sóc\n'
        done = await in_every_way(teacher, HEADER + row)
        assert (done.words, done.summary.created, done.rows[0].line) == (["created"], 1, 2)
        made = await word(teacher, done.rows[0].vocabulary_id)
        forms = [VocabularyForm(form="những con sóc", translation="squirrels"), VocabularyForm(form="sóc")]
        assert (made.term, made.translation, made.sense, made.level) == ("con sóc", "squirrel", 2, "A2")
        assert (list(made.forms), made.explanation) == (forms, "Squirrel: nhỏ, nhanh.")
        assert (made.language, made.learning_language) == ("vi", "en")

    async def test_changes_what_a_row_says_otherwise(self, teacher: Author) -> None:
        first = await import_file(teacher, HEADER + "con nai,deer,noun,,A1,Deer.,\n")
        again = await in_every_way(teacher, HEADER + "Con  Nai,stag,noun,,,,\n")
        assert again.words == ["updated"]
        changed = await word(teacher, first.rows[0].vocabulary_id)
        assert (changed.term, changed.translation, changed.level) == ("Con  Nai", "stag", "A1")
        assert (await in_every_way(teacher, HEADER + "Con  Nai,stag,noun,1,,,\n")).words == ["unchanged"]

    async def test_leaves_words_that_are_there_if_asked_to(self, teacher: Author) -> None:
        await import_file(teacher, HEADER + "con dê,goat,noun,,,,\n")
        done = await in_every_way(teacher, HEADER + "con dê,sheep,noun,,,,\n", on_existing=SKIP)
        assert (done.words, done.problems) == (["unchanged"], [(2, "", "is about a word that exists already")])
        assert (await word(teacher, done.rows[0].vocabulary_id)).translation == "goat"

    async def test_says_what_is_wrong_and_imports_the_rest(self, teacher: Author) -> None:
        rows = (
            ",x,noun,,,,\n"
            "con hươu,,noun,,,,\n"
            "con hươu,x,bird,,,,\n"
            "con hươu,x,noun,101,,,\n"
            "con hươu,x,noun,,Z9,,\n"
            "con hươu,x,noun,,,\n"
            f"{'x' * 101},x,noun,,,,\n"
            "con hươu,giraffe,noun,,,,\n"
            "CON HƯƠU,giraffes,noun,,,,\n"
        )
        done = await in_every_way(teacher, HEADER + rows)
        assert done.words == ["invalid"] * 7 + ["created", "duplicate"]
        assert [(line, field) for line, field, _ in done.problems] == [
            *((2, "term"), (3, "translation"), (4, "part_of_speech"), (5, "sense"), (6, "level"), (7, "")),
            *((8, "term"), (10, "term")),
        ]

    async def test_a_word_of_an_earlier_batch_is_a_duplicate_too(
        self, teacher: Author, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(vocabulary_files, "ROWS_IN_BATCH", 2)
        rows = "".join(f"con cua {number % 3},crab,noun,,,,\n" for number in range(5))
        assert (await in_every_way(teacher, HEADER + rows)).words == ["created"] * 3 + ["duplicate"] * 2

    async def test_takes_the_languages_of_the_options_for_rows_without(self, teacher: Author) -> None:
        text = "term,translation,part_of_speech,learning_language\ncon ong,abeille,noun,\ncon ong,bee,noun,en\n"
        done = await in_every_way(teacher, text, learning_language="fr")
        found = [(await word(teacher, row.vocabulary_id)).learning_language for row in done.rows]
        assert found == ["fr", "en"]

    async def test_tells_of_columns_that_are_not_known(self, teacher: Author) -> None:
        done = await in_every_way(teacher, "Term,part_of_speech,translation,colour\ncon công,noun,peacock,blue\n")
        assert (done.words, done.unknown_columns) == (["created"], ["colour"])

    async def test_a_row_takes_the_rights_that_the_rpc_takes(self, school: School, teacher: Author) -> None:
        async with refused("PERMISSION_REQUIRED"):
            await import_text(Author(school.student), HEADER)
        permissions = [{"resource": "vocabulary", "action": "create"}]
        role = roles_pb2.Role(slug="word-maker", name="Word maker", permissions=permissions)
        await school.admin.stub(RoleServiceStub, "identity").CreateRole(roles_pb2.CreateRoleRequest(role=role))
        maker = Author(await add_person(school.admin, school.slug, "word-maker", "word-maker"))
        await import_file(teacher, HEADER + "con trai,mussel,noun,,,,\n")
        rows = "con trai,clam,noun,,,,\ncon trai,mussel,noun,1,,,\ncon hến,clam,noun,,,,\n"
        done = await in_every_way(maker, HEADER + rows)
        assert done.words == ["invalid", "unchanged", "created"]
        assert done.problems == [(2, "", "The permission vocabulary:update is required.")]

    async def test_tells_the_audit_log_of_each_word(self, teacher: Author, entries_of: ListEntries) -> None:
        done = await import_file(teacher, HEADER + "con tôm,shrimp,noun,,,,\n")
        await import_file(teacher, HEADER + "con tôm,prawn,noun,,,,\n")
        await import_file(teacher, HEADER + "con tôm,prawns,noun,,,,\n", dry_run=True)
        entries = await entries_of(entity_type="vocabulary", entity_id=done.rows[0].vocabulary_id)
        assert [(one.action, one.new_values["translation"]) for one in entries] == [
            ("create", "shrimp"),
            ("update", "prawn"),
        ]

    @pytest.mark.parametrize(
        "data", [b"", b"translation\nx\n", "term,part_of_speech\nđá".encode("utf-16"), b'term,part_of_speech\n"x,y\n']
    )
    async def test_refuses_what_cannot_be_read(self, teacher: Author, data: bytes) -> None:
        async with refused("INVALID_FIELD", field="data"):
            await import_file(teacher, data)

    async def test_imports_what_stands_before_the_end_of_what_can_be_read(self, teacher: Author) -> None:
        answers = []
        async with refused("INVALID_FIELD", field="data"):
            data = HEADER.encode() + b"con hu,howler,noun,,,,\n" + b"x" * 40_000
            options = VocabularyImportOptions(on_existing=UPDATE)
            async for answer in files(teacher).ImportVocabularies(requests(data, options, 10_000)):
                answers.append(answer)
        assert [one.outcome for answer in answers for one in answer.rows] == [1]

    async def test_is_not_for_ever(self, teacher: Author, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(vocabulary_files, "MOST_ROWS", 3)
        async with refused("INVALID_FIELD", field="data"):
            await import_file(teacher, HEADER + "x\n" * 4, dry_run=True)

    async def test_two_at_once_make_each_word_once(self, teacher: Author, teacher2: Author) -> None:
        rows = [f"con kiến {number},ant,noun,,,,\n" for number in range(300)]
        both = await asyncio.gather(
            import_file(teacher, HEADER + "".join(rows), on_existing=SKIP),
            import_file(teacher2, HEADER + "".join(rows[::-1]), on_existing=SKIP),
        )
        assert sum(one.summary.created for one in both) == 300
        assert sum(one.summary.unchanged for one in both) == 300


class TestImportVocabularyText:
    async def test_does_what_the_stream_does(self, teacher: Author) -> None:
        done = await import_text(teacher, HEADER + "con trâu,buffalo,noun,,,,\ncon trâu,ox,noun,,,,\n")
        assert (done.words, done.summary.rows) == (["created", "duplicate"], 2)
        assert (await word(teacher, done.rows[0].vocabulary_id)).translation == "buffalo"

    async def test_is_for_small_files(self, teacher: Author) -> None:
        async with refused("INVALID_FIELD", field="text"):
            await import_text(teacher, HEADER + "x\n" * 2_001, dry_run=True)

    async def test_with_a_key_it_is_done_once(self, teacher: Author) -> None:
        request = ImportVocabularyTextRequest(
            options=VocabularyImportOptions(on_existing=UPDATE), text=HEADER + "con lừa,donkey,noun,,,,\n"
        )
        keyed = {"metadata": (("idempotency-key", "0199a0a0-0000-7000-8000-000000000001"),)}
        first = await files(teacher).ImportVocabularyText(request, **keyed)
        assert await files(teacher).ImportVocabularyText(request, **keyed) == first
        assert [one.outcome for one in first.rows] == [VocabularyOutcome.VOCABULARY_OUTCOME_CREATED]


class TestExportVocabularies:
    async def test_imported_again_changes_nothing(self, teacher: Author) -> None:
        odd = [
            Vocabulary(
                term=term,
                translation="-ing",
                part_of_speech="PART_OF_SPEECH_VERB",
                language="ko",
                level="TOPIK1",
                explanation='=1+1, "two"\r\nlines',
                forms=[VocabularyForm(form="a|b", translation="=c"), VocabularyForm(form="\\")],
            )
            for term in ("+하다", "'=하다", " 한국 ")
        ]
        request = vocabularies_pb2.BatchCreateVocabulariesRequest(vocabularies=odd)
        made = [one.vocabulary for one in (await teacher.words.BatchCreateVocabularies(request)).results]
        data = await export(teacher, language="ko")
        done = await import_file(teacher, data)
        assert done.words == ["unchanged"] * 3
        assert [row.vocabulary_id for row in done.rows] == [one.id for one in made]
        assert await export(teacher, language="ko") == data

    async def test_comes_over_in_pieces_and_only_what_was_asked_for(
        self, teacher: Author, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await import_file(teacher, "term,translation,part_of_speech,language\n" + "".join(
            f"từ {number},w,{'noun' if number % 2 else 'verb'},km\n" for number in range(7)
        ))
        monkeypatch.setattr(vocabulary_files, "ROWS_EXPORTED_AT_ONCE", 2)
        lines = (await export(teacher, language="km", part_of_speech="PART_OF_SPEECH_VERB")).decode().splitlines()
        assert [line.split(",")[0] for line in lines] == ["term", "từ 0", "từ 2", "từ 4", "từ 6"]

    async def test_shows_a_tenant_its_own(self, teacher: Author, outsider: Author) -> None:
        await import_file(teacher, HEADER + "con voi của ta,elephant,noun,,,,\n")
        assert "con voi của ta".encode() not in await export(outsider)
