"""What the interactions of an item ask, as bodies of questions by their types."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Protocol

from services.assessment.bodies import BLANK, MOST, MOST_TARGETS, new_body
from services.assessment.exchange.documents import Element, refuse_rest
from services.assessment.exchange.drafts import accepted, accepted_number, choice
from services.assessment.exchange.numbers import plain_number
from services.assessment.exchange.qti_declared import Declared, Key, decimal, percent_of
from services.assessment.exchange.qti_flow import EXACT
from services.assessment.exchange.qti_processing import Processing
from services.assessment.exchange.report import Place, Report
from services.assessment.exchange.shares import NOTHING, WHOLE, shared_evenly

# Interactions that there is a type of question for; those within a line, and what stands for them in a prompt.
CHOICE, ORDER, MATCH = "qti-choice-interaction", "qti-order-interaction", "qti-match-interaction"
GAPS, TEXT, INLINE = "qti-gap-match-interaction", "qti-text-entry-interaction", "qti-inline-choice-interaction"
INTERACTIONS = frozenset([CHOICE, ORDER, MATCH, GAPS, TEXT, INLINE])
NUMBERS = frozenset(["float", "integer"])
ALL, SOME = "all_or_nothing", "partial"
BLANK_TEXT = "___"
PLAIN_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?")


class Refused(Exception):
    """The item asks what no question can. The message is the end of a sentence."""


@dataclass(slots=True)
class Asked:
    """An interaction, its response, what answers earn, and what classes of ours say."""

    element: Element
    declared: Declared
    key: Key
    tokens: set[str]


UNEVEN = "its parts earn different shares; each part of a question earns the same"
MIXED = "upper and lower case count in some of its blanks; in a question they count in all or in none"


class Item(Protocol):
    """What reading an item offers to those who read what it asks."""

    report: Report
    paths: dict[int, str]
    file: str
    body: Element | None
    processing: Processing

    def flow(self, element: Element, role: str, slots: dict[int, str] | None = None) -> str: ...

    def feedback(self, response: str, value: str, role: str, choice: Element | None = None) -> str: ...


def read_body(item: Item, asked: Sequence[Asked]) -> dict[str, Any]:
    """The body of the question that these interactions ask together."""
    names = {one.element.name for one in asked}
    if names <= {TEXT, INLINE}:
        return _in_lines(item, asked)
    if len(asked) > 1:
        raise Refused("it asks several things at once, which are questions of their own")
    made = {CHOICE: _choices, ORDER: _ordering, MATCH: _matching, GAPS: _gaps}[asked[0].element.name](item, asked[0])
    if "all-or-nothing" in asked[0].tokens:
        made["scoring"] = ALL
    elif "partial" in asked[0].tokens:
        made["scoring"] = SOME
    return made


def _few(parts: Sequence[Element], what: str, most: int = MOST) -> Sequence[Element]:
    if len(parts) > most:
        raise Refused(f"it has more than {most} {what}")
    return parts


def _note(item: Item, one: Element, message: str) -> None:
    item.report.refused(item.paths[id(one)], Place(one.line, item.file), message)


def _prompt(item: Item, slots: Mapping[int, str]) -> str:
    assert item.body is not None  # noqa: S101  # where the interactions were found
    return item.flow(item.body, "prompt", dict(slots))


def _choices(item: Item, asked: Asked) -> dict[str, Any]:
    element, declared = asked.element, asked.declared
    several = declared.cardinality == "multiple" and element.attributes.get("max-choices", "1") != "1"
    shares, made = [], []
    for number, one in enumerate(_few(element.all("qti-simple-choice"), "choices"), 1):
        value = one.get("identifier")
        feedback = item.feedback(declared.identifier, value, f"choices[{number}].feedback", one)
        text = item.flow(one, f"choices[{number}]")
        made.append(choice(text, correct=value in declared.right, feedback=feedback))
        shares.append(asked.key.shares.get(value, _otherwise(declared, asked.key)))
    _limit(element, len(made) if several else 1)
    prompt = _prompt(item, {id(element): ""})
    scoring = SOME
    if not asked.key.by_rule:
        made = shared_evenly(made, shares, several)
    elif several:
        scoring = ALL
    return _numbered(new_body("multiple_choice", prompt, choices=made, multiple=several, scoring=scoring), "choices")


def _otherwise(declared: Declared, key: Key) -> Decimal:
    """What a value earns that the mapping does not have."""
    if key.by_rule or key.best <= 0:
        return NOTHING
    return max(min(declared.default * WHOLE / key.best, WHOLE), -WHOLE)


def _limit(element: Element, usual: int) -> None:
    """Takes a limit that says nothing: as many as there are."""
    _taken(element, "max-choices", {"0", str(usual)} if usual > 1 else {"1"})


def _numbered(body: dict[str, Any], *fields: str) -> dict[str, Any]:
    for field in fields:
        body[field] = [{**one, "id": str(number)} for number, one in enumerate(body[field], 1)]
    return body


def _texts(item: Item, elements: Sequence[Element], field: str) -> list[tuple[str, str]]:
    """Identifiers and texts."""
    return [(one.get("identifier"), item.flow(one, f"{field}[{n}]")) for n, one in enumerate(elements, 1)]


def _ordering(item: Item, asked: Asked) -> dict[str, Any]:
    right = {value: place for place, value in enumerate(asked.declared.right)}
    ones = [*_few(asked.element.all("qti-simple-choice"), "items to order")]
    if sorted(right) != sorted(one.attributes.get("identifier", "") for one in ones):
        raise Refused("its right order has not every choice once")
    ones.sort(key=lambda one: right[one.attributes["identifier"]])
    texts = _texts(item, ones, "items")
    for one in ones:
        refuse_rest(one, item.report, "what is ordered has a text only", file=item.file, path=item.paths[id(one)])
    _taken(asked.element, "shuffle", {"true"})
    prompt = _prompt(item, {id(asked.element): ""})
    items = [{"id": "", "text": text} for _, text in texts]
    # As QTI gives nothing for an order that is partly right.
    return _numbered(new_body("ordering", prompt, items=items, scoring=ALL), "items")


def _matching(item: Item, asked: Asked) -> dict[str, Any]:
    sets = asked.element.all("qti-simple-match-set")
    if len(sets) != 2:
        raise Refused("it has not two sets to match")
    first, second = (_few(one.all("qti-simple-associable-choice"), "choices in a set", MOST_TARGETS) for one in sets)
    swapped = False
    right = asked.declared.right or [pair for pair, share in asked.key.shares.items() if share > 0]
    pairs = [pair.split() for pair in right]
    side = {one.attributes.get("identifier", ""): 1 for one in first}
    side |= {one.attributes.get("identifier", ""): 2 for one in second}
    if any(len(pair) != 2 or {side.get(one) for one in pair} != {1, 2} for pair in pairs):
        raise Refused("it has a right pair that is not of one choice of each set")
    pairs = [pair if side[pair[0]] == 1 else pair[::-1] for pair in pairs]
    if len({pair[0] for pair in pairs}) < len(pairs) or len(pairs) != len(first):
        first, second, pairs = second, first, [pair[::-1] for pair in pairs]
        swapped = True
    joined = {pair[0]: pair[1] for pair in pairs}
    if len(joined) != len(pairs) or len(joined) != len(first):
        raise Refused("neither of its sets has one partner for each choice")
    stems, targets = _texts(item, first, "stems"), _texts(item, second, "targets")
    for one in (*first, *second):
        _taken(one, "match-max", {"0", "1", str(len(first))})
    _taken(asked.element, "shuffle", {"true"})
    _taken(asked.element, "max-associations", {"0", str(len(first))})
    for one in sets if swapped else ():
        refuse_rest(one, item.report, "its sets change places", file=item.file, path=item.paths[id(one)])
    if len({share for share in asked.key.shares.values() if share > 0}) > 1:
        _note(item, asked.element, UNEVEN)
    numbers = {value: str(number) for number, (value, _) in enumerate(targets, 1)}
    return _numbered(
        new_body(
            "matching",
            _prompt(item, {id(asked.element): ""}),
            stems=[{"id": "", "text": text} for _, text in stems],
            targets=[{"id": "", "text": text} for _, text in targets],
            pairs=[[str(number), numbers[joined[value]]] for number, (value, _) in enumerate(stems, 1)],
            scoring=ALL if asked.key.by_rule else SOME,
        ),
        *("stems", "targets"),
    )


def _taken(one: Element, name: str, usual: set[str]) -> None:
    """Takes an attribute that says what is so anyway."""
    if one.attributes.get(name) in usual:
        one.get(name)


def _gaps(item: Item, asked: Asked) -> dict[str, Any]:
    element = asked.element
    if any(one.name == "qti-gap-img" for one in element.walk()):
        raise Refused("it has pictures to put into gaps")
    words: dict[str, str] = {}
    for one in _few(element.all("qti-gap-text"), "words for gaps"):
        words[one.get("identifier")] = item.flow(one, "")
        element.content.remove(one)
        path, place = item.paths[id(one)], Place(one.line, item.file)
        item.report.mapped(path, place)
        item.report.mapped(f"{path}/@identifier", place)
        refuse_rest(one, item.report, "each word may be put into any gap", file=item.file, path=path)
    gaps = _few([one for one in element.walk() if one.name == "qti-gap"], "gaps")
    right: dict[str, list[dict[str, str]]] = {}
    for pair in [value.split() for value, share in asked.key.shares.items() if share > 0]:
        if len(pair) == 2 and pair[0] in words:
            right.setdefault(pair[1], []).append(accepted(words[pair[0]]))
    if len({share for share in asked.key.shares.values() if share > 0}) > 1:
        _note(item, element, UNEVEN)
    options = list(dict.fromkeys(words.values()))
    blanks = [{"accepted": right.get(gap.get("identifier"), []), "options": options} for gap in gaps]
    prompt = _prompt(item, dict.fromkeys(map(id, gaps), BLANK_TEXT))
    element.content = []
    for gap in gaps:
        path, place = item.paths[id(gap)], Place(gap.line, item.file)
        item.report.mapped(path, place)
        item.report.mapped(f"{path}/@identifier", place)
        refuse_rest(gap, item.report, "each word may be put into any gap", file=item.file, path=path)
    scoring = ALL if asked.key.by_rule and len(gaps) > 1 else SOME
    return _checked(new_body("fill_blank", prompt, blanks=blanks, scoring=scoring))


def _checked(body: dict[str, Any]) -> dict[str, Any]:
    if len(BLANK.findall(body["prompt"])) != len(body["blanks"]):
        raise Refused("its text has lines of underscores beside the blanks")
    return body


def _in_lines(item: Item, asked: Sequence[Asked]) -> dict[str, Any]:
    tokens = set().union(*(one.tokens for one in asked))
    if any(one.declared.base in NUMBERS for one in asked):
        if len(asked) > 1:
            raise Refused("it asks for numbers in several places, and a question asks for one")
        made = _number(item, asked[0])
    elif len(asked) == 1 and asked[0].element.name == TEXT and "blank" not in tokens and _alone(item, asked[0].element):
        made = new_body("short_answer", _prompt(item, {id(asked[0].element): ""}))
        made |= {"accepted": list(_accepted(item, asked[0], "accepted")), "wildcards": "wildcards" in tokens}
    else:
        made = _blanks(item, asked)
    if made["type"] != "numeric":
        texts = [one for one in asked if one.element.name == TEXT]
        cases = {one.key.case_sensitive for one in texts}
        made["case_sensitive"] = True in cases or "case-sensitive" in tokens
        if len(cases) > 1:
            _note(item, texts[0].element, MIXED)
        made["ignore_accents"] = "ignore-accents" in tokens
        made["most_typos"] = next((number for number in (1, 2) if f"typos-{number}" in tokens), 0)
    if len({one.key.best for one in asked}) > 1:
        _note(item, asked[0].element, UNEVEN)
    if "all-or-nothing" in tokens or (len(asked) > 1 and item.processing.together):
        made["scoring"] = ALL
    return made


def _alone(item: Item, element: Element) -> bool:
    """Whether the interaction is in no line of text."""
    assert item.body is not None  # noqa: S101
    above = next(one for one in item.body.walk() if element in one.elements)
    said = "".join(one if isinstance(one, str) else "".join(map(_said, one.walk())) for one in above.content)
    return not said.strip() if above is not item.body else True


def _said(one: Element) -> str:
    return "".join(part for part in one.content if isinstance(part, str))


def _blanks(item: Item, asked: Sequence[Asked]) -> dict[str, Any]:
    blanks, stand_ins = [], {}
    for number, one in enumerate(asked, 1):
        options = _options(item, one) if one.element.name == INLINE else {}
        found = list(_accepted(item, one, f"blanks[{number}].accepted", options))
        blanks.append({"accepted": found, "options": list(options.values())})
        width = next((token for token in one.tokens if token.startswith("width-")), "width-3")
        stand_ins[id(one.element)] = "_" * min(int(width[6:]) if width[6:].isdigit() else 3, 100)
    return _checked(new_body("fill_blank", _prompt(item, stand_ins), blanks=blanks))


def _options(item: Item, asked: Asked) -> dict[str, str]:
    """The texts to choose from, by their identifiers."""
    found: dict[str, str] = {}
    for one in _few(asked.element.all("qti-inline-choice"), "choices in a line"):
        _taken(one, "class", {EXACT})
        found[one.get("identifier")] = item.flow(one, "")
    return found


def _accepted(
    item: Item, asked: Asked, role: str, options: Mapping[str, str] | None = None
) -> Iterator[dict[str, str]]:
    """What is accepted, and what is not but has feedback."""
    response, number = asked.declared.identifier, 0
    told = [value for pairs in item.processing.shown.values() for of, value in pairs if of == response]
    if len(values := dict.fromkeys([*asked.key.shares, *told])) > 2 * MOST:
        raise Refused(f"it has more than {2 * MOST} answers to one response")
    for value in values:
        if options and value not in options:
            continue
        number += 1
        feedback = item.feedback(response, value, f"{role}[{number}].feedback")
        share = max(asked.key.shares.get(value, NOTHING), NOTHING)
        yield accepted(options[value] if options else value, percent_of(share), feedback)


def _number(item: Item, asked: Asked) -> dict[str, Any]:
    found = []
    prompt = _prompt(item, {id(asked.element): ""})
    response = asked.declared.identifier
    if len(asked.key.shares) > 2 * MOST:
        raise Refused(f"it has more than {2 * MOST} numbers")
    for number, (key, share) in enumerate(asked.key.shares.items(), 1):
        value, mode, tolerance = key.split(" ", 2) if " " in key else (key, "exact", "")
        if (exact := decimal(value)) is None:
            raise Refused(f"{value[:50]!r} is no number")
        feedback = item.feedback(response, key, f"numbers[{number}].feedback")
        spelled = value if PLAIN_NUMBER.fullmatch(value) else plain_number(exact)
        percent = percent_of(max(share, NOTHING))
        found.append(accepted_number(spelled, _tolerance(exact, mode, tolerance), percent, feedback))
    return new_body("numeric", prompt, numbers=found)


def _tolerance(value: Decimal, mode: str, said: str) -> str:
    """How far off a number may be: in QTI to both sides apart, or in percent of the number."""
    if mode == "exact":
        return ""
    sides = [decimal(one) for one in said.split()]
    side = sides[0] if sides else None
    if side is None or side < 0 or any(one != side for one in sides):
        raise Refused("a number may be further off on one side than on the other, which questions cannot say")
    if mode == "relative":
        return plain_number(abs(value) * side / WHOLE)
    return said.split(maxsplit=1)[0]
