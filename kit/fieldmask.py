"""Update masks: which fields of the sent resource are written, checked against which may be."""

from collections.abc import Collection, Mapping
from typing import Any

from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message

from kit.errors import InvalidArgument
from storyloom.type.v1.errors_pb2 import ErrorReason


def changes(message: Message, mask: FieldMask, writable: Collection[str]) -> dict[str, Any]:
    """The fields to write and their values. An absent mask means the populated writable fields.

    Raises INVALID_ARGUMENT naming each path that does not exist or may not be written.
    """
    if not mask.paths:
        return {field.name: getattr(message, field.name) for field, _ in message.ListFields() if field.name in writable}
    wrong = [path for path in mask.paths if path not in writable]
    if wrong:
        raise InvalidArgument.fields(
            [("update_mask", f"{path!r} is not a field that may be written") for path in wrong],
            reason=ErrorReason.INVALID_UPDATE_MASK,
        )
    return {path: getattr(message, path) for path in mask.paths}


def apply(
    entity: Any, message: Message, mask: FieldMask, writable: Collection[str], convert: Mapping[str, Any] | None = None
) -> None:
    """Sets the entity's attributes of the same names; `convert` has a function for a field that is stored otherwise."""
    for name, value in changes(message, mask, writable).items():
        setattr(entity, name, convert[name](value) if convert and name in convert else value)
