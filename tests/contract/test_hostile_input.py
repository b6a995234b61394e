"""Whatever stands in a field, or instead of a message, ends in an answer: never in a fault, and never late."""

import secrets
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain
from typing import Any

import pytest
from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from kit.settings import SERVICES
from tests.contract import api, requests
from tests.contract.answers import FAULTS, Answer, answer
from tests.contract.population import Population, Tenancy, populate
from tests.stack import Person, Stack, from_address

HUGE = "x" * 1_000_000
TEXTS = (
    "a\0b",
    "not-a-uuid",
    "00000000-0000-0000-0000-000000000000",
    "'; DROP TABLE content.stories; -- %_\\",
    "\u202e\ufeff\U0001f600\u0301",
    " \n\t",
)
BYTES = (b"", b"\xff\xfe\0", b'"' * 1000)
INTEGERS = (-1, 2**31 - 1, -(2**31))
ENUMS = (99, -1)
MANY = 10_000
SECONDS = (-62_135_596_801, 253_402_300_800, 2**62)
NANOS = (-1, 2**31 - 1)
MASKS = ("id", "etag", "tenant_id", "create_time", "*", "", "a.b.c", "title.x", "\0")
# Not a message; a text that is no UTF-8; a length beyond the end; a group that never ends; too deep to parse.
MALFORMED = (b"\xff\xff", b"\x0a\x02\xff\xfe", b"\x0a\x7fabc", b"\x0b\x0b\x0b", b"\x0a\x02" * 150)
SOURCE = ("traceback", "sqlalchemy", "asyncpg", "select ", "insert into", 'file "/', ".py", "relation ", "sqlstate")
SECONDS_ALLOWED = 2.0
# It would end the session with which the next call is made.
NOT_CALLED = {"DeleteSession"}

# On one worker, for the rows take some time to make.
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("hostile")]


@pytest.fixture(scope="module")
async def population(stack: Stack) -> Population:
    return await populate(stack)


def all_fields(rpc: MethodDescriptor) -> Iterator[tuple[str, FieldDescriptor]]:
    """Also those that clients may not set, though not what these consist of: they can send them all the same."""

    def walk(message: Any, path: str) -> Iterator[tuple[str, FieldDescriptor]]:
        for field in message.fields:
            here = f"{path}.{field.name}" if path else field.name
            yield here, field
            if api.is_ours(field.message_type) and not api.is_output(field):
                yield from walk(field.message_type, here)

    return walk(rpc.input_type, "")


def hostile(field: FieldDescriptor) -> Iterator[Any]:
    """Small values that the field can carry and should not."""
    if field.type == FieldDescriptor.TYPE_BYTES:
        yield from BYTES
        return
    if api.is_output(field) and field.cpp_type != FieldDescriptor.CPPTYPE_STRING:
        return
    match field.cpp_type:
        case FieldDescriptor.CPPTYPE_STRING:
            yield from TEXTS[:1] if api.is_output(field) else TEXTS
        case FieldDescriptor.CPPTYPE_ENUM:
            yield from ENUMS
        case FieldDescriptor.CPPTYPE_INT32 | FieldDescriptor.CPPTYPE_INT64:
            yield from INTEGERS
        case FieldDescriptor.CPPTYPE_MESSAGE:
            yield from messages(field)


def messages(field: FieldDescriptor) -> Iterator[Any]:
    make = GetMessageClass(field.message_type)
    match field.message_type.name:
        case "Timestamp" | "Duration":
            yield from chain((make(seconds=one) for one in SECONDS), (make(nanos=one) for one in NANOS))
        case "FieldMask":
            yield from (make(paths=[one]) for one in MASKS)
        case "Struct":
            for value in (float("nan"), float("inf"), None, "\0", [[["deep"]]], {"a": {"b": 1}}):
                struct = make()
                struct["x"] = value
                yield struct
            yield deep(make())
        case "Any":
            yield make(type_url="x", value=b"\xff")


def deep(struct: Any) -> Any:
    """Deeper than parsers go."""
    inner = struct
    for _ in range(60):
        inner = inner.fields["x"].struct_value
    inner["x"] = 1
    return struct


def huge(field: FieldDescriptor) -> Iterator[Any]:
    """One value of the field that is far too big, and one list that is far too long."""
    if api.is_output(field):
        return
    if field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        yield HUGE.encode() * 2 if field.type == FieldDescriptor.TYPE_BYTES else HUGE
    if field.message_type is not None:
        make = GetMessageClass(field.message_type)
        match field.message_type.name:
            case "FieldMask":
                yield from (make(paths=["x" * 10_000]), make(paths=["title"] * MANY))
            case "Struct":
                big = make()
                big.update({f"Key {n}\0": HUGE[:100] for n in range(MANY)})
                yield big
        if field.is_repeated:
            yield [make() for _ in range(MANY)]
    elif field.is_repeated:
        yield [requests.sample(field) for _ in range(MANY)]


def attacks(rpc: MethodDescriptor, tenancy: Tenancy, seen: set[str]) -> Iterator[tuple[str, Message | bytes]]:
    """Requests that are right but for one field, and bytes that are none. What is huge is sent once for each field,
    however many requests have it: the same rule stops it everywhere."""
    for path, field in all_fields(rpc):
        fresh = () if field.full_name in seen else huge(field)
        seen.add(field.full_name)
        for number, value in enumerate(chain(hostile(field), fresh)):
            request = requests.make(rpc, sorted(requests.minimal(rpc)), lambda kind: tenancy.ids[kind][0])
            requests.put(request, path, value)
            yield f"{path} #{number}", request
    for number, data in enumerate(MALFORMED):
        yield f"bytes #{number}", data


def somewhere(person: Person) -> Person:
    """The same person calling from an address of their own, so that no counter of failures is in the way."""
    return replace(person, extra=from_address(f"2001:db8:{secrets.token_hex(2)}:1::1"))


class TestEveryField:
    @pytest.mark.parametrize("service", [*SERVICES, "event", "subject"])
    async def test_refuses_or_takes_whatever_is_sent(self, service: str, population: Population) -> None:
        visitors = population.theirs
        found, count = [], 0
        seen: set[str] = set()
        for rpc in api.rpcs():
            if api.owner(rpc) != service or rpc.name in NOT_CALLED:
                continue
            for name, request in attacks(rpc, visitors, seen):
                got, seconds = await timed(somewhere(visitors.admin), rpc, request)
                found += [f"{api.short(rpc)} {name}: {what}" for what in wrong(got, seconds)]
                count += 1
        sys.stdout.write(f"{count} hostile requests to {service}\n")
        assert not found, "\n" + "\n".join(found)


async def timed(person: Person, rpc: MethodDescriptor, request: Message | bytes) -> tuple[Answer, float]:
    """The answer, and the processor time it took: clocks on the wall tell of whatever else the machine does. A call
    that merely waits ends at the caller's deadline, as a refusal without a reason."""
    start = time.process_time()
    got = await answer(person, rpc, request)
    return got, time.process_time() - start


def wrong(got: Answer, seconds: float) -> Iterator[str]:
    if got.code in FAULTS:
        yield f"a fault, {got.code.name} {got.message[:200]!r}"
    if not got.ok and not got.details:
        yield f"a refusal without a reason, {got.code.name} {got.message[:200]!r}"
    said = got.message.lower()
    if any(word in said for word in SOURCE):
        yield f"tells how it is made: {got.message[:200]!r}"
    if len(got.message) > 2_000:
        yield f"a message of {len(got.message)} characters"
    if seconds > SECONDS_ALLOWED:
        yield f"{seconds:.1f} s"
