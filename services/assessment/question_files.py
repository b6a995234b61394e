"""QuestionFileService: questions from files of other systems, and into them."""

from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any
from uuid import UUID

from google.api.httpbody_pb2 import HttpBody

from kit import audit
from kit.access import require, require_any
from kit.audit import Action
from kit.auth import current, renew
from kit.db import Database, ReadSession, WriteSession
from kit.enums import stored_name
from kit.errors import InvalidArgument, wrong_state
from kit.ids import new_id
from kit.streams import spoken
from kit.turns import Worker
from services.assessment import filing, models
from services.assessment.bodies import tag_key
from services.assessment.composing import Composed, check_items, total
from services.assessment.exchange.drafts import LIMITS, Draft, Unreadable
from services.assessment.exchange.formats import FORMATS
from services.assessment.filing import File, Filed, Group
from services.assessment.queries import question_files as queries
from services.assessment.queries import quizzes
from services.assessment.rules import plain
from storyloom.assessment.v1 import question_files_pb2
from storyloom.assessment.v1.question_files_pb2 import (
    ExportQuestionsRequest,
    ExportQuestionsResponse,
    ImportedQuestion,
    ImportQuestionsRequest,
    ImportQuestionsResponse,
    PreviewExportRequest,
    PreviewExportResponse,
    QuestionFinding,
    QuestionFormat,
    QuestionOutcome,
)

PIECE = 256 * 1024
WORTH = Decimal("999999.999999")
READER = Worker("question-files")


class QuestionFileService:
    SERVICE = question_files_pb2.DESCRIPTOR.services_by_name["QuestionFileService"]

    def __init__(self, db: Database) -> None:
        self.db = db

    async def ImportQuestions(
        self, requests: AsyncIterator[ImportQuestionsRequest], context: Any
    ) -> ImportQuestionsResponse:
        require_any("import", models.Question)
        options, data = await _received(requests)
        try:
            file = await READER.do(filing.read_file, data, _name(options.format))
        except Unreadable as error:
            raise InvalidArgument.fields([("file", str(error))]) from None
        await renew()
        work = _Import(file, options.quiz_title.strip())
        if options.dry_run:
            async with self.db.read() as reading:
                await work.look(reading)
        else:
            async with self.db.write() as session:
                await work.do(session)
        return work.answer(dry_run=options.dry_run)

    async def ExportQuestions(
        self, request: ExportQuestionsRequest, context: Any
    ) -> AsyncIterator[ExportQuestionsResponse]:
        name = _name(request.format)
        drafts, title = await self._chosen(request)
        written, _ = await READER.do(filing.write_file, drafts, name, title)
        async with self.db.write() as session:
            about = ("quiz", UUID(request.quiz_id)) if request.quiz_id else ("question_export", new_id())
            audit.write(session, "export", *about, new={"format": name, "questions": len(drafts)})
        for at in range(0, max(1, len(written.data)), PIECE):
            data = written.data[at : at + PIECE]
            yield ExportQuestionsResponse(file=HttpBody(content_type=FORMATS[name].MEDIA_TYPE, data=data))
            # Whoever reads slowly may have lost the permission meanwhile.
            await renew()

    async def PreviewExport(self, request: PreviewExportRequest, context: Any) -> PreviewExportResponse:
        drafts, title = await self._chosen(request.export)
        written, findings = await READER.do(filing.write_file, drafts, _name(request.export.format), title)
        return PreviewExportResponse(
            questions=len(drafts), bytes=len(written.data), findings=map(_finding_to_proto, findings)
        )

    async def _chosen(self, request: ExportQuestionsRequest) -> tuple[list[Draft], str]:
        """The questions of the request, and what their quiz is called."""
        points, title = dict[UUID, str](), ""
        async with self.db.read() as session:
            ids = [UUID(one) for one in request.question_ids]
            if request.quiz_id:
                quiz = await quizzes.get_quiz_row(session, request.quiz_id)
                require("read", quiz, resource="quiz")
                asked = await queries.list_asked(session, quiz.id)
                points, title = {one.question_id: plain(one.points) for one in asked}, quiz.title
                ids = [*points]
            if request.tag:
                rows = await queries.list_tagged(session, tag_key(request.tag), LIMITS.questions + 1)
                _check_count(len(rows))
            else:
                rows = await queries.list_exported(session, ids)
        for row in rows:
            require("export", row, resource="question")
        return [filing.draft_of(row.body, row.preserved, row.tags, points.get(row.id, "")) for row in rows], title


