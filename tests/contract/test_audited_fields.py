"""What entries of the log say of rows: every column that is public and no secret, the personal ones marked as such."""

from importlib import import_module
from typing import Any

import pytest

from kit import audit
from kit.models import Resource
from kit.options import is_input_only, is_sensitive
from kit.settings import SERVICES
from tests.contract.tree import nothing

# Values that open doors. Texts that merely have such a name would be left out of the log as well.
NEVER = ("password_hash", "token_hash", "sealed_private_key", "token", "refresh_token", "wrapped_key")


def models() -> list[Any]:
    return [
        mapper.class_
        for name in SERVICES
        for mapper in import_module(f"services.{name}.models").Base.registry.mappers
        if issubclass(mapper.class_, Resource) and f"{mapper.class_.__module__}.".startswith(f"services.{name}.models.")
    ]


ALL = [pytest.param(model, id=model.__resource__) for model in sorted(models(), key=lambda one: one.__resource__)]


@pytest.mark.parametrize("model", ALL)
class TestColumns:
    def test_that_entries_have_hold_no_secret(self, model: Any) -> None:
        told = audit._told(model)
        assert told
        fields = model.__message__.fields_by_name
        nothing(name for name in told if name in NEVER or (name in fields and is_input_only(fields[name])))

    def test_that_are_sensitive_are_marked_so(self, model: Any) -> None:
        fields = model.__message__.fields_by_name
        wanted = {name for name in audit._told(model) if name in fields and is_sensitive(fields[name])}
        assert audit._sensitive(model) == wanted

    def test_that_are_sensitive_are_a_users(self, model: Any) -> None:
        """Or they would be sealed with the key of whoever touched them last."""
        if audit._sensitive(model):
            assert audit._subject_column(model)


class TestMarks:
    def test_are_on_what_is_personal(self) -> None:
        found = {model.__resource__: audit._sensitive(model) for model in models() if audit._sensitive(model)}
        assert found["user"] == {"email", "display_name", "attributes"}
        assert "comment" in found["approval"]
