"""What phones tell of that had no connection, and what they are told in turn."""

import asyncio
from datetime import UTC, datetime, timedelta
from uuid import UUID

from storyloom.content.v1.lessons_pb2 import DeleteLessonRequest
from storyloom.content.v1.lessons_pb2_grpc import LessonServiceStub
from storyloom.learning.v1.enrollments_pb2 import WithdrawEnrollmentRequest
from storyloom.learning.v1.enrollments_pb2_grpc import EnrollmentServiceStub
from storyloom.learning.v1.learning_sessions_pb2 import LearningSessionState
from storyloom.learning.v1.progress_pb2 import OverrideProgressRequest, Progress, ProgressStatus
from storyloom.learning.v1.progress_pb2_grpc import ProgressServiceStub
from storyloom.learning.v1.vocabulary_reviews_pb2 import (
    CreateVocabularyReviewRequest,
    ReviewRating,
    VocabularyReview,
)
from storyloom.learning.v1.vocabulary_reviews_pb2_grpc import VocabularyReviewServiceStub
from tests.learning.conftest import Connection, Course, ListEntries, MakeCourse
from tests.learning.phones import ago, event, outcomes, pull, some_id, sync
from tests.learning.reviewing import make_words
from tests.learning.test_progress import report
from tests.stack import Person, School, refused

NOT_STARTED = ProgressStatus.PROGRESS_STATUS_NOT_STARTED
IN_PROGRESS = ProgressStatus.PROGRESS_STATUS_IN_PROGRESS
COMPLETED = ProgressStatus.PROGRESS_STATUS_COMPLETED
ENDED = LearningSessionState.LEARNING_SESSION_STATE_ENDED
ABANDONED = LearningSessionState.LEARNING_SESSION_STATE_ABANDONED
GOOD = ReviewRating.REVIEW_RATING_GOOD


async def progress_of(person: Person, lesson_id: str) -> Progress:
    answer = await sync(person, max_changes=1_000)
    return next(one for one in answer.progress if one.lesson_id == lesson_id)


def at(message: Progress, name: str) -> datetime:
    found: datetime = getattr(message, name).ToDatetime(UTC)
    return found


async def take_long_ago(tables: "Connection", course: Course) -> None:
    """Makes the enrolments in the course older than all that happens in these tests."""
    statement = "UPDATE learning.enrollments SET created_at = now() - interval '100 days' WHERE course_id = $1"
    await tables.execute(statement, UUID(course.id))