class _Import:
    """One import: the questions of its file, those that are there, and those that are made."""

    def __init__(self, file: File, quiz_title: str) -> None:
        self.file, self.quiz_title = file, quiz_title
        self.good = [one for one in file.filed if not one.problem]
        self.known: dict[str, UUID] = {}
        self.new: dict[str, Filed] = {}
        self.made: dict[str, UUID] = {}
        self.questions: list[models.Question] = []
        self.quiz: models.Quiz | None = None
        self.items: list[Composed] = []

    async def look(self, session: ReadSession) -> None:
        """Finds what is there, and refuses what may not be made."""
        self.known = await queries.find_by_digest(session, [one.digest for one in self.good])
        self.new = {}
        for one in self.good:
            if one.digest not in self.known:
                self.new.setdefault(one.digest, one)
        self.questions = [_question(one) for one in self.new.values()]
        for question in self.questions:
            require("create", question)
        self.made = {digest: one.id for digest, one in zip(self.new, self.questions, strict=True)}
        self.quiz, self.items = self._composed()

    def _composed(self) -> tuple[models.Quiz | None, list[Composed]]:
        if not self.quiz_title:
            return None, []
        ids = self.known | self.made
        asked = {one.digest: Composed(_worth(one.draft), (ids[one.digest],)) for one in reversed(self.good)}
        items = [asked[digest] for digest in dict.fromkeys(one.digest for one in self.good)]
        if not items:
            raise InvalidArgument.fields([("quiz_title", "is for files with a question that can be had here")])
        check_items(items)
        quiz = models.Quiz(title=self.quiz_title, author_id=current().subject)
        quiz.question_count, quiz.max_score = total(items)
        require("create", quiz)
        return quiz, items

    async def do(self, session: WriteSession) -> None:
        await queries.wait_for_turn(session)
        await self.look(session)
        versions = [_version(question, one) for question, one in zip(self.questions, self.new.values(), strict=True)]
        for question in self.questions:
            audit.record(session, Action.CREATE, question)
        await queries.insert_questions(session, self.questions, versions)
        if self.quiz:
            session.add(self.quiz)
            audit.record(session, Action.CREATE, self.quiz)
            await session.flush()
            await quizzes.replace_quiz_items(session, self.quiz.id, self.items)
        said = {"format": self.file.format, "sha256": self.file.sha256, "questions": len(self.questions)}
        audit.write(session, "import", "question_import", new_id(), new=said)

    def answer(self, *, dry_run: bool) -> ImportQuestionsResponse:
        questions = [self._told(one, dry_run=dry_run) for one in self.file.filed]
        outcomes = [one.outcome for one in questions]
        return ImportQuestionsResponse(
            format=f"QUESTION_FORMAT_{self.file.format.upper()}",
            title=self.file.title,
            questions=questions,
            created=outcomes.count(QuestionOutcome.QUESTION_OUTCOME_CREATED),
            found=outcomes.count(QuestionOutcome.QUESTION_OUTCOME_FOUND),
            refused=outcomes.count(QuestionOutcome.QUESTION_OUTCOME_REFUSED),
            quiz_id=str(self.quiz.id) if self.quiz and not dry_run else "",
            findings=map(_finding_to_proto, self.file.findings),
        )

    def _told(self, one: Filed, *, dry_run: bool) -> ImportedQuestion:
        place = one.draft.place
        told = ImportedQuestion(name=one.draft.name, file=place.file, line=place.line, message=one.problem)
        if one.problem:
            told.outcome = QuestionOutcome.QUESTION_OUTCOME_REFUSED
        elif found := self.known.get(one.digest):
            told.outcome, told.question_id = QuestionOutcome.QUESTION_OUTCOME_FOUND, str(found)
        else:
            first = self.new[one.digest] is one
            told.outcome = (
                QuestionOutcome.QUESTION_OUTCOME_CREATED if first else QuestionOutcome.QUESTION_OUTCOME_FOUND
            )
            told.question_id = "" if dry_run else str(self.made[one.digest])
        return told


async def _received(requests: AsyncIterator[ImportQuestionsRequest]) -> tuple[ImportQuestionsRequest, bytes]:
    """The first message, and the whole file."""
    first, data = ImportQuestionsRequest(), bytearray()
    begun = False
    async for request in spoken(requests):
        data += request.file.data
        if len(data) > LIMITS.bytes:
            raise InvalidArgument.fields([("file", f"has more than {LIMITS.bytes >> 20} MiB")])
        if not begun:
            first, begun = request, True
    return first, bytes(data)


def _name(file_format: Any) -> str:
    """The format's name; empty when none is stated."""
    return stored_name(QuestionFormat, file_format)


def _check_count(count: int) -> None:
    if count > LIMITS.questions:
        raise wrong_state(f"More than {LIMITS.questions:,} questions have the tag.", "too_large")


def _question(one: Filed) -> models.Question:
    body, tags = one.body, [*one.draft.tags]
    author = current().subject
    return models.Question(type=body["type"], prompt=body["prompt"], tags=tags, author_id=author, facility=None)


def _version(question: models.Question, one: Filed) -> models.QuestionVersion:
    return models.QuestionVersion(
        question_id=question.id, version=1, body=one.body, preserved=one.preserved, digest=one.digest
    )


def _worth(draft: Draft) -> Decimal:
    """What the file says that the question is worth, as far as a quiz can have it."""
    said = Decimal(draft.points or "1")
    return min(max(said, Decimal(0)), WORTH).quantize(Decimal("0.000001")).normalize() + 0


def _finding_to_proto(group: Group) -> QuestionFinding:
    kind, element, message, file, lines = group
    said = f"FINDING_KIND_{kind.upper()}"
    return QuestionFinding(kind=said, element=element, message=message, file=file, lines=lines)


