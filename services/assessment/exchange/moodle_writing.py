"""One question in Moodle XML."""

from collections.abc import Callable, Mapping
from typing import Any

from services.assessment.bodies import BLANK
from services.assessment.exchange import cloze
from services.assessment.exchange.documents import UNSAYABLE, Element, restore
from services.assessment.exchange.drafts import Draft
from services.assessment.exchange.moodle_reading import GAP, reduced
from services.assessment.exchange.numbers import plain_number
from services.assessment.exchange.report import Place, Report
from services.assessment.exchange.shares import percents

ENTIRE = "100"


class Unspeakable(Exception):
    """Moodle has no such question."""


def written(draft: Draft, report: Report, place: Place) -> Element:
    """The question's element; what is not in it is refused in the report. Raises `Unspeakable`."""
    return _Writing(draft, report, place).all()


class _Writing:
    def __init__(self, draft: Draft, report: Report, place: Place) -> None:
        self.draft, self.body, self.report, self.place = draft, draft.body, report, place
        self.kept: Mapping[str, Any] = draft.preserved.get("moodle") or {}
        self.texts: Mapping[str, Any] = self.kept.get("texts") or {}
        self.root = Element("question")

    def all(self) -> Element:
        ways: Mapping[str, Callable[[], None]] = {
            "multiple_choice": self.choices,
            "fill_blank": self.blanks,
            "short_answer": self.short,
            "numeric": self.numeric,
            "matching": self.pairs,
            "ordering": self.ordering,
        }
        self.tell_what_is_not_said()
        self.root.add("name").add("text", self.draft.name)
        ways[self.body["type"]]()
        restore(self.root, self.kept.get("rest") or [], self.report, self.place)
        return self.root

    def begin(self, kind: str, prompt: str | None = None) -> None:
        self.root.attributes["type"] = kind
        self.text(self.root, "questiontext", self.body["prompt"] if prompt is None else prompt)
        if self.body["explanation"]:
            self.text(self.root, "generalfeedback", self.body["explanation"])
        if self.draft.points:
            self.root.add("defaultgrade", self.draft.points)
        if self.draft.tags:
            tags = self.root.add("tags")
            for tag in self.draft.tags:
                tags.add("tag").add("text", tag)

    def refuse(self, element: str, message: str) -> None:
        self.report.refused(element, self.place, message)

    def tell_what_is_not_said(self) -> None:
        if self.body["scoring"] != "partial":
            self.refuse("scoring", "Moodle XML has only partial credit for this")
        for field in ("ignore_accents", "most_typos"):
            if self.body.get(field):
                self.refuse(field, "Moodle XML does not say that")
        for name in self.draft.preserved:
            if name != "moodle":
                self.refuse(f"preserved {name}", "what was kept of another format is not written in this one")

    def text(self, above: Element, name: str, text: str, key: str = "") -> Element:
        """An element with a text in it, in its original form if it still says the same."""
        made = above.add(name)
        self.fill(made, text, key or name)
        return made

    def fill(self, element: Element, text: str, key: str) -> None:
        form, raw = "plain_text", text
        original = self.texts.get(key)
        if original and reduced(*original).text == text:
            form, raw = original
        if raw.translate(UNSAYABLE) != raw:
            self.refuse(key, "XML has no way to say some of its characters")
        element.attributes["format"] = form
        element.add("text", raw)

    def feedback(self, answer: Element, number: int, text: str) -> None:
        if text:
            self.text(answer, "feedback", text, f"answer[{number}]/feedback")

    def choices(self) -> None:
        choices, shares = self.body["choices"], [plain_number(one) for one in percents(self.body)]
        said = sorted(one["text"] for one in choices)
        if not self.body["multiple"] and said == ["False", "True"] and sorted(shares) == ["0", ENTIRE]:
            self.begin("truefalse")
            for number, (one, share) in enumerate(zip(choices, shares, strict=True), 1):
                answer = self.root.add("answer", fraction=share, format="moodle_auto_format")
                answer.add("text", one["text"].lower())
                self.feedback(answer, number, one["feedback"])
            return
        self.begin("multichoice")
        self.root.add("single", "false" if self.body["multiple"] else "true")
        for number, (one, share) in enumerate(zip(choices, shares, strict=True), 1):
            answer = self.root.add("answer", fraction=share)
            self.fill(answer, one["text"], f"answer[{number}]")
            self.feedback(answer, number, one["feedback"])

    def short(self) -> None:
        self.begin("shortanswer")
        self.root.add("usecase", "1" if self.body["case_sensitive"] else "0")
        wild = self.body["wildcards"]
        for number, one in enumerate(self.body["accepted"], 1):
            self.answer(number, one, one["text"] if wild else one["text"].replace("*", "\\*"))

    def answer(self, number: int, one: Mapping[str, str], text: str) -> Element:
        answer = self.root.add("answer", fraction=one["percent"] or ENTIRE, format="moodle_auto_format")
        answer.add("text", text)
        self.feedback(answer, number, one["feedback"])
        return answer

    def numeric(self) -> None:
        self.begin("numerical")
        for number, one in enumerate(self.body["numbers"], 1):
            self.answer(number, one, one["value"]).add("tolerance", one["tolerance"] or "0")

    def pairs(self) -> None:
        self.begin("matching")
        stems = {one["id"]: one["text"] for one in self.body["stems"]}
        targets = {one["id"]: one["text"] for one in self.body["targets"]}
        used = {target for _, target in self.body["pairs"]}
        pairs = [(stems[stem], targets[target]) for stem, target in self.body["pairs"]]
        pairs += [("", text) for one, text in targets.items() if one not in used]
        for number, (stem, target) in enumerate(pairs, 1):
            self.text(self.root, "subquestion", stem, f"subquestion[{number}]").add("answer").add("text", target)

    def ordering(self) -> None:
        self.begin("ordering")
        for number, one in enumerate(self.body["items"], 1):
            self.fill(self.root.add("answer", fraction=str(number)), one["text"], f"answer[{number}]")

    def blanks(self) -> None:
        blanks = self.body["blanks"]
        plainly = all(
            one["options"] and [(a["percent"], a["feedback"]) for a in one["accepted"]] == [("", "")] for one in blanks
        )
        if plainly and not GAP.search(self.body["prompt"]):
            self.gaps()
        else:
            self.cloze()

    def gaps(self) -> None:
        """Blanks that one of several texts is put in: those with the same options are of one group."""
        kind = self.kept.get("type") or "gapselect"
        groups = list(dict.fromkeys(tuple(one["options"]) for one in self.body["blanks"]))
        firsts = [sum(map(len, groups[:number])) for number in range(len(groups))]
        numbers = []
        for one in self.body["blanks"]:
            group = tuple(one["options"])
            text = one["accepted"][0]["text"]
            if text not in group:
                raise Unspeakable("what is right in a blank is not one of its options")
            numbers.append(firsts[groups.index(group)] + group.index(text) + 1)
        left = iter(numbers)
        self.begin(kind, BLANK.sub(lambda _: f"[[{next(left)}]]", self.body["prompt"]))
        for number, group in enumerate(groups, 1):
            for option in group:
                box = self.root.add("dragbox" if kind == "ddwtos" else "selectoption")
                box.add("text", option)
                box.add("group", str(number))

    def cloze(self) -> None:
        if cloze.holds(self.body["prompt"]):
            raise Unspeakable("a part of its text would be a blank")
        try:
            case = self.body["case_sensitive"]
            left = iter([cloze.spelled(one, case=case) for one in self.body["blanks"]])
            said = BLANK.sub(lambda _: next(left), self.body["prompt"])
            original = self.texts.get("questiontext")
            again = cloze.blanks_of(original[1], lambda part: reduced(original[0], part)) if original else None
        except cloze.NoCloze as error:
            raise Unspeakable(str(error)) from None
        self.begin("cloze", said)
        if original and again and again[:2] == (self.body["prompt"], self.body["blanks"]):
            text = self.root.one("questiontext")
            assert text is not None  # noqa: S101  # `begin` has just written it
            text.attributes["format"], text.content = original[0], []
            text.add("text", original[1])
