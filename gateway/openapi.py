"""The OpenAPI 3.1 document of the JSON interface, made from the protos: their comments, HTTP rules and limits."""

import argparse
import json
import re
from collections import Counter
from pathlib import Path

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from gateway.descriptors import DESCRIPTORS, HTTP_BODY, Api, HttpRule, Rpc, is_map, message_of
from gateway.limits import Schema
from gateway.schemas import PLAIN, Schemas, below, component

ABOUT = """JSON over HTTP for every RPC that has an HTTP rule; native gRPC and gRPC-Web are served on the same port.

Names are camelCase. 64-bit integers are strings. A field that is left out has its zero value.
The gateway refuses unknown paths, verbs and query parameters; it drops unknown fields of a JSON body silently.
Errors are `google.rpc.Status`: branch on the `reason` of its `ErrorInfo`, never on the message.
Streams answer with a JSON array that grows; send `accept: text/event-stream` for one event per message.
Every response carries `x-request-id`; quote it when you report a fault."""
VARIABLE = re.compile(r"\{([a-z0-9_.]+)(?:=(\*\*?))?\}")
STATUS, ERROR_DETAILS, REASONS = "google.rpc.Status", "google/rpc/error_details.proto", "storyloom.type.v1.ErrorReason"
KEY_PARAMETER = {
    "name": "idempotency-key",
    "in": "header",
    "required": False,
    "description": "A key of your choice, new for each change you mean to make. A call repeated with the same key and "
    "request changes nothing and gets the first answer; with another request it is refused.",
    "schema": {"type": "string", "minLength": 1},
}