class TestLessons:
    async def test_go_forward_by_events_in_any_order(
        self, school: School, course: Course, tables: "Connection"
    ) -> None:
        await take_long_ago(tables, course)
        lesson = course.lesson_ids[0]
        done = event(ago(hours=2), lesson_progressed={"lesson_id": lesson, "status": COMPLETED})
        half = event(ago(hours=3), lesson_progressed={"lesson_id": lesson, "position_percent": 50})
        seen, later = event(ago(hours=4), lesson_viewed={"lesson_id": lesson}), ago(hours=1)
        again = event(later, lesson_viewed={"lesson_id": lesson})
        for one in (done, again, half, seen):
            assert outcomes(await sync(school.student, [one])) == ["accepted"]
        found = await progress_of(school.student, lesson)
        assert (found.status, found.position_percent) == (COMPLETED, 100)
        assert at(found, "start_time") == seen.event_time.ToDatetime(UTC)
        assert at(found, "complete_time") == done.event_time.ToDatetime(UTC)
        assert at(found, "last_view_time") == later

    async def test_meet_what_is_reported_online(self, school: School, course: Course, tables: "Connection") -> None:
        await take_long_ago(tables, course)
        lesson = course.lesson_ids[0]
        await report(school.student, lesson, 70)
        early = event(ago(days=1), lesson_progressed={"lesson_id": lesson, "position_percent": 30})
        await sync(school.student, [early])
        found = await report(school.student, lesson, 60)
        assert (found.status, found.position_percent) == (IN_PROGRESS, 70)
        assert at(found, "start_time") == early.event_time.ToDatetime(UTC)
        assert at(found, "last_view_time") > ago(minutes=5)

    async def test_do_not_wait_for_prerequisites(self, school: School, course: Course, tables: "Connection") -> None:
        await take_long_ago(tables, course)
        second = course.lesson_ids[1]
        done = event(ago(hours=1), lesson_progressed={"lesson_id": second, "status": COMPLETED})
        assert outcomes(await sync(school.student, [done])) == ["accepted"]
        assert (await progress_of(school.student, second)).status == COMPLETED

    async def test_count_by_when_their_course_was_taken_not_by_when_they_arrive(
        self, school: School, make_course: MakeCourse, tables: "Connection"
    ) -> None:
        course = await make_course()
        lesson = course.lesson_ids[0]
        enrolment = await course.enrol(school.student)
        await school.settle()
        early = event(ago(hours=1), lesson_viewed={"lesson_id": lesson})
        assert outcomes(await sync(school.student, [early])) == ["not_enrolled"]
        await take_long_ago(tables, course)
        enrollments = school.teacher.stub(EnrollmentServiceStub, "learning")
        await enrollments.WithdrawEnrollment(WithdrawEnrollmentRequest(id=enrolment.id))
        await tables.execute(
            "UPDATE learning.enrollments SET withdraw_time = now() - interval '2 hours' WHERE course_id = $1",
            UUID(course.id),
        )
        before = event(ago(hours=3), lesson_viewed={"lesson_id": lesson})
        assert outcomes(await sync(school.student, [early, before])) == ["not_enrolled", "accepted"]

    async def test_count_after_their_lesson_was_deleted(
        self, school: School, course: Course, tables: "Connection"
    ) -> None:
        await take_long_ago(tables, course)
        lesson = course.lesson_ids[1]
        await school.teacher.stub(LessonServiceStub, "content").DeleteLesson(DeleteLessonRequest(id=lesson))
        await school.settle()
        seen = event(ago(hours=3), lesson_viewed={"lesson_id": lesson})
        assert outcomes(await sync(school.student, [seen])) == ["accepted"]

    async def test_of_nobodys_course_and_of_no_lesson_are_rejected(
        self, school: School, course: Course, make_course: MakeCourse, tables: "Connection"
    ) -> None:
        await take_long_ago(tables, course)
        draft, other = await course.add_lesson(published=False), await make_course()
        await school.settle()
        events = [
            event(ago(hours=1), lesson_viewed={"lesson_id": lesson})
            for lesson in (some_id(), other.lesson_ids[0], draft, course.lesson_ids[0])
        ]
        answer = await sync(school.student, events)
        assert outcomes(answer) == ["not_found", "not_enrolled", "not_published", "accepted"]
        assert outcomes(await sync(school.outsider, events)) == ["not_found"] * 4

    async def test_from_before_a_teacher_set_them_back_count_no_more_than_in_time(
        self, school: School, course: Course, tables: "Connection"
    ) -> None:
        await take_long_ago(tables, course)
        lesson = course.lesson_ids[0]
        await sync(school.student, [event(ago(hours=9), lesson_progressed={"lesson_id": lesson, "status": COMPLETED})])
        progress = school.teacher.stub(ProgressServiceStub, "learning")
        request = OverrideProgressRequest(lesson_id=lesson, user_id=school.student.user_id, reason="once more")
        request.status = NOT_STARTED
        await progress.OverrideProgress(request)
        late = event(ago(hours=8), lesson_progressed={"lesson_id": lesson, "status": COMPLETED})
        await sync(school.student, [late])
        found = await progress_of(school.student, lesson)
        assert (found.status, found.position_percent, found.HasField("start_time")) == (NOT_STARTED, 0, False)
        assert at(found, "last_view_time") == late.event_time.ToDatetime(UTC)
        await report(school.student, lesson, 10)
        assert (await progress_of(school.student, lesson)).position_percent == 10


class TestWords:
    async def test_are_reviewed_and_met_by_events(self, school: School) -> None:
        cat, dog = await make_words(school.teacher, 2)
        events = [
            event(ago(days=1), story_read={"story_id": some_id(), "vocabulary_ids": [cat, dog, some_id()]}),
            event(ago(hours=2), review_answered={"vocabulary_id": cat, "rating": GOOD}),
            event(ago(hours=1), review_answered={"vocabulary_id": some_id(), "rating": GOOD}),
        ]
        answer = await sync(school.student2, events, max_changes=1_000)
        assert outcomes(answer) == ["accepted", "accepted", "not_found"]
        found = {one.vocabulary_id: one for one in answer.vocabulary_progress}
        assert (found[cat].review_count, found[cat].exposure_count) == (1, 1)
        assert (found[dog].review_count, found[dog].exposure_count) == (0, 1)
        assert found[cat].last_review_time == events[1].event_time

    async def test_reviewed_online_and_told_of_again_are_reviewed_once(self, school: School) -> None:
        (cat,) = await make_words(school.teacher)
        reviews = school.student2.stub(VocabularyReviewServiceStub, "learning")
        review = VocabularyReview(vocabulary_id=cat, event_id=some_id(), rating=GOOD)
        await reviews.CreateVocabularyReview(CreateVocabularyReviewRequest(vocabulary_review=review))
        answers = {
            name: event(ago(), event_id=review.event_id, review_answered={"vocabulary_id": cat, "rating": rating})
            for name, rating in (("same", GOOD), ("other", ReviewRating.REVIEW_RATING_AGAIN))
        }
        assert outcomes(await sync(school.student2, [answers["other"]])) == ["conflict"]
        answer = await sync(school.student2, [answers["same"]], max_changes=1_000)
        assert outcomes(answer) == ["accepted"]
        assert next(one for one in answer.vocabulary_progress if one.vocabulary_id == cat).review_count == 1


