"""Exceptions become statuses and, one hop on, the same exceptions; PostgreSQL's codes become what a client can use."""

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import grpc
import pytest
from google.rpc import error_details_pb2

from kit import errors
from kit.clients import Clients
from kit.errors import StoryloomError, from_exception, sqlstate
from kit.models import now
from kit.telemetry import Telemetry
from storyloom.identity.v1 import sessions_pb2
from storyloom.identity.v1.sessions_pb2_grpc import SessionServiceStub
from storyloom.type.v1.errors_pb2 import ErrorReason
from tests.kit.toy import Toy
from tests.stack import free_port, refused

BLOCKED = error_details_pb2.PreconditionFailure()
BLOCKED.violations.add(type="APPROVAL", subject="stories/7", description="Two approvals are missing.")

EXAMPLES: tuple[StoryloomError, ...] = (
    errors.InvalidArgument.fields([("story.title", "must not be empty"), ("tags[2]", "is not a tag")]),
    errors.InvalidArgument("No mask.", reason=ErrorReason.INVALID_UPDATE_MASK),
    errors.Unauthenticated("Sign in again.", reason=ErrorReason.MISSING_TOKEN),
    errors.PermissionDenied("No.", metadata={"permission": "story:publish", "resource": "story"}),
    errors.NotFound("story_version"),
    errors.AlreadyExists("The slug is taken."),
    errors.FailedPrecondition(
        "Not approved.", reason=ErrorReason.APPROVAL_REQUIRED, metadata={"missing": "2"}, details=(BLOCKED,)
    ),
    errors.Aborted("Changed meanwhile: đổi rồi.", reason=ErrorReason.STALE_ETAG),
    errors.ResourceExhausted(
        "Too many.", retry_after=timedelta(seconds=2.5), reason=ErrorReason.TOO_MANY_ATTEMPTS
    ),
    errors.Unavailable("The database is restarting; try again."),
    errors.DeadlineExceeded("Too late."),
    errors.Cancelled("Gone."),
    errors.Internal(),
)


@pytest.fixture
async def clients(toy: Toy) -> AsyncIterator[Clients]:
    """Stubs of another service, which is the toy itself; nobody listens as `identity`."""
    settings = replace(
        toy.settings, toy_address=toy.settings.listen_address, identity_address=f"127.0.0.1:{free_port()}"
    )
    made = Clients(settings, Telemetry(settings))
    yield made
    await made.close()


class TestNextHop:
    def test_every_exception_has_an_example(self) -> None:
        assert {type(one) for one in EXAMPLES} == set(StoryloomError.__subclasses__())

    @pytest.mark.parametrize("example", EXAMPLES, ids=lambda one: type(one).__name__)
    async def test_an_exception_is_the_same_at_the_caller(
        self, toy: Toy, clients: Clients, example: StoryloomError
    ) -> None:
        toy.failing["example"] = example
        with pytest.raises(StoryloomError) as caught:
            await clients.stub(toy.grpc.NoteServiceStub, "toy").Misbehave(toy.pb.Note(text="example"))
        got = caught.value
        assert type(got) is type(example)
        assert (got.message, got.reason, got.metadata) == (example.message, example.reason, example.metadata)
        assert got.details == example.details

    @pytest.mark.parametrize("example", EXAMPLES, ids=lambda one: type(one).__name__)
    async def test_the_second_hop_tells_the_very_bytes_of_the_first(
        self, toy: Toy, clients: Clients, example: StoryloomError
    ) -> None:
        toy.failing["example"] = example
        stub = clients.stub(toy.grpc.NoteServiceStub, "toy")
        with pytest.raises(StoryloomError) as caught:
            await stub.Misbehave(toy.pb.Note(text="example"))
        async with refused(ErrorReason.Name(example.reason), code=example.code) as first:
            await toy.stub().Misbehave(toy.pb.Note(text="example"))
        toy.failing["example"] = caught.value
        async with refused(ErrorReason.Name(example.reason), code=example.code) as second:
            await toy.stub().Misbehave(toy.pb.Note(text="example"))
        assert first.status.SerializeToString(True) == second.status.SerializeToString(True)


class TestExisting:
    @pytest.mark.parametrize("row", [None, SimpleNamespace(deleted_at=now())])
    def test_refuses_what_is_not_there_and_what_is_deleted(self, row: Any) -> None:
        with pytest.raises(errors.NotFound):
            errors.existing(row, "story")

    def test_answers_with_what_is_there_and_deleted_rows_where_they_count(self) -> None:
        for row, also_deleted in ((SimpleNamespace(deleted_at=None), False), (SimpleNamespace(deleted_at=now()), True)):
            assert errors.existing(row, "story", also_deleted=also_deleted) is row
        assert errors.existing("a row of what is never soft-deleted", "story")


class TestForeignStatus:
    async def test_nobody_listening_is_unavailable(self, clients: Clients) -> None:
        with pytest.raises(errors.Unavailable):
            await clients.stub(SessionServiceStub, "identity").GetJwks(sessions_pb2.GetJwksRequest(), timeout=1.0)

    async def test_a_service_that_lacks_the_method_is_unavailable(self, clients: Clients) -> None:
        with pytest.raises(errors.Unavailable):
            await clients.stub(SessionServiceStub, "toy").GetJwks(sessions_pb2.GetJwksRequest())

    async def test_silence_is_a_deadline_exceeded(self, toy: Toy, clients: Clients) -> None:
        stub = clients.stub(toy.grpc.NoteServiceStub, "toy")
        with pytest.raises(errors.DeadlineExceeded):
            await stub.Misbehave(toy.pb.Note(text="sleep"), timeout=0.2)


