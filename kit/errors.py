"""The platform's exceptions, and their gRPC statuses both ways: the only place that knows status codes.

StoryloomError
├── InvalidArgument      ├── AlreadyExists         ├── Unavailable
├── Unauthenticated      ├── FailedPrecondition    ├── DeadlineExceeded
├── PermissionDenied     ├── Aborted               ├── Cancelled
└── NotFound             └── ResourceExhausted     └── Internal
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from itertools import islice
from typing import Any, ClassVar, TypeVar

import asyncpg
import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.orm.exc import StaleDataError

from storyloom.type.v1.errors_pb2 import ErrorReason

DOMAIN = "storyloom"
MOST_VIOLATIONS, LONGEST_TEXT = 20, 200
REASONS = frozenset(ErrorReason.keys())
Row = TypeVar("Row")


class StoryloomError(Exception):
    """A failure the client is told about: a code, a reason to branch on and a sentence to act on."""

    code: ClassVar[grpc.StatusCode]
    default_reason: ClassVar[ErrorReason]

    def __init__(
        self,
        message: str,
        *,
        reason: ErrorReason | None = None,
        metadata: Mapping[str, str] | None = None,
        details: Sequence[Message] = (),
    ) -> None:
        super().__init__(message)
        self.message = message
        self.reason: ErrorReason = self.default_reason if reason is None else reason
        self.metadata = dict(metadata or {})
        self.details = tuple(details)


class InvalidArgument(StoryloomError):
    code = grpc.StatusCode.INVALID_ARGUMENT
    default_reason = ErrorReason.INVALID_FIELD

    @classmethod
    def fields(cls, violations: Iterable[tuple[str, str]], *, reason: ErrorReason | None = None) -> "InvalidArgument":
        """Of (field path, what is wrong with it) pairs; the first twenty go into
        `BadRequest.field_violations`."""
        bad = error_details_pb2.BadRequest()
        # Errors travel in trailers, which hold 16 KB: a hostile request must not make its own refusal too long.
        for field, description in islice(violations, MOST_VIOLATIONS):
            bad.field_violations.add(field=field[:LONGEST_TEXT], description=description[:LONGEST_TEXT])
        first = bad.field_violations[0]
        return cls(f"{first.field}: {first.description}.", reason=reason, details=(bad,))


class Unauthenticated(StoryloomError):
    code = grpc.StatusCode.UNAUTHENTICATED
    default_reason = ErrorReason.INVALID_TOKEN


class PermissionDenied(StoryloomError):
    code = grpc.StatusCode.PERMISSION_DENIED
    default_reason = ErrorReason.PERMISSION_REQUIRED


class NotFound(StoryloomError):
    """Says only what kind of thing is missing, so that a foreign id and an absent one give the same bytes."""

    code = grpc.StatusCode.NOT_FOUND
    default_reason = ErrorReason.RESOURCE_NOT_FOUND

    def __init__(self, resource: str) -> None:
        super().__init__(f"There is no such {resource.replace('_', ' ')}.", metadata={"resource": resource})


class AlreadyExists(StoryloomError):
    code = grpc.StatusCode.ALREADY_EXISTS
    default_reason = ErrorReason.RESOURCE_ALREADY_EXISTS


class FailedPrecondition(StoryloomError):
    code = grpc.StatusCode.FAILED_PRECONDITION
    default_reason = ErrorReason.WRONG_STATE


class Aborted(StoryloomError):
    code = grpc.StatusCode.ABORTED
    default_reason = ErrorReason.CONCURRENT_CHANGE


class ResourceExhausted(StoryloomError):
    code = grpc.StatusCode.RESOURCE_EXHAUSTED
    default_reason = ErrorReason.OVERLOADED

    def __init__(self, message: str, *, retry_after: timedelta, reason: ErrorReason | None = None) -> None:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromTimedelta(retry_after)
        super().__init__(message, reason=reason, details=(retry,))


class Unavailable(StoryloomError):
    code = grpc.StatusCode.UNAVAILABLE
    default_reason = ErrorReason.DEPENDENCY_UNAVAILABLE


class DeadlineExceeded(StoryloomError):
    code = grpc.StatusCode.DEADLINE_EXCEEDED
    default_reason = ErrorReason.DEADLINE_TOO_SHORT


class Cancelled(StoryloomError):
    code = grpc.StatusCode.CANCELLED
    default_reason = ErrorReason.CALL_CANCELLED


class Internal(StoryloomError):
    """What happened is in the log, never in the answer."""

    code = grpc.StatusCode.INTERNAL
    default_reason = ErrorReason.INTERNAL_FAULT

    def __init__(self) -> None:
        super().__init__("The platform failed; the request id finds the cause in its logs.")


def existing(row: Row | None, resource: str, *, also_deleted: bool = False) -> Row:
    """What a query found; NotFound when that is nothing, or is soft-deleted, unless such are asked for."""
    if row is None or (not also_deleted and getattr(row, "deleted_at", None) is not None):
        raise NotFound(resource)
    return row


def wrong_state(message: str, state: str, **metadata: str) -> FailedPrecondition:
    """The refusal for the state that something is in."""
    return FailedPrecondition(message, reason=ErrorReason.WRONG_STATE, metadata={"state": state, **metadata})


def reference_not_found(message: str, **metadata: str) -> FailedPrecondition:
    """The refusal for a reference to what is not there."""
    return FailedPrecondition(message, reason=ErrorReason.REFERENCE_NOT_FOUND, metadata=metadata)


BY_CODE: dict[grpc.StatusCode, type[StoryloomError]] = {
    error.code: error for error in StoryloomError.__subclasses__()
}
# What PostgreSQL's codes mean to a client; the longest prefix that matches decides.
BY_SQLSTATE: dict[str, StoryloomError] = {
    "22": InvalidArgument("A value is outside the range that can be stored."),
    "23505": AlreadyExists("Another resource has the same unique value."),
    "23P01": Aborted("A concurrent change won; try again."),
    "23503": FailedPrecondition(
        "A resource that this one refers to does not exist, or is still referred to.",
        reason=ErrorReason.REFERENCE_NOT_FOUND,
    ),
    "23514": InvalidArgument("A value is outside the range that can be stored."),
    "40001": Aborted("A concurrent change won; try again."),
    "40P01": Aborted("A concurrent change won; try again."),
    "55P03": Aborted("A concurrent change holds the resource; try again."),
    "57014": DeadlineExceeded("The database did not answer in time."),
    "25P04": DeadlineExceeded("The database did not answer in time."),
    "53": Unavailable("The database has no capacity left; try again."),
    "57P": Unavailable("The database is restarting; try again."),
    "08": Unavailable("The database cannot be reached; try again."),
}

LOST_CONNECTION = (
    PoolTimeoutError,
    OSError,
    asyncpg.InterfaceError,
    asyncpg.PostgresConnectionError,
    # What the driver says when the connection ends at the very moment it sends a statement.
    asyncpg.InternalClientError,
)


def sqlstate(error: BaseException) -> str:
    """The five-character SQLSTATE that PostgreSQL gave, or '' when the error did not come from it."""
    if isinstance(error, DBAPIError):
        error = error.orig or error
    return getattr(error, "sqlstate", None) or ""


def from_exception(error: BaseException) -> StoryloomError:
    """The exception a client is told about for any exception at all; what is not known is `Internal`."""
    if isinstance(error, StoryloomError):
        return error
    if isinstance(error, grpc.aio.AioRpcError):
        return from_rpc_error(error)
    state = sqlstate(error)
    for length in (5, 3, 2):
        if known := BY_SQLSTATE.get(state[:length]):
            return known
    if isinstance(error, StaleDataError):
        return Aborted("The resource was changed meanwhile; read it again.", reason=ErrorReason.STALE_ETAG)
    if isinstance(error, DecodeError | UnicodeDecodeError):
        return InvalidArgument(
            "The request is not a message of this method's type.", reason=ErrorReason.MALFORMED_REQUEST
        )
    # Before OSError, whose subclass it is.
    if isinstance(error, TimeoutError):
        return DeadlineExceeded("The call took longer than its deadline allows.")
    if isinstance(error, LOST_CONNECTION) or (isinstance(error, DBAPIError) and error.connection_invalidated):
        return Unavailable("The database cannot be reached; try again.")
    return Internal()


def to_status(error: StoryloomError) -> status_pb2.Status:
    """The google.rpc.Status of an exception: code, message, `ErrorInfo`, then the exception's own details."""
    info = error_details_pb2.ErrorInfo(
        reason=ErrorReason.Name(error.reason), domain=DOMAIN, metadata=error.metadata
    )
    status = status_pb2.Status(code=error.code.value[0], message=error.message)
    for detail in (info, *error.details):
        # The same error gives the same bytes, whatever order a map's entries happen to have.
        status.details.add().Pack(detail, deterministic=True)
    return status


