"""The conventions of the contracts, read off the descriptors."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor, MethodDescriptor

from kit.options import is_read, requires
from tests.contract import api
from tests.contract.tree import nothing

# Whatever number it is, it is a good one.
ANY_NUMBER = {"storyloom.content.v1.WeaveStoryRequest.seed", "storyloom.event.v1.Event.sequence"}
# Their answer is a closed set of the platform's own making, not rows.
UNPAGED = {"AccessService.ListMyPermissions", "RoleService.ListPermissions"}
# Ids of calls and traces, which clients may make up.
NOT_OURS = {"request_id", "trace_id"}
# Set by standards that the platform does not make.
GIVEN_PATHS = {"/.well-known/jwks.json"}
INTEGERS = {
    FieldDescriptor.CPPTYPE_INT32,
    FieldDescriptor.CPPTYPE_INT64,
    FieldDescriptor.CPPTYPE_UINT32,
    FieldDescriptor.CPPTYPE_UINT64,
}
PATH = re.compile(r"/v1(/([a-z][a-zA-Z0-9]*|\{[a-z][a-z0-9_.]*\}))+(:[a-z][a-zA-Z0-9]*)?")
VARIABLE = re.compile(r"\{([a-z0-9_.]+)\}")
VERBS = {"Get": "get", "List": "get", "Update": "patch", "Delete": "delete"}
RELIED_ON = """
POST /v1/sessions
POST /v1/sessions:refresh
GET /v1/me
GET /v1/courses
POST /v1/courses
GET /v1/units
POST /v1/units
GET /v1/lessons
POST /v1/lessons
GET /v1/stories
POST /v1/stories
GET /v1/stories/{id}
POST /v1/stories/{id}:weave
POST /v1/stories/{id}:publish
POST /v1/approvals
POST /v1/approvals/{id}:approve
POST /v1/approvals/{id}:reject
POST /v1/enrollments
POST /v1/learningSessions
POST /v1/learningSessions/{id}:end
PATCH /v1/progress/{progress.lesson_id}
POST /v1/quizzes/{quiz_id}/attempts
POST /v1/attempts/{id}:submit
GET /v1/auditLogs
"""
RPCS = [pytest.param(rpc, id=api.short(rpc)) for rpc in api.rpcs()]


def bindings() -> Iterator[tuple[MethodDescriptor, str, str, str]]:
    for rpc in api.rpcs():
        for verb, path, body in api.http(rpc):
            yield rpc, verb, path, body


def messages() -> Iterator[Descriptor]:
    for file in api.proto_files():
        yield from file.message_types_by_name.values()


def enums() -> Iterator[EnumDescriptor]:
    for file in api.proto_files():
        yield from file.enum_types_by_name.values()
    for message in messages():
        yield from message.enum_types


def request_fields() -> Iterator[tuple[MethodDescriptor, str, FieldDescriptor]]:
    for rpc in api.rpcs():
        for path, field in api.input_fields(rpc.input_type):
            yield rpc, path, field


def broken(check: Any) -> set[str]:
    """What a check of one field says about all fields of all requests."""
    return {f"{field.full_name}: {check(field)}" for _, _, field in request_fields() if check(field)}


class TestComments:
    def test_say_of_every_element_what_it_means(self) -> None:
        missing = []
        for service in api.services():
            missing += [service.full_name, *(rpc.full_name for rpc in service.methods)]
        for message in messages():
            missing += [message.full_name, *(field.full_name for field in message.fields)]
        for enum in enums():
            missing += [enum.full_name, *(f"{enum.full_name}.{value.name}" for value in enum.values)]
        nothing(name for name in missing if len(api.api().comment(name)) < 5)

    def test_are_sentences(self) -> None:
        named = [rpc.full_name for rpc in api.rpcs()] + [
            field.full_name for message in messages() for field in message.fields
        ]
        texts = {name: api.api().comment(name).strip() for name in named}
        nothing(f"{name}: {text!r}" for name, text in texts.items() if text and text[-1] not in ".:|")


class TestAccess:
    @pytest.mark.parametrize("rpc", RPCS)
    def test_is_declared_in_exactly_one_form(self, rpc: MethodDescriptor) -> None:
        who = requires(rpc)
        assert bool(who.resource) == bool(who.action)
        assert sum((bool(who.resource), who.public, who.authenticated, who.internal)) == 1

    @pytest.mark.parametrize("rpc", RPCS)
    def test_what_clients_may_call_has_a_path_and_what_services_call_has_none(self, rpc: MethodDescriptor) -> None:
        # JSON over HTTP has no stream of requests whose answers come before its end.
        streams_both_ways = rpc.client_streaming and rpc.server_streaming
        assert bool(api.http(rpc)) != (api.is_internal(rpc) or streams_both_ways)

    def test_only_getting_in_and_verifying_take_no_token(self) -> None:
        public = {api.short(rpc) for rpc in api.rpcs() if requires(rpc).public}
        sessions = {f"SessionService.{name}" for name in ("CreateSession", "RefreshSession", "GetJwks")}
        # Their token is in the link.
        links = {"AudioFileService.PutAudioFile", "AudioFileService.GetAudioFile"}
        assert public == sessions | links | {"InvitationService.AcceptInvitation"}

    def test_no_request_chooses_its_tenant(self) -> None:
        nothing(
            f"{api.short(rpc)}: {path}"
            for rpc, path, _ in request_fields()
            if path.endswith("tenant_id") and not api.is_internal(rpc)
        )


class TestPaths:
    def test_are_camel_case_below_the_version_with_verbs_after_a_colon(self) -> None:
        nothing({path for _, _, path, _ in bindings() if not PATH.fullmatch(path) and path not in GIVEN_PATHS})

    def test_belong_to_one_rpc_each(self) -> None:
        seen: dict[tuple[str, str], str] = {}
        for rpc, verb, path, _ in bindings():
            key = verb, VARIABLE.sub("{}", path)
            assert seen.setdefault(key, api.short(rpc)) == api.short(rpc), key

    def test_take_their_variables_from_the_request(self) -> None:
        for rpc, _, path, _ in bindings():
            inputs = {name for name, _ in api.input_fields(rpc.input_type)}
            assert set(VARIABLE.findall(path)) <= inputs, api.short(rpc)

    def test_standard_methods_have_the_standard_verb(self) -> None:
        for rpc, verb, path, body in bindings():
            name = next((name for name in VERBS if rpc.name.startswith(name)), "")
            if ":" in path and verb == "get":
                # What it takes besides ids is little, and repeating it harmless.
                assert not body, api.short(rpc)
                assert is_read(api.path_of(rpc)), api.short(rpc)
            elif ":" in path:
                # A custom verb reads or writes more than a resource, so its arguments go into the body.
                assert (verb, body) == ("post", "*"), api.short(rpc)
            elif name:
                assert verb == VERBS[name], api.short(rpc)
                assert bool(body) == (name == "Update"), api.short(rpc)

    def test_updates_take_the_resource_as_body_and_a_mask(self) -> None:
        for rpc, verb, path, body in bindings():
            if verb == "patch":
                fields = rpc.input_type.fields_by_name
                assert fields[body].message_type is rpc.output_type, api.short(rpc)
                assert fields["update_mask"].message_type.full_name == "google.protobuf.FieldMask", api.short(rpc)
                assert VARIABLE.findall(path)[0].startswith(f"{body}."), api.short(rpc)

    @pytest.mark.parametrize("line", RELIED_ON.split("\n")[1:-1])
    def test_clients_find_what_they_rely_on(self, line: str) -> None:
        verb, path = line.split()
        assert (verb.lower(), path) in {(verb, path) for _, verb, path, _ in bindings()}


class TestValidation:
    def test_every_value_has_its_limits(self) -> None:
        nothing(broken(unlimited))

    def test_texts_are_bounded_and_have_no_nul(self) -> None:
        nothing(broken(unsafe_text))

    def test_enums_take_only_what_is_defined(self) -> None:
        nothing(broken(open_enum))

    def test_collections_are_bounded(self) -> None:
        nothing(broken(endless))

    def test_creating_and_updating_demand_the_resource(self) -> None:
        for rpc in api.rpcs():
            if rpc.name.startswith(("Create", "Update")) and rpc.input_type.fields:
                first = rpc.input_type.fields[0]
                if api.is_ours(first.message_type) and not first.is_repeated:
                    assert api.rules(first).required, first.full_name


class TestLists:
    @pytest.mark.parametrize("rpc", [one for one in RPCS if one.values[0].name.startswith("List")])  # type: ignore[union-attr]
    def test_come_in_pages(self, rpc: MethodDescriptor) -> None:
        if api.short(rpc) in UNPAGED:
            return
        request, response = rpc.input_type.fields_by_name, rpc.output_type.fields_by_name
        assert api.rules(request["page_size"]).int32.gte == 0
        assert api.rules(request["page_size"]).int32.HasField("gte")
        assert request["page_token"].cpp_type == FieldDescriptor.CPPTYPE_STRING
        assert response["next_page_token"].cpp_type == FieldDescriptor.CPPTYPE_STRING
        assert [field.is_repeated for field in response.values()].count(True) == 1

    def test_orders_are_chosen_from_a_list(self) -> None:
        orders = [field for _, _, field in request_fields() if field.name == "order_by"]
        assert orders
        assert all("" in getattr(api.rules(field).string, "in") for field in orders)


class TestResources:
    def test_that_change_have_an_etag(self) -> None:
        read = {rpc.output_type.full_name: rpc.output_type for rpc in api.rpcs() if rpc.name.startswith("Get")}
        changed = {
            rpc.output_type.full_name
            for rpc in api.rpcs()
            if api.http(rpc) and not rpc.name.startswith(("Get", "List", "Create"))
        }
        assert len(read.keys() & changed) > 10
        nothing(name for name in read.keys() & changed if "etag" not in read[name].fields_by_name)

    def test_are_not_addressed_by_anything_but_a_uuid(self) -> None:
        nothing(
            field.full_name
            for _, _, field in request_fields()
            if re.fullmatch(r"ids?|\w+_ids?", field.name) and field.name not in NOT_OURS and not names_uuids(field)
        )

    def test_enums_begin_with_the_unspecified_value(self) -> None:
        for enum in enums():
            prefix = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", enum.name).upper()
            assert enum.values_by_number[0].name == f"{prefix}_UNSPECIFIED", enum.full_name

    def test_files_are_versioned_packages(self) -> None:
        for file in api.proto_files():
            assert re.fullmatch(r"storyloom\.[a-z]+\.v1", file.package), file.name
            assert file.name.startswith(file.package.replace(".", "/") + "/"), file.name


def unlimited(field: FieldDescriptor) -> str:
    """Well-known messages as much as scalars; of the platform's own messages the fields are looked at one by one."""
    limited = field.cpp_type in INTEGERS or field.cpp_type in {
        FieldDescriptor.CPPTYPE_STRING,
        FieldDescriptor.CPPTYPE_DOUBLE,
        FieldDescriptor.CPPTYPE_FLOAT,
    }
    well_known = field.message_type is not None and not api.is_ours(field.message_type)
    needed = limited or well_known or field.is_repeated
    return "no rule" if needed and not api.rules(field) and field.full_name not in ANY_NUMBER else ""


