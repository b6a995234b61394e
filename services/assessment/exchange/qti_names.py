"""The names of QTI: those of 3.0, and how 2.2 and 2.1 spell them."""

import re
from collections.abc import Mapping

from services.assessment.exchange.documents import Element
from services.assessment.exchange.report import Report

ITEM_NAMESPACE = "http://www.imsglobal.org/xsd/imsqtiasi_v3p0"
MANIFEST_NAMESPACE = "http://www.imsglobal.org/xsd/qti/qtiv3p0/imscp_v1p1"
OLD_NAMESPACES = {f"http://www.imsglobal.org/xsd/{name}" for name in ("imsqti_v2p2", "imsqti_v2p1", "imsaqti_itemv1p0")}
TEMPLATES = "https://purl.imsglobal.org/spec/qti/v3p0/rptemplates/"
# How classes and identifiers of ours begin.
PREFIX = "storyloom-"
GENERATED = re.compile(PREFIX + "[0-9]+")
# What a resource of a package is, by the words before the version in its type.
ITEM_TYPE, TEST_TYPE = "imsqti_item_xmlv3p0", "imsqti_test_xmlv3p0"

# Elements of QTI, without the `qti-` that all of them have in 3.0; everything else in an item is of HTML or MathML.
_ELEMENTS = """
    and any-n area-map-entry area-mapping assessment-item assessment-item-ref assessment-section assessment-section-ref
    assessment-stimulus-ref assessment-test associable-hotspot associate-interaction base-value branch-rule
    calculator calculator-info card card-entry catalog catalog-info choice-interaction companion-materials-info
    container-size contains content-body context-declaration correct correct-response custom-interaction custom-operator
    default default-value delete description digital-material divide drawing-interaction duration-gte duration-lt
    end-attempt-interaction equal equal-rounded exit-response exit-template exit-test extended-text-interaction
    feedback-block feedback-inline field-value file-href gap gap-img gap-match-interaction gap-text gcd
    graphic-associate-interaction graphic-gap-match-interaction graphic-order-interaction gt gte hotspot-choice
    hotspot-interaction hottext hottext-interaction html-content index inline-choice inline-choice-interaction inside
    integer-divide integer-modulus integer-to-float interaction-markup interaction-module interaction-modules
    interpolation-table interpolation-table-entry is-null item-body item-file-info item-session-control item-subset lcm
    lookup-outcome-value lt lte map-entry map-response map-response-point mapping match match-interaction
    match-table match-table-entry math-constant math-operator max media-interaction member min modal-feedback multiple
    not null number-correct number-incorrect number-presented number-responded number-selected or order-interaction
    ordered ordering outcome-condition outcome-declaration outcome-else outcome-else-if outcome-if outcome-maximum
    outcome-minimum outcome-processing outcome-processing-fragment pattern-match physical-material
    portable-custom-interaction position-object-interaction position-object-stage power pre-condition printed-variable
    product prompt protractor random random-float random-integer record repeat resource-icon response-condition
    response-declaration response-else response-else-if response-if response-processing response-processing-fragment
    round round-to rubric-block rule rule-system-metric rule-system-us select-point-interaction selection
    set-correct-response set-default-value set-outcome-value set-template-value simple-associable-choice
    simple-choice simple-match-set slider-interaction stats-operator stimulus-body string-match stylesheet substring
    subtract sum template-block template-block-feedback template-condition template-constraint template-declaration
    template-default template-else template-else-if template-if template-inline template-processing
    template-variable test-feedback test-part test-variables text-entry-interaction time-limits truncate
    upload-interaction value variable variable-mapping weight
    """
ELEMENTS = frozenset(f"qti-{name}" for name in _ELEMENTS.split())
# Those that the rule does not give.
SPELLED_OTHERWISE = {"preCondition": "qti-pre-condition", "positionObjectStage": "qti-position-object-stage"}
CAPITAL = re.compile("[A-Z]")


def kebab(name: str) -> str:
    """`maxChoices` as 3.0 spells it: `max-choices`."""
    return CAPITAL.sub(lambda found: f"-{found[0].lower()}", name)


def modernised(root: Element) -> Mapping[str, str]:
    """Gives a document of QTI 2 the names of 3.0, in place; answers the names that it had, by their new ones."""
    old: dict[str, str] = {}
    if root.namespace not in OLD_NAMESPACES:
        return old
    for one in root.walk():
        if one.namespace != root.namespace and one.namespace not in OLD_NAMESPACES:
            continue
        one.namespace = ITEM_NAMESPACE
        new = SPELLED_OTHERWISE.get(one.name) or f"qti-{kebab(one.name)}"
        if new in ELEMENTS:
            old[new], one.name = one.name, new
        for name in [name for name in one.attributes if CAPITAL.search(name) and name[0] != "{"]:
            old[f"@{kebab(name)}"] = f"@{name}"
        one.attributes = {(name if name[0] == "{" else kebab(name)): value for name, value in one.attributes.items()}
    return old


def as_spelled(report: Report, old: Mapping[str, str]) -> Report:
    """The report with the names that the document has."""
    if not old:
        return report
    return Report(
        [
            one._replace(element="/".join(old.get(step, step) for step in one.element.split("/")))
            for one in report.findings
        ]
    )


def template_of(url: str) -> str:
    """The name of a template for response processing, whatever the version: `match_correct`."""
    return url.rstrip("/").rpartition("/")[2].removesuffix(".xml")
