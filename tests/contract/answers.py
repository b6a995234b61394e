"""What a call comes back with, down to the bytes, so that two answers can be compared."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import grpc
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message

from tests.contract.population import send
from tests.stack import Person

FAULTS = {grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.UNIMPLEMENTED}


@dataclass(frozen=True, slots=True)
class Answer:
    """`details` are the bytes of the rich error; `body` those of the response, None of a refusal."""

    code: grpc.StatusCode
    message: str = ""
    details: bytes = b""
    trailers: tuple[str, ...] = ()
    body: bytes | None = None

    @property
    def ok(self) -> bool:
        return self.body is not None

    def everything(self) -> bytes:
        return b"\n".join((self.message.encode(), self.details, self.body or b""))

    def without(self, sent: Iterable[str]) -> "Answer":
        """With what the caller has said itself blotted out: telling somebody that tells nothing."""
        message, details = self.message, self.details
        # The longest first: one may be a part of another.
        for text in sorted(sent, key=lambda one: (-len(one), one)):
            message = message.replace(text, "*" * len(text))
            details = details.replace(text.encode(), b"*" * len(text.encode()))
        return replace(self, message=message, details=details)

    def same_as(self, other: "Answer") -> bool:
        """Two refusals byte for byte; of two successes each tells of a row of its own."""
        return (self.ok and other.ok) or self == other

    def holds(self, secrets: Iterable[str]) -> list[str]:
        text = self.everything()
        return [secret for secret in secrets if secret.encode() in text]


async def answer(person: Person, rpc: MethodDescriptor, request: Message | bytes) -> Answer:
    try:
        response = await send(person, rpc, request)
    except grpc.aio.AioRpcError as error:
        trailers = dict(error.trailing_metadata() or ())
        details = trailers.get("grpc-status-details-bin", b"")
        assert isinstance(details, bytes)
        return Answer(error.code(), error.details() or "", details, tuple(sorted(trailers)))
    return Answer(grpc.StatusCode.OK, body=response.SerializeToString())
