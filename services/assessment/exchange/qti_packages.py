"""Packages of QTI: a manifest, items, and a test that has them in an order with what they are worth."""

import posixpath
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from urllib.parse import unquote

from services.assessment.exchange.archives import Archive, packed
from services.assessment.exchange.documents import Element, document, indented, parse, refuse, refuse_rest, settle
from services.assessment.exchange.drafts import Draft, Imported, Limits, Unreadable, Written
from services.assessment.exchange.numbers import plain_number
from services.assessment.exchange.qti_bodies import Refused
from services.assessment.exchange.qti_declared import decimal
from services.assessment.exchange.qti_items import SCHEMA_LOCATION, read_item
from services.assessment.exchange.qti_names import (
    ITEM_NAMESPACE,
    ITEM_TYPE,
    MANIFEST_NAMESPACE,
    PREFIX,
    TEST_TYPE,
    as_spelled,
    modernised,
)
from services.assessment.exchange.qti_writing import write_item
from services.assessment.exchange.report import Place, Report

MANIFEST, TEST = "imsmanifest.xml", "assessment.xml"
LOM = "http://ltsc.ieee.org/xsd/LOM"
WEIGHT = "WEIGHT"
# Of one item, with their attributes: what is in it is looked at several times.
MOST_ELEMENTS = 20_000
NO_PLACE = "neither a question nor a quiz that is made of them has a place for it"
NOT_AN_ITEM = "files beside the items and the test are not taken"
USUAL = {"navigation-mode": "nonlinear", "submission-mode": "simultaneous", "visible": "true"}
SECTIONS = frozenset(["qti-test-part", "qti-assessment-section"])


@dataclass(slots=True)
class Resource:
    """What the manifest says of an item or a test."""

    element: Element
    kind: str
    href: str
    tags: tuple[str, ...] = ()


@dataclass(slots=True)
class Order:
    """What a test says: its title, and its items by their files, with their weights."""

    title: str = ""
    weights: dict[str, Decimal | None] = field(default_factory=dict)


def read_package(data: bytes, limits: Limits) -> Imported:
    """The questions of a package, in the order of its test."""
    archive = Archive(data, limits)
    if MANIFEST not in archive.infos:
        raise Unreadable(f"there is no {MANIFEST} in the archive, or not at its top")
    made = Imported()
    manifest = parse(archive.read(MANIFEST), limits, MANIFEST)
    resources = list(_resources(manifest, archive, made.report))
    _tell(manifest, made.report, MANIFEST)
    order = _order(archive, resources, limits, made.report)
    made.title = order.title
    known = {one.href: one for one in resources if one.kind == "item"}
    for href in dict.fromkeys([*(href for href in order.weights if href in known), *known]):
        if (draft := read_one(archive.read(href), made.report, limits, href)) is None:
            continue
        draft.tags = known[href].tags
        if (weight := order.weights.get(href)) is not None:
            draft.points = plain_number(weight * Decimal(draft.points or 1))
        made.drafts.append(draft)
        if len(made.drafts) > limits.questions:
            raise Unreadable(f"it has more than {limits.questions:,} questions")
    _tell_files(archive, resources, made.report)
    return made


def read_one(data: bytes, report: Report, limits: Limits, file: str = "") -> Draft | None:
    """The question of an item, or nothing when it is refused in the report."""
    try:
        return read_item(parse(data, replace(limits, elements=min(limits.elements, MOST_ELEMENTS)), file), file, limits)
    except Refused as refusal:
        # Reading spends an item, so it is read again to tell of all that is in it.
        refuse(parse(data, limits, file), report, str(refusal), file=file)
    except Unreadable as error:
        if not file:
            raise
        report.refused(file, Place(0, file), str(error).removeprefix(f"{file}: "))
    return None


def _resources(manifest: Element, archive: Archive, report: Report) -> Iterator[Resource]:
    """The items and tests that the manifest names; what else it names is refused."""
    if manifest.name != "manifest":
        raise Unreadable(f"{MANIFEST}: it is no manifest")
    manifest.get("identifier")
    for metadata in manifest.all("metadata"):
        metadata.text_of("schema")
        metadata.text_of("schemaversion")
    for one in manifest.elements:
        if one.name == "organizations" and not one.content:
            manifest.mark(one)
    if (holder := manifest.one("resources")) is None:
        return
    seen: set[str] = set()
    for one in holder.elements:
        words = one.attributes.get("type", "").partition("_xmlv")[0]
        kind = {"imsqti_item": "item", "imsqti_test": "test"}.get(words, "")
        href = _inside("", one.attributes.get("href", ""))
        wrong = "" if one.name == "resource" and kind else NOT_AN_ITEM
        if not wrong and (href not in archive.infos or href in seen):
            wrong = "it names a file that is not in the package, or not any more"
        if wrong:
            refuse(one, report, wrong, file=MANIFEST, path=f"manifest/resources/{one.name}")
            continue
        seen.add(href)
        yield Resource(holder.mark(one), kind, href, _described(one, href))
    holder.content = [one for one in holder.content if isinstance(one, str) or holder.took(one)]


def _described(one: Element, href: str) -> tuple[str, ...]:
    """The keywords in what a resource says of itself; the rest of it that is known is taken."""
    for name in ("identifier", "type", "href"):
        one.get(name)
    for child in one.elements:
        own = child.name == "file" and _inside("", child.attributes.get("href", "")) == href
        if own or child.name == "dependency":
            one.mark(child.take())
    found: list[str] = []
    metadata = one.one("metadata")
    for lom in metadata.all("lom") if metadata is not None else ():
        for general in lom.all("general"):
            for keyword in general.all("keyword"):
                for said in keyword.all("string", "langstring"):
                    said.get("language")
                    found.append(said.text().strip())
    return tuple(dict.fromkeys(word for word in found if word))


