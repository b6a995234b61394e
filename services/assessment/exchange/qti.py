"""QTI 3.0 in and out, QTI 2.2 and 2.1 in: packages, and single items."""

from collections.abc import Sequence

from services.assessment.exchange.documents import parse
from services.assessment.exchange.drafts import LIMITS, Draft, Imported, Limits, Unreadable, Written
from services.assessment.exchange.qti_names import ITEM_NAMESPACE, OLD_NAMESPACES
from services.assessment.exchange.qti_packages import MANIFEST, read_one, read_package, write_package

MEDIA_TYPE = "application/zip"
ZIP = b"PK\x03\x04"
ROOTS = ("<assessmentItem", "<qti-assessment-item", ":assessmentItem", ":qti-assessment-item")
BEGINNING = 4_000


def recognises(data: bytes) -> bool:
    """Whether it looks like a package with a manifest, or like an item."""
    if data.startswith(ZIP):
        return MANIFEST.encode() in data
    beginning = data[:BEGINNING].replace(b"\0", b"").decode("utf-8", "replace")
    return any(root in beginning for root in ROOTS)


def read(data: bytes, limits: Limits = LIMITS) -> Imported:
    """The questions of a package or an item, as `Format` says."""
    if len(data) > limits.bytes:
        raise Unreadable(f"the file has more than {limits.bytes >> 20} MiB")
    if data[:2] == ZIP[:2]:
        return read_package(data, limits)
    root = parse(data, limits)
    if root.name not in {"qti-assessment-item", "assessmentItem"}:
        raise Unreadable(f"{root.name[:100]} is neither an item of QTI nor a package of them")
    if root.namespace != ITEM_NAMESPACE and root.namespace not in OLD_NAMESPACES:
        raise Unreadable(f"items of {root.namespace[:100] or 'no namespace'} are of no version that is read")
    made = Imported()
    if (draft := read_one(data, made.report, limits)) is not None:
        made.drafts.append(draft)
    return made


def write(drafts: Sequence[Draft], title: str = "") -> Written:
    """A package of QTI 3.0, as `Format` says."""
    return write_package(drafts, title)
