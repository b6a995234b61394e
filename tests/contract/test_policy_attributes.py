"""What policies may look at is there, of the kind they take it for: in every table, and wherever somebody decides."""

from collections.abc import Iterator
from importlib import import_module
from typing import Any

import pytest
from google.protobuf.descriptor import MethodDescriptor

from kit.access import EXEMPT, Access
from kit.access.attributes import COLUMNS, attributes_of
from kit.access.sql import side_of
from kit.decisions import DecisionService
from kit.ids import new_id
from kit.settings import SERVICES
from services.identity.catalogue import ONLY_APPROVED, owner_of, resources
from tests.contract import api, requests
from tests.contract.answers import answer
from tests.contract.population import Population, fresh
from tests.contract.tree import nothing
from tests.stack import Person, Stack


def models() -> dict[str, Any]:
    """The model of each kind of resource, by its name."""
    found: dict[str, Any] = {}
    for service in SERVICES:
        for model in import_module(f"services.{service}.models").Base.__subclasses__():
            if name := getattr(model, "__resource__", ""):
                assert name not in found, f"two models are {name}"
                found[name] = model
    return found


NAMES = sorted(resources().keys() - ONLY_APPROVED)


class TestCatalogue:
    def test_has_a_model_for_every_kind_of_resource(self) -> None:
        assert models().keys() == set(NAMES)

    @pytest.mark.parametrize("name", NAMES)
    def test_knows_whose_it_is_and_what_policies_may_look_at(self, name: str) -> None:
        model = models()[name]
        assert f"{model.__module__}.".startswith(f"services.{owner_of(name)}.models.")
        if message := getattr(model, "__message__", None):
            assert resources()[name].attributes == attributes_of(message)


class TestTables:
    @pytest.mark.parametrize("name", NAMES)
    def test_have_every_attribute_in_a_column_of_its_kind(self, name: str) -> None:
        model, wrong = models()[name], []
        for field, attribute in resources()[name].attributes.items():
            column = getattr(model, COLUMNS.get(field, field), None)
            if column is None:
                wrong.append(f"{name}.{field} has no column")
                continue
            side = side_of(column)
            if (side.kind, side.many) != (attribute.kind, attribute.many):
                wrong.append(f"{name}.{field} is {attribute}, its column {side.kind}, many: {side.many}")
        nothing(wrong)


class TestServices:
    def test_apply_policies_about_every_kind_of_resource_that_they_can_be_about(self, stack: Stack) -> None:
        servicers = [one for service in stack.services.values() for one in service._servicers]
        applied = [name for one in servicers if isinstance(one, DecisionService) for name in one.fields]
        assert sorted(applied) == sorted({*NAMES} - {EXEMPT})


NOBODY = str(new_id())
# Decided about as a whole: policies that look at entries see nothing of the log's checkpoints.
AS_A_WHOLE = {("audit_log", "NoneType")}
# What ends a tenant, or a row that others need.
DESTRUCTIVE = ("Archive", "Deactivate", "Delete", "Purge", "Withdraw", "Suspend")


def in_order() -> list[MethodDescriptor]:
    """The RPCs that ask for a permission, those that destroy something last."""
    rpcs = [rpc for rpc in api.rpcs() if api.permission(rpc) and api.http(rpc)]
    return sorted(rpcs, key=lambda rpc: rpc.name.startswith(DESTRUCTIVE))


def callers(population: Population) -> Iterator[Person]:
    yield from (population.ours.student, population.ours.teacher, population.ours.admin)


class TestDecisions:
    @pytest.mark.slow
    async def test_see_every_attribute_of_what_they_are_about(
        self, stack: Stack, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What a row lacks counts as missing, and a policy that looks at it would not be applied."""
        lacking, decided, decide = set(), set(), Access.allows

        def allows(self: Access, snapshot: Any, resource: str, action: str, entity: Any, known: Any = None) -> bool:
            decided.add(resource)
            for field in resources()[resource].attributes:
                if not hasattr(entity, COLUMNS.get(field, field)):
                    lacking.add((resource, type(entity).__name__, action, field))
            return decide(self, snapshot, resource, action, entity, known)

        monkeypatch.setattr(Access, "allows", allows)
        population = await fresh(stack)
        ids = population.ours.ids
        for rpc in in_order():
            for person in callers(population):
                request = requests.make(rpc, sorted(requests.minimal(rpc)), lambda kind: ids.get(kind, [NOBODY])[0])
                await answer(person, rpc, request)
        nothing(" ".join(one) for one in lacking if one[:2] not in AS_A_WHOLE)
        assert decided >= {*NAMES}
