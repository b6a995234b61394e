"""Valid requests of any RPC, made from its descriptor and its validation rules alone."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from itertools import combinations, count
from typing import Any

import protovalidate
from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from kit.ids import new_id
from tests.contract import api

ID = re.compile(r"(\w+?_)?ids?")
# Where the name of a field is not the kind of what it refers to.
KINDS = {
    "prerequisite": "lesson",
    "entity": "story_version",
    "version": "story_version",
    "requester": "user",
    "policy": "resource_policy",
    "policy_in_force": "resource_policy",
    "access_subject": "user",
    "access_resource": "story",
    "resource_check": "story",
    "event": "audit_log",
    "aggregate": "story",
    "after": "audit_log",
    "pinned_vocabulary": "vocabulary",
    "banned_vocabulary": "vocabulary",
    "base": "story_version",
    "weave": "story",
    "course_copy": "course",
    "package": "course",
    "preview": "quiz",
    "author": "user",
    # Parts of questions, which have no rows of their own.
    **dict.fromkeys(("stem", "target", "item", "order_item"), "choice"),
    "device": "user",
}
NOT_OURS = {"request_id", "trace_id"}
# With made-up ones a call ends before it looks for anything.
SHORT_CUTS = {"etag", "page_token"}
# Tried in this order against the rules of a field. `{n}` makes the value new each time.
TEXTS = (
    *("x{n}", "x{n}@kanari.example", "0.5", "0.8", "60", "en", "longer text {n}", f"{0xABC:032x}", f"{0xABC:064x}"),
    "2026-11-22",
)
# Where what the rules of a field allow would not get far.
KNOWN = {
    "storyloom.identity.v1.ResourcePolicy.resource": "story",
    "storyloom.identity.v1.ResourcePolicy.actions": "read",
    "storyloom.access.v1.PreviewPolicyRequest.resource": "story",
    "storyloom.access.v1.PreviewPolicyRequest.actions": "read",
    "storyloom.access.v1.ResourceCheck.resource": "story",
    "storyloom.access.v1.ResourceCheck.action": "read",
    "storyloom.identity.v1.AccessResource.type": "story",
    "storyloom.identity.v1.AccessAction.name": "read",
    "storyloom.identity.v1.PreviewPolicyRequest.resource": "story",
    "storyloom.identity.v1.PreviewPolicyRequest.actions": "read",
    "storyloom.content.v1.Vocabulary.level": "B1",
    "storyloom.content.v1.GetCoverageRequest.max_level": "B1",
    "storyloom.content.v1.ImportVocabularyTextRequest.text": "term,part_of_speech,translation\nx,noun,y\n",
    "storyloom.learning.v1.ExportStatementsRequest.cursor": f"0-0-{0:032x}",
    # In the stories of every tenant that tests make.
    "storyloom.content.v1.SearchRequest.query": "con mèo",
}
# What a caller's clock says; one that is far off is refused.
CLOCKS = {"storyloom.learning.v1.SyncClientEventsRequest.send_time"}
# Where only what exists gets any further.
NAMES = {"storyloom.identity.v1.AccessResource.type": "story", "storyloom.identity.v1.AccessAction.name": "read"}
Ids = Callable[[str], str]
_numbers = count(1)
_validator = protovalidate.Validator()


class NoRequest(Exception):
    """No valid request was found; the message names the RPC and what is wrong with the best one."""


def is_id(field: FieldDescriptor) -> bool:
    text = field.cpp_type == FieldDescriptor.CPPTYPE_STRING
    return text and bool(ID.fullmatch(field.name)) and field.name not in NOT_OURS


def kind_of(rpc: MethodDescriptor, field: FieldDescriptor) -> str:
    """What kind of row an id field names."""
    name = field.name.removesuffix("s").removesuffix("id").rstrip("_")
    if not name:
        whole = field.containing_type is rpc.input_type
        owner = rpc.containing_service.name.removesuffix("Service") if whole else field.containing_type.name
        owner = "Tenant" if rpc.name == "PurgeTenant" else owner
        name = "user" if owner == "Access" else api.snake(owner)
    return KINDS.get(name, name)


@cache
def leaves(rpc: MethodDescriptor) -> dict[str, FieldDescriptor]:
    """The fields with values, by their dotted path. Of repeated ones the path means the first item."""
    return {
        path: field
        for path, field in api.input_fields(rpc.input_type)
        if not api.is_ours(field.message_type)
    }


@cache
def id_paths(rpc: MethodDescriptor) -> tuple[str, ...]:
    return tuple(path for path, field in leaves(rpc).items() if is_id(field))


def make(rpc: MethodDescriptor, paths: Iterable[str], ids: Mapping[str, str] | Ids) -> Message:
    """A request with these fields set. `ids` gives the value of an id field by its path, or by its kind."""
    request = GetMessageClass(rpc.input_type)()
    for path in paths:
        field = leaves(rpc)[path]
        if not is_id(field):
            put(request, path, sample(field))
        elif callable(ids):
            put(request, path, ids(kind_of(rpc, field)))
        else:
            put(request, path, ids[path])
    return request


def put(request: Message, path: str, value: Any) -> None:
    """Sets the field of the path, making the messages above it; None leaves it as it is."""
    *above, last = path.split(".")
    node: Any = request
    for name in above:
        inner = getattr(node, name)
        if node.DESCRIPTOR.fields_by_name[name].is_repeated:
            inner = inner[0] if len(inner) else inner.add()
        inner.SetInParent()
        node = inner
    field = node.DESCRIPTOR.fields_by_name[last]
    if field.is_repeated:
        del getattr(node, last)[:]
        getattr(node, last).extend(value if isinstance(value, list) else [value])
    elif field.message_type is not None:
        getattr(node, last).CopyFrom(value)
    else:
        setattr(node, last, value)


def sample(field: FieldDescriptor) -> Any:
    """A value that the field's own rules allow."""
    if name := NAMES.get(field.full_name):
        return name
    found = api.rules(field)
    rules = found.repeated.items if found and field.is_repeated else found
    if field.type == FieldDescriptor.TYPE_BYTES:
        return b"x"
    match field.cpp_type:
        case FieldDescriptor.CPPTYPE_STRING:
            return _text(field, rules.string if rules else api.validate.StringRules())
        case FieldDescriptor.CPPTYPE_ENUM:
            return field.enum_type.values[1].number
        case FieldDescriptor.CPPTYPE_BOOL:
            return True
        case FieldDescriptor.CPPTYPE_MESSAGE:
            return _well_known(field)
        case _:
            return 1


