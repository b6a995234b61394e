"""buf.validate rules of a field, said in JSON schema: what the service refuses, the document refuses too."""

import math
from typing import Any

Schema = dict[str, Any]

FORMATS = {
    "uuid": "uuid",
    "email": "email",
    "hostname": "hostname",
    "uri": "uri",
    "uri_ref": "uri-reference",
    "ip": "ip",
    "ipv4": "ipv4",
    "ipv6": "ipv6",
}
RANGES = {"lt": "exclusiveMaximum", "lte": "maximum", "gt": "exclusiveMinimum", "gte": "minimum"}
IGNORE_IF_ZERO, IGNORE_ALWAYS = 1, 3
META = {"required", "ignore", "cel", "cel_expression"}


def limits(rules: Any) -> Schema:
    """Schema keywords for the rules of one value; empty when nothing can be said."""
    if rules is None or rules.ignore == IGNORE_ALWAYS:
        return {}
    found: Schema = {}
    constraints = [rule.message or rule.expression for rule in rules.cel]
    if constraints:
        found["x-constraints"] = constraints
    for field, typed in rules.ListFields():
        if field.name not in META:
            found |= _typed(field.name, typed)
    if rules.required:
        found = {**_present(rules), **found}
    return found


def must_be_sent(rules: Any, *, has_presence: bool) -> bool:
    """Whether leaving the field out, which means its zero value unless it has presence, breaks a rule."""
    if rules is None or rules.ignore == IGNORE_ALWAYS:
        return False
    if rules.required:
        return True
    if has_presence or rules.ignore == IGNORE_IF_ZERO:
        return False
    return any(_refuses_zero(field.name, typed) for field, typed in rules.ListFields() if field.name not in META)


def may_be_zero(rules: Any) -> bool:
    """Whether the zero value is exempt from the rules."""
    return rules is not None and rules.ignore == IGNORE_IF_ZERO


def _present(rules: Any) -> Schema:
    kind = rules.WhichOneof("type")
    return {"string": {"minLength": 1}, "repeated": {"minItems": 1}, "map": {"minProperties": 1}}.get(kind, {})


def _typed(kind: str, rules: Any) -> Schema:
    makers = {"string": _string, "bytes": _bytes, "repeated": _repeated, "map": _map, "enum": _enum}
    if kind in makers:
        return makers[kind](rules)
    wide = kind in ("int64", "uint64", "sint64", "sfixed64", "fixed64")
    if kind in ("duration", "timestamp"):
        return _times(rules)
    return _number(rules, wide=wide) if kind not in ("any", "field_mask", "bool") else {}


def _set(rules: Any, *names: str) -> dict[str, Any]:
    """The given rules as far as they are set; a list only when it is not empty."""
    wanted = {field.name: value for field, value in rules.ListFields() if field.name in names}
    return {name: list(value) if name in ("in", "not_in") else value for name, value in wanted.items()}


def _string(rules: Any) -> Schema:
    set_ = _set(rules, "const", "len", "min_len", "max_len", "max_bytes", "pattern", "in", "not_in")
    found: Schema = {}
    if "max_bytes" in set_:
        found["maxLength"] = set_["max_bytes"]
    for rule, keyword in (("min_len", "minLength"), ("max_len", "maxLength"), ("const", "const"), ("in", "enum")):
        if rule in set_:
            found[keyword] = set_[rule]
    if "len" in set_:
        found |= {"minLength": set_["len"], "maxLength": set_["len"]}
    if "not_in" in set_:
        found["not"] = {"enum": set_["not_in"]}
    known = rules.WhichOneof("well_known")
    if known in FORMATS and getattr(rules, known):
        found["format"] = FORMATS[known]
    return found | _patterns(rules)


def _patterns(rules: Any) -> Schema:
    """Affixes become patterns; several of them are combined with `allOf`, for a schema has one pattern only."""
    set_ = _set(rules, "pattern", "prefix", "suffix", "contains", "not_contains")
    patterns = [
        form.format(set_[rule] if rule == "pattern" else _literal(set_[rule]))
        for rule, form in (("pattern", "{}"), ("prefix", "^{}"), ("suffix", "{}$"), ("contains", "{}"))
        if rule in set_
    ]
    if "not_contains" in set_:
        text = set_["not_contains"]
        patterns.append(f"^[^{_literal(text)}]*$" if len(text) == 1 else f"^(?!.*{_literal(text)})")
    portable = [pattern.replace(r"\A", "^").replace(r"\z", "$") for pattern in patterns]
    if len(portable) == 1:
        return {"pattern": portable[0]}
    return {"allOf": [{"pattern": pattern} for pattern in portable]} if portable else {}


