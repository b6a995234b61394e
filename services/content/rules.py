"""What may become of courses, lessons, stories and their versions: pure decisions."""

import re
from collections.abc import Iterable, Set
from datetime import datetime, timedelta
from decimal import ROUND_HALF_EVEN, Decimal
from graphlib import CycleError, TopologicalSorter
from typing import TypeVar

from kit.errors import FailedPrecondition, InvalidArgument, reference_not_found, wrong_state
from services.content.segmentation import fold
from storyloom.type.v1.errors_pb2 import ErrorReason

PLACES = Decimal("0.000001")
# From which status each verb leads to which; there is no other way to change one.
STEPS = {
    ("course", "publish"): ("draft", "published"),
    ("course", "archive"): ("published", "archived"),
    ("lesson", "publish"): ("draft", "published"),
    ("story", "archive"): ("published", "archived"),
    ("audio", "publish"): ("processed", "published"),
}
Id = TypeVar("Id")


def step(resource: str, verb: str, status: str) -> str:
    """The status that the verb leads to; WRONG_STATE from any but the one it starts at."""
    start, end = STEPS[resource, verb]
    if status != start:
        raise wrong_state(f"Only a {resource} that is {start} can be {end}.", status)
    return end


def missing(resource: str) -> FailedPrecondition:
    """The refusal for a reference to what is not there."""
    return reference_not_found(f"The {resource} referred to does not exist.", resource=resource)


def check_open(resource: str, status: str) -> None:
    """Refuses changes of what is archived, and of what an archived course contains."""
    if status == "archived":
        raise wrong_state(f"The {resource} is archived and takes no more changes.", status)


def check_deleted(
    resource: str, deleted_at: datetime | None, parent: str = "", *, parent_deleted: bool = False
) -> None:
    """Refuses to restore what is not deleted, and what would come back into a parent that still is."""
    if deleted_at is None:
        raise wrong_state(f"The {resource} is not deleted.", "undeleted")
    if parent_deleted:
        raise wrong_state(f"The {parent} of the {resource} is deleted; restore that.", "deleted")


def check_publishable(status: str, *, required: bool, content_hash: str, approved_hash: str | None) -> None:
    """Refuses to publish a version of an archived story, or without an approval of exactly its content."""
    check_open("story", status)
    if required and approved_hash != content_hash:
        raise FailedPrecondition(
            "The version has no approval of its content; ask for one first.", reason=ErrorReason.APPROVAL_REQUIRED
        )


def has_circle(edges: Iterable[tuple[Id, Id]]) -> bool:
    """Whether a lesson would come before itself, of all pairs of a lesson and a prerequisite of it."""
    needs: dict[Id, set[Id]] = {}
    for one, before in edges:
        needs.setdefault(one, set()).add(before)
    try:
        TopologicalSorter(needs).prepare()
    except CycleError:
        return True
    return False


def merge_pins(
    pinned: Set[Id], banned: Set[Id], pin: Set[Id], ban: Set[Id], *, replace: bool
) -> tuple[Set[Id], Set[Id]]:
    """The words pinned and banned in the next version; what is asked for now beats what was before."""
    if replace:
        return pin, ban
    return pin | (pinned - ban), ban | (banned - pin)


def term_key(term: str) -> str:
    """The term as it is told apart from others: as the weave finds it, whatever its capitals and white space."""
    return fold(" ".join(term.split()))


def decimal_text(value: Decimal) -> str:
    """A share from 0 to 1 as an exact decimal, rounded half to even to 6 places: `0`, `0.25`, `0.333333`, `1`."""
    return format(value.quantize(PLACES, ROUND_HALF_EVEN).normalize(), "f")


def check_replaceable(status: str) -> None:
    """Refuses another file for a recording that learners hear."""
    if status == "published":
        raise wrong_state("The recording is published; its file stays as it is.", status)


def check_size(size: int, largest: int) -> None:
    """Refuses files that are larger than the platform takes."""
    if size > largest:
        raise InvalidArgument.fields([("size_bytes", f"is more than the {largest} bytes that are taken")])


def check_times_of(duration: timedelta | None, version_id: object) -> timedelta:
    """How long the recording lasts; WRONG_STATE for one that has no chunks to be heard, or no file."""
    if version_id is None:
        raise wrong_state("A recording of a word has no chunks.", "vocabulary")
    if duration is None:
        raise wrong_state("The recording has no file yet.", "draft")
    return duration


def byte_range(header: str, size: int) -> tuple[int, int] | None:
    """The part of a file of this size that the HTTP header `range` asks for, its end left out; None for all of it.

    InvalidArgument for one that begins after the end. Whatever is not one range of bytes is ignored (RFC 9110, 14.2).
    """
    found = re.fullmatch(r"bytes=(\d{0,18})-(\d{0,18})", header.strip(), re.ASCII)
    if found is None or not (found[1] or found[2]):
        return None
    if not found[1]:
        start, end = max(0, size - int(found[2])), size
    else:
        start, end = int(found[1]), min(int(found[2] or size - 1) + 1, size)
    if found[1] and found[2] and int(found[2]) < start:
        return None
    if start >= size:
        raise InvalidArgument.fields([("range", f"begins after the end of the file, which has {size} bytes")])
    return start, end
