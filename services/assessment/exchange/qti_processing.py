"""What the response processing of an item says, as far as questions can say it: which responses are graded by their
correct values, which by a mapping, which value by value, and what is shown for which answer."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from services.assessment.exchange.documents import Element
from services.assessment.exchange.qti_names import template_of

SCORE = "SCORE"
MATCH_CORRECT, MAP_RESPONSE = "match_correct", "map_response"
COMPARISONS = frozenset(["qti-match", "qti-string-match", "qti-equal", "qti-member"])
BRANCHES = ("qti-response-if", "qti-response-else-if", "qti-response-else")


@dataclass(frozen=True, slots=True)
class Value:
    """One answer and what it earns; `tolerance` is what `qti-equal` says, and empty for exact."""

    value: str
    score: str
    mode: str = "exact"
    tolerance: str = ""
    case_sensitive: bool = True

    @property
    def key(self) -> str:
        """What tells it from other values that are compared with."""
        return self.value if self.mode == "exact" else f"{self.value} {self.mode} {self.tolerance}"


@dataclass(slots=True)
class Processing:
    """Of responses by their identifiers. `together` are those that earn something only if all of them are right.
    `shown` says for which response and value an outcome gets an identifier, `shown_as` which outcome gets the value of
    which response. `understood` is whether anything was said of the score, and only that."""

    matched: dict[str, str] = field(default_factory=dict)
    mapped: set[str] = field(default_factory=set)
    values: dict[str, list[Value]] = field(default_factory=dict)
    together: bool = False
    shown: dict[tuple[str, str], list[tuple[str, str]]] = field(default_factory=dict)
    shown_as: dict[str, str] = field(default_factory=dict)
    set_outcomes: set[str] = field(default_factory=set)


def read_processing(element: Element | None, responses: list[str]) -> Processing:
    """What it says; what is not understood of it is not taken."""
    found = Processing()
    if element is None:
        return found
    named = template_of(element.attributes.get("template", ""))
    if named in {MATCH_CORRECT, MAP_RESPONSE} and not element.elements:
        element.get("template")
        # The templates are about the response of this name; there may be one only, of another.
        about = "RESPONSE" if "RESPONSE" in responses else responses[0] if responses else ""
        if named == MATCH_CORRECT:
            found.matched[about] = "1"
        else:
            found.mapped.add(about)
    for one in element.elements:
        if one.name == "qti-set-outcome-value" and _set(one, found):
            element.mark(one.take())
        elif one.name == "qti-response-condition":
            element.mark(one)
            _condition(one, found)
    found.set_outcomes = {
        one.attributes.get("identifier", "") for one in element.walk() if one.name == "qti-set-outcome-value"
    }
    return found


def _set(one: Element, found: Processing) -> bool:
    """A value that is set whatever is answered; whether it is understood."""
    inner, name = one.elements, one.attributes.get("identifier", "")
    if len(inner) != 1:
        return False
    if name == SCORE:
        mapped = _mapped(inner[0])
        found.mapped |= mapped or set()
        return mapped is not None
    if inner[0].name == "qti-variable" and name not in found.shown_as:
        found.shown_as[name] = inner[0].attributes.get("identifier", "")
        return True
    return False


def _mapped(one: Element) -> set[str] | None:
    """The responses whose mappings are summed here, and nothing else but the score so far."""
    if one.name == "qti-map-response":
        return {one.attributes.get("identifier", "")}
    if one.name == "qti-variable" and one.attributes.get("identifier") == SCORE:
        return set()
    if one.name == "qti-base-value" and _number(one) == "0":
        return set()
    parts = [_mapped(part) for part in one.elements[:1] if one.name == "qti-divide" and len(one.elements) == 2]
    parts += [_mapped(part) for part in one.elements if one.name == "qti-sum"]
    if not parts or (one.name == "qti-divide" and one.elements[1].name != "qti-base-value"):
        return None
    return None if None in parts else {name for part in parts for name in part or ()}


def _number(one: Element) -> str:
    text = one.text().strip()
    return text[:-2] if text.endswith(".0") else text


def _condition(one: Element, found: Processing) -> None:
    """A condition: what is understood of its branches is taken."""
    branches = [branch for branch in one.elements if branch.name in BRANCHES]
    for branch in branches:
        if branch.name == "qti-response-else":
            if any(_otherwise(branch, setting, found) for setting in branch.elements):
                one.mark(branch)
        elif branch.elements and any(_branch(branch.elements[0], setting, found) for setting in branch.elements[1:]):
            one.mark(branch).mark(branch.elements[0].take())
            for setting in branch.elements[1:]:
                if _branch(branch.elements[0], setting, found):
                    branch.mark(setting.take())


def _otherwise(branch: Element, one: Element, found: Processing) -> bool:
    """What is set when nothing else holds: no points, or those of the mapping for what is not empty."""
    inner = one.elements
    if one.name != "qti-set-outcome-value" or len(inner) != 1 or one.attributes.get("identifier") != SCORE:
        return False
    mapped = _mapped(inner[0])
    if mapped is None:
        return False
    found.mapped |= mapped
    branch.mark(one.take())
    return True


def _branch(test: Element, one: Element, found: Processing) -> bool:
    """What is set where the test holds; whether both are understood. Saying it twice changes nothing."""
    inner, name = one.elements, one.attributes.get("identifier", "")
    if one.name != "qti-set-outcome-value" or len(inner) != 1:
        return False
    if name == SCORE:
        earned = _earned(inner[0])
        return earned is not None and _scored(test, earned, found)
    compared = _compared(test)
    if compared is None or not (identifiers := list(_identifiers(inner[0], name))):
        return False
    for identifier in identifiers:
        known = found.shown.setdefault((name, identifier), [])
        if (pair := (compared[0], compared[1].key)) not in known:
            known.append(pair)
    return True


def _identifiers(one: Element, outcome: str) -> Iterator[str]:
    """What an outcome gets: an identifier, beside those that it may have."""
    parts = one.elements if one.name == "qti-multiple" else [one]
    for part in parts:
        if part.name == "qti-base-value":
            yield part.text().strip()
        elif part.name != "qti-variable" or part.attributes.get("identifier") != outcome:
            return


def _earned(one: Element) -> str | None:
    """A score, or what is added to it."""
    parts = one.elements if one.name == "qti-sum" else [one]
    values = [part for part in parts if part.name == "qti-base-value"]
    if len(values) != 1 or any(_mapped(part) != set() for part in parts if part is not values[0]):
        return None
    return values[0].text().strip()


def _scored(test: Element, earned: str, found: Processing) -> bool:
    if test.name == "qti-is-null":
        return earned.rstrip("0") in {"", "0.", "."}
    if test.name == "qti-gte" and len(test.elements) == 2:
        mapped = _mapped(test.elements[0])
        if not mapped or test.elements[1].name != "qti-base-value":
            return False
        found.mapped |= mapped
        found.together = True
        return True
    if (right := _all_correct(test)) is not None:
        found.matched |= dict.fromkeys(right, earned)
        found.together = found.together or len(right) > 1
        return True
    if (compared := _compared(test)) is None:
        return False
    known = found.values.setdefault(compared[0], [])
    value = replace(compared[1], score=earned)
    if value not in known:
        known.append(value)
    return True


def _all_correct(test: Element) -> list[str] | None:
    """The responses that must match their correct values."""
    tests = test.elements if test.name == "qti-and" else [test]
    names = []
    for one in tests:
        pair = {part.name: part.attributes.get("identifier", "") for part in one.elements}
        if one.name not in {"qti-match", "qti-equal"} or pair.keys() != {"qti-variable", "qti-correct"}:
            return None
        if one.attributes.get("tolerance-mode", "exact") != "exact" or len(set(pair.values())) != 1:
            return None
        names.append(pair["qti-variable"])
    return names or None


def _compared(test: Element) -> tuple[str, Value] | None:
    """The response and the value that it is compared with."""
    parts = {part.name: part for part in test.elements}
    if test.name not in COMPARISONS or parts.keys() != {"qti-variable", "qti-base-value"}:
        return None
    if test.attributes.get("substring", "false") != "false":
        return None
    mode = test.attributes.get("tolerance-mode", "exact")
    value = parts["qti-base-value"].text().strip()
    tolerance = test.attributes.get("tolerance", "") if mode != "exact" else ""
    case = test.attributes.get("case-sensitive", "true") not in {"false", "0"}
    return parts["qti-variable"].attributes.get("identifier", ""), Value(value, "", mode, tolerance, case)
