"""Files of questions over the API: in, what is told of them, and out again."""

import secrets
from hashlib import sha256

import pytest

from services.assessment.exchange.drafts import LIMITS, Limits
from services.assessment.exchange.formats import FORMATS
from storyloom.assessment.v1.question_files_pb2 import FindingKind, QuestionFormat, QuestionOutcome
from storyloom.assessment.v1.questions_pb2 import GetQuestionRequest, UpdateQuestionRequest
from storyloom.assessment.v1.questions_pb2_grpc import QuestionServiceStub
from storyloom.assessment.v1.quizzes_pb2 import GetQuizRequest, QuizStatus
from storyloom.assessment.v1.quizzes_pb2_grpc import QuizServiceStub
from storyloom.audit.v1.audit_logs_pb2 import ListAuditLogsRequest
from storyloom.audit.v1.audit_logs_pb2_grpc import AuditLogServiceStub
from tests.assessment.filing import FILES, bring, fetch, preview
from tests.stack import School, refused

CREATED, FOUND, REFUSED = (
    QuestionOutcome.Value(f"QUESTION_OUTCOME_{name}") for name in ("CREATED", "FOUND", "REFUSED")
)
ABSENT = "00000000-0000-4000-8000-000000000000"
TWO = "::one::What is {mark}?{{=this ~that#No.}}\n\n::two::How many is {mark}?{{#2:0.5}}\n"


def two(mark: str = "") -> bytes:
    """A file of two questions that nobody else has."""
    return TWO.format(mark=mark or secrets.token_hex(6)).encode()


