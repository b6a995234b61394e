"""Messages and enums as JSON schemas, in the JSON form that the gateway's transcoder reads and prints."""

from collections.abc import Iterable
from typing import Any

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor

from gateway.descriptors import Api, is_map, message_of, value_name
from gateway.limits import Schema, limits, may_be_zero, must_be_sent

FIELD_RULES, MESSAGE_RULES, ONEOF_RULES = "buf.validate.field", "buf.validate.message", "buf.validate.oneof"
BEHAVIOR = "google.api.field_behavior"
OUTPUT_ONLY, INPUT_ONLY = 3, 4
INT64: Schema = {"type": "string", "format": "int64", "pattern": "^-?[0-9]+$"}
UINT64: Schema = {"type": "string", "format": "uint64", "pattern": "^[0-9]+$"}
INT32: Schema = {"type": "integer", "format": "int32", "minimum": -(2**31), "maximum": 2**31 - 1}
UINT32: Schema = {"type": "integer", "format": "uint32", "minimum": 0, "maximum": 2**32 - 1}
SCALARS: dict[int, Schema] = {
    FieldDescriptor.TYPE_DOUBLE: {"type": "number", "format": "double"},
    FieldDescriptor.TYPE_FLOAT: {"type": "number", "format": "float"},
    FieldDescriptor.TYPE_BOOL: {"type": "boolean"},
    FieldDescriptor.TYPE_STRING: {"type": "string"},
    FieldDescriptor.TYPE_BYTES: {"type": "string", "contentEncoding": "base64"},
    **dict.fromkeys((FieldDescriptor.TYPE_INT64, FieldDescriptor.TYPE_SINT64, FieldDescriptor.TYPE_SFIXED64), INT64),
    **dict.fromkeys((FieldDescriptor.TYPE_UINT64, FieldDescriptor.TYPE_FIXED64), UINT64),
    **dict.fromkeys((FieldDescriptor.TYPE_INT32, FieldDescriptor.TYPE_SINT32, FieldDescriptor.TYPE_SFIXED32), INT32),
    **dict.fromkeys((FieldDescriptor.TYPE_UINT32, FieldDescriptor.TYPE_FIXED32), UINT32),
}
WELL_KNOWN: dict[str, Schema] = {
    "google.protobuf.Timestamp": {"type": "string", "format": "date-time"},
    "google.protobuf.Duration": {"type": "string", "pattern": r"^-?[0-9]+(\.[0-9]{1,9})?s$", "examples": ["3.5s"]},
    "google.protobuf.FieldMask": {"type": "string", "examples": ["title,levelName"]},
    "google.protobuf.Struct": {"type": "object", "additionalProperties": True},
    "google.protobuf.Value": {},
    "google.protobuf.ListValue": {"type": "array", "items": {}},
    "google.protobuf.Empty": {"type": "object"},
    "google.protobuf.Any": {
        "type": "object",
        "properties": {"@type": {"type": "string"}},
        "required": ["@type"],
        "additionalProperties": True,
    },
    "google.protobuf.BoolValue": {"type": ["boolean", "null"]},
    "google.protobuf.StringValue": {"type": ["string", "null"]},
    "google.protobuf.BytesValue": {"type": ["string", "null"], "contentEncoding": "base64"},
    "google.protobuf.Int32Value": {**INT32, "type": ["integer", "null"]},
    "google.protobuf.UInt32Value": {**UINT32, "type": ["integer", "null"]},
    "google.protobuf.Int64Value": {**INT64, "type": ["string", "null"]},
    "google.protobuf.UInt64Value": {**UINT64, "type": ["string", "null"]},
    "google.protobuf.FloatValue": {"type": ["number", "null"], "format": "float"},
    "google.protobuf.DoubleValue": {"type": ["number", "null"], "format": "double"},
}
# What may be a query parameter although it is a message: the ones whose JSON form is a plain value.
PLAIN = {
    name
    for name, schema in WELL_KNOWN.items()
    if schema.get("type") == "string" or (isinstance(schema.get("type"), list) and name.startswith("google.protobuf."))
}