def text_rules(field: FieldDescriptor) -> Any:
    found = api.rules(field)
    return found.repeated.items.string if field.is_repeated else found.string


def unsafe_text(field: FieldDescriptor) -> str:
    if field.cpp_type != FieldDescriptor.CPPTYPE_STRING or api.rules(field) is None:
        return ""
    if field.type == FieldDescriptor.TYPE_BYTES:
        return "" if api.rules(field).bytes.max_len else "has no greatest length"
    text = text_rules(field)
    if text.uuid or getattr(text, "in"):
        return ""
    if not (text.pattern or text.email):
        return "takes any characters"
    if text.pattern and any(re.search(text.pattern, sample) for sample in ("\0", "a\0a", "\0\0\0")):
        return "takes NUL"
    return "" if text.max_len or not re.search(r"[^\\][*+]", text.pattern) else "has no greatest length"


def names_uuids(field: FieldDescriptor) -> bool:
    return bool(api.rules(field)) and bool(text_rules(field).uuid)


def open_enum(field: FieldDescriptor) -> str:
    if field.enum_type is None:
        return ""
    found = api.rules(field)
    if found and (found.repeated.items.enum if field.is_repeated else found.enum).defined_only:
        return ""
    return "takes undefined numbers"


def endless(field: FieldDescriptor) -> str:
    if not field.is_repeated:
        return ""
    found = api.rules(field)
    return "" if found and (found.repeated.max_items or found.map.max_pairs) else "takes any number of items"
