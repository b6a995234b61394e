"""Attempts: saving responses."""

import asyncio
from datetime import timedelta

from storyloom.assessment.v1.answers_pb2 import Response
from tests.assessment.calls import get, save, start, submit, unasked
from tests.assessment.conftest import Bank, filled, picked, run_out
from tests.stack import School, refused


class TestSaveResponses:
    async def test_replaces_the_response_to_the_same_question(self, school: School, bank: Bank) -> None:
        choice, blank = await bank.choice_question(), await bank.blank_question(["x"], ["y"])
        attempt = await start(school.student, await bank.quiz(choice, blank))
        first = await save(school.student, attempt, picked(choice, 1), filled(blank, "", "đúng"))
        assert list(first.responses) == [picked(choice, 1), filled(blank, "", "đúng")]
        second = await save(school.student, attempt, picked(choice, 0))
        assert list(second.responses) == [picked(choice, 0), filled(blank, "", "đúng")]
        assert (first.etag, second.etag) == ("2", "3")
        assert unasked(await get(school.student, attempt)) == second
        taken_back = await save(school.student, attempt, picked(choice))
        assert list(taken_back.responses) == [picked(choice), filled(blank, "", "đúng")]

    async def test_loses_nothing_of_two_at_once(self, school: School, bank: Bank) -> None:
        one, two = await bank.choice_question(), await bank.choice_question()
        attempt = await start(school.student, await bank.quiz(one, two))
        await asyncio.gather(
            save(school.student, attempt, picked(one, 0)), save(school.student, attempt, picked(two, 1))
        )
        assert list((await get(school.student, attempt)).responses) == [picked(one, 0), picked(two, 1)]

    async def test_names_the_response_that_does_not_fit(self, school: School, bank: Bank) -> None:
        question, other = await bank.choice_question(), await bank.choice_question()
        attempt = await start(school.student, await bank.quiz(question))
        for response, field in (
            (picked(other, 0), "responses[0].question_id"),
            (Response(question_id=question.id, choice_ids=[other.choices[0].id]), "responses[0].choice_ids[0]"),
            (picked(question, 0, 1), "responses[0].choice_ids"),
            (filled(question, "yes"), "responses[0].blanks"),
            (Response(question_id="x"), "responses[0].question_id"),
            (filled(question, "a\0b"), "responses[0].blanks[0]"),
        ):
            async with refused("INVALID_FIELD", field=field):
                await save(school.student, attempt, response)
        async with refused("INVALID_FIELD", field="responses"):
            await save(school.student, attempt)
        shouted = Response(question_id=question.id.upper())
        async with refused("INVALID_FIELD", field="responses[1].question_id"):
            await save(school.student, attempt, picked(question, 0), shouted)
        assert not (await get(school.student, attempt)).responses

    async def test_is_for_who_started_it_alone(self, school: School, bank: Bank) -> None:
        question = await bank.choice_question()
        attempt = await start(school.student, await bank.quiz(question))
        for person in (school.student2, school.teacher, school.admin):
            async with refused("PERMISSION_REQUIRED"):
                await save(person, attempt, picked(question, 0))
        async with refused("RESOURCE_NOT_FOUND"):
            await save(school.outsider_admin, attempt, picked(question, 0))

    async def test_ends_with_the_deadline_and_with_the_submission(self, school: School, bank: Bank) -> None:
        question = await bank.choice_question()
        quiz = await bank.quiz(question, time_limit=timedelta(minutes=10))
        attempt = await start(school.student, quiz)
        await run_out(school, attempt)
        async with refused("ATTEMPT_NOT_ALLOWED"):
            await save(school.student, attempt, picked(question, 0))
        attempt = await start(school.student, quiz)
        await submit(school.student, attempt)
        async with refused("WRONG_STATE"):
            await save(school.student, attempt, picked(question, 0))

    async def test_refuses_a_stale_etag(self, school: School, bank: Bank) -> None:
        question = await bank.choice_question()
        attempt = await start(school.student, await bank.quiz(question))
        await save(school.student, attempt, picked(question, 0), etag="1")
        async with refused("STALE_ETAG"):
            await save(school.student, attempt, picked(question, 0), etag="1")
