"""Exercises: written, read and kept as they were read."""

from typing import Any
from uuid import uuid4

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from storyloom.assessment.v1.exercises_pb2 import (
    ArchiveExerciseRequest,
    CreateExerciseRequest,
    DeleteExerciseRequest,
    Exercise,
    ExerciseStatus,
    GetExerciseRequest,
    ListExercisesRequest,
    PublishExerciseRequest,
    PurgeExerciseRequest,
    UndeleteExerciseRequest,
    UpdateExerciseRequest,
)
from storyloom.assessment.v1.exercises_pb2_grpc import ExerciseServiceStub
from storyloom.assessment.v1.questions_pb2 import Question, UpdateQuestionRequest
from storyloom.assessment.v1.questions_pb2_grpc import QuestionServiceStub
from tests.assessment.calls import start, submit
from tests.assessment.conftest import Bank
from tests.stack import Person, School, refused

PASSAGE = "Bà ra chợ từ sáng sớm. Trời mưa, nhưng bà vẫn vui."


def exercises(person: Person) -> ExerciseServiceStub:
    return person.stub(ExerciseServiceStub, "assessment")


async def made(person: Person, **fields: Any) -> Exercise:
    exercise = Exercise(title="Bà ra chợ", **{"passage": PASSAGE, **fields})
    return await exercises(person).CreateExercise(CreateExerciseRequest(exercise=exercise))


async def published(person: Person) -> Exercise:
    exercise = await made(person)
    return await exercises(person).PublishExercise(PublishExerciseRequest(id=exercise.id))


class TestCreateExercise:
    async def test_is_a_draft_of_its_author(self, school: School) -> None:
        exercise = await made(school.teacher, instructions="Đọc rồi trả lời.")
        assert exercise.status == ExerciseStatus.EXERCISE_STATUS_DRAFT
        assert exercise.author_id == school.teacher.user_id
        assert await exercises(school.teacher).GetExercise(GetExerciseRequest(id=exercise.id)) == exercise

    async def test_refuses_a_lesson_that_is_not_there(self, school: School) -> None:
        async with refused("REFERENCE_NOT_FOUND"):
            await made(school.teacher, lesson_id=str(uuid4()))


class TestGetExercise:
    async def test_shows_learners_published_ones_only(self, school: School) -> None:
        draft, shown = await made(school.teacher), await published(school.teacher)
        stub = exercises(school.student)
        assert (await stub.GetExercise(GetExerciseRequest(id=shown.id))).passage == PASSAGE
        async with refused("PERMISSION_REQUIRED"):
            await stub.GetExercise(GetExerciseRequest(id=draft.id))

    async def test_knows_nothing_of_other_tenants(self, school: School) -> None:
        exercise = await published(school.teacher)
        for person, unseen in ((school.outsider, exercise.id), (school.student, str(uuid4()))):
            async with refused("RESOURCE_NOT_FOUND"):
                await exercises(person).GetExercise(GetExerciseRequest(id=unseen))


class TestListExercises:
    async def test_leaves_out_passages_and_what_may_not_be_seen(self, school: School) -> None:
        draft, shown = await made(school.teacher), await published(school.teacher)
        request = ListExercisesRequest(page_size=100)
        for person, ids in ((school.teacher, {draft.id, shown.id}), (school.student, {shown.id})):
            found = {one.id: one for one in (await exercises(person).ListExercises(request)).exercises}
            assert found.keys() & {draft.id, shown.id} == ids
            assert not any(one.passage for one in found.values())

    async def test_keeps_to_a_status(self, school: School) -> None:
        draft, shown = await made(school.teacher), await published(school.teacher)
        request = ListExercisesRequest(page_size=100, status=ExerciseStatus.EXERCISE_STATUS_DRAFT)
        found = {one.id for one in (await exercises(school.teacher).ListExercises(request)).exercises}
        assert draft.id in found
        assert shown.id not in found


class TestUpdateExercise:
    async def test_changes_a_draft(self, school: School) -> None:
        exercise = await made(school.teacher)
        change = Exercise(id=exercise.id, passage="Khác.", etag=exercise.etag)
        changed = await exercises(school.teacher).UpdateExercise(UpdateExerciseRequest(exercise=change))
        assert (changed.passage, changed.title) == ("Khác.", exercise.title)
        async with refused("STALE_ETAG"):
            await exercises(school.teacher).UpdateExercise(UpdateExerciseRequest(exercise=change))

    async def test_leaves_what_learners_read_as_it_was(self, school: School) -> None:
        exercise = await published(school.teacher)
        async with refused("WRONG_STATE"):
            change = Exercise(id=exercise.id, passage="Khác.")
            await exercises(school.teacher).UpdateExercise(UpdateExerciseRequest(exercise=change))


