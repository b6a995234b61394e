"""The API as the descriptor set declares it, with its options and comments, for the checks that walk it."""

from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from google.api import annotations_pb2, field_behavior_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor, FileDescriptor, MethodDescriptor, ServiceDescriptor

from gateway.descriptors import Api
from kit.options import requires
from tests.contract.tree import ROOT

GEN = ROOT / "gen"
validate: Any = import_module("buf.validate.validate_pb2")


@cache
def api() -> Api:
    """Comments and HTTP rules."""
    return Api.load()


@cache
def proto_files() -> tuple[FileDescriptor, ...]:
    """The platform's own files, from the generated stubs."""
    names = sorted(path.relative_to(GEN).with_suffix("") for path in GEN.glob("storyloom/**/*_pb2.py"))
    return tuple(import_module(".".join(name.parts)).DESCRIPTOR for name in names)


@cache
def services() -> tuple[ServiceDescriptor, ...]:
    return tuple(service for file in proto_files() for service in file.services_by_name.values())


def rpcs() -> list[MethodDescriptor]:
    return [rpc for service in services() for rpc in service.methods]


def owner(rpc: MethodDescriptor) -> str:
    """The platform service that implements it; `event` for the inbox, which several do."""
    return str(rpc.containing_service.full_name.split(".")[1])


def stem(service: ServiceDescriptor) -> str:
    return Path(service.file.name).stem


def path_of(rpc: MethodDescriptor) -> str:
    return f"/{rpc.containing_service.full_name}/{rpc.name}"


def short(rpc: MethodDescriptor) -> str:
    return f"{rpc.containing_service.name}.{rpc.name}"


def permission(rpc: MethodDescriptor) -> tuple[str, str] | None:
    who = requires(rpc)
    return (who.resource, who.action) if who.resource else None


def is_internal(rpc: MethodDescriptor) -> bool:
    return requires(rpc).internal


def http(rpc: MethodDescriptor) -> list[tuple[str, str, str]]:
    """(verb, path, body) of each HTTP binding."""
    extension: Any = annotations_pb2.http
    if not rpc.GetOptions().HasExtension(extension):
        return []
    rule = rpc.GetOptions().Extensions[extension]
    return [
        (one.WhichOneof("pattern"), getattr(one, one.WhichOneof("pattern")), one.body)
        for one in (rule, *rule.additional_bindings)
    ]


def rules(field: FieldDescriptor) -> Any:
    """The field's `buf.validate` rules, or None."""
    options = field.GetOptions()
    return options.Extensions[validate.field] if options.HasExtension(validate.field) else None


def behaviours(field: FieldDescriptor) -> set[str]:
    extension: Any = field_behavior_pb2.field_behavior
    return {field_behavior_pb2.FieldBehavior.Name(one) for one in field.GetOptions().Extensions[extension]}


def is_output(field: FieldDescriptor) -> bool:
    return "OUTPUT_ONLY" in behaviours(field)


def is_ours(message: Descriptor | None) -> bool:
    return message is not None and message.file.package.startswith("storyloom.")


def input_fields(message: Descriptor, path: str = "") -> Iterator[tuple[str, FieldDescriptor]]:
    """The fields that clients may set, with their dotted paths, into the platform's own messages."""
    for field in message.fields:
        if is_output(field):
            continue
        here = f"{path}.{field.name}" if path else field.name
        yield here, field
        if is_ours(field.message_type):
            yield from input_fields(field.message_type, here)


def snake(name: str) -> str:
    """`LearningSession` as `learning_session`."""
    return "".join(f"_{char.lower()}" if char.isupper() else char for char in name).lstrip("_")
