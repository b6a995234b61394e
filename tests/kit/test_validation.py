"""Checks of requests: cheap before expensive, and never a fault."""

import time
from typing import Any

import pytest
from google.protobuf import duration_pb2, timestamp_pb2

from kit.errors import InvalidArgument, to_status
from kit.validation import validator
from storyloom.assessment.v1 import answers_pb2, attempts_pb2, quizzes_pb2
from storyloom.audit.v1 import audit_logs_pb2
from storyloom.content.v1 import weaves_pb2

ID = "01a202e2-e2eb-7615-a800-0c674ea10e24"


def fields_of(message: Any) -> list[str]:
    """The fields that the check of the message's type complains of."""
    with pytest.raises(InvalidArgument) as caught:
        validator(type(message))(message)
    return [violation.field for violation in caught.value.details[0].field_violations]


class TestCounts:
    def test_a_list_too_long_is_refused_before_its_items_are_looked_at(self) -> None:
        message = attempts_pb2.SubmitAttemptRequest(id=ID, responses=[answers_pb2.Response()] * 100_000)
        started = time.process_time()
        assert fields_of(message) == ["responses"]
        assert time.process_time() - started < 0.5

    def test_in_messages_within_messages(self) -> None:
        message = quizzes_pb2.CreateQuizRequest(quiz=quizzes_pb2.Quiz(title="t", items=[quizzes_pb2.QuizItem()] * 5000))
        assert fields_of(message) == ["quiz.items"]

    def test_a_refusal_stays_short_however_much_is_wrong(self) -> None:
        targets = [weaves_pb2.ClozeConfig(ratio="x" * 5000)] * 9
        message = weaves_pb2.WeaveStoryRequest(id=ID, targets=targets, pinned_vocabulary_ids=["x" * 5000] * 400)
        with pytest.raises(InvalidArgument) as caught:
            validator(type(message))(message)
        assert to_status(caught.value).ByteSize() < 10_000

    def test_takes_a_request_within_its_limits(self) -> None:
        validator(audit_logs_pb2.ListAuditLogsRequest)(audit_logs_pb2.ListAuditLogsRequest(page_size=5))


class TestTimes:
    @pytest.mark.parametrize(
        "value", [{"nanos": 2**31 - 1}, {"nanos": -1}, {"seconds": 10**12}, {"seconds": -(10**12)}, {"seconds": 2**62}]
    )
    def test_refuses_a_timestamp_that_is_none(self, value: dict[str, int]) -> None:
        time_of = timestamp_pb2.Timestamp(**value)
        assert fields_of(audit_logs_pb2.ListAuditLogsRequest(start_time=time_of)) == ["start_time"]

    @pytest.mark.parametrize("value", [{"nanos": 2**31 - 1}, {"seconds": 10**13}, {"seconds": 1, "nanos": -1}])
    def test_refuses_a_duration_that_is_none(self, value: dict[str, int]) -> None:
        quiz = quizzes_pb2.Quiz(title="t", time_limit=duration_pb2.Duration(**value))
        assert fields_of(quizzes_pb2.CreateQuizRequest(quiz=quiz)) == ["quiz.time_limit"]