def _inside(folder: str, href: str) -> str:
    """The name in the archive of what a file in this folder names."""
    name = posixpath.normpath(posixpath.join(folder, unquote(href.partition("#")[0].strip())))
    return "" if name.startswith(("/", "..")) else name


def _tell(root: Element, report: Report, file: str) -> None:
    """Tells of a document that no question keeps anything of."""
    root.get(SCHEMA_LOCATION)
    refuse_rest(root, report, NO_PLACE, file=file)
    settle(root, report, file=file)


def _order(archive: Archive, resources: Sequence[Resource], limits: Limits, report: Report) -> Order:
    """What the first test says. Others are refused, for an import makes one quiz."""
    order = Order()
    tests = [one for one in resources if one.kind == "test"]
    for number, one in enumerate(tests):
        try:
            root = parse(archive.read(one.href), limits, one.href)
        except Unreadable as error:
            report.refused(one.href, Place(0, one.href), str(error).removeprefix(f"{one.href}: "))
            continue
        if number:
            refuse(root, report, "there is another test before it", file=one.href)
            continue
        own, old = Report(), modernised(root)
        order.title = root.get("title").strip()
        _sections(root, posixpath.dirname(one.href), order)
        for name in ("identifier", "tool-name", "tool-version"):
            root.get(name)
        _tell(root, own, one.href)
        report.extend(as_spelled(own, old))
    return order


def _sections(above: Element, folder: str, order: Order) -> None:
    for one in above.elements:
        if one.name in SECTIONS:
            above.mark(one).get("identifier")
            for name, usual in USUAL.items():
                if one.attributes.get(name) == usual:
                    one.get(name)
            if one.attributes.get("title") == order.title:
                one.get("title")
            _sections(one, folder, order)
        elif one.name == "qti-assessment-item-ref":
            href = _inside(folder, one.attributes.get("href", ""))
            if href not in order.weights:
                above.mark(one).get("identifier")
                one.get("href")
                order.weights[href] = _weight(one)


def _weight(one: Element) -> Decimal | None:
    """What an item counts, if the test says so once."""
    weights = [child for child in one.elements if child.name == "qti-weight"]
    value = decimal(weights[0].attributes.get("value", "")) if len(weights) == 1 else None
    if value is None or value < 0:
        return None
    one.mark(weights[0].take())
    return value


def _tell_files(archive: Archive, resources: Sequence[Resource], report: Report) -> None:
    taken = {MANIFEST, *(one.href for one in resources)}
    for name in archive:
        if name not in taken:
            report.refused(name, Place(0, name), NOT_AN_ITEM)


def write_package(drafts: Sequence[Draft], title: str) -> Written:
    """A package of an item for each question, and a test of all of them."""
    report, files = Report(), {}
    width = max(4, len(str(len(drafts))))
    names = [f"items/{number:0{width}}.xml" for number in range(1, len(drafts) + 1)]
    identifiers = list(_identifiers(drafts))
    for number, (draft, name, identifier) in enumerate(zip(drafts, names, identifiers, strict=True), 1):
        root = write_item(draft, identifier, number, report)
        root.content = [part for one in root.content for part in ("\n", one)] + ["\n"]
        files[name] = document(root)
    files[TEST] = document(indented(_test(drafts, names, identifiers, title)))
    files[MANIFEST] = document(indented(_manifest(drafts, names, identifiers)))
    return Written(packed(files), report)


def _identifiers(drafts: Sequence[Draft]) -> Iterator[str]:
    """Those that the items had, unless one was there already."""
    seen: set[str] = set()
    for number, draft in enumerate(drafts, 1):
        kept = dict((draft.preserved.get("qti") or {}).get("kept") or ())
        name = kept.get("@identifier", "")
        if not name or name in seen:
            name = f"{PREFIX}{number}"
        seen.add(name)
        yield name


def _test(drafts: Sequence[Draft], names: Sequence[str], identifiers: Sequence[str], title: str) -> Element:
    root = Element("qti-assessment-test", namespace=ITEM_NAMESPACE)
    root.attributes |= {"identifier": "test", "title": title}
    modes = {"navigation-mode": "nonlinear", "submission-mode": "simultaneous"}
    part = root.add("qti-test-part", identifier="part", **modes)
    section = part.add("qti-assessment-section", identifier="section", title=title, visible="true")
    for draft, name, identifier in zip(drafts, names, identifiers, strict=True):
        one = section.add("qti-assessment-item-ref", identifier=identifier, href=name)
        if draft.points:
            one.add("qti-weight", identifier=WEIGHT, value=draft.points)
    return root


def _manifest(drafts: Sequence[Draft], names: Sequence[str], identifiers: Sequence[str]) -> Element:
    root = Element("manifest", namespace=MANIFEST_NAMESPACE)
    root.attributes["identifier"] = "package"
    about = root.add("metadata")
    about.add("schema", "QTI Package")
    about.add("schemaversion", "3.0.0")
    root.add("organizations")
    resources = root.add("resources")
    test = resources.add("resource", identifier="resource-test", type=TEST_TYPE, href=TEST)
    test.add("file", href=TEST)
    for number, (draft, name, _) in enumerate(zip(drafts, names, identifiers, strict=True), 1):
        test.add("dependency", identifierref=f"resource-{number}")
        one = resources.add("resource", identifier=f"resource-{number}", type=ITEM_TYPE, href=name)
        if draft.tags:
            one.add("metadata").content.append(_keywords(draft.tags))
        one.add("file", href=name)
    return root


def _keywords(tags: Sequence[str]) -> Element:
    lom = Element("lom", namespace=LOM)
    general = lom.add("general")
    for tag in tags:
        general.add("keyword").add("string", tag, language="x-none")
    return lom
