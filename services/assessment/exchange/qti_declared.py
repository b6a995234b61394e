"""What the declarations of an item say of its responses: which values are right, and what each earns."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation

from services.assessment.exchange.documents import Element
from services.assessment.exchange.numbers import plain_number
from services.assessment.exchange.qti_processing import Processing
from services.assessment.exchange.shares import NOTHING, WHOLE

# As many decimals as a percentage of a body may have.
FINEST = Decimal("0.0000001")


@dataclass(slots=True)
class Declared:
    """A response: its right values, and the entries of its mapping: key, what it earns."""

    identifier: str
    cardinality: str
    base: str
    right: list[str] = field(default_factory=list)
    entries: list[tuple[str, Decimal]] = field(default_factory=list)
    case_sensitive: bool = True
    default: Decimal = NOTHING
    most: Decimal | None = None
    mapped: bool = False


@dataclass(slots=True)
class Key:
    """What values earn in percent of the most that the response can earn, which is `best`; `by_rule` is when nothing is
    said but which are right."""

    shares: dict[str, Decimal] = field(default_factory=dict)
    best: Decimal = NOTHING
    by_rule: bool = False
    case_sensitive: bool = True


def decimal(text: str) -> Decimal | None:
    """A number as XML spells it, if it is one that is finite and not absurdly long."""
    try:
        value = Decimal(text.strip())
    except InvalidOperation:
        return None
    return value if value.is_finite() and abs(value.adjusted()) < 30 and len(text) < 60 else None


def read_declared(one: Element) -> Declared:
    """A declaration; what is none of it is not taken."""
    made = Declared(one.get("identifier"), one.get("cardinality", "single"), one.get("base-type", "string"))
    if (right := one.one("qti-correct-response")) is not None:
        made.right = [value.text().strip() for value in right.all("qti-value")]
    if (mapping := one.one("qti-mapping")) is None:
        return made
    made.mapped = True
    made.default = decimal(mapping.get("default-value", "0")) or NOTHING
    made.most = decimal(mapping.get("upper-bound", ""))
    if decimal(mapping.attributes.get("lower-bound", "")) == 0:
        mapping.get("lower-bound")
    entries = mapping.all("qti-map-entry")
    cases = [one.attributes.get("case-sensitive", "true").strip() not in {"false", "0"} for one in entries]
    made.case_sensitive = all(cases)
    for entry, case in zip(entries, cases, strict=True):
        earned = decimal(entry.get("mapped-value"))
        made.entries.append((entry.get("map-key").strip(), NOTHING if earned is None else earned))
        if case is made.case_sensitive:
            entry.get("case-sensitive")
    return made


def key_of(declared: Declared, processing: Processing, whole: Decimal | None = None) -> Key:
    """What the values of the response earn, by the processing, or by the declaration where that says nothing. `whole`
    is what the item says that it is worth."""
    name = declared.identifier
    if known := processing.values.get(name):
        values = [(one.key, decimal(one.score) or NOTHING) for one in known]
        shares = dict(reversed(values))
        ordered = {value: shares[value] for value, _ in values}
        case = all(one.case_sensitive for one in known)
        return _scaled(ordered, max(whole or NOTHING, *shares.values()), Key(case_sensitive=case))
    if declared.mapped and (name in processing.mapped or name not in processing.matched):
        return _mapped(declared)
    best = decimal(processing.matched.get(name, "1")) or Decimal(1)
    return Key(dict.fromkeys(declared.right, WHOLE), best, by_rule=True)


def _mapped(declared: Declared) -> Key:
    first = dict(reversed(declared.entries))
    shares = {key: first[key] for key, _ in declared.entries}
    positive = [earned for earned in shares.values() if earned > 0]
    several = declared.cardinality != "single"
    best = sum(positive, NOTHING) if several else max(positive, default=NOTHING)
    if declared.most is not None and declared.most > 0:
        best = declared.most
    return _scaled(shares, best, Key(case_sensitive=declared.case_sensitive))


def _scaled(shares: dict[str, Decimal], best: Decimal, key: Key) -> Key:
    key.best = best
    for value, earned in shares.items():
        share = earned * WHOLE / best if best > 0 else NOTHING
        key.shares[value] = max(min(share, WHOLE), -WHOLE).quantize(FINEST)
    return key


def percent_of(share: Decimal) -> str:
    """A percentage as bodies have it for accepted answers, where nothing is all of it."""
    return "" if share == WHOLE else plain_number(share)


def worth(score: Element | None, most: Element | None, keys: Sequence[Key]) -> Decimal:
    """What an item is worth: what its outcomes say, or else what its responses can earn."""
    said = score.get("normal-maximum") if score is not None else ""
    if most is not None and (default := most.one("qti-default-value")) is not None:
        said = default.text_of("qti-value", said)
    found = decimal(said) if said else None
    return found if found is not None and found > 0 else sum((key.best for key in keys), NOTHING)
