"""Response processing as items of ours have it, which `qti_processing` reads."""

from collections.abc import Iterable, Sequence

from services.assessment.exchange.documents import Element
from services.assessment.exchange.qti_names import ITEM_NAMESPACE, TEMPLATES
from services.assessment.exchange.qti_processing import MAP_RESPONSE, MATCH_CORRECT, SCORE

# The one response that templates are about.
RESPONSE = "RESPONSE"
FEEDBACK, EXPLANATION, SHOWN = "FEEDBACK", "EXPLANATION", "shown"
Entry = tuple[str, str, bool | None]
Content = list["Element | str"]


class Rules:
    """What an item declares and does with responses; everything is added to it as it is said."""

    def __init__(self, root: Element) -> None:
        self.root = root
        self.scoring: list[Element] = []
        self.showing: list[Element] = []
        self.template = ""
        self.outcomes: list[Element] = []
        self.modal: list[Element] = []

    def respond(
        self, name: str, cardinality: str, base: str, right: Sequence[str], entries: Sequence[Entry] | None = None
    ) -> None:
        """A response, its right values, and what each value earns, of a whole that is 1."""
        attributes = {"identifier": name, "cardinality": cardinality, "base-type": base}
        declared = self.root.add("qti-response-declaration", **attributes)
        correct = declared.add("qti-correct-response")
        for value in right:
            correct.add("qti-value", value)
        if entries is None:
            return
        mapping = declared.add("qti-mapping", **{"lower-bound": "0", "upper-bound": "1", "default-value": "0"})
        for key, earned, case in entries:
            entry = mapping.add("qti-map-entry", **{"map-key": key, "mapped-value": earned})
            if case is not None:
                entry.attributes["case-sensitive"] = "true" if case else "false"

    def match(self, name: str) -> None:
        """All of the points for the right response, none for others."""
        self.template = MATCH_CORRECT if name == RESPONSE else ""
        test = _made("qti-match", _made("qti-variable", identifier=name), _made("qti-correct", identifier=name))
        self._choose([(test, [_score("1")])])

    def map(self, names: Sequence[str], *, together: bool = False) -> None:
        """What the mappings of the responses earn: as much of the whole as they are, or all or nothing."""
        mapped = [_made("qti-map-response", identifier=name) for name in names]
        if len(names) == 1 and not together:
            self.template = MAP_RESPONSE if names[0] == RESPONSE else ""
            self.scoring.append(_set(SCORE, mapped[0]))
            return
        total, count = _made("qti-sum", *mapped), _value("float", str(len(names)))
        if together:
            self._choose([(_made("qti-gte", total, count), [_score("1")])])
        else:
            self.scoring.append(_set(SCORE, _made("qti-divide", total, count)))

    def numbers(self, name: str, known: Iterable[tuple[str, str, str, Content]]) -> None:
        """What numbers earn: value, tolerance or nothing, score, and what is shown."""
        branches = []
        for number, (value, tolerance, earned, shown) in enumerate(known, 1):
            settings = [_score(earned)]
            if shown:
                settings.append(_set(FEEDBACK, _value("identifier", f"answer-{number}")))
                self.modal.append(_modal(FEEDBACK, f"answer-{number}", shown))
            branches.append((_equal(name, value, tolerance), settings))
        if self.modal:
            self._outcome(FEEDBACK)
        self._choose(branches)

    def _choose(self, branches: Sequence[tuple[Element, list[Element]]]) -> None:
        condition = _made("qti-response-condition")
        for number, (test, settings) in enumerate(branches):
            condition.content.append(_made("qti-response-else-if" if number else "qti-response-if", test, *settings))
        condition.content.append(_made("qti-response-else", _score("0")))
        self.scoring.append(condition)

    def show_as(self, response: str, cardinality: str, shown: Sequence[tuple[str, Content]]) -> None:
        """What is shown for each value of a response of identifiers."""
        if shown:
            self._outcome(FEEDBACK, cardinality)
            self.showing.append(_set(FEEDBACK, _made("qti-variable", identifier=response)))
            self.modal += [_modal(FEEDBACK, value, content) for value, content in shown]

    def show(self, outcome: str, response: str, base: str, shown: Sequence[tuple[str, Content]], *, case: bool) -> None:
        """What is shown for some values of a response."""
        if shown:
            self._outcome(outcome)
        for number, (value, content) in enumerate(shown, 1):
            attributes = {"case-sensitive": "true" if case else "false"} if base == "string" else {}
            name = "qti-string-match" if base == "string" else "qti-match"
            test = _made(name, _made("qti-variable", identifier=response), _value(base, value), **attributes)
            identifier = f"answer-{number}"
            branch = _made("qti-response-if", test, _set(outcome, _value("identifier", identifier)))
            self.showing.append(_made("qti-response-condition", branch))
            self.modal.append(_modal(outcome, identifier, content))

    def explain(self, content: Content) -> None:
        """What is shown with every response."""
        self._outcome(EXPLANATION)
        default = _made("qti-default-value")
        default.add("qti-value", SHOWN)
        self.outcomes[-1].content.append(default)
        self.modal.append(_modal(EXPLANATION, SHOWN, content))

    def _outcome(self, name: str, cardinality: str = "single") -> None:
        attributes = {"identifier": name, "cardinality": cardinality, "base-type": "identifier"}
        self.outcomes.append(_made("qti-outcome-declaration", **attributes))

    def finish(self) -> None:
        """Puts all that was said into the item."""
        worth = {"cardinality": "single", "base-type": "float", "normal-minimum": "0", "normal-maximum": "1"}
        score = self.root.add("qti-outcome-declaration", identifier=SCORE, **worth)
        score.add("qti-default-value").add("qti-value", "0")
        self.root.content += self.outcomes
        processing = self.root.add("qti-response-processing")
        if self.template and not self.showing:
            processing.attributes["template"] = f"{TEMPLATES}{self.template}.xml"
        else:
            processing.content += [*self.scoring, *self.showing]
        self.root.content += self.modal


def _made(name: str, *content: Element, **attributes: str) -> Element:
    one = Element(name, namespace=ITEM_NAMESPACE)
    one.attributes |= attributes
    one.content += content
    return one


def _value(base: str, text: str) -> Element:
    one = _made("qti-base-value", **{"base-type": base})
    one.content.append(text)
    return one


def _set(outcome: str, value: Element) -> Element:
    return _made("qti-set-outcome-value", value, identifier=outcome)


def _score(earned: str) -> Element:
    return _set(SCORE, _value("float", earned))


def _equal(name: str, value: str, tolerance: str) -> Element:
    attributes = {"tolerance-mode": "absolute", "tolerance": f"{tolerance} {tolerance}"}
    parts = _made("qti-variable", identifier=name), _value("float", value)
    return _made("qti-equal", *parts, **(attributes if tolerance else {"tolerance-mode": "exact"}))


def _modal(outcome: str, identifier: str, content: Content) -> Element:
    body = _made("qti-content-body")
    body.content += content
    attributes = {"outcome-identifier": outcome, "identifier": identifier, "show-hide": "show"}
    return _made("qti-modal-feedback", body, **attributes)
