"""What policies may look at is there, of the kind they take it for, in every table and every decision."""

from importlib import import_module
from typing import Any

import pytest

from kit.access.attributes import COLUMNS, attributes_of
from kit.access.sql import side_of
from kit.settings import SERVICES
from services.identity.catalogue import APPROVABLE, owner_of, resources
from tests.contract.tree import nothing


def models() -> dict[str, Any]:
    """The model of each kind of resource, by its name."""
    found: dict[str, Any] = {}
    for service in SERVICES:
        for model in import_module(f"services.{service}.models").Base.__subclasses__():
            if name := getattr(model, "__resource__", ""):
                assert name not in found, f"two models are {name}"
                found[name] = model
    return found


NAMES = sorted(resources().keys() - APPROVABLE.keys())


class TestCatalogue:
    def test_has_a_model_for_every_kind_of_resource(self) -> None:
        assert models().keys() == set(NAMES)

    @pytest.mark.parametrize("name", NAMES)
    def test_knows_whose_it_is_and_what_policies_may_look_at(self, name: str) -> None:
        model = models()[name]
        assert model.__module__ == f"services.{owner_of(name)}.models"
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
