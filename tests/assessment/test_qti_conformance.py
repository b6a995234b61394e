"""What is written is QTI 3.0: each element where the schema has it, each attribute one of its own, each name known."""

import re
from collections.abc import Iterator

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.assessment.exchange import qti
from services.assessment.exchange.archives import Archive
from services.assessment.exchange.documents import Element, parse
from services.assessment.exchange.drafts import LIMITS, Draft
from tests.assessment.drafts import drafts
from tests.assessment.packages import corners

QUICK = settings(max_examples=30, deadline=None, suppress_health_check=[*HealthCheck])
NCNAME = re.compile(r"[A-Za-z_][\w.-]*")
# By the specification: what an element may have in it, in this order, and its attributes; `!` for those it must have.
CONTENT = {
    "qti-assessment-item": (
        "qti-response-declaration* qti-outcome-declaration* qti-companion-materials-info? qti-item-body "
        "qti-catalog-info? qti-response-processing qti-modal-feedback*"
    ),
    "qti-response-declaration": "qti-correct-response qti-mapping?",
    "qti-correct-response": "qti-value+",
    "qti-mapping": "qti-map-entry+",
    "qti-outcome-declaration": "qti-default-value?",
    "qti-match-interaction": "qti-simple-match-set qti-simple-match-set",
    "qti-simple-match-set": "qti-simple-associable-choice*",
    "qti-choice-interaction": "qti-simple-choice+",
    "qti-order-interaction": "qti-simple-choice+",
    "qti-inline-choice-interaction": "qti-inline-choice+",
    "qti-text-entry-interaction": "",
    "qti-response-condition": "qti-response-if qti-response-else-if* qti-response-else?",
    "qti-set-outcome-value": "(qti-base-value|qti-variable|qti-map-response|qti-divide)",
    "qti-divide": "qti-sum qti-base-value",
    "qti-gte": "qti-sum qti-base-value",
    "qti-match": "qti-variable (qti-correct|qti-base-value)",
    "qti-equal": "qti-variable qti-base-value",
    "qti-string-match": "qti-variable qti-base-value",
    "qti-modal-feedback": "qti-content-body",
    "qti-assessment-test": "qti-test-part",
    "qti-test-part": "qti-assessment-section",
    "qti-assessment-section": "qti-assessment-item-ref*",
    "qti-assessment-item-ref": "qti-weight?",
}
ATTRIBUTES = {
    "qti-assessment-item": "identifier! title! adaptive time-dependent! label xml:lang tool-name tool-version",
    "qti-response-declaration": "identifier! cardinality! base-type!",
    "qti-outcome-declaration": "identifier! cardinality! base-type! normal-minimum normal-maximum",
    "qti-mapping": "lower-bound upper-bound default-value",
    "qti-map-entry": "map-key! mapped-value! case-sensitive",
    "qti-simple-choice": "identifier! fixed show-hide",
    "qti-inline-choice": "identifier! fixed class",
    "qti-simple-associable-choice": "identifier! match-max! fixed",
    "qti-equal": "tolerance-mode! tolerance",
    "qti-string-match": "case-sensitive!",
    "qti-set-outcome-value": "identifier!",
    "qti-base-value": "base-type!",
    "qti-modal-feedback": "outcome-identifier! identifier! show-hide!",
    "qti-response-processing": "template",
    "qti-test-part": "identifier! navigation-mode! submission-mode!",
    "qti-assessment-section": "identifier! title! visible!",
    "qti-assessment-item-ref": "identifier! href!",
    "qti-weight": "identifier! value!",
}


OF_CHOICES = {"identifier", "directedPair"}


def documents(data: bytes) -> Iterator[tuple[str, Element]]:
    archive = Archive(data, LIMITS)
    for name in archive:
        yield name, parse(archive.read(name))


def model(text: str) -> re.Pattern[str]:
    """A content model as a pattern over names that end with a space each."""
    names = re.sub(r"[a-z-]+", lambda name: f"(?:{name[0]} )", text)
    return re.compile(names.replace(" )", "\0").replace(" ", "").replace("\0", " )"))


