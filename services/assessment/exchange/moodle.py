"""Moodle XML, the format in which Moodle writes its questions: in and out."""

from collections.abc import Sequence
from contextlib import suppress

from services.assessment.exchange.categories import levels
from services.assessment.exchange.documents import Element, document, indented, parse, refuse, settle
from services.assessment.exchange.drafts import LIMITS, Draft, Imported, Limits, Unreadable, Written
from services.assessment.exchange.moodle_reading import Misfit, read_question
from services.assessment.exchange.moodle_writing import Unspeakable, written
from services.assessment.exchange.report import Place, Report

MEDIA_TYPE = "application/xml"


def recognises(data: bytes) -> bool:
    """Whether it begins as a document whose root is `quiz`."""
    with suppress(UnicodeDecodeError):
        utf16 = data[:2] in (b"\xff\xfe", b"\xfe\xff")
        return "<quiz" in data[: 4 << 10].decode("utf-16" if utf16 else "utf-8", "ignore")
    return False


def read(data: bytes, limits: Limits = LIMITS) -> Imported:
    """The questions of a file; those of types that there are not are refused with everything in them."""
    root = parse(data, limits)
    if root.name != "quiz" or root.namespace:
        raise Unreadable(f"its root is `{root.name[:100]}`, not `quiz`")
    made, tags = Imported(), tuple[str, ...]()
    for one in root.all("question"):
        if one.attributes.get("type") == "category":
            tags = _category(one, made.report)
        elif len(made.drafts) == limits.questions:
            raise Unreadable(f"line {one.line}: it has more than {limits.questions:,} questions")
        else:
            _add(made, one, tags, limits)
        root.content.remove(one)
    root.text()
    for other in [*root.elements]:
        refuse(other, made.report, "it is no question", path=f"quiz/{other.name}")
        root.content.remove(other)
    settle(root, made.report, most=0)
    return made


def _add(made: Imported, one: Element, tags: tuple[str, ...], limits: Limits) -> None:
    try:
        made.drafts.append(read_question(one, tags, limits))
    except Misfit as error:
        refuse(one, made.report, str(error))


def _category(one: Element, report: Report) -> tuple[str, ...]:
    """The levels of a category are tags of the questions behind it."""
    one.get("type")
    category = one.one("category")
    tags = levels("" if category is None else category.text_of("text"), report, Place(one.line))
    if category is not None:
        category.text()
    one.text()
    for name in ("info", "idnumber"):
        if found := one.one(name):
            one.content.remove(found)
            if any(part.text().strip() for part in found.walk()):
                refuse(found, report, "it is about a category, which is tags here", path=f"question/{name}")
            else:
                settle(found.take(), report, path=f"question/{name}")
    settle(one, report, most=0)
    return tags


def write(drafts: Sequence[Draft], title: str = "") -> Written:
    """A file of the questions."""
    report, root = Report(), Element("quiz")
    for number, draft in enumerate(drafts, 1):
        try:
            root.content.append(written(draft, report, Place(number)))
        except Unspeakable as error:
            report.refused("question", Place(number), str(error))
    return Written(document(indented(root)), report)
