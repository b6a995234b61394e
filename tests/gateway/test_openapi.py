"""The document says what the protos say: every HTTP rule, who may call, and the limits of every field."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from google.protobuf import text_format
from google.protobuf.message_factory import GetMessageClass
from openapi_spec_validator import OpenAPIV31SpecValidator

from gateway.descriptors import Api, HttpRule, Rpc
from gateway.limits import limits, must_be_sent

VERBS = {"get", "put", "post", "patch", "delete"}
SHAPE = re.compile(r"\{.*?\}")


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, verbs in document["paths"].items():
        for verb in VERBS & set(verbs):
            yield verb, path, verbs[verb]


def bindings(api: Api) -> Iterator[tuple[Rpc, HttpRule]]:
    for rpc in api.exposed:
        yield from ((rpc, rule) for rule in rpc.rules)


def operation(document: dict[str, Any], rpc: Rpc) -> dict[str, Any]:
    wanted = f"{rpc.service.rpartition('.')[2]}_{rpc.name}"
    return next(found for _, _, found in operations(document) if found["operationId"] == wanted)


def references(part: Any) -> Iterator[str]:
    if isinstance(part, dict):
        if isinstance(part.get("$ref"), str):
            yield part["$ref"]
        for inner in part.values():
            yield from references(inner)
    elif isinstance(part, list):
        for inner in part:
            yield from references(inner)


def parameters(document: dict[str, Any], found: dict[str, Any]) -> list[dict[str, Any]]:
    shared = document["components"]["parameters"]
    return [shared[one["$ref"].rpartition("/")[2]] if "$ref" in one else one for one in found["parameters"]]


class TestDocument:
    @pytest.mark.slow
    def test_is_valid(self, document: dict[str, Any]) -> None:
        OpenAPIV31SpecValidator(document).validate()

    def test_has_every_http_rule_and_no_other(self, api: Api, document: dict[str, Any]) -> None:
        declared = sorted((rule.verb, SHAPE.sub("{}", rule.path)) for _, rule in bindings(api))
        assert sorted((verb, SHAPE.sub("{}", path)) for verb, path, _ in operations(document)) == declared
        assert declared

    def test_every_reference_leads_somewhere(self, document: dict[str, Any]) -> None:
        for reference in set(references(document)):
            found: Any = document
            for key in reference.removeprefix("#/").split("/"):
                found = found[key]
            assert found, reference

    def test_operation_ids_are_unique(self, document: dict[str, Any]) -> None:
        ids = [found["operationId"] for _, _, found in operations(document)]
        assert len(set(ids)) == len(ids)

    def test_the_variables_of_a_path_are_its_path_parameters(self, document: dict[str, Any]) -> None:
        for _, path, found in operations(document):
            named = [one["name"] for one in parameters(document, found) if one["in"] == "path"]
            assert sorted(named) == sorted(re.findall(r"\{(.+?)\}", path)), path

    def test_every_operation_field_and_value_is_described(self, document: dict[str, Any]) -> None:
        assert [path for _, path, found in operations(document) if not found["description"]] == []
        ours = {name: schema for name, schema in document["components"]["schemas"].items() if "google" not in name}
        for name, schema in ours.items():
            assert schema.get("description"), name
            assert all(schema.get("x-enumDescriptions", {"": "said"}).values()), name
            assert [field for field, one in schema.get("properties", {}).items() if not one.get("description")] == []


class TestAccess:
    def test_a_token_is_asked_for_unless_the_rpc_is_public(self, api: Api, document: dict[str, Any]) -> None:
        assert document["security"] == [{"bearer": []}]
        for rpc, _ in bindings(api):
            found = operation(document, rpc)
            assert (found.get("security") == []) == (rpc.access.kind == "public"), rpc.path

    def test_names_the_permission(self, api: Api, document: dict[str, Any]) -> None:
        for rpc, _ in bindings(api):
            assert operation(document, rpc).get("x-required-permission", "") == rpc.access.permission, rpc.path

    def test_no_internal_rpc_is_mentioned(self, api: Api, document: dict[str, Any]) -> None:
        ids = {found["operationId"] for _, _, found in operations(document)}
        for rpc in (rpc for service in api.services for rpc in service.rpcs if not rpc.exposed):
            assert f"{rpc.service.rpartition('.')[2]}_{rpc.name}" not in ids


class TestRequests:
    def test_changes_and_only_changes_take_an_idempotency_key(self, api: Api, document: dict[str, Any]) -> None:
        for rpc, _ in bindings(api):
            names = [one["name"] for one in parameters(document, operation(document, rpc))]
            assert ("idempotency-key" in names) == (not rpc.read), rpc.path

    def test_fields_are_in_the_path_or_the_query_or_the_body_never_twice(
        self, api: Api, document: dict[str, Any]
    ) -> None:
        for rpc, rule in bindings(api):
            found = operation(document, rpc)
            names = [one["name"] for one in parameters(document, found) if one["in"] != "header"]
            assert len(set(names)) == len(names), rpc.path
            assert ("requestBody" in found) == bool(rule.body), rpc.path
            if rule.body == "*":
                assert [one for one in parameters(document, found) if one["in"] == "query"] == []
                body = found["requestBody"]["content"]["application/json"]["schema"]
                assert not set(names) & set(body.get("properties", {})), rpc.path


class TestResponses:
    def test_every_operation_answers_errors_as_a_status_with_details(self, document: dict[str, Any]) -> None:
        for _, path, found in operations(document):
            assert found["responses"]["default"] == {"$ref": "#/components/responses/Error"}, path
        details = document["components"]["schemas"]["google.rpc.Status"]["properties"]["details"]["items"]
        kinds = set(details["discriminator"]["mapping"])
        for name in ("ErrorInfo", "BadRequest", "PreconditionFailure", "RetryInfo"):
            assert f"type.googleapis.com/google.rpc.{name}" in kinds

    def test_the_reason_of_an_error_is_one_of_ours(self, document: dict[str, Any]) -> None:
        schemas = document["components"]["schemas"]
        assert schemas["google.rpc.ErrorInfo"]["properties"]["reason"] == {
            "$ref": "#/components/schemas/type.v1.ErrorReason"
        }
        assert "STALE_ETAG" in schemas["type.v1.ErrorReason"]["enum"]

    def test_a_stream_is_an_array_or_events(self, api: Api, document: dict[str, Any]) -> None:
        for rpc, _ in bindings(api):
            content = operation(document, rpc)["responses"]["200"]["content"]
            if rpc.server_streaming and "application/json" in content:
                assert content["application/json"]["schema"]["type"] == "array", rpc.path
                assert "text/event-stream" in content, rpc.path


class TestLimits:
    def rules(self, api: Api, text: str) -> Any:
        made: Any = GetMessageClass(api.pool.FindMessageTypeByName("buf.validate.FieldRules"))()
        return text_format.Parse(text, made, descriptor_pool=api.pool)

    @pytest.mark.parametrize(
        ("rules", "schema"),
        [
            ("string { min_len: 1 max_len: 9 }", {"minLength": 1, "maxLength": 9}),
            ("string { len: 4 }", {"minLength": 4, "maxLength": 4}),
            ("string { uuid: true }", {"format": "uuid"}),
            ('string { pattern: "^[a-z]+$" }', {"pattern": "^[a-z]+$"}),
            ('string { prefix: "a." }', {"pattern": r"^a\."}),
            (r'string { not_contains: "\000" }', {"pattern": r"^[^\u0000]*$"}),
            (
                r'string { pattern: "^x" not_contains: "\000" }',
                {"allOf": [{"pattern": "^x"}, {"pattern": r"^[^\u0000]*$"}]},
            ),
            ('string { in: ["a", "b"] }', {"enum": ["a", "b"]}),
            ("bytes { max_len: 3 }", {"maxLength": 4}),
            ("int32 { gte: 0 lt: 5 }", {"minimum": 0, "exclusiveMaximum": 5}),
            ("int64 { gte: 1 }", {"x-minimum": "1"}),
            ("double { gt: 0 lte: 1 }", {"exclusiveMinimum": 0, "maximum": 1}),
            ("repeated { min_items: 1 max_items: 5 }", {"minItems": 1, "maxItems": 5}),
            ("repeated { unique: true }", {"uniqueItems": True}),
            ("repeated { items { string { max_len: 2 } } }", {"items": {"maxLength": 2}}),
            ("map { max_pairs: 3 }", {"maxProperties": 3}),
            ("map { values { string { min_len: 1 } } }", {"additionalProperties": {"minLength": 1}}),
            ("enum { not_in: [0] }", {"x-not-in": [0]}),
            ("duration { gte { seconds: 1 } }", {"x-minimum": "1s"}),
            ("required: true string { max_len: 3 }", {"minLength": 1, "maxLength": 3}),
            ("required: true repeated { max_items: 3 }", {"minItems": 1, "maxItems": 3}),
            ('cel { id: "a" message: "must be odd" expression: "this % 2 == 1" }', {"x-constraints": ["must be odd"]}),
            ("ignore: IGNORE_ALWAYS string { min_len: 1 }", {}),
        ],
    )
    def test_rules_become_keywords(self, api: Api, rules: str, schema: dict[str, Any]) -> None:
        assert limits(self.rules(api, rules)) == schema

    @pytest.mark.parametrize(
        ("rules", "has_presence", "must"),
        [
            ("required: true", True, True),
            ("string { uuid: true }", False, True),
            ("string { uuid: true }", True, False),
            ("string { max_len: 5 }", False, False),
            ("ignore: IGNORE_IF_ZERO_VALUE string { uuid: true }", False, False),
            ("enum { not_in: [0] }", False, True),
            ("enum { defined_only: true }", False, False),
            ("repeated { min_items: 1 }", False, True),
            ("int32 { gte: 1 }", False, True),
            ("int32 { gte: 0 }", False, False),
        ],
    )
    def test_a_field_whose_zero_value_is_refused_must_be_sent(
        self, api: Api, rules: str, has_presence: bool, must: bool
    ) -> None:
        assert must_be_sent(self.rules(api, rules), has_presence=has_presence) is must