def check(root: Element) -> None:
    for one in root.walk():
        if one.name in CONTENT:
            inner = "".join(f"{child.name} " for child in one.elements)
            assert model(CONTENT[one.name]).fullmatch(inner), (one.name, inner)
        if one.name in ATTRIBUTES:
            allowed = ATTRIBUTES[one.name].split()
            assert {name.rstrip("!") for name in allowed} >= one.attributes.keys(), (one.name, one.attributes)
            assert {name[:-1] for name in allowed if name[-1] == "!"} <= one.attributes.keys(), one.name
        for name in ("identifier", "response-identifier", "outcome-identifier"):
            assert NCNAME.fullmatch(one.attributes.get(name, "x"))


def named(root: Element, *names: str, attribute: str = "identifier") -> list[str]:
    return [one.attributes[attribute] for one in root.walk() if one.name in names]


def check_names(root: Element) -> None:
    """Each name that is used is declared, and once."""
    responses, outcomes = named(root, "qti-response-declaration"), named(root, "qti-outcome-declaration")
    asked = [one.attributes["response-identifier"] for one in root.walk() if one.name.endswith("-interaction")]
    assert sorted(asked) == sorted(set(responses)) == sorted(responses)
    assert len(set(outcomes)) == len(outcomes)
    assert set(named(root, "qti-correct", "qti-map-response")) <= set(responses)
    assert set(named(root, "qti-variable")) <= {*responses, *outcomes}
    shown = named(root, "qti-modal-feedback", attribute="outcome-identifier")
    assert {*named(root, "qti-set-outcome-value"), *shown} <= set(outcomes)
    choices = {n: set(named(one, "qti-simple-choice", "qti-inline-choice", "qti-simple-associable-choice"))
               for one in root.walk() if (n := one.attributes.get("response-identifier", ""))}  # fmt: skip
    for declared in root.elements:
        if declared.name == "qti-response-declaration" and declared.attributes["base-type"] in OF_CHOICES:
            values = [one.text() for one in declared.walk() if one.name == "qti-value"]
            values += named(declared, "qti-map-entry", attribute="map-key")
            assert {part for value in values for part in value.split()} <= choices[declared.attributes["identifier"]]


class TestPackages:
    @given(made=st.lists(drafts(), min_size=1, max_size=3))
    @QUICK
    def test_are_as_the_schema_has_them(self, made: list[Draft]) -> None:
        for _, root in documents(qti.write(made, "T").data):
            check(root)
            if root.name == "qti-assessment-item":
                check_names(root)

    def test_have_a_manifest_of_all_their_files(self) -> None:
        read = qti.read(corners())
        found = dict(documents(qti.write(read.drafts, read.title).data))
        manifest = found["imsmanifest.xml"]
        assert [(one.name, one.text()) for one in manifest.elements[0].elements] == [
            ("schema", "QTI Package"),
            ("schemaversion", "3.0.0"),
        ]
        resources = {one.attributes["identifier"]: one for one in manifest.walk() if one.name == "resource"}
        assert {one.attributes["href"] for one in resources.values()} == found.keys() - {"imsmanifest.xml"}
        used = named(resources["resource-test"], "dependency", attribute="identifierref")
        assert {*used, "resource-test"} == resources.keys()
        for one in resources.values():
            assert one.attributes["href"] in named(one, "file", attribute="href")
        items = {root.attributes["identifier"] for root in found.values() if root.name == "qti-assessment-item"}
        assert sorted(named(found["assessment.xml"], "qti-assessment-item-ref")) == sorted(items)

    def test_keep_the_order_of_the_schema_with_what_was_kept(self) -> None:
        read = qti.read(corners())
        for _, root in documents(qti.write(read.drafts).data):
            if root.name == "qti-assessment-item":
                inner = "".join(f"{child.name} " for child in root.elements)
                assert model(CONTENT[root.name]).fullmatch(inner), inner