def from_rpc_error(error: grpc.aio.AioRpcError) -> StoryloomError:
    """The exception that another service raised, as it was; a status that is not ours says that it did not answer."""
    status = status_pb2.Status()
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            status.ParseFromString(value)
    info, details = _unpack(status.details)
    if info.domain == DOMAIN and error.code() in BY_CODE and info.reason in REASONS:
        return _rebuild(BY_CODE[error.code()], error.details() or "", info, details)
    if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
        return DeadlineExceeded("Another service did not answer in time.")
    return Unavailable("Another service cannot be reached; try again.")


def _unpack(details: Iterable[AnyMessage]) -> tuple[Any, list[Message]]:
    info = error_details_pb2.ErrorInfo()
    others: list[Message] = []
    for detail in details:
        for kind in (error_details_pb2.BadRequest, error_details_pb2.RetryInfo, error_details_pb2.PreconditionFailure):
            if detail.Is(kind.DESCRIPTOR):
                others.append(kind.FromString(detail.value))
        if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
            info.ParseFromString(detail.value)
    return info, others


def _rebuild(kind: type[StoryloomError], message: str, info: Any, details: Sequence[Message]) -> StoryloomError:
    # Some classes build their own message; what came over the wire is kept word for word.
    error = kind.__new__(kind)
    reason: Any = ErrorReason.Value(info.reason)
    StoryloomError.__init__(error, message, reason=reason, metadata=dict(info.metadata), details=details)
    return error
