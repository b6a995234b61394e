"""Checks of request messages: their declared rules, after what would make checking them expensive."""

from collections.abc import Callable
from typing import Any

import protovalidate
from buf.validate import validate_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from kit.errors import InvalidArgument

# The generated types do not know that this is an extension.
_RULES: Any = validate_pb2.field
# One for all types: each remembers what it compiled, and its own copy of every message type it met (1.4 MB a piece).
_VALIDATOR = protovalidate.Validator()
Violation = tuple[str, str]


def validator(request: type[Message]) -> Callable[[Message], None]:
    """The check of one request type, made once. It raises INVALID_ARGUMENT naming every field that is wrong.

    Rules over items are run on all of them, however many came: so counts are checked before everything else.
    """
    descriptor: Any = request.DESCRIPTOR
    shape = _Shape.of(descriptor, {})

    def check(message: Message) -> None:
        wrong = shape.violations(message, "") if shape.matters else []
        if not wrong:
            try:
                wrong = [(_path(one), one.proto.message) for one in _VALIDATOR.collect_violations(message)]
            except protovalidate.EvaluationError:
                wrong = [("request", "is too large to be checked")]
        if wrong:
            raise InvalidArgument.fields(wrong)

    return check


class _Shape:
    """Where a message type has lists of bounded length, and times, which a client's bytes may hold out of range."""

    def __init__(self, descriptor: Descriptor) -> None:
        self.limits: dict[str, int] = {}
        self.inner: dict[str, _Shape] = {}
        self.times: dict[str, Callable[[Any], bool]] = {}
        self.matters = False
        self.name = descriptor.full_name

    @classmethod
    def of(cls, descriptor: Descriptor, known: dict[str, "_Shape"]) -> "_Shape":
        if descriptor.full_name in known:
            return known[descriptor.full_name]
        shape = known[descriptor.full_name] = cls(descriptor)
        for field in descriptor.fields:
            shape._add(field, known)
        shape.matters = bool(shape.limits or shape.times or any(inner.matters for inner in shape.inner.values()))
        return shape

    def _add(self, field: FieldDescriptor, known: dict[str, "_Shape"]) -> None:
        limit = field.GetOptions().Extensions[_RULES].repeated.max_items
        if field.is_repeated and limit:
            self.limits[field.name] = limit
        if field.message_type is None or field.message_type.GetOptions().map_entry:
            return
        if field.message_type.full_name in TIMES:
            self.times[field.name] = TIMES[field.message_type.full_name]
        else:
            self.inner[field.name] = _Shape.of(field.message_type, known)

    def violations(self, message: Message, prefix: str) -> list[Violation]:
        wrong: list[Violation] = []
        for field, value in message.ListFields():
            name = field.name
            values = value if field.is_repeated else (value,)
            if len(values) > self.limits.get(name, len(values)):
                wrong.append((prefix + name, f"must contain no more than {self.limits[name]} item(s)"))
            elif (holds := self.times.get(name)) and not all(map(holds, values)):
                wrong.append((prefix + name, "is out of range"))
            elif (inner := self.inner.get(name)) and inner.matters:
                for one in values:
                    wrong += inner.violations(one, f"{prefix}{name}.")
        return wrong


def _is_timestamp(value: Timestamp) -> bool:
    """From year 1 to year 9999, as the type's definition says."""
    return -62_135_596_800 <= value.seconds <= 253_402_300_799 and 0 <= value.nanos <= 999_999_999


def _is_duration(value: Duration) -> bool:
    """Some 10,000 years either way, both parts of the same sign, as the type's definition says."""
    whole, part = value.seconds, value.nanos
    return abs(whole) <= 315_576_000_000 and abs(part) <= 999_999_999 and not (whole * part < 0)


TIMES: dict[str, Callable[[Any], bool]] = {
    Timestamp.DESCRIPTOR.full_name: _is_timestamp,
    Duration.DESCRIPTOR.full_name: _is_duration,
}


def _path(violation: Any) -> str:
    """The path of the offending field, such as `choices[2].text`."""
    path = ""
    for element in violation.proto.field.elements if violation.proto.field else ():
        path += f".{element.field_name}" if path else element.field_name
        if element.subscript is not None:
            path += f"[{element.subscript.value}]"
    return path or "request"
