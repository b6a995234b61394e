"""What conditions may look at: the fields of resources that their messages mark, the caller, and the request."""

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.descriptor_pb2 import DescriptorProto

from kit.access.conditions import Attributes, converted, row_field
from kit.models import now
from kit.options import is_policy_attribute

if TYPE_CHECKING:
    from kit.access.snapshots import Snapshot

# Fields that every message calls by another name than its table does.
COLUMNS = {"create_time": "created_at", "update_time": "updated_at"}
ANY_KIND = "any"


class Attribute(NamedTuple):
    """`kind` is one of `kit.access.conditions.kind_of`, or `any`; `many` says that it has several values; `values`
    are the only ones that a text may have, () when it may have any; `prefix` is what stands before them in the API."""

    kind: str
    many: bool = False
    values: tuple[str, ...] = ()
    prefix: str = ""


# `caller_attributes` gives their values.
OF_CALLER: Mapping[str, Attribute] = {
    "user.id": Attribute("id"),
    "user.tenant_id": Attribute("id"),
    "user.role": Attribute("text", many=True),
    "user.level": Attribute("text"),
    "request.time": Attribute("time"),
}
_FREE = re.compile(r"user\.attributes\.[a-z][a-z0-9_]{0,63}")
_NUMBERS = {
    FieldDescriptor.CPPTYPE_INT32,
    FieldDescriptor.CPPTYPE_INT64,
    FieldDescriptor.CPPTYPE_UINT32,
    FieldDescriptor.CPPTYPE_UINT64,
}
_MESSAGES = {"google.protobuf.Timestamp": "time", "google.protobuf.Duration": "duration"}


def find_attribute(path: str, resource: str, fields: Mapping[str, Attribute]) -> Attribute | None:
    """What the path names in a condition on the resource, whose marked fields are `fields`; None for nothing."""
    if field := row_field(path, resource):
        return fields.get(field)
    return Attribute(ANY_KIND) if _FREE.fullmatch(path) else OF_CALLER.get(path)


def caller_attributes(snapshot: "Snapshot", known: Mapping[str, Any] | None = None) -> Attributes:
    """What conditions may know of the caller and of the request."""

    def value(path: str) -> Any:
        if known and path in known:
            return known[path]
        if path.startswith("user.attributes."):
            return snapshot.attributes.get(path.removeprefix("user.attributes."))
        match path:
            case "user.id":
                return snapshot.user_id
            case "user.tenant_id":
                return snapshot.tenant_id
            case "user.role":
                return snapshot.roles
            case "user.level":
                return snapshot.level or None
            case "request.time":
                return now()
        return None

    return value


def canonical(path: str, resource: str) -> str:
    """The path of an attribute as conditions on the resource have it, however it is written."""
    field = row_field(path, resource)
    return f"{resource}.{field}" if field and resource != "user" else path


def read_value(value: Any, attribute: Attribute, kind: str) -> Any:
    """One value of the attribute as decisions have it, of its JSON form; ValueError says what is wrong with it."""
    found = converted(value, kind)
    if found is None:
        raise ValueError(f"not a value of kind {attribute.kind}")
    if attribute.values:
        # Clients know the value by its name in the API.
        found = found.removeprefix(attribute.prefix).lower() if found.startswith(attribute.prefix) else found
        if found not in attribute.values:
            raise ValueError(f"none of {', '.join(attribute.values)}")
    return found


def attributes_of(message: Descriptor) -> dict[str, Attribute]:
    """The fields that the resource's message marks as `policy_attribute`. The message may be of any pool."""
    declared = DescriptorProto()
    message.CopyToProto(declared)
    marked = {field.name for field in declared.field if is_policy_attribute(field)}
    return {field.name: _attribute(field) for field in message.fields if field.name in marked}


def _attribute(field: FieldDescriptor) -> Attribute:
    many = bool(field.is_repeated)
    if field.enum_type is not None:
        return _enumerated(field.enum_type, many)
    if field.message_type is not None:
        return Attribute(_MESSAGES[field.message_type.full_name], many)
    if field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        is_id = field.name.endswith(("_id", "_ids")) or field.name == "id"
        return Attribute("id" if is_id else "text", many)
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        return Attribute("bool", many)
    if field.cpp_type in _NUMBERS:
        return Attribute("number", many)
    raise TypeError(f"{field.full_name}: SQL and Python compare such numbers differently, so policies may not")


def _enumerated(enum: EnumDescriptor, many: bool) -> Attribute:
    """Tables hold `published` for `STORY_STATUS_PUBLISHED`."""
    prefix = enum.values_by_number[0].name.removesuffix("UNSPECIFIED")
    values = tuple(value.name.removeprefix(prefix).lower() for value in enum.values if value.number)
    return Attribute("text", many, values, prefix)