class TestSessions:
    async def test_are_folded_from_their_signs_of_life(
        self, school: School, course: Course, tables: "Connection"
    ) -> None:
        await take_long_ago(tables, course)
        start, session = ago(hours=5), some_id()
        begun = event(start, session_started={"session_id": session, "lesson_id": course.lesson_ids[0]})
        beats = [
            event(start + timedelta(seconds=30 * n), session_heartbeat={"session_id": session, "interactions": 4})
            for n in (1, 2)
        ]
        taps = event(start + timedelta(seconds=61), interacted={"session_id": session, "interactions": 500})
        end = event(start + timedelta(minutes=11, seconds=1), session_ended={"session_id": session})
        late = event(start + timedelta(minutes=12), session_heartbeat={"session_id": session})
        first = await sync(school.student, [end, *beats, late, taps], max_changes=1_000)
        assert session not in {one.client_session_id for one in first.learning_sessions}
        answer = await sync(school.student, [begun], cursor=first.next_cursor)
        (found,) = answer.learning_sessions
        assert (found.client_session_id, found.lesson_id) == (session, course.lesson_ids[0])
        # A minute by signs of life, one second more, and of the ten minutes of silence another one; ten taps of the
        # second in which they are said to have been.
        assert (found.active_duration.ToSeconds(), found.interactions, found.state) == (121, 18, ENDED)
        assert found.end_time.ToDatetime(UTC) == start + timedelta(minutes=11, seconds=1)

    async def test_without_an_end_are_abandoned_until_it_is_told(
        self, school: School, course: Course, tables: "Connection"
    ) -> None:
        await take_long_ago(tables, course)
        session, start = some_id(), ago(minutes=3)
        begun = event(start, session_started={"session_id": session, "lesson_id": course.lesson_ids[0]})
        first = await sync(school.student, [begun], max_changes=1_000)
        found = next(one for one in first.learning_sessions if one.client_session_id == session)
        assert (found.state, found.active_duration.ToSeconds()) == (ABANDONED, 0)
        end = event(start + timedelta(seconds=20), session_ended={"session_id": session})
        (found,) = (await sync(school.student, [end], cursor=first.next_cursor)).learning_sessions
        assert (found.state, found.active_duration.ToSeconds()) == (ENDED, 20)

    async def test_of_one_learner_are_never_anothers(
        self, school: School, course: Course, tables: "Connection"
    ) -> None:
        await course.enrol(school.student2)
        await take_long_ago(tables, course)
        session = some_id()
        begun = event(ago(hours=1), session_started={"session_id": session, "lesson_id": course.lesson_ids[0]})
        ids = set()
        for person in (school.student, school.student2):
            answer = await sync(person, [begun], max_changes=1_000)
            assert outcomes(answer) == ["accepted"]
            ids |= {one.id for one in answer.learning_sessions if one.client_session_id == session}
        assert len(ids) == 2


class TestResults:
    async def test_tell_what_was_sent_before_and_what_is_not_the_same(self, school: School) -> None:
        (cat,) = await make_words(school.teacher)
        one = event(ago(hours=1), review_answered={"vocabulary_id": cat, "rating": GOOD})
        other = event(ago(hours=2), event_id=one.event_id, review_answered={"vocabulary_id": cat, "rating": GOOD})
        assert outcomes(await sync(school.student2, [one, one, other])) == ["accepted", "duplicate", "conflict"]
        assert outcomes(await sync(school.student2, [other, one])) == ["conflict", "duplicate"]
        unknown = event(ago(hours=1), review_answered={"vocabulary_id": some_id(), "rating": GOOD})
        assert outcomes(await sync(school.student2, [unknown, unknown])) == ["not_found", "not_found"]

    async def test_tell_when_it_was_by_the_servers_clock(self, school: School) -> None:
        (cat,) = await make_words(school.teacher)
        happened = ago(minutes=30)
        for off in (timedelta(hours=-7), timedelta(days=2), timedelta(seconds=20)):
            one = event(happened + off, review_answered={"vocabulary_id": cat, "rating": GOOD})
            (result,) = (await sync(school.student2, [one], off=off)).results
            assert abs(result.event_time.ToDatetime(UTC) - happened) <= timedelta(seconds=20)
        tomorrow = event(ago(days=-1), review_answered={"vocabulary_id": cat, "rating": GOOD})
        (result,) = (await sync(school.student2, [tomorrow])).results
        assert abs(result.event_time.ToDatetime(UTC) - ago()) < timedelta(minutes=1)

    async def test_reject_what_is_older_than_a_year(self, school: School) -> None:
        (cat,) = await make_words(school.teacher)
        events = [
            event(ago(days=days), review_answered={"vocabulary_id": cat, "rating": GOOD}) for days in (364, 366)
        ]
        assert outcomes(await sync(school.student2, events)) == ["accepted", "too_old"]

    async def test_are_none_for_a_clock_that_is_off_by_months_or_a_batch_that_names_too_much(
        self, school: School
    ) -> None:
        async with refused("INVALID_FIELD", field="send_time"):
            await sync(school.student2, off=timedelta(days=32))
        many = [
            event(ago(), story_read={"story_id": some_id(), "vocabulary_ids": [some_id() for _ in range(200)]})
            for _ in range(11)
        ]
        async with refused("INVALID_FIELD", field="events"):
            await sync(school.student2, many)
        # The same words in many readings are rows for each of them.
        again = [
            event(ago(), story_read={"story_id": some_id(), "vocabulary_ids": many[0].story_read.vocabulary_ids})
            for _ in range(51)
        ]
        async with refused("INVALID_FIELD", field="events"):
            await sync(school.student2, again)