def _literal(text: str) -> str:
    """A string as a regular expression of ECMAScript, which refuses escapes that are not needed."""
    special = {character: f"\\{character}" for character in r"\^$.*+?()[]{}|/-"}
    return "".join(special.get(c, c if c.isprintable() else f"\\u{ord(c):04x}") for c in text)


def _bytes(rules: Any) -> Schema:
    set_ = _set(rules, "len", "min_len", "max_len")
    found: Schema = {}
    if largest := set_.get("max_len", set_.get("len")):
        found["maxLength"] = _base64(largest)
    if smallest := set_.get("min_len", set_.get("len")):
        found["minLength"] = math.ceil(smallest * 4 / 3)
    return found


def _base64(size: int) -> int:
    return 4 * math.ceil(size / 3)


def _number(rules: Any, *, wide: bool) -> Schema:
    set_ = _set(rules, "const", "lt", "lte", "gt", "gte", "in", "not_in")
    if wide:
        # The JSON form is a string, on which ranges have no meaning: told to people, and to tools that know the prefix.
        return {f"x-{RANGES[rule]}": str(value) for rule, value in set_.items() if rule in RANGES} | (
            {"enum": [str(value) for value in set_["in"]]} if "in" in set_ else {}
        )
    found: Schema = {RANGES[rule]: value for rule, value in set_.items() if rule in RANGES}
    if "const" in set_:
        found["const"] = set_["const"]
    if "in" in set_:
        found["enum"] = set_["in"]
    if "not_in" in set_:
        found["not"] = {"enum": set_["not_in"]}
    return found


def _times(rules: Any) -> Schema:
    set_ = _set(rules, "lt", "lte", "gt", "gte", "within")
    found: Schema = {
        f"x-{RANGES.get(rule, rule)}": value.ToJsonString() if hasattr(value, "ToJsonString") else _seconds(value)
        for rule, value in set_.items()
    }
    relative = _set(rules, "lt_now", "gt_now")
    return found | {f"x-{name.replace('_', '-')}": True for name in relative}


def _seconds(value: Any) -> str:
    return f"{value.seconds + value.nanos / 1e9:g}s"


def _enum(rules: Any) -> Schema:
    """Numbers, which the schema of the field turns into names."""
    set_ = _set(rules, "in", "not_in", "const")
    found: Schema = {}
    if "in" in set_ or "const" in set_:
        found["x-in"] = set_.get("in", [set_.get("const")])
    if "not_in" in set_:
        found["x-not-in"] = set_["not_in"]
    return found


def _repeated(rules: Any) -> Schema:
    set_ = _set(rules, "min_items", "max_items", "unique")
    names = {"min_items": "minItems", "max_items": "maxItems", "unique": "uniqueItems"}
    found: Schema = {names[rule]: value for rule, value in set_.items()}
    if rules.HasField("items"):
        found["items"] = limits(rules.items)
    return found


def _map(rules: Any) -> Schema:
    set_ = _set(rules, "min_pairs", "max_pairs")
    names = {"min_pairs": "minProperties", "max_pairs": "maxProperties"}
    found: Schema = {names[rule]: value for rule, value in set_.items()}
    if rules.HasField("keys"):
        found["propertyNames"] = limits(rules.keys)
    if rules.HasField("values"):
        found["additionalProperties"] = limits(rules.values)
    return found


def _refuses_zero(kind: str, rules: Any) -> bool:
    schema = _typed(kind, rules)
    if kind == "string":
        return bool(schema.get("minLength")) or "format" in schema or "" not in schema.get("enum", [""])
    if kind in ("repeated", "map"):
        return bool(schema.get("minItems") or schema.get("minProperties"))
    if kind == "enum":
        return 0 in schema.get("x-not-in", []) or 0 not in schema.get("x-in", [0])
    lowest, above = _set(rules, "gte").get("gte"), _set(rules, "gt").get("gt")
    if kind in ("duration", "timestamp", "any", "field_mask"):
        return False
    return (lowest is not None and lowest > 0) or (above is not None and above >= 0)