class TestImportQuestions:
    async def test_creates_the_questions_of_a_file(self, school: School) -> None:
        made = await bring(school.teacher, two("lions"))
        told = [(one.outcome, one.name, one.line) for one in made.questions]
        assert told == [(CREATED, "one", 1), (CREATED, "two", 3)]
        assert (made.created, made.found, made.refused) == (2, 0, 0)
        assert made.format == QuestionFormat.QUESTION_FORMAT_GIFT
        stub = school.teacher.stub(QuestionServiceStub, "assessment")
        question = await stub.GetQuestion(GetQuestionRequest(id=made.questions[0].question_id))
        assert question.prompt == "What is lions?"
        assert [(one.text, one.correct, one.feedback) for one in question.choices] == [
            ("this", True, ""),
            ("that", False, "No."),
        ]

    async def test_may_come_in_any_pieces(self, school: School) -> None:
        made = await bring(school.teacher, two(), piece=7)
        assert made.created == 2

    async def test_of_the_same_file_twice_creates_nothing_more(self, school: School) -> None:
        data = two()
        first, second = await bring(school.teacher, data), await bring(school.teacher, data)
        assert (second.created, second.found) == (0, 2)
        assert [one.question_id for one in second.questions] == [one.question_id for one in first.questions]

    async def test_creates_again_what_was_changed_since(self, school: School) -> None:
        data = two()
        first = await bring(school.teacher, data)
        stub = school.teacher.stub(QuestionServiceStub, "assessment")
        changed = {"id": first.questions[0].question_id, "prompt": "Another?"}
        await stub.UpdateQuestion(UpdateQuestionRequest(question=changed, update_mask={"paths": ["prompt"]}))
        second = await bring(school.teacher, data)
        assert [one.outcome for one in second.questions] == [CREATED, FOUND]

    async def test_takes_what_is_twice_in_a_file_once(self, school: School) -> None:
        mark = secrets.token_hex(6)
        made = await bring(school.teacher, two(mark) + b"\n" + two(mark))
        assert [one.outcome for one in made.questions] == [CREATED, CREATED, FOUND, FOUND]
        assert made.questions[2].question_id == made.questions[0].question_id

    async def test_as_a_trial_writes_nothing(self, school: School) -> None:
        data = two()
        tried = await bring(school.teacher, data, dry_run=True, quiz_title="Trial")
        assert ([one.outcome for one in tried.questions], tried.quiz_id) == ([CREATED, CREATED], "")
        assert not any(one.question_id for one in tried.questions)
        made = await bring(school.teacher, data)
        assert made.created == 2
        assert list(tried.findings) == list(made.findings)

    async def test_creates_a_quiz_of_the_questions_as_a_draft(self, school: School) -> None:
        data = (FILES / "corners.xml").read_bytes()
        made = await bring(school.teacher, data, quiz_title="Corners")
        quizzes = school.teacher.stub(QuizServiceStub, "assessment")
        quiz = await quizzes.GetQuiz(GetQuizRequest(id=made.quiz_id))
        assert (quiz.title, quiz.status) == ("Corners", QuizStatus.QUIZ_STATUS_DRAFT)
        assert [one.question_id for one in quiz.items] == [one.question_id for one in made.questions]
        assert [one.points for one in quiz.items][:2] == ["2", "1"]

    @pytest.mark.parametrize("name", ["corners.gift", "corners.xml"])
    async def test_tells_of_every_element(self, school: School, name: str) -> None:
        data = (FILES / name).read_bytes()
        told = await bring(school.teacher, data, dry_run=True)
        lines = {line for one in told.findings for line in one.lines}
        assert {one.kind for one in told.findings} == {1, 2, 3}
        assert lines <= set(range(1, data.count(b"\n") + 2))
        refused_types = [one for one in told.findings if one.kind == FindingKind.FINDING_KIND_REFUSED]
        assert any("essay" in one.message for one in refused_types)

    async def test_refuses_what_is_no_question_and_takes_the_others(self, school: School) -> None:
        data = two() + b"\n::none right::Which?{~%-50%a ~%-50%b}\n"
        made = await bring(school.teacher, data)
        assert [one.outcome for one in made.questions] == [CREATED, CREATED, REFUSED]
        assert "correct" in made.questions[2].message
        assert made.questions[2].question_id == ""

    async def test_of_a_file_that_cannot_be_read_creates_nothing(self, school: School) -> None:
        async with refused("INVALID_FIELD", field="file"):
            await bring(school.teacher, b"<quiz><question type='essay'>")
        async with refused("INVALID_FIELD", field="file"):
            await bring(school.teacher, b"nothing here")
        async with refused("INVALID_FIELD", field="file"):
            await bring(school.teacher, b"", format=QuestionFormat.QUESTION_FORMAT_MOODLE_XML)

    async def test_refuses_more_than_it_can_take(self, school: School, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("services.assessment.question_files.LIMITS", Limits(bytes=100))
        async with refused("INVALID_FIELD", field="file"):
            await bring(school.teacher, b"x" * 101)
        monkeypatch.undo()
        many = "\n\n".join(f"q{n}?{{=a ~b}}" for n in range(LIMITS.questions + 1))
        async with refused("INVALID_FIELD", field="file"):
            await bring(school.teacher, many.encode())

    async def test_is_not_for_learners(self, school: School) -> None:
        async with refused("PERMISSION_REQUIRED"):
            await bring(school.student, two())

    async def test_is_in_the_log_with_each_question(self, school: School) -> None:
        data = two()
        made = await bring(school.teacher, data)
        await school.settle()
        logs = school.auditor.stub(AuditLogServiceStub, "audit")
        for one in made.questions:
            listed = await logs.ListAuditLogs(ListAuditLogsRequest(entity_type="question", entity_id=one.question_id))
            assert [entry.action for entry in listed.audit_logs] == ["create"]
        imports = await logs.ListAuditLogs(ListAuditLogsRequest(entity_type="question_import"))
        (said,) = [one for one in imports.audit_logs if one.new_values["sha256"] == sha256(data).hexdigest()]
        assert (said.action, said.user_id, said.new_values["questions"]) == ("import", school.teacher.user_id, 2)

    async def test_knows_nothing_of_other_tenants(self, school: School) -> None:
        data = two()
        await bring(school.teacher, data)
        made = await bring(school.outsider_admin, data)
        assert made.created == 2


class TestExportQuestions:
    @pytest.mark.parametrize("format_name", [*FORMATS])
    async def test_gives_a_file_that_brings_the_same_questions(self, school: School, format_name: str) -> None:
        file_format = QuestionFormat.Value(f"QUESTION_FORMAT_{format_name.upper()}")
        made = await bring(school.teacher, two())
        ids = [one.question_id for one in made.questions]
        data = await fetch(school.teacher, format=file_format, question_ids=ids)
        again = await bring(school.outsider_admin, data)
        assert again.format == file_format
        ids = [one.question_id for one in again.questions]
        assert await fetch(school.outsider_admin, format=file_format, question_ids=ids) == data

    @pytest.mark.parametrize(("name", "file_format"), [("corners.gift", 1), ("corners.xml", 2)])
    async def test_gives_back_what_was_preserved(self, school: School, name: str, file_format: int) -> None:
        made = await bring(school.teacher, (FILES / name).read_bytes())
        ids = [one.question_id for one in made.questions if one.question_id]
        data = await fetch(school.teacher, format=file_format, question_ids=ids)
        again = await bring(school.teacher, data)
        # The same content as before, so that nothing is created.
        assert (again.created, again.found) == (0, len(ids))
        assert not (await preview(school.teacher, format=file_format, question_ids=ids)).findings

    async def test_by_tag_gives_the_oldest_first(self, school: School) -> None:
        tag = f"t{secrets.token_hex(4)}"
        note = b"// [tag:%s]\n" % tag.upper().encode()
        for data in (two(), two()):
            await bring(school.teacher, note + data)
        out = await fetch(school.teacher, format=1, tag=f" {tag.title()}")
        assert (out.count(b"::one::"), out.count(b"::two::")) == (2, 0)
        assert out == await fetch(school.teacher, format=1, tag=tag)

    async def test_of_a_quiz_has_its_points(self, school: School) -> None:
        made = await bring(school.teacher, (FILES / "corners.xml").read_bytes(), quiz_title="Points")
        data = await fetch(school.teacher, format=2, quiz_id=made.quiz_id)
        assert data.count(b"<question ") == len(made.questions)
        assert b"<defaultgrade>2</defaultgrade>" in data

    async def test_of_what_is_not_there_or_not_ours_is_refused_alike(self, school: School) -> None:
        made = await bring(school.outsider_admin, two(), quiz_title="Theirs")
        for field, foreign in (("question_ids", [made.questions[0].question_id]), ("quiz_id", made.quiz_id)):
            absent = [ABSENT] if field == "question_ids" else ABSENT
            async with refused("RESOURCE_NOT_FOUND") as one:
                await fetch(school.teacher, format=1, **{field: foreign})
            async with refused("RESOURCE_NOT_FOUND") as other:
                await fetch(school.teacher, format=1, **{field: absent})
            assert one.status == other.status

    async def test_is_not_for_learners(self, school: School) -> None:
        async with refused("PERMISSION_REQUIRED"):
            await fetch(school.student, format=1, tag="any")

    async def test_of_nothing_or_of_two_things_is_refused(self, school: School) -> None:
        async with refused("INVALID_FIELD"):
            await fetch(school.teacher, format=1)
        async with refused("INVALID_FIELD"):
            await fetch(school.teacher, format=1, tag="x", question_ids=[ABSENT])


class TestPreviewExport:
    async def test_tells_what_the_format_cannot_say(self, school: School) -> None:
        made = await bring(school.teacher, (FILES / "corners.xml").read_bytes())
        ids = [one.question_id for one in made.questions]
        told = await preview(school.teacher, format=1, question_ids=ids)
        assert told.questions == len(ids)
        messages = {one.message: list(one.lines) for one in told.findings}
        assert [ids.index(one.question_id) + 1 for one in made.questions if one.name in ("gaps", "cloze")] == messages[
            "GIFT has one blank in a question at most"
        ]
        assert told.bytes == len(await fetch(school.teacher, format=1, question_ids=ids))