class TestChanges:
    async def test_come_in_parts_each_row_as_it_is_now(
        self, school: School, course: Course, tables: "Connection"
    ) -> None:
        await take_long_ago(tables, course)
        _, cursor = await pull(school.student)
        words = await make_words(school.teacher, 7)
        for word in words:
            await sync(school.student, [event(ago(hours=1), review_answered={"vocabulary_id": word, "rating": GOOD})])
        await report(school.student, course.lesson_ids[0], 20)
        await report(school.student, course.lesson_ids[0], 40)
        found, after = await pull(school.student, cursor)
        assert {one.vocabulary_id for one in found.values() if hasattr(one, "vocabulary_id")} == {*words}
        assert found[f"progress {course.lesson_ids[0]}"].position_percent == 40
        assert len(found) == 8
        assert (await pull(school.student, after))[0] == {}

    async def test_are_the_learners_own_and_their_cursor_too(self, school: School) -> None:
        (cat,) = await make_words(school.teacher)
        answer = await sync(
            school.student2, [event(ago(hours=1), review_answered={"vocabulary_id": cat, "rating": GOOD})]
        )
        assert not (await sync(school.teacher, max_changes=1_000)).vocabulary_progress
        for cursor in (answer.next_cursor, "x", "AAAA"):
            async with refused("INVALID_PAGE_TOKEN", field="cursor"):
                await sync(school.student, cursor=cursor)

    async def test_of_two_phones_at_once_are_all_there(self, school: School, course: Course) -> None:
        _, cursor = await pull(school.student)
        words = await make_words(school.teacher, 12)
        events = [event(ago(hours=1), review_answered={"vocabulary_id": one, "rating": GOOD}) for one in words]
        seen: set[str] = set()

        async def phone(mine: list[int]) -> None:
            nonlocal seen
            here = cursor
            for number in mine:
                answer = await sync(school.student, [events[number]], cursor=here)
                here = answer.next_cursor
                seen |= {one.vocabulary_id for one in answer.vocabulary_progress}

        await asyncio.gather(phone([*range(0, 12, 2)]), phone([*range(1, 12, 2)]), phone([*range(12)]))
        found, _ = await pull(school.student, cursor)
        assert {one.vocabulary_id for one in found.values()} == {*words} == seen
        assert {one.review_count for one in found.values()} == {1}


class TestAudit:
    async def test_has_one_entry_for_a_batch_and_none_for_one_that_says_nothing_new(
        self, school: School, entries_of: ListEntries
    ) -> None:
        words = await make_words(school.teacher, 3)
        events = [event(ago(hours=1), review_answered={"vocabulary_id": one, "rating": GOOD}) for one in words]
        before = len(await entries_of(entity_type="client_event", user_id=school.student2.user_id))
        await sync(school.student2, events)
        await sync(school.student2, events)
        entries = (await entries_of(entity_type="client_event", user_id=school.student2.user_id))[before:]
        assert [one.action for one in entries] == ["sync"]
        assert entries[0].new_values["reviews"] == 3
        assert "device_id" in entries[0].new_values


class TestIdempotency:
    async def test_a_keyed_call_that_is_sent_again_answers_the_same(self, school: School) -> None:
        (cat,) = await make_words(school.teacher)
        one = event(ago(hours=1), review_answered={"vocabulary_id": cat, "rating": GOOD})
        keyed = (("idempotency-key", some_id()),)
        assert outcomes(await sync(school.student2, [one], metadata=keyed)) == ["accepted"]
        assert outcomes(await sync(school.student2, [one])) == ["duplicate"]