class TestLife:
    async def test_goes_one_way(self, school: School) -> None:
        stub, exercise = exercises(school.teacher), await published(school.teacher)
        async with refused("WRONG_STATE"):
            await stub.PublishExercise(PublishExerciseRequest(id=exercise.id))
        archived = await stub.ArchiveExercise(ArchiveExerciseRequest(id=exercise.id))
        assert archived.status == ExerciseStatus.EXERCISE_STATUS_ARCHIVED
        for call, request in (
            (stub.ArchiveExercise, ArchiveExerciseRequest(id=exercise.id)),
            (stub.PublishExercise, PublishExerciseRequest(id=exercise.id)),
        ):
            async with refused("WRONG_STATE"):
                await call(request)

    async def test_is_deleted_and_taken_back(self, school: School) -> None:
        stub, exercise = exercises(school.teacher), await made(school.teacher)
        await stub.DeleteExercise(DeleteExerciseRequest(id=exercise.id))
        async with refused("RESOURCE_NOT_FOUND"):
            await stub.GetExercise(GetExerciseRequest(id=exercise.id))
        assert (await stub.UndeleteExercise(UndeleteExerciseRequest(id=exercise.id))).passage == PASSAGE
        async with refused("WRONG_STATE"):
            await stub.UndeleteExercise(UndeleteExerciseRequest(id=exercise.id))

    async def test_ends_for_good(self, school: School) -> None:
        exercise = await made(school.teacher)
        request = PurgeExerciseRequest(id=exercise.id)
        async with refused("WRONG_STATE"):
            await exercises(school.admin).PurgeExercise(request)
        await exercises(school.teacher).DeleteExercise(DeleteExerciseRequest(id=exercise.id))
        async with refused("PERMISSION_REQUIRED"):
            await exercises(school.teacher).PurgeExercise(request)
        await exercises(school.admin).PurgeExercise(request)
        async with refused("RESOURCE_NOT_FOUND"):
            await exercises(school.teacher).UndeleteExercise(UndeleteExerciseRequest(id=exercise.id))

    @pytest.mark.parametrize("verb", ["Publish", "Archive", "Delete", "Undelete"])
    async def test_is_not_for_learners(self, verb: str, school: School) -> None:
        requests = {
            "Publish": PublishExerciseRequest,
            "Archive": ArchiveExerciseRequest,
            "Delete": DeleteExerciseRequest,
            "Undelete": UndeleteExerciseRequest,
        }
        exercise = await published(school.teacher)
        async with refused("PERMISSION_REQUIRED"):
            await getattr(exercises(school.student), f"{verb}Exercise")(requests[verb](id=exercise.id))


class TestQuestions:
    async def test_are_about_published_exercises(self, school: School, bank: Bank) -> None:
        draft, foreign = await made(school.teacher), await published(school.outsider_teacher)
        async with refused("WRONG_STATE"):
            await bank.choice_question(exercise_id=draft.id)
        for unseen in (foreign.id, str(uuid4())):
            async with refused("REFERENCE_NOT_FOUND"):
                await bank.choice_question(exercise_id=unseen)
        exercise = await published(school.teacher)
        assert (await bank.choice_question(exercise_id=exercise.id.upper())).exercise_id == exercise.id

    async def test_keep_their_exercise_from_being_deleted(self, school: School, bank: Bank) -> None:
        exercise, stub = await published(school.teacher), exercises(school.teacher)
        question = await bank.choice_question(exercise_id=exercise.id)
        async with refused("WRONG_STATE"):
            await stub.DeleteExercise(DeleteExerciseRequest(id=exercise.id))
        questions = school.teacher.stub(QuestionServiceStub, "assessment")
        change = UpdateQuestionRequest(question=Question(id=question.id), update_mask=FieldMask(paths=["exercise_id"]))
        assert (await questions.UpdateQuestion(change)).exercise_id == ""
        await stub.DeleteExercise(DeleteExerciseRequest(id=exercise.id))
        # The first version of the question is about it for ever.
        async with refused("WRONG_STATE"):
            await exercises(school.admin).PurgeExercise(PurgeExerciseRequest(id=exercise.id))

    async def test_about_one_exercise_follow_each_other_however_attempts_are_shuffled(
        self, school: School, bank: Bank
    ) -> None:
        exercise = await published(school.teacher)
        about = [await bank.choice_question(exercise_id=exercise.id) for _ in range(3)]
        others = [await bank.choice_question() for _ in range(3)]
        mixed = [question for pair in zip(about, others, strict=True) for question in pair]
        quiz, orders = await bank.quiz(*mixed, shuffle=True), set()
        for _ in range(4):
            attempt = await start(school.student, quiz)
            ids = [one.question_id for one in attempt.questions]
            first = ids.index(about[0].id)
            assert ids[first : first + 3] == [one.id for one in about]
            assert [one.exercise_id for one in attempt.questions][first : first + 3] == [exercise.id] * 3
            orders.add(tuple(ids))
            await submit(school.student, attempt)
        assert len(orders) > 1
        shown = await exercises(school.student).GetExercise(GetExerciseRequest(id=exercise.id))
        assert shown.passage == PASSAGE