TABLES = "CREATE TEMP TABLE shelves (id int PRIMARY KEY CHECK (id < 10), note text NOT NULL DEFAULT '');" \
    " CREATE TEMP TABLE books (shelf int REFERENCES shelves); INSERT INTO shelves VALUES (1);"
CODES = grpc.StatusCode


def raising(state: str) -> str:
    """A statement in which the server raises this SQLSTATE."""
    return f"DO $$ BEGIN RAISE EXCEPTION 'a secret of the server' USING ERRCODE = '{state}'; END $$"


class TestDatabaseErrors:
    @pytest.mark.parametrize("way", ["sqlalchemy", "driver"])
    @pytest.mark.parametrize(
        ("statement", "state", "code", "reason"),
        [
            ("SELECT 'x'::int", "22P02", CODES.INVALID_ARGUMENT, ErrorReason.INVALID_FIELD),
            ("SELECT 2147483648::int", "22003", CODES.INVALID_ARGUMENT, ErrorReason.INVALID_FIELD),
            ("SELECT 1 / 0", "22012", CODES.INVALID_ARGUMENT, ErrorReason.INVALID_FIELD),
            ("SELECT chr(0)", "54000", CODES.INTERNAL, ErrorReason.INTERNAL_FAULT),
            ("INSERT INTO shelves VALUES (1)", "23505", CODES.ALREADY_EXISTS, ErrorReason.RESOURCE_ALREADY_EXISTS),
            ("INSERT INTO books VALUES (5)", "23503", CODES.FAILED_PRECONDITION, ErrorReason.REFERENCE_NOT_FOUND),
            ("INSERT INTO shelves VALUES (99)", "23514", CODES.INVALID_ARGUMENT, ErrorReason.INVALID_FIELD),
            ("INSERT INTO shelves VALUES (2, NULL)", "23502", CODES.INTERNAL, ErrorReason.INTERNAL_FAULT),
            ("SELECT * FROM nowhere", "42P01", CODES.INTERNAL, ErrorReason.INTERNAL_FAULT),
            (raising("40001"), "40001", CODES.ABORTED, ErrorReason.CONCURRENT_CHANGE),
            (raising("40P01"), "40P01", CODES.ABORTED, ErrorReason.CONCURRENT_CHANGE),
            (raising("55P03"), "55P03", CODES.ABORTED, ErrorReason.CONCURRENT_CHANGE),
            (raising("53100"), "53100", CODES.UNAVAILABLE, ErrorReason.DEPENDENCY_UNAVAILABLE),
            (raising("57P01"), "57P01", CODES.UNAVAILABLE, ErrorReason.DEPENDENCY_UNAVAILABLE),
            (raising("08006"), "08006", CODES.UNAVAILABLE, ErrorReason.DEPENDENCY_UNAVAILABLE),
            (raising("57014"), "57014", CODES.DEADLINE_EXCEEDED, ErrorReason.DEADLINE_TOO_SHORT),
            (raising("25P04"), "25P04", CODES.DEADLINE_EXCEEDED, ErrorReason.DEADLINE_TOO_SHORT),
        ],
    )
    async def test_a_sqlstate_becomes(
        self, toy: Toy, way: str, statement: str, state: str, code: grpc.StatusCode, reason: Any
    ) -> None:
        with pytest.raises(Exception) as caught:
            async with toy.db.open_write(uuid4()) as session:
                await session.driver.execute(TABLES)
                if way == "driver":
                    await session.driver.execute(statement)
                else:
                    connection = await session._orm.connection()
                    await connection.exec_driver_sql(statement)
        assert sqlstate(caught.value) == state
        told = from_exception(caught.value)
        assert (told.code, told.reason) == (code, reason)
        assert "secret" not in told.message

    async def test_a_lock_that_is_not_given_is_aborted(self, toy: Toy) -> None:
        async with toy.db.open_write(uuid4()) as holder:
            await holder.driver.execute("SELECT pg_advisory_xact_lock(7)")
            with pytest.raises(Exception) as caught:
                async with toy.db.open_write(uuid4()) as session:
                    await session.driver.execute("SET LOCAL lock_timeout = '20ms'; SELECT pg_advisory_xact_lock(7)")
        assert from_exception(caught.value).code is CODES.ABORTED

    async def test_a_statement_that_takes_too_long_is_a_deadline_exceeded(self, toy: Toy) -> None:
        with pytest.raises(Exception) as caught:
            async with toy.db.open_write(uuid4()) as session:
                await session.driver.execute("SET LOCAL statement_timeout = '20ms'; SELECT pg_sleep(3)")
        assert from_exception(caught.value).code is CODES.DEADLINE_EXCEEDED

    async def test_a_number_the_driver_cannot_send_is_the_clients_fault(self, toy: Toy) -> None:
        with pytest.raises(Exception) as caught:
            async with toy.db.open_write(uuid4()) as session:
                await session.driver.fetch("SELECT $1::int", 2**40)
        assert from_exception(caught.value).code is CODES.INVALID_ARGUMENT


class TestUnknown:
    @pytest.mark.parametrize("error", [ValueError("secret"), KeyError("secret"), ExceptionGroup("secret", [OSError()])])
    def test_anything_unknown_is_internal_in_the_same_words(self, error: Exception) -> None:
        told = from_exception(error)
        assert (type(told), told.message) == (errors.Internal, errors.Internal().message)
        assert (told.metadata, told.details) == ({}, ())
