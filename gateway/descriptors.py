"""The platform's RPCs as the descriptor set declares them: who may call, HTTP rules, comments, options."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from kit.settings import SERVICES

DESCRIPTORS = Path(__file__).parent.parent / "gen" / "descriptors.binpb"
READ_PREFIXES = ("Get", "List", "BatchGet", "Search")
REQUIRES = "storyloom.type.v1.requires"
HTTP = "google.api.http"
KEY_SET = "/.well-known/jwks.json"
HTTP_BODY = "google.api.HttpBody"


@dataclass(frozen=True)
class Access:
    """Who may call an RPC: `public`, `authenticated`, `internal`, or `permission` with the permission's name."""

    kind: str
    permission: str = ""


@dataclass(frozen=True)
class HttpRule:
    """One binding of an RPC to a verb and path; `body` is empty, `*` or the name of a request field."""

    verb: str
    path: str
    body: str
    response_body: str


@dataclass(frozen=True)
class Rpc:
    service: str
    name: str
    comment: str
    access: Access
    rules: tuple[HttpRule, ...]
    request: Descriptor
    response: Descriptor
    client_streaming: bool
    server_streaming: bool

    @property
    def path(self) -> str:
        return f"/{self.service}/{self.name}"

    @property
    def streaming(self) -> bool:
        return self.client_streaming or self.server_streaming

    @property
    def read(self) -> bool:
        """Whether repeating the call is harmless."""
        return self.name.startswith(READ_PREFIXES) or (bool(self.rules) and all(r.verb == "get" for r in self.rules))

    @property
    def takes_file(self) -> bool:
        """Whether the body of its requests over HTTP is a file, which comes in pieces."""
        bodies = {rule.body for rule in self.rules} - {"", "*"}
        kinds = [self.request.fields_by_name[body].message_type for body in bodies]
        return self.client_streaming and any(kind and kind.full_name == HTTP_BODY for kind in kinds)

    @property
    def serves_file(self) -> bool:
        """Whether its answer over HTTP is a file, which comes in pieces."""
        return self.server_streaming and self.response.full_name == HTTP_BODY

    @property
    def exposed(self) -> bool:
        """Whether the gateway lets clients reach it."""
        return self.access.kind != "internal"


@dataclass(frozen=True)
class GrpcService:
    name: str
    comment: str
    rpcs: tuple[Rpc, ...]

    @property
    def cluster(self) -> str:
        """The platform service that implements it, or empty: the event inbox is everybody's and is not routed."""
        owner = self.name.split(".")[1]
        return owner if owner in SERVICES else ""

    @property
    def exposed(self) -> tuple[Rpc, ...]:
        return tuple(rpc for rpc in self.rpcs if rpc.exposed)


class Api:
    """Everything a descriptor set says, with the options decoded by the set's own extensions.

    The pool is private to the instance, so that neither the generated stubs nor their import order matter.
    """

    def __init__(self, descriptor_set: bytes) -> None:
        plain = descriptor_pb2.FileDescriptorSet.FromString(descriptor_set)
        self.pool = DescriptorPool()
        for file in plain.file:
            self.pool.AddSerializedFile(file.SerializeToString())
        decoded: Any = GetMessageClass(self.pool.FindMessageTypeByName("google.protobuf.FileDescriptorSet"))
        self._files = decoded.FromString(descriptor_set).file
        self._comments: dict[str, str] = {}
        self._options: dict[str, Message] = {}
        for file in self._files:
            comments = {tuple(where.path): where.leading_comments for where in file.source_code_info.location}
            for path, name, element in _elements(file):
                self._comments[name] = _text(comments.get(path, ""))
                self._options[name] = element.options
        self._plain = plain

    @classmethod
    def load(cls, path: Path = DESCRIPTORS) -> "Api":
        return cls(path.read_bytes())

    def comment(self, name: str) -> str:
        return self._comments.get(name, "")

    def extension(self, element: str, name: str) -> Any:
        """The value of an option of a message, field, oneof, enum, service or method; None when it is not set."""
        found = [value for field, value in self._options[element].ListFields() if field.full_name == name]
        return found[0] if found else None

    @cached_property
    def services(self) -> tuple[GrpcService, ...]:
        """Every gRPC service of the platform, in the order of their names."""
        names = sorted(
            f"{file.package}.{service.name}"
            for file in self._files
            for service in file.service
            if file.package.startswith("storyloom.")
        )
        return tuple(self._service(name) for name in names)

    @property
    def exposed(self) -> tuple[Rpc, ...]:
        return tuple(rpc for service in self.services if service.cluster for rpc in service.exposed)

    def slim(self) -> bytes:
        """The descriptor set without comments: a third of the memory in Envoy, which keeps one per transcoder."""
        return _without_comments(self._plain.file)

    @property
    def keys(self) -> Rpc:
        """The RPC that publishes the keys of access tokens."""
        (found,) = (rpc for rpc in self.exposed for rule in rpc.rules if rule.path == KEY_SET)
        return found

    def only(self, rpc: Rpc) -> bytes:
        """A descriptor set for one RPC without fields in its request: of no more files than it needs."""
        name, answer = rpc.request.file.name, rpc.response.file.name
        if rpc.request.fields or answer == name:
            raise ValueError(f"{rpc.path} needs more than its own files")
        files = {file.name: file for file in self._plain.file}
        needed, wanted = {name}, [answer, "google/api/annotations.proto"]
        own = descriptor_pb2.FileDescriptorProto(name=name, package=files[name].package, dependency=wanted)
        own.syntax = "proto3"
        own.message_type.add(name=rpc.request.name)
        (service,) = (one for one in files[name].service if rpc.service == f"{own.package}.{one.name}")
        own.service.add(name=service.name).method.extend(one for one in service.method if one.name == rpc.name)
        while wanted:
            found = wanted.pop()
            needed.add(found)
            wanted += files[found].dependency
        # In the order of the whole, in which no file stands before one that it needs.
        kept = [own if file.name == name else file for file in self._plain.file if file.name in needed]
        return _without_comments(kept)

    def _service(self, name: str) -> GrpcService:
        descriptor = self.pool.FindServiceByName(name)
        return GrpcService(name, self.comment(name), tuple(self._rpc(name, method) for method in descriptor.methods))

    def _rpc(self, service: str, method: Any) -> Rpc:
        name = f"{service}.{method.name}"
        access, rules = _access(name, self.extension(name, REQUIRES)), _rules(name, self.extension(name, HTTP))
        if access.kind == "internal" and rules:
            raise ValueError(f"{name} is internal and must have no HTTP rule")
        return Rpc(
            service=service,
            name=method.name,
            comment=self.comment(name),
            access=access,
            rules=rules,
            request=method.input_type,
            response=method.output_type,
            client_streaming=method.client_streaming,
            server_streaming=method.server_streaming,
        )


