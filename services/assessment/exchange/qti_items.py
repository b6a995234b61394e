"""Items of QTI as drafts of questions, with all that is in them told."""

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from services.assessment.bodies import MOST
from services.assessment.exchange.documents import Element, Kept, refuse, refuse_rest, settle
from services.assessment.exchange.drafts import Draft, Limits
from services.assessment.exchange.numbers import plain_number
from services.assessment.exchange.qti_bodies import INTERACTIONS, Asked, Refused, read_body
from services.assessment.exchange.qti_declared import Declared, decimal, key_of, read_declared, worth
from services.assessment.exchange.qti_flow import ELSEWHERE, read_flow
from services.assessment.exchange.qti_names import GENERATED, PREFIX, as_spelled, modernised
from services.assessment.exchange.qti_processing import SCORE, Processing, read_processing
from services.assessment.exchange.report import Place, Report

SCHEMA_LOCATION = "{http://www.w3.org/2001/XMLSchema-instance}schemaLocation"
NOT_UNDERSTOOD = "response processing of this kind is not understood; the answers are graded by what else the item says"
DECLARED_BESIDE = "questions have nothing that this would declare"
SHOWN_SOMETIMES = "it is shown in cases that questions have no way to say"
OF_FILES = "other files of the package are not taken"
# What has other items, or makes another one of each learner's.
VARYING = ("qti-template-processing", "qti-template-declaration")
FILES = ("qti-assessment-stimulus-ref", "qti-stylesheet")
MOST_TITLE = 60


def read_item(root: Element, file: str, limits: Limits) -> Draft:
    """The question that an item asks; `Refused` when it asks none that there is a type for. The item is spent then."""
    old = modernised(root)
    return _Item(root, file, limits).read(old)


