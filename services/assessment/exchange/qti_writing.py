"""Questions as items of QTI 3.0."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from hashlib import sha256
from typing import Any

from services.assessment.bodies import BLANK
from services.assessment.exchange.documents import UNSAYABLE, Element, restore
from services.assessment.exchange.drafts import Draft
from services.assessment.exchange.numbers import plain_number
from services.assessment.exchange.qti_bodies import ALL, CHOICE, INLINE, MATCH, ORDER, SOME, TEXT
from services.assessment.exchange.qti_flow import EXACT, paragraphs, plain, read_flow, restored
from services.assessment.exchange.qti_items import short
from services.assessment.exchange.qti_names import ITEM_NAMESPACE, PREFIX
from services.assessment.exchange.qti_rules import RESPONSE, Content, Rules
from services.assessment.exchange.report import Place, Report
from services.assessment.exchange.shares import percents

# The order in which the schema has what is in an item.
ORDERED = (
    *("qti-context-declaration", "qti-response-declaration", "qti-outcome-declaration"),
    *("qti-companion-materials-info", "qti-item-body", "qti-catalog-info", "qti-response-processing"),
    "qti-modal-feedback",
)
OURS_ONLY = "other systems do not know of it; this one will when it reads the file"
FINEST = Decimal("0.0000001")


@dataclass(slots=True)
class Made:
    """An interaction, the classes of ours that it needs, and attributes that it, and elements in it, have unless they
    had others."""

    element: Element
    tokens: list[str] = field(default_factory=list)
    usual: Mapping[str, str] = field(default_factory=dict)
    within: Sequence[tuple[Element, str, str]] = ()


def write_item(draft: Draft, identifier: str, number: int, report: Report) -> Element:
    """The item that asks the question; the report tells what it cannot say."""
    return _Item(draft, Place(number), report).written(identifier)


class _Item:
    def __init__(self, draft: Draft, place: Place, report: Report) -> None:
        self.body, self.name, self.place, self.report = draft.body, draft.name, place, report
        own = draft.preserved.get("qti") or {}
        self.kept: list[list[str]] = own.get("kept") or []
        self.originals: dict[str, list[str]] = own.get("originals") or {}
        self.root = Element("qti-assessment-item", namespace=ITEM_NAMESPACE)
        self.rules = Rules(self.root)

    def written(self, identifier: str) -> Element:
        beginning = short(self.body["prompt"])
        self.root.attributes |= {"identifier": identifier, "title": self.name or beginning}
        self.root.attributes |= {"adaptive": "false", "time-dependent": "false"}
        made = KINDS[self.body["type"]](self)
        for number, one in enumerate(made, 1):
            self.dress(number, one)
        asking = self.root.add("qti-item-body")
        asking.content = self.asking([one.element for one in made])
        if self.body["explanation"]:
            self.rules.explain(self.said("explanation", self.body["explanation"]))
        self.rules.finish()
        restore(self.root, [one for one in self.kept if not one[0].startswith("interaction[")], self.report, self.place)
        _add_classes(asking, ["named"] if self.name == beginning else [])
        self.root.content.sort(key=_rank)
        if _unsayable(self.body) or _unsayable(self.name):
            self.report.refused("text", self.place, "XML has no way to say its control characters, which are left out")
        return self.root

    def dress(self, number: int, made: Made) -> None:
        """Gives an interaction what it had, and what it has to have."""
        begin = f"interaction[{number}]/"
        own = [[where.removeprefix(begin), original] for where, original in self.kept if where.startswith(begin)]
        restore(made.element, own, self.report, self.place)
        for name, value in made.usual.items():
            made.element.attributes.setdefault(name, value)
        for one, name, value in made.within:
            one.attributes.setdefault(name, value)
        _add_classes(made.element, made.tokens)

    def asking(self, interactions: Sequence[Element]) -> Content:
        """The text with the interactions in it, as it was or as it has to be."""
        prompt = self.body["prompt"]
        known = self.originals.get("prompt")
        if known and known[0] == prompt and (again := restored(known[1], interactions)) is not None:
            return again
        if self.body["type"] == "fill_blank":
            return paragraphs(prompt, interactions)
        [last] = interactions
        return [*paragraphs(prompt), _new("p", last) if last.name == TEXT else last]

    def content(self, role: str, text: str) -> Content:
        """A text with the marks that it had when it was read, if it is still the same."""
        again = self.original(role, text)
        return plain(text) if again is None else again

    def said(self, role: str, text: str) -> Content:
        """The same of text that has to be in paragraphs."""
        again = self.original(role, text)
        return paragraphs(text) if again is None else again

    def original(self, role: str, text: str) -> Content | None:
        known = self.originals.get(role)
        return restored(known[1], ()) if known and known[0] == text else None

    def parts(self, field_name: str, name: str, order: Sequence[int] | None = None) -> Iterator[Element]:
        """Choices of an interaction, in this order of their numbers from 0; their identifiers are by their places."""
        parts = self.body[field_name]
        for place, index in enumerate(range(len(parts)) if order is None else order, 1):
            one = _new(name, identifier=f"{field_name[:-1]}-{place}")
            one.content = self.content(f"{field_name}[{index + 1}]", parts[index]["text"])
            yield one

    def beyond(self) -> list[str]:
        """What QTI has no way to say of typed answers, as classes of ours."""
        found = ["ignore-accents"] * self.body["ignore_accents"]
        found += [f"typos-{self.body['most_typos']}"] * (self.body["most_typos"] > 0)
        found += ["wildcards"] * self.body.get("wildcards", False)
        for name in found:
            self.only_ours(name)
        return found

    def only_ours(self, name: str) -> None:
        self.report.refused(name, self.place, OURS_ONLY)

    def scoring(self, usual: str) -> list[str]:
        """A class for a rule that is not the one that the item says."""
        if self.body["scoring"] == usual:
            return []
        self.only_ours("scoring")
        return ["all-or-nothing" if self.body["scoring"] == ALL else "partial"]


def _choices(item: _Item) -> list[Made]:
    body = item.body
    several = body["multiple"]
    choices = body["choices"]
    names = [f"choice-{number}" for number in range(1, len(choices) + 1)]
    right = [name for name, one in zip(names, choices, strict=True) if one["correct"]]
    by_rule = not any(one["percent"] for one in choices) and (not several or body["scoring"] == ALL)
    cardinality = "multiple" if several else "single"
    entries = None
    if not by_rule:
        earned = [plain_number((share / 100).quantize(FINEST)) for share in percents(body)]
        entries = [(name, one, None) for name, one in zip(names, earned, strict=True)]
    item.rules.respond(RESPONSE, cardinality, "identifier", right, entries)
    item.rules.match(RESPONSE) if by_rule else item.rules.map([RESPONSE])
    shown = [(name, one["feedback"]) for name, one in zip(names, choices, strict=True) if one["feedback"]]
    place = {name: number for number, name in enumerate(names, 1)}
    item.rules.show_as(
        RESPONSE, cardinality, [(name, item.said(f"choices[{place[name]}].feedback", text)) for name, text in shown]
    )
    element = _new(CHOICE, *item.parts("choices", "qti-simple-choice"), **{"response-identifier": RESPONSE})
    if not several:
        element.attributes["max-choices"] = "1"
    return [Made(element, item.scoring(ALL if by_rule and several else SOME), {"max-choices": "0"})]


def _typed(item: _Item, name: str, accepted: Sequence[Mapping[str, str]], role: str, outcome: str) -> None:
    """A response of texts, and what is shown for some of them."""
    case = item.body["case_sensitive"]
    entries = [(one["text"], _earned(one), case) for one in accepted]
    right = [one["text"] for one in accepted if _earned(one) == "1"] or [accepted[0]["text"]]
    item.rules.respond(name, "single", "string", right[:1], entries)
    shown = [
        (one["text"], item.said(f"{role}[{number}].feedback", one["feedback"]))
        for number, one in enumerate(accepted, 1)
        if one["feedback"]
    ]
    item.rules.show(outcome, name, "string", shown, case=case)


def _earned(one: Mapping[str, str]) -> str:
    return plain_number(Decimal(one["percent"]) / 100) if one["percent"] else "1"


def _short_answer(item: _Item) -> list[Made]:
    _typed(item, RESPONSE, item.body["accepted"], "accepted", "FEEDBACK")
    item.rules.map([RESPONSE])
    return [Made(_new(TEXT, **{"response-identifier": RESPONSE}), [*item.beyond(), *item.scoring(SOME)])]


def _numeric(item: _Item) -> list[Made]:
    accepted = item.body["numbers"]
    right = next((one for one in accepted if _earned(one) == "1"), accepted[0])
    item.rules.respond(RESPONSE, "single", "float", [right["value"]])
    if len(accepted) == 1 and not accepted[0]["tolerance"] and not accepted[0]["percent"] + accepted[0]["feedback"]:
        item.rules.match(RESPONSE)
    else:
        item.rules.numbers(RESPONSE, [
            (one["value"], one["tolerance"], _earned(one), _shown(item, f"numbers[{number}]", one))
            for number, one in enumerate(accepted, 1)
        ])  # fmt: skip
    return [Made(_new(TEXT, **{"response-identifier": RESPONSE}), item.scoring(SOME))]


def _shown(item: _Item, role: str, one: Mapping[str, str]) -> Content:
    return item.said(f"{role}.feedback", one["feedback"]) if one["feedback"] else []


def _fill_blank(item: _Item) -> list[Made]:
    blanks = item.body["blanks"]
    names = [f"{RESPONSE}_{number}" for number in range(1, len(blanks) + 1)] if len(blanks) > 1 else [RESPONSE]
    widths = [len(found) for found in BLANK.findall(item.body["prompt"])]
    made = []
    for number, (name, blank, width) in enumerate(zip(names, blanks, widths, strict=False), 1):
        role, outcome = f"blanks[{number}].accepted", f"FEEDBACK_{number}"
        tokens = [f"width-{width}"] * (width != 3)
        if blank["options"]:
            element = _inline(item, name, blank, role, outcome)
        else:
            element = _new(TEXT, **{"response-identifier": name})
            _typed(item, name, blank["accepted"], role, outcome)
        made.append(Made(element, tokens))
    together = len(names) > 1 and item.body["scoring"] == ALL
    item.rules.map(names, together=together)
    made[0].tokens += [*item.beyond(), *item.scoring(ALL if together else SOME)]
    made[0].tokens += ["blank"] * (len(made) == 1 and made[0].element.name == TEXT)
    if all(blank["options"] for blank in blanks) and item.body["case_sensitive"]:
        made[0].tokens.append("case-sensitive")
    return made


def _inline(item: _Item, name: str, blank: Mapping[str, Any], role: str, outcome: str) -> Element:
    ids = {text: f"option-{number}" for number, text in reversed([*enumerate(blank["options"], 1)])}
    folded = {_folded(text): value for text, value in ids.items()}
    known = [(ids.get(one["text"]) or folded.get(_folded(one["text"])), one) for one in blank["accepted"]]
    pairs = [(value, one) for value, one in known if value]
    right = [value for value, one in pairs if _earned(one) == "1"] or [value for value, _ in pairs]
    item.rules.respond(name, "single", "identifier", right[:1], [(value, _earned(one), None) for value, one in pairs])
    shown = [(value, _shown(item, f"{role}[{n}]", one)) for n, (value, one) in enumerate(pairs, 1) if one["feedback"]]
    item.rules.show(outcome, name, "identifier", shown, case=True)
    element = _new(INLINE, **{"response-identifier": name})
    for number, text in enumerate(blank["options"], 1):
        one = element.add("qti-inline-choice", text, identifier=f"option-{number}")
        if read_flow(_new("flow", text), "").text != text:
            one.attributes["class"] = EXACT
    return element


def _folded(text: str) -> str:
    return " ".join(text.casefold().split())


def _matching(item: _Item) -> list[Made]:
    body = item.body
    targets = {one["id"]: place for place, one in enumerate(body["targets"], 1)}
    paired = dict(body["pairs"])
    right = [f"stem-{place} target-{targets[paired[one['id']]]}" for place, one in enumerate(body["stems"], 1)]
    share = plain_number((Decimal(1) / len(right)).quantize(FINEST))
    whole = body["scoring"] == ALL
    item.rules.respond(
        RESPONSE, "multiple", "directedPair", right, None if whole else [(pair, share, None) for pair in right]
    )
    item.rules.match(RESPONSE) if whole else item.rules.map([RESPONSE])
    stems = _new("qti-simple-match-set", *item.parts("stems", "qti-simple-associable-choice"))
    choices = _new("qti-simple-match-set", *item.parts("targets", "qti-simple-associable-choice"))
    count = str(len(right))
    within = [(one, "match-max", "1") for one in stems.elements]
    within += [(one, "match-max", count) for one in choices.elements]
    element = _new(MATCH, stems, choices, **{"response-identifier": RESPONSE})
    return [Made(element, [], {"shuffle": "true", "max-associations": count}, within)]


def _ordering(item: _Item) -> list[Made]:
    texts = [one["text"] for one in item.body["items"]]
    # Neither the order of the file nor its identifiers tell the right one.
    order = sorted(range(len(texts)), key=lambda index: (sha256(texts[index].encode()).digest(), index))
    right = [f"item-{order.index(index) + 1}" for index in range(len(texts))]
    item.rules.respond(RESPONSE, "ordered", "identifier", right)
    item.rules.match(RESPONSE)
    element = _new(ORDER, *item.parts("items", "qti-simple-choice", order), **{"response-identifier": RESPONSE})
    return [Made(element, item.scoring(ALL), {"shuffle": "true"})]


KINDS: Mapping[str, Callable[[_Item], list[Made]]] = {
    "multiple_choice": _choices,
    "fill_blank": _fill_blank,
    "short_answer": _short_answer,
    "numeric": _numeric,
    "matching": _matching,
    "ordering": _ordering,
}


def _new(name: str, *content: Element | str, **attributes: str) -> Element:
    one = Element(name, namespace=ITEM_NAMESPACE)
    one.attributes |= attributes
    one.content += content
    return one


def _add_classes(element: Element, tokens: Sequence[str]) -> None:
    classes = [*element.attributes.get("class", "").split(), *(PREFIX + token for token in tokens)]
    if tokens:
        element.attributes["class"] = " ".join(classes)


def _rank(one: Element | str) -> int:
    name = one.name if isinstance(one, Element) else ""
    return ORDERED.index(name if name in ORDERED else "qti-item-body")


def _unsayable(said: Any) -> bool:
    """Whether there is a character in it that XML has no way to say."""
    if isinstance(said, str):
        return said.translate(UNSAYABLE) != said
    return any(map(_unsayable, said.values() if isinstance(said, dict) else said if isinstance(said, list) else ()))