def _without_comments(files: Iterable[descriptor_pb2.FileDescriptorProto]) -> bytes:
    slim = descriptor_pb2.FileDescriptorSet(file=files)
    for file in slim.file:
        file.ClearField("source_code_info")
    return slim.SerializeToString(deterministic=True)


def is_map(field: FieldDescriptor) -> bool:
    return field.message_type is not None and field.message_type.GetOptions().map_entry


def message_of(field: FieldDescriptor) -> Descriptor:
    """The type of a field that is known to be a message."""
    if field.message_type is None:
        raise TypeError(f"{field.full_name} is not a message")
    return field.message_type


def value_name(enum: EnumDescriptor, value: str) -> str:
    """The name under which the comment of an enum value is found."""
    return f"{enum.full_name}.{value}"


def _access(name: str, requires: Any) -> Access:
    if requires is None:
        raise ValueError(f"{name} does not say who may call it")
    kinds = [kind for kind in ("public", "authenticated", "internal") if getattr(requires, kind)]
    if requires.resource and requires.action:
        kinds.append("permission")
    if len(kinds) != 1:
        raise ValueError(f"{name} must declare exactly one form of access, not {kinds}")
    permission = f"{requires.resource}:{requires.action}" if kinds == ["permission"] else ""
    return Access(kinds[0], permission)


def _rules(name: str, http: Any) -> tuple[HttpRule, ...]:
    if http is None:
        return ()
    rules = []
    for rule in (http, *http.additional_bindings):
        verb = rule.WhichOneof("pattern")
        if verb is None or verb == "custom":
            raise ValueError(f"{name}: the HTTP rule has no standard verb")
        rules.append(HttpRule(verb, getattr(rule, verb), rule.body, rule.response_body))
    return tuple(rules)


def _text(comment: str) -> str:
    """A comment as paragraphs separated by blank lines, each on one line; lists keep their lines."""
    lines = [line.strip() for line in comment.strip().splitlines()]
    text = ""
    for line in lines:
        joins = line and text and not text.endswith("\n") and not line.startswith(("- ", "* "))
        text += f" {line}" if joins else (f"\n{line}" if text else line)
    return text


def _elements(file: Any) -> Iterator[tuple[tuple[int, ...], str, Any]]:
    """Path in source_code_info, full name and descriptor of every commented element of a file."""
    package = file.package
    for at, message in enumerate(file.message_type):
        yield from _message_elements((4, at), f"{package}.{message.name}", message)
    for at, enum in enumerate(file.enum_type):
        yield from _enum_elements((5, at), f"{package}.{enum.name}", enum)
    for at, service in enumerate(file.service):
        name = f"{package}.{service.name}"
        yield (6, at), name, service
        yield from (((6, at, 2, nth), f"{name}.{method.name}", method) for nth, method in enumerate(service.method))


def _message_elements(path: tuple[int, ...], name: str, message: Any) -> Iterator[tuple[tuple[int, ...], str, Any]]:
    yield path, name, message
    yield from (((*path, 2, at), f"{name}.{field.name}", field) for at, field in enumerate(message.field))
    yield from (((*path, 8, at), f"{name}.{oneof.name}", oneof) for at, oneof in enumerate(message.oneof_decl))
    for at, nested in enumerate(message.nested_type):
        yield from _message_elements((*path, 3, at), f"{name}.{nested.name}", nested)
    for at, enum in enumerate(message.enum_type):
        yield from _enum_elements((*path, 4, at), f"{name}.{enum.name}", enum)


def _enum_elements(path: tuple[int, ...], name: str, enum: Any) -> Iterator[tuple[tuple[int, ...], str, Any]]:
    yield path, name, enum
    yield from (((*path, 2, at), f"{name}.{value.name}", value) for at, value in enumerate(enum.value))