class _Item:
    def __init__(self, root: Element, file: str, limits: Limits) -> None:
        self.root, self.file, self.limits = root, file, limits
        self.report = Report()
        self.paths = {id(root): root.name}
        for one in root.walk():
            for child in one.elements:
                self.paths[id(child)] = f"{self.paths[id(one)]}/{child.name}"
        self.originals: dict[str, list[str]] = {}
        self.left = limits.preserved // 2
        self.body = root.one("qti-item-body")
        self.outcomes = {
            one.attributes.get("identifier", ""): one
            for one in root.elements
            if one.name == "qti-outcome-declaration"
        }
        self.processing = Processing()
        self.declared: dict[str, Declared] = {}

    def read(self, old: Any) -> Draft:
        interactions = self.interactions()
        for one in self.root.all("qti-response-declaration"):
            made = read_declared(one)
            self.declared[made.identifier] = made
        processing = self.root.one("qti-response-processing")
        self.processing = read_processing(processing, [one.get("response-identifier") for one in interactions])
        asked = [self.asked(one) for one in interactions]
        content = read_body(self, asked)
        content["explanation"] = self.explanation()
        points = self.points(asked)
        self.tell_rest()
        name = self.title(content["prompt"])
        kept = self.settled(interactions)
        preserved = ({"kept": kept} if kept else {}) | ({"originals": self.originals} if self.originals else {})
        return Draft(
            body=content,
            name=name,
            points=points,
            preserved={"qti": preserved} if preserved else {},
            place=Place(self.root.line, self.file),
            report=as_spelled(self.report, old),
        )

    def interactions(self) -> list[Element]:
        if self.root.attributes.get("adaptive", "false").strip() in {"true", "1"}:
            raise Refused("an adaptive item takes several attempts, which no question does")
        if any(one.name in VARYING for one in self.root.elements):
            raise Refused("an item made of a template is another one for each learner")
        inside = [] if self.body is None else [one for one in self.body.walk() if one.name.endswith("-interaction")]
        if not inside:
            raise Refused("it asks nothing")
        if len(inside) > MOST:
            raise Refused(f"it asks for more than {MOST} answers")
        for one in inside:
            if one.name not in INTERACTIONS:
                raise Refused(f"there is no type of question for {one.name}")
        return inside

    def asked(self, one: Element) -> Asked:
        name = one.get("response-identifier")
        if (declared := self.declared.get(name)) is None:
            raise Refused(f"the response {name[:100]!r} is not declared")
        whole = decimal(self.outcomes[SCORE].attributes.get("normal-maximum", "")) if SCORE in self.outcomes else None
        return Asked(one, declared, key_of(declared, self.processing, whole), self.tokens(one))

    def tokens(self, one: Element) -> set[str]:
        """What a file of ours says beyond QTI, as classes."""
        classes = one.attributes.get("class", "").split()
        ours = {token.removeprefix(PREFIX) for token in classes if token.startswith(PREFIX)}
        if ours:
            self.report.mapped(f"{self.paths[id(one)]}/@class", Place(one.line, self.file))
            one.attributes["class"] = " ".join(token for token in classes if not token.startswith(PREFIX))
            if not one.attributes["class"]:
                del one.attributes["class"]
        return ours

    def flow(self, element: Element, role: str, slots: dict[int, str] | None = None) -> str:
        """The plain text in an element, told; its original is kept under this role."""
        found = read_flow(element, self.paths[id(element)], self.file, slots)
        if "feedback" in role or role == "explanation":
            found.wrap()
        fits = len(found.original) + len(found.text) <= self.left
        fits = fits and bool(role)
        if found.original and fits:
            self.left -= len(found.original) + len(found.text)
            self.originals[role] = [found.text, found.original]
        found.tell(self.report, kept=fits)
        return found.text

    def feedback(self, response: str, value: str, role: str, choice: Element | None = None) -> str:
        """What is shown to those who gave this answer, be it in the choice itself or beside the item."""
        found = []
        holders = [(self.root, one) for one in self.root.elements if one.name == "qti-modal-feedback"]
        if choice is not None:
            holders += [(choice, one) for one in choice.elements if one.name == "qti-feedback-inline"]
        for above, one in holders:
            outcome, identifier = one.attributes.get("outcome-identifier", ""), one.attributes.get("identifier", "")
            said = (response, value) in self.processing.shown.get((outcome, identifier), ())
            if not said and (self.processing.shown_as.get(outcome) != response or identifier != value):
                continue
            if one.attributes.get("show-hide", "show") == "show":
                found.append(self.shown(above, one, role))
        return "\n".join(filter(None, found))

    def shown(self, above: Element, one: Element, role: str) -> str:
        above.mark(one)
        for name in ("outcome-identifier", "identifier", "show-hide"):
            one.get(name)
        inner = one.one("qti-content-body")
        text = self.flow(one if inner is None else inner, role)
        refuse_rest(one, self.report, SHOWN_SOMETIMES, file=self.file, path=self.paths[id(one)])
        if one.name == "qti-feedback-inline":
            path = self.paths[id(one)]
            self.report.mapped(path, Place(one.line, self.file))
            for name in one.attributes:
                self.report.mapped(f"{path}/@{name}", Place(one.line, self.file))
            above.content.remove(one)
        return text

    def explanation(self) -> str:
        """The feedback of outcomes that have their identifiers from the beginning, and that nothing changes."""
        found = []
        for one in [one for one in self.root.elements if one.name == "qti-modal-feedback"]:
            outcome = self.outcomes.get(name := one.attributes.get("outcome-identifier", ""))
            if outcome is None or name in self.processing.set_outcomes:
                continue
            default = next((part for part in outcome.elements if part.name == "qti-default-value"), None)
            values = [part.text().strip() for part in default.elements] if default is not None else []
            shows = one.attributes.get("show-hide", "show") == "show"
            if (one.attributes.get("identifier", "") in values) == shows:
                found.append(self.shown(self.root, one, "explanation"))
                self.root.mark(outcome.take())
        return "\n".join(filter(None, found))

    def points(self, asked: Sequence[Asked]) -> str:
        found = worth(self.outcomes.get(SCORE), self.outcomes.get("MAXSCORE"), [one.key for one in asked])
        known = {SCORE, "MAXSCORE", *self.processing.shown_as, *(of for of, _ in self.processing.shown)}
        for name in self.outcomes.keys() & known:
            self.root.mark(self.outcomes[name].take())
        return "" if found in {Decimal(0), Decimal(1)} else plain_number(found)

    def title(self, prompt: str) -> str:
        """The title, unless it is only the beginning of what is asked."""
        title = self.root.get("title").strip()
        ours = self.body is not None and self.tokens(self.body)
        return "" if title == short(prompt) and not ours else title

    def tell_rest(self) -> None:
        """Refuses what neither the question has nor an export could put back."""
        said = dict.fromkeys(["qti-response-declaration", "qti-outcome-declaration"], DECLARED_BESIDE)
        said |= {"qti-response-processing": NOT_UNDERSTOOD, "qti-modal-feedback": SHOWN_SOMETIMES}
        said |= dict.fromkeys(FILES, OF_FILES)
        for one in self.root.elements:
            path = f"{self.root.name}/{one.name}"
            files = [part.text().strip() for part in one.walk() if part.name == "qti-file-href"]
            elsewhere = all(ELSEWHERE.match(href) for href in files)
            if one.name not in said and elsewhere:
                continue
            if self.root.took(one):
                refuse_rest(one, self.report, said[one.name], file=self.file, path=path)
            else:
                refuse(one, self.report, said.get(one.name, OF_FILES), file=self.file, path=path)
                self.root.content.remove(one)
    def settled(self, interactions: Sequence[Element]) -> Kept:
        """Tells of everything else."""
        self.root.get(SCHEMA_LOCATION)
        if GENERATED.fullmatch(self.root.attributes.get("identifier", "")):
            self.root.get("identifier")
        for name in ("adaptive", "time-dependent"):
            if self.root.attributes.get(name) == "false":
                self.root.get(name)
        kept = settle(self.root, self.report, file=self.file, most=self.left)
        for number, one in enumerate(interactions, 1):
            if one.name == "qti-gap-match-interaction":
                refuse_rest(one, self.report, "it becomes blanks", file=self.file, path=self.paths[id(one)])
            own = settle(one, self.report, file=self.file, path=self.paths[id(one)], most=self.left)
            kept += [[f"interaction[{number}]/{where}", original] for where, original in own]
        return kept


def short(prompt: str) -> str:
    """The beginning of what is asked, as a title."""
    words = " ".join(prompt.split())
    return words if len(words) <= MOST_TITLE else words[: MOST_TITLE - 1].rstrip() + "…"