class Schemas:
    """Collects the schemas that a document refers to, each message and enum once, under `#/components/schemas`."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self.found: dict[str, Schema] = {}

    def message(self, message: Descriptor) -> Schema:
        if message.full_name in WELL_KNOWN:
            return dict(WELL_KNOWN[message.full_name])
        name = component(message.full_name)
        if name not in self.found:
            self.found[name] = {}  # Reserves the name: a message may contain itself.
            self.found[name] = self.object(message, without=frozenset())
        return _reference(name)

    def enum(self, enum: EnumDescriptor) -> Schema:
        name = component(enum.full_name)
        values = [value.name for value in enum.values]
        said = {value: self._api.comment(value_name(enum, value)) for value in values}
        self.found[name] = _described(self._api.comment(enum.full_name), {"type": "string", "enum": values})
        self.found[name]["x-enumDescriptions"] = said
        return _reference(name)

    def object(self, message: Descriptor, *, without: frozenset[str]) -> Schema:
        """The message as an object, less the field paths that come from elsewhere, such as the URL."""
        properties: Schema = {}
        required = []
        for field in message.fields:
            if field.name in without:
                continue
            deeper = below(field.name, without)
            properties[field.json_name] = self.field(field, without=deeper)
            if must_be_sent(self._rules(field), has_presence=field.has_presence) and not deeper:
                required.append(field.json_name)
        schema: Schema = _described(self._api.comment(message.full_name), {"type": "object", "properties": properties})
        return schema | ({"required": required} if required else {}) | self._together(message, without)

    def field(self, field: FieldDescriptor, *, without: frozenset[str] = frozenset()) -> Schema:
        rules = self._rules(field)
        found = limits(rules)
        if is_map(field):
            key, value = (message_of(field).fields_by_name[name] for name in ("key", "value"))
            shape: Schema = {"type": "object"}
            shape["additionalProperties"] = _narrow(self._value(value), found.pop("additionalProperties", {}), value)
            names = _narrow({}, found.pop("propertyNames", {}), key)
            shape |= ({"propertyNames": names} if names else {}) | found
        elif field.is_repeated:
            items = _narrow(self._value(field), found.pop("items", {}), field)
            shape = {"type": "array", "items": items, **found}
        else:
            inner = self.object(message_of(field), without=without) if without else self._value(field)
            shape = _narrow(inner, found, field)
            if may_be_zero(rules) and field.type == FieldDescriptor.TYPE_STRING:
                shape = {"anyOf": [{"type": "string", "maxLength": 0}, shape]}
        return _described(self._api.comment(field.full_name), shape | self._direction(field))

    def must_be_sent(self, field: FieldDescriptor) -> bool:
        return must_be_sent(self._rules(field), has_presence=field.has_presence)

    def _value(self, field: FieldDescriptor) -> Schema:
        if field.message_type is not None:
            return self.message(field.message_type)
        if field.enum_type is not None:
            if field.enum_type.full_name == "google.protobuf.NullValue":
                return {"type": "null"}
            return self.enum(field.enum_type)
        return dict(SCALARS[field.type])

    def _rules(self, field: FieldDescriptor) -> Any:
        return self._api.extension(field.full_name, FIELD_RULES)

    def _direction(self, field: FieldDescriptor) -> Schema:
        behavior = self._api.extension(field.full_name, BEHAVIOR) or ()
        if OUTPUT_ONLY in behavior:
            return {"readOnly": True}
        return {"writeOnly": True} if INPUT_ONLY in behavior else {}

    def _together(self, message: Descriptor, without: frozenset[str]) -> Schema:
        """At most, or exactly, one field of each oneof; rules over the whole message in words."""
        groups = [
            (
                [field.json_name for field in oneof.fields if field.name not in without],
                bool(getattr(self._api.extension(f"{message.full_name}.{oneof.name}", ONEOF_RULES), "required", False)),
            )
            for oneof in message.oneofs
            if len(oneof.fields) > 1
        ]
        rules = self._api.extension(message.full_name, MESSAGE_RULES)
        groups += [
            ([message.fields_by_name[name].json_name for name in group.fields], group.required)
            for group in getattr(rules, "oneof", ())
        ]
        found: Schema = {"allOf": [_one_of(names, needed=needed) for names, needed in groups]} if groups else {}
        said = [rule.message or rule.expression for rule in getattr(rules, "cel", ())]
        return found | ({"x-constraints": said} if said else {})


def below(field: str, paths: Iterable[str]) -> frozenset[str]:
    """The rest of those field paths that lead into a field."""
    return frozenset(path.removeprefix(f"{field}.") for path in paths if path.startswith(f"{field}."))


def component(full_name: str) -> str:
    return full_name.removeprefix("storyloom.")


def _reference(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _described(comment: str, schema: Schema) -> Schema:
    return {"description": comment, **schema} if comment else schema


def _one_of(names: list[str], *, needed: bool) -> Schema:
    each: list[Schema] = [{"required": [name]} for name in names]
    return {"oneOf": each if needed else [*each, {"not": {"anyOf": each}}]}


def _narrow(schema: Schema, found: Schema, field: FieldDescriptor) -> Schema:
    """The schema of a value with its limits; those of an enum are numbers and become names here."""
    found = dict(found)
    wanted, refused = found.pop("x-in", None), found.pop("x-not-in", None)
    if field.enum_type is not None:
        names = {value.number: value.name for value in field.enum_type.values}
        if wanted:
            found["enum"] = [names[number] for number in wanted if number in names]
        if refused:
            found["not"] = {"enum": [names[number] for number in refused if number in names]}
    if found.get("minimum") is not None and schema.get("minimum") is not None:
        found["minimum"] = max(found["minimum"], schema["minimum"])
    return {**schema, **found}
