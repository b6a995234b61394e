"""Who may call what: the catalogue of the descriptors against the roles, the built-in rules and the servicers."""

import inspect
from importlib import import_module
from typing import Any

import pytest
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor

from kit.access import Access, All, AnyOf, Compare, Not, Rule, Snapshot
from kit.ids import NIL
from kit.settings import SERVICES
from services.callers import ALLOWED
from services.identity.catalogue import APPROVABLE, catalogue, is_known
from services.identity.policies import ADMINISTRATOR, PLATFORM_ROLES, TENANT_ROLES
from tests.contract import api
from tests.contract.tree import nothing

# What teachers, students and auditors are not to do. Whoever adds an RPC decides: a role, a rule, or a line here.
ADMINISTRATION = {
    *(("user", action) for action in ("create", "update", "delete", "undelete")),
    *(("user", action) for action in ("deactivate", "reactivate", "set_roles")),
    ("user", "import"),
    *(("role", action) for action in ("create", "read", "update", "delete")),
    *(("user_permission", action) for action in ("create", "read", "list", "delete")),
    *(("invitation", action) for action in ("create", "read", "list", "revoke")),
    *(("tenant", action) for action in ("create", "read", "list", "update", "suspend", "resume", "purge", "operate")),
    *(("resource_policy", action) for action in ("create", "read", "list", "update", "activate", "delete", "undelete")),
    *(("resource_policy", action) for action in ("test", "explain")),
    ("user", "purge"),
    ("tenant_activity", "read"),
    *(("erasure", action) for action in ("read", "list")),
    ("course", "export"),
    *((kind, "purge") for kind in ("course", "unit", "lesson", "story", "vocabulary", "audio", "exercise", "question")),
    *(("legal_hold", action) for action in ("create", "read", "list", "release")),
}
OURS = [pytest.param(one, id=one.name) for one in api.services() if api.owner(one.methods[0]) in SERVICES]


def rules_of(service: str) -> tuple[Rule, ...]:
    return tuple(import_module(f"services.{service}.policies").RULES)


def declared() -> dict[tuple[str, str], list[MethodDescriptor]]:
    """The RPCs of each permission."""
    found: dict[tuple[str, str], list[MethodDescriptor]] = {}
    for rpc in api.rpcs():
        if pair := api.permission(rpc):
            found.setdefault(pair, []).append(rpc)
    return found


def fields_of(condition: Any) -> set[str]:
    match condition:
        case Compare(field, _, value):
            return {field} | ({value.path} if hasattr(value, "path") else set())
        case All(items) | AnyOf(items):
            return set().union(*(fields_of(item) for item in items))
        case Not(item):
            return fields_of(item)
        case _:
            return set()


class TestCatalogue:
    def test_is_what_the_rpcs_declare(self) -> None:
        assert catalogue() == declared().keys() | {(resource, "approve") for resource in APPROVABLE}

    def test_names_resources_by_their_message(self) -> None:
        resources = {resource for resource, _ in declared()}
        messages = {api.snake(name) for file in api.proto_files() for name in file.message_types_by_name}
        assert resources <= messages

    def test_a_resource_belongs_to_one_service(self) -> None:
        owners: dict[str, set[str]] = {}
        for (resource, _), rpcs in declared().items():
            owners.setdefault(resource, set()).update(api.owner(rpc) for rpc in rpcs)
        assert {resource: names for resource, names in owners.items() if len(names) > 1} == {}


class TestDefaultRoles:
    @pytest.mark.parametrize("slug", [*TENANT_ROLES, *PLATFORM_ROLES])
    def test_hold_only_permissions_that_exist(self, slug: str) -> None:
        role = (TENANT_ROLES | PLATFORM_ROLES)[slug]
        nothing(f"{resource}:{action}" for resource, action in role.pairs if not is_known((resource, action)))

    def test_and_built_in_rules_open_every_rpc_that_is_not_administration(self) -> None:
        ordinary = [TENANT_ROLES[slug].pairs for slug in TENANT_ROLES if slug != ADMINISTRATOR]
        opened = {pair for pair in declared() if any(holds(pairs, pair) for pairs in ordinary)}
        for service in SERVICES:
            opened |= {(rule.resource, action) for rule in rules_of(service) for action in rule.actions}
        assert declared().keys() - opened - ADMINISTRATION == set()

    def test_administration_is_only_what_exists(self) -> None:
        assert ADMINISTRATION - declared().keys() == set()


class TestBuiltInRules:
    @pytest.mark.parametrize("service", SERVICES)
    def test_are_about_permissions_of_their_own_service(self, service: str) -> None:
        own = {pair for pair, rpcs in declared().items() if service in {api.owner(rpc) for rpc in rpcs}}
        nothing(
            f"{rule.name}: {rule.resource}:{action}"
            for rule in rules_of(service)
            for action in rule.actions
            if (rule.resource, action) not in own
        )

    @pytest.mark.parametrize("service", SERVICES)
    def test_have_names_of_their_own(self, service: str) -> None:
        names = [rule.name for rule in rules_of(service)]
        assert len(set(names)) == len(names)

    @pytest.mark.parametrize("service", SERVICES)
    def test_always_depend_on_something(self, service: str) -> None:
        for rule in rules_of(service):
            assert fields_of(rule.condition), rule.name

    def test_are_found_by_the_engine(self) -> None:
        rule = rules_of("content")[0]
        nobody = Snapshot(tenant_id=NIL, user_id=NIL, roles=frozenset(), permissions=frozenset())
        assert Access([rule]).could(nobody, rule.resource, min(rule.actions))
        assert not Access([rule]).could(nobody, rule.resource, "no_such_action")


class TestServicers:
    @pytest.mark.parametrize("service", OURS)
    def test_have_every_rpc_and_nothing_else_to_call(self, service: ServiceDescriptor) -> None:
        module = import_module(f"services.{api.owner(service.methods[0])}.{api.stem(service)}")
        servicer = getattr(module, service.name)
        methods = dict(inspect.getmembers(servicer, inspect.isfunction))
        public = {name for name in methods if not name.startswith("_")}
        assert public == {rpc.name for rpc in service.methods}
        for rpc in service.methods:
            streams = inspect.isasyncgenfunction(methods[rpc.name])
            assert streams == rpc.server_streaming, rpc.name
            assert streams or inspect.iscoroutinefunction(methods[rpc.name]), rpc.name

    def test_callers_are_named_for_exactly_the_services_with_internal_rpcs(self) -> None:
        internal = {rpc.containing_service.full_name for rpc in api.rpcs() if api.is_internal(rpc)}
        assert set(ALLOWED) == internal
        assert set().union(*ALLOWED.values()) <= set(SERVICES)


def holds(pairs: frozenset[tuple[str, str]], pair: tuple[str, str]) -> bool:
    resource, action = pair
    return bool(pairs & {(resource, action), (resource, "manage"), ("all", action), ("all", "manage")})
