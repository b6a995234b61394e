"""Text with marks, as items of QTI have it: read as plain text beside its original, and written again from both."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from services.assessment.exchange.documents import Element, parse, written
from services.assessment.exchange.drafts import Unreadable
from services.assessment.exchange.qti_names import ITEM_NAMESPACE, PREFIX
from services.assessment.exchange.report import Place, Report

WHITE = re.compile("[ \t\r\n]+")
BLANK = re.compile("_{3,}")
XML_SPACE = "xml:space"
# Elements around which a line ends, and those that say nothing beyond that or less when they have no attributes.
_BLOCKS = """
    address article aside blockquote caption center dd details div dl dt fieldset figcaption figure footer h1 h2 h3 h4
    h5 h6 header hr li main nav ol p pre section summary table tbody tfoot thead tr ul
    qti-content-body qti-prompt qti-gap-match-interaction
    """
BLOCKS = frozenset(_BLOCKS.split())
PLAIN = frozenset(["br", "div", "p", "pre", "span", "qti-content-body", "qti-prompt"])
CELLS = frozenset(["td", "th"])
# Not part of what a learner reads as the question.
ASIDE = frozenset(["qti-rubric-block", "qti-catalog-info"])
CONDITIONAL = frozenset(["qti-feedback-block", "qti-feedback-inline", "qti-template-block", "qti-template-inline"])
# What has to be in the package to be seen.
SOURCES = ("src", "data", "srcset", "poster", "href")
ELSEWHERE = re.compile("(?:https?:|data:|mailto:|#)", re.IGNORECASE)
NOT_TAKEN = "files of the package are not taken; the alternative text is"
KEPT = "it is kept for the export in the same format, as long as the text is not changed"
NOT_KEPT = "it is too long to be kept; the text is taken"
ASIDE_KEPT = "it is kept for the export in the same format, and not shown to learners"
# The class of an element whose white space counts, where there can be no `pre`.
EXACT = f"{PREFIX}exact"
# After a blank, which must not run together with the next one.
BLANK_END = "__"
Slots = Mapping[int, str]


@dataclass(slots=True)
class Flow:
    """The plain text of an element; its original without what is refused, empty where it says no more than the text;
    and what became of all in it: path, place, and what to say of it, which is nothing of what is mapped."""

    text: str
    original: str
    found: list[tuple[str, Place, str]] = field(default_factory=list)

    def wrap(self) -> None:
        """Makes a block of an original that is none."""
        if not self.original:
            return
        flow = parse(self.original.encode())
        if any(one.strip() if isinstance(one, str) else one.name not in BLOCKS for one in flow.content):
            inner, flow.content = flow.content, []
            flow.add("div" if any(map(_is_block, inner)) else "p").content = inner
            self.original = written(flow)

    def tell(self, report: Report, *, kept: bool) -> None:
        """Notes all in the text, which is kept with its marks or without."""
        for path, place, message in self.found:
            if not message:
                report.mapped(path, place)
            elif message in {KEPT, ASIDE_KEPT} and kept:
                report.preserved(path, place, message)
            else:
                report.refused(path, place, NOT_KEPT if message in {KEPT, ASIDE_KEPT} else message)


def read_flow(element: Element, path: str, file: str = "", slots: Slots | None = None) -> Flow:
    """The text in an element, which is empty afterwards. `slots` are what the text has in place of elements, by their
    ids; those of block level have nothing."""
    reader = _Reader(file, slots or {})
    exact = element.attributes.get(XML_SPACE) == "preserve" or element.attributes.get("class") == EXACT
    reader.all_in(element, path, reader.copy, exact=exact)
    element.content = []
    text = "".join(reader.pieces).strip()
    bare = not any(message in {KEPT, ASIDE_KEPT} for _, _, message in reader.found)
    return Flow(text, "" if bare else written(reader.copy), reader.found)


class _Reader:
    def __init__(self, file: str, slots: Slots) -> None:
        self.file, self.slots = file, slots
        self.pieces: list[str] = []
        self.end, self.space = "\n", False
        self.copy = Element("flow", namespace=ITEM_NAMESPACE)
        self.found: list[tuple[str, Place, str]] = []

    def say(self, text: str) -> None:
        if text:
            self.pieces.append(" " * self.space + text)
            self.end, self.space = text[-1], False

    def flow_on(self, text: str) -> None:
        """Says text in which any white space is one space, and none where a line begins or ends."""
        text = WHITE.sub(" ", text)
        if text[:1] == " " or (self.end == BLANK_END and text[:1] == "_"):
            self.space = self.space or self.end not in "\n "
        self.say(text.strip(" "))
        if text[-1:] == " ":
            self.space = self.end not in "\n "

    def end_line(self) -> None:
        self.space = False
        if self.end != "\n":
            self.say("\n")

    def blank(self, stand_in: str) -> None:
        if not stand_in:
            self.end_line()
            return
        self.space = self.space or self.end in {"_", BLANK_END}
        self.say(stand_in)
        self.end = BLANK_END

    def all_in(self, element: Element, path: str, copy: Element, *, exact: bool) -> None:
        for one in element.content:
            if isinstance(one, str):
                copy.content.append(one)
                (self.say if exact else self.flow_on)(one)
            elif id(one) in self.slots:
                self.slot(one, path, copy)
            elif one.name[0] not in "#?":
                self.one(one, f"{path}/{one.name}", copy, exact=exact)
            else:
                self.found.append((f"{path}/{one.name}", Place(one.line, self.file), "it is shown to nobody"))

    def slot(self, one: Element, path: str, copy: Element) -> None:
        for prompt in [inner for inner in one.elements if inner.name == "qti-prompt"]:
            one.content.remove(prompt)
            self.one(prompt, f"{path}/{one.name}/qti-prompt", copy, exact=False)
        self.blank(self.slots[id(one)])
        copy.add("slot")

    def one(self, one: Element, path: str, copy: Element, *, exact: bool) -> None:
        if one.name in CONDITIONAL:
            return self.whole(one, path, "it is shown only in some cases, which questions have no way to say")
        if one.name in ASIDE:
            copy.content.append(one)
            return self.whole(one, path, ASIDE_KEPT)
        if any(not ELSEWHERE.match(one.attributes[name].strip()) for name in SOURCES if name in one.attributes):
            return self.media(one, path, copy)
        if one.name != "qti-gap-match-interaction":
            self.note(one, path, "" if one.name in PLAIN and not one.attributes.keys() - {XML_SPACE} else KEPT)
        made = copy.add({"qti-prompt": "p" if not _blocks_in(one) else "div"}.get(one.name, one.name))
        made.namespace = one.namespace or ITEM_NAMESPACE
        if one.name == "qti-gap-match-interaction":
            made.name = "div"
        elif one.name not in {"qti-prompt", "qti-content-body"}:
            made.attributes |= one.attributes
        self.inner(one, path, made, exact=exact)
        return None

    def inner(self, one: Element, path: str, made: Element, *, exact: bool) -> None:
        if one.name == "br":
            self.space = False
            self.say("\n")
            return
        if one.name in BLOCKS:
            self.end_line()
        elif one.name in CELLS:
            self.flow_on(" ")
        self.flow_on(one.attributes.get("alt", ""))
        space = one.attributes.get(XML_SPACE)
        self.all_in(one, path, made, exact=one.name == "pre" or space == "preserve" or (exact and space != "default"))
        if one.name in BLOCKS:
            self.end_line()

    def media(self, one: Element, path: str, copy: Element) -> None:
        """What is lost but for the text that it has for those who do not see it."""
        self.note(one, path, NOT_TAKEN)
        said = Element("span", namespace=ITEM_NAMESPACE)
        self.flow_on(one.attributes.get("alt", ""))
        if "alt" in one.attributes:
            said.content.append(one.attributes["alt"])
        self.all_in(one, path, said, exact=False)
        copy.content.append(said)

    def whole(self, one: Element, path: str, message: str) -> None:
        self.note(one, path, message)
        for child in one.elements:
            self.whole(child, f"{path}/{child.name}", message)

    def note(self, one: Element, path: str, message: str) -> None:
        place = Place(one.line, self.file)
        self.found.append((path, place, message))
        for name in one.attributes:
            spoken = name in {"alt", XML_SPACE} and message == NOT_TAKEN
            self.found.append((f"{path}/@{name}", place, "" if spoken else message))


def _is_block(one: Element | str) -> bool:
    return isinstance(one, Element) and any(part.name in BLOCKS for part in one.walk())


def _blocks_in(element: Element) -> bool:
    return any(map(_is_block, element.elements))


def plain(text: str, slots: Sequence[Element] = ()) -> list[Element | str]:
    """The content of an element of inline text, or text exactly as it is in a `pre`, that reads as this text, with
    these elements in place of its blanks."""
    content: list[Element | str] = []
    for number, line in enumerate(text.split("\n")):
        content += [Element("br", namespace=ITEM_NAMESPACE)] * (number > 0)
        content += [line] if line else []
    if _text(content) != text:
        content = [_holding("pre", [text])]
    if slots:
        waiting = iter(slots)
        for one in content:
            if isinstance(one, Element):
                one.content = list(_filled(one.content, waiting))
        content = list(_filled(content, iter(slots)) if isinstance(content[0], str) else content)
    return content


def paragraphs(text: str, slots: Sequence[Element] = ()) -> list[Element | str]:
    """The same for an element of blocks."""
    lines = text.split("\n")
    whole: list[Element | str] = [_holding("p", [line]) for line in lines]
    if "" in lines or _text(whole) != text:
        inline = plain(text, slots)
        pre = isinstance(inline[0], Element) and inline[0].name == "pre"
        return inline if pre else [_holding("p", inline)]
    waiting = iter(slots)
    for one in whole:
        if slots and isinstance(one, Element):
            one.content = list(_filled(one.content, waiting))
    return whole


def _text(content: list[Element | str]) -> str:
    """What reading it gives."""
    return read_flow(_holding("flow", content), "").text


def _holding(name: str, content: list[Element | str]) -> Element:
    made = Element(name, namespace=ITEM_NAMESPACE)
    made.content = list(content)
    return made


def _filled(content: list[Element | str], waiting: Iterator[Element]) -> Iterator[Element | str]:
    for one in content:
        if not isinstance(one, str):
            yield one
            continue
        start = 0
        for found in BLANK.finditer(one):
            if before := one[start : found.start()]:
                yield before
            yield next(waiting)
            start = found.end()
        if start < len(one):
            yield one[start:]


def restored(original: str, slots: Sequence[Element]) -> list[Element | str] | None:
    """The content that was read as the text, if it has as many places for elements as there are."""
    try:
        flow = parse(original.encode())
    except Unreadable:
        return None
    if sum(one.name == "slot" for one in flow.walk()) != len(slots):
        return None
    _put(flow, iter(slots))
    return flow.content


def _put(holder: Element, waiting: Iterator[Element]) -> None:
    for number, one in enumerate(holder.content):
        if not isinstance(one, Element):
            continue
        if one.name == "slot":
            holder.content[number] = next(waiting)
        else:
            _put(one, waiting)