class Document:
    def __init__(self, api: Api) -> None:
        self._api = api
        self._schemas = Schemas(api)
        self._paths: dict[str, Schema] = {}
        # Templates that differ in the names of their variables only are one path in OpenAPI: the first names stay.
        self._templates: dict[str, str] = {}

    def make(self) -> Schema:
        for rpc in self._api.exposed:
            for nth, rule in enumerate(rpc.rules):
                self._add(rpc, rule, nth)
        error = self._error()
        return {
            "openapi": "3.1.0",
            "info": {"title": "Storyloom", "version": "v1", "description": ABOUT},
            "servers": [{"url": "/"}],
            "security": [{"bearer": []}],
            "tags": self._tags(),
            "paths": dict(sorted(self._paths.items())),
            "components": {
                "schemas": dict(sorted(self._schemas.found.items())),
                "responses": {"Error": error},
                "parameters": {"IdempotencyKey": KEY_PARAMETER},
                "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}},
            },
        }

    def _add(self, rpc: Rpc, rule: HttpRule, nth: int) -> None:
        bound = [name for name, _ in VARIABLE.findall(rule.path)]
        path, names = self._path(rpc, rule, bound)
        body = _body_field(rpc, rule)
        parameters: list[Schema] = [
            {"name": name, "in": "path", "required": True, **self._described(_field(rpc.request, field))}
            for name, field in zip(names, bound, strict=True)
        ]
        if rule.body != "*":
            parameters += self._query(rpc.request, taken={*bound, rule.body}, prefix="", inside=())
        if not rpc.read:
            parameters.append({"$ref": "#/components/parameters/IdempotencyKey"})
        operation: Schema = {
            "operationId": f"{_short(rpc.service)}_{rpc.name}" + (f"_{nth + 1}" if nth else ""),
            "tags": [_short(rpc.service)],
            "summary": re.split(r"(?<=[.;:])\s", rpc.comment, maxsplit=1)[0],
            "description": rpc.comment,
            "parameters": parameters,
            **({"requestBody": self._request_body(rpc, body, bound)} if rule.body else {}),
            "responses": {"200": self._response(rpc, rule), "default": {"$ref": "#/components/responses/Error"}},
            **_access(rpc),
        }
        verbs = self._paths.setdefault(path, {})
        if rule.verb in verbs:
            raise ValueError(f"{rpc.path}: {rule.verb} {path} belongs to {verbs[rule.verb]['operationId']} already")
        verbs[rule.verb] = operation

    def _path(self, rpc: Rpc, rule: HttpRule, bound: list[str]) -> tuple[str, list[str]]:
        last = [field.rpartition(".")[2] for field in bound]
        unique = bound if len(set(last)) < len(last) else last
        names = iter([_camel(name) for name in unique])
        path = VARIABLE.sub(lambda _: f"{{{next(names)}}}", rule.path)
        shape = VARIABLE.sub("{}", rule.path)
        if shape.count("{") != len(bound) or shape.count("{") != rule.path.count("{"):
            raise ValueError(f"{rpc.path}: {rule.path} has a variable of a form that is not supported")
        path = self._templates.setdefault(shape, path)
        return path, re.findall(r"\{(.+?)\}", path)

    def _query(self, message: Descriptor, *, taken: set[str], prefix: str, inside: tuple[str, ...]) -> list[Schema]:
        """Parameters for the fields that neither path nor body carries; fields of messages are joined by dots."""
        found: list[Schema] = []
        for field in message.fields:
            if prefix + field.name in taken or is_map(field):
                continue
            kind = field.message_type
            if kind is None or kind.full_name in PLAIN:
                found.append(self._query_parameter(field, prefix))
            elif not field.is_repeated and kind.full_name not in inside and not kind.full_name.startswith("google."):
                nested = (*inside, message.full_name, kind.full_name)
                found += self._query(kind, taken=taken, prefix=f"{prefix}{field.name}.", inside=nested)
        return found

    def _query_parameter(self, field: FieldDescriptor, prefix: str) -> Schema:
        name = ".".join(_camel(part) for part in prefix.split(".") if part) + ("." if prefix else "") + field.json_name
        repeated = {"style": "form", "explode": True} if field.is_repeated else {}
        required = not prefix and self._schemas.must_be_sent(field)
        return {"name": name, "in": "query", "required": required, **repeated, **self._described(field)}

    def _described(self, field: FieldDescriptor) -> Schema:
        schema = self._schemas.field(field)
        schema.pop("readOnly", None)
        text = schema.pop("description", "")
        return {"description": text, "schema": schema} if text else {"schema": schema}

    def _request_body(self, rpc: Rpc, body: FieldDescriptor | None, bound: list[str]) -> Schema:
        if body is None:
            schema = self._schemas.object(rpc.request, without=frozenset(bound))
        elif body.message_type is not None and body.message_type.full_name == HTTP_BODY:
            return {"required": True, "content": {"*/*": {"schema": {}}}}
        else:
            schema = self._schemas.field(body, without=below(body.name, bound))
        if rpc.client_streaming:
            schema = {"type": "array", "items": schema}
        return {"required": True, "content": {"application/json": {"schema": schema}}}

    def _response(self, rpc: Rpc, rule: HttpRule) -> Schema:
        field = rpc.response.fields_by_name[rule.response_body] if rule.response_body else None
        answered = rpc.response if field is None else field.message_type
        if answered is not None and answered.full_name == HTTP_BODY:
            return {"description": "The bytes, with their own content type.", "content": {"*/*": {"schema": {}}}}
        schema = self._schemas.message(rpc.response) if field is None else self._schemas.field(field)
        text = self._api.comment(rpc.response.full_name) or "Done."
        if not rpc.server_streaming:
            return {"description": text, "content": {"application/json": {"schema": schema}}}
        events = {"type": "string", "description": "Server-sent events; the data of each is one message as JSON."}
        content = {"application/json": {"schema": {"type": "array", "items": schema}}}
        return {"description": text, "content": {**content, "text/event-stream": {"schema": events}}}

    def _error(self) -> Schema:
        """google.rpc.Status with every kind of detail that a service may attach."""
        types = {}
        for message in self._api.pool.FindFileByName(ERROR_DETAILS).message_types_by_name.values():
            url, name = f"type.googleapis.com/{message.full_name}", component(message.full_name)
            schema = self._schemas.object(message, without=frozenset())
            schema["properties"] = {"@type": {"const": url}, **schema["properties"]}
            self._schemas.found[name] = {**schema, "required": ["@type"]}
            types[url] = f"#/components/schemas/{name}"
        reasons = self._schemas.enum(self._api.pool.FindEnumTypeByName(REASONS))
        info = self._schemas.found["google.rpc.ErrorInfo"]["properties"]
        info["reason"], info["domain"] = reasons, {"const": "storyloom"}
        self._schemas.message(self._api.pool.FindMessageTypeByName(STATUS))
        status = self._schemas.found[STATUS]
        status["properties"]["details"]["items"] = {
            "oneOf": [{"$ref": reference} for reference in types.values()],
            "discriminator": {"propertyName": "@type", "mapping": types},
        }
        content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{STATUS}"}}}
        return {"description": "The call failed; `details` say why.", "content": content}

    def _tags(self) -> list[Schema]:
        shown = [service for service in self._api.services if any(rpc.rules for rpc in service.exposed)]
        twice = [name for name, count in Counter(_short(service.name) for service in shown).items() if count > 1]
        if twice:
            raise ValueError(f"two services are called {twice}: their operations could not be told apart")
        return [
            {"name": _short(service.name), "description": service.comment, "x-service": service.name}
            for service in shown
        ]


def _access(rpc: Rpc) -> Schema:
    if rpc.access.kind == "public":
        return {"security": []}
    return {"x-required-permission": rpc.access.permission} if rpc.access.permission else {}


def _body_field(rpc: Rpc, rule: HttpRule) -> FieldDescriptor | None:
    return None if rule.body in ("", "*") else rpc.request.fields_by_name[rule.body]


def _field(message: Descriptor, path: str) -> FieldDescriptor:
    first, _, rest = path.partition(".")
    field = message.fields_by_name[first]
    return _field(message_of(field), rest) if rest else field


def _short(service: str) -> str:
    return service.rpartition(".")[2]


def _camel(name: str) -> str:
    return re.sub(r"_([a-z0-9])", lambda match: match[1].upper(), name)


def text(api: Api) -> str:
    return json.dumps(Document(api).make(), indent=1, ensure_ascii=False) + "\n"


def main() -> None:
    arguments = argparse.ArgumentParser(prog="gateway.openapi", description=__doc__)
    arguments.add_argument("--out", type=Path, required=True, help="file to write the document into")
    arguments.add_argument("--descriptors", type=Path, default=DESCRIPTORS, help="descriptor set of the protos")
    chosen = arguments.parse_args()
    chosen.out.write_text(text(Api.load(chosen.descriptors)))


if __name__ == "__main__":
    main()
