"""How a call of the life of everything is written down."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Entry = tuple[str, str]


@dataclass(frozen=True)
class Step:
    """One call. `action` and `about` are what its one entry must say, `entity` the id in it (by default the answer's),
    `where` the tenant that it is in, and `user` whose it is when that is not the caller; `more` are the entries besides
    that one. `keep` are values of the answer, by their path."""

    rpc: str
    by: str
    request: Mapping[str, Any]
    action: str
    about: str
    entity: str = ""
    keep: Mapping[str, str] = field(default_factory=dict)
    more: tuple[Entry, ...] = ()
    settle: bool = False
    where: str = "{home}"
    user: str = ""


def on(kind: str, by: str, *verbs: str) -> tuple[Step, ...]:
    """Calls that take nothing but the id of the thing; `Publish` is recorded as `publish`."""
    name = "".join(part.title() for part in kind.split("_"))
    return tuple(Step(f"{verb}{name}", by, {"id": f"{{{kind}}}"}, verb.lower(), kind) for verb in verbs)


def create(kind: str, by: str, values: Mapping[str, Any], **more: Any) -> Step:
    name = "".join(part.title() for part in kind.split("_"))
    return Step(f"Create{name}", by, {kind: values}, "create", kind, **more)


def update(kind: str, by: str, values: Mapping[str, Any]) -> Step:
    name = "".join(part.title() for part in kind.split("_"))
    return Step(f"Update{name}", by, {kind: {"id": f"{{{kind}}}", **values}}, "update", kind)


def reorder(whole: str, parts: str, part: str) -> Step:
    """Two parts change their places."""
    request = {"id": f"{{{whole}}}", f"{part}_ids": [f"{{{part}}}", f"{{other_{part}}}"]}
    moved = (("update", part),) * 2
    return Step(f"Reorder{parts}", "teacher", request, "update", whole, entity=f"{{{whole}}}", more=moved)


def purge(kind: str, which: str) -> tuple[Step, Step]:
    name = kind.title()
    return (
        Step(f"Delete{name}", "teacher", {"id": which}, "delete", kind),
        Step(f"Purge{name}", "admin", {"id": which}, "purge", kind, entity=which),
    )
