"""Reads conditions as people write them, JSON, against the attributes that there are."""

from collections.abc import Mapping
from typing import Any

from kit.access.attributes import ANY_KIND, Attribute, canonical, find_attribute, read_value
from kit.access.conditions import (
    OPERATORS,
    All,
    Always,
    AnyOf,
    Compare,
    Condition,
    ConditionError,
    Not,
    Ref,
    kind_of,
    row_field,
)

MOST_COMPARISONS = 100
MOST_VALUES = 500
LONGEST_TEXT = 1000
DEEPEST = 8
ORDERED = {"text", "number", "time", "duration", ANY_KIND}
ORDERINGS = {"gt", "gte", "lt", "lte"}
MEMBERSHIPS = {"in", "nin"}
KEYS = frozenset({"field", "operator", "value", "logic"})
# A tuple, as anything may be looked for in it, a list too.
LOGIC = ("and", "or")


def read(document: Any, resource: str, fields: Mapping[str, Attribute]) -> Condition:
    """The condition that the document says, for policies on the resource, whose marked fields are `fields`.

    Raises ConditionError, which names the place, for whatever has not the documented form, names an attribute that
    does not exist, or compares what cannot be compared.
    """
    reader = _Reader(resource, fields)
    return reader.group(document, "conditions", 0)


class _Reader:
    def __init__(self, resource: str, fields: Mapping[str, Attribute]) -> None:
        self._resource, self._fields = resource, fields
        self._leaves = 0

    def group(self, document: Any, at: str, depth: int) -> Condition:
        if depth > DEEPEST:
            raise ConditionError(f"{at}: nested deeper than {DEEPEST} levels")
        if isinstance(document, list):
            return self._joined(document, at, depth)
        if not isinstance(document, Mapping):
            raise ConditionError(f"{at}: neither a list of conditions nor an object")
        if "field" in document:
            return self._comparison(document, at)
        if len(document) != 1:
            raise ConditionError(f"{at}: say one of all, any, not, always, or a field with an operator and a value")
        ((word, inside),) = document.items()
        match word:
            case "all":
                return All(self._items(inside, f"{at}.all", depth))
            case "any":
                return AnyOf(self._items(inside, f"{at}.any", depth))
            case "not":
                return Not(self.group(inside, f"{at}.not", depth + 1))
            case "always" if inside is True:
                self._count(at)
                return Always()
        raise ConditionError(f"{at}: {str(word)[:64]!r} is none of all, any, not, always (which is true)")

    def _count(self, at: str) -> None:
        """One more leaf: what is joined one by one grows as deep as there are leaves, and not all of them compare."""
        self._leaves += 1
        if self._leaves > MOST_COMPARISONS:
            raise ConditionError(f"{at}: more than {MOST_COMPARISONS} comparisons")

    def _items(self, items: Any, at: str, depth: int) -> tuple[Condition, ...]:
        if not isinstance(items, list) or not items:
            raise ConditionError(f'{at}: not a list of at least one condition; what always holds is {{"always": true}}')
        return tuple(self.group(item, f"{at}[{index}]", depth + 1) for index, item in enumerate(items))

    def _joined(self, items: list[Any], at: str, depth: int) -> Condition:
        """Each item joined by its `logic` to what stands before it, from left to right."""
        found = self._items(items, at, depth)
        joined = found[0]
        for index, item in enumerate(found[1:], 1):
            logic = items[index].get("logic", "and") if isinstance(items[index], Mapping) else "and"
            joined = All((joined, item)) if logic == "and" else AnyOf((joined, item))
        return joined

    def _comparison(self, document: Mapping[str, Any], at: str) -> Compare:
        self._count(at)
        if unknown := document.keys() - KEYS:
            raise ConditionError(f"{at}: {min(unknown)[:64]!r} is none of field, operator, value, logic")
        name = document.get("operator")
        left, field = self._attribute(document["field"], f"{at}.field")
        if name not in OPERATORS:
            raise ConditionError(f"{at}.operator: none of {', '.join(OPERATORS)}")
        self._check_operator(field, left, name, f"{at}.operator")
        if document.get("logic", "and") not in LOGIC:
            raise ConditionError(f"{at}.logic: neither and nor or")
        if "value" not in document:
            raise ConditionError(f"{at}.value: missing")
        return Compare(field, name, self._value(document["value"], left, name, f"{at}.value"))

    def _attribute(self, path: Any, at: str) -> tuple[Attribute, str]:
        """The attribute, and the path that it has everywhere, however it is written."""
        found = find_attribute(path, self._resource, self._fields) if isinstance(path, str) else None
        if found is None:
            raise ConditionError(f"{at}: no attribute that a policy on {self._resource} may use")
        return found, canonical(path, self._resource)

    def _check_operator(self, field: str, left: Attribute, name: str, at: str) -> None:
        if left.many and (name in ORDERINGS or (row_field(field, self._resource) and name != "contains")):
            raise ConditionError(f"{at}: {field} has several values: ask what it contains")
        if name in ORDERINGS and left.kind not in ORDERED:
            raise ConditionError(f"{at}: {field} has no order")
        if name == "contains" and not left.many and left.kind not in {"text", ANY_KIND}:
            raise ConditionError(f"{at}: {field} is neither a text nor a list")

    def _value(self, value: Any, left: Attribute, name: str, at: str) -> Any:
        if isinstance(value, Mapping):
            if value.keys() == {"ref"}:
                return self._ref(value["ref"], left, name, f"{at}.ref")
            if value.keys() != {"literal"}:
                raise ConditionError(f'{at}: an object here is {{"ref": path}} or {{"literal": value}}')
            value = value["literal"]
        elif isinstance(value, str) and find_attribute(value, self._resource, self._fields):
            return self._ref(value, left, name, at)
        if name not in MEMBERSHIPS:
            return self._literal(value, left, at)
        if not isinstance(value, list) or not 0 < len(value) <= MOST_VALUES:
            raise ConditionError(f"{at}: {name} takes a list of 1 to {MOST_VALUES} values")
        return tuple(self._literal(one, left, f"{at}[{index}]") for index, one in enumerate(value))

    def _ref(self, path: Any, left: Attribute, name: str, at: str) -> Ref:
        right, path = self._attribute(path, at)
        if right.many != (name in MEMBERSHIPS):
            raise ConditionError(f"{at}: {name} takes " + ("several values" if name in MEMBERSHIPS else "one value"))
        if right.kind != left.kind and ANY_KIND not in {left.kind, right.kind}:
            raise ConditionError(f"{at}: {path} is of kind {right.kind}, not {left.kind}")
        return Ref(path)

    def _literal(self, value: Any, left: Attribute, at: str) -> Any:
        if isinstance(value, str) and (len(value) > LONGEST_TEXT or "\0" in value or not _encodes(value)):
            raise ConditionError(f"{at}: not a text of at most {LONGEST_TEXT} characters without NUL")
        if isinstance(value, float) and value.is_integer():
            # JSON has one kind of number, and protobuf reads all of them as floats.
            value = int(value)
        try:
            return read_value(value, left, kind_of(value) if left.kind == ANY_KIND else left.kind)
        except ValueError as error:
            raise ConditionError(f"{at}: {error}") from None


def _encodes(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True