def _text(field: FieldDescriptor, rules: Any) -> str:
    n = next(_numbers)
    if known := KNOWN.get(field.full_name):
        return known
    for text in (*getattr(rules, "in"), *(text.format(n=f"{n:05}") for text in TEXTS)):
        fits = text and rules.min_len <= len(text) <= (rules.max_len or len(text))
        if fits and re.search(rules.pattern, text) and ("@" in text) >= rules.email:
            return text
    raise NoRequest(f"{field.full_name}: no sample text fits its rules; add one")


def _well_known(field: FieldDescriptor) -> Message:
    made = GetMessageClass(field.message_type)()
    match field.message_type.name:
        case "Timestamp" if field.full_name in CLOCKS:
            made.GetCurrentTime()
        case "Timestamp":
            made.FromJsonString("2027-01-01T00:00:00Z")
        case "Duration":
            made.FromSeconds(600)
        case "Struct":
            made["x"] = "y"
        case "Value":
            made.struct_value["always"] = True
    return made


def texts(request: Message) -> set[str]:
    """Every text that the request says."""
    found: set[str] = set()
    for field, value in request.ListFields():
        values = value if field.is_repeated else [value]
        if field.message_type is None:
            found.update(one for one in values if isinstance(one, str) and one)
        elif not field.message_type.GetOptions().map_entry:
            found.update(*(texts(one) for one in values))
    return found


def problems(request: Message) -> list[str]:
    return [one.proto.message for one in _validator.collect_violations(request)]


def _random(_: str) -> str:
    return str(new_id())


def _badness(rpc: MethodDescriptor, paths: Iterable[str]) -> int:
    return len(problems(make(rpc, sorted(paths), _random)))


@cache
def full(rpc: MethodDescriptor) -> frozenset[str]:
    """As many fields as a valid request can have at once."""
    paths = {path for path in leaves(rpc) if path.rpartition(".")[2] not in SHORT_CUTS}
    while bad := problems(make(rpc, sorted(paths), _random)):
        better = _removable(rpc, paths, 1, len(bad)) or _removable(rpc, paths, 2, len(bad))
        if not better:
            raise NoRequest(f"{api.short(rpc)}: {bad}")
        # What is asked for with an id stays as long as something else can go.
        paths -= min(better, key=lambda gone: len(gone & {*id_paths(rpc)}))
    return frozenset(paths)


def _removable(rpc: MethodDescriptor, paths: set[str], most: int, badness: int) -> list[set[str]]:
    """Sets of so many fields without which fewer rules are broken."""
    sets = map(set, combinations(sorted(paths), most))
    return [gone for gone in sets if _badness(rpc, paths - gone) < badness]


@cache
def minimal(rpc: MethodDescriptor, keep: str = "") -> frozenset[str]:
    """As few fields as a valid request can have, `keep` among them."""
    paths = set(full(rpc)) | ({keep} if keep else set())
    for path in sorted(paths - {keep}, key=lambda path: is_id(leaves(rpc)[path])):
        if _badness(rpc, paths - {path}) <= _badness(rpc, paths):
            paths.remove(path)
    if bad := problems(make(rpc, sorted(paths), _random)):
        raise NoRequest(f"{api.short(rpc)} with {keep}: {bad}")
    return frozenset(paths)


def shapes(rpc: MethodDescriptor) -> Iterator[frozenset[str]]:
    """Sets of fields that together show every id field, alone and with everything else."""
    yield from dict.fromkeys((full(rpc), minimal(rpc), *(minimal(rpc, keep=path) for path in id_paths(rpc))))
