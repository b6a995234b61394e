"""The hierarchy as its contracts describe it, in plain Python: what the service is compared with."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import count

PARENT = {"unit": "course", "lesson": "unit", "story": "lesson"}
STEPS = {
    ("course", "publish"): ("draft", "published"),
    ("course", "archive"): ("published", "archived"),
    ("lesson", "publish"): ("draft", "published"),
    ("story", "archive"): ("published", "archived"),
}
GONE, WRONG_STATE, MISSING, INVALID = "RESOURCE_NOT_FOUND", "WRONG_STATE", "REFERENCE_NOT_FOUND", "INVALID_FIELD"


class Refused(Exception):
    """The call is to be refused, for this reason."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass
class Node:
    """A course, unit, lesson or story. `above` is what it is in, `mark` the deletion that hid it."""

    kind: str
    id: str
    above: str = ""
    position: int = 0
    status: str = "draft"
    mark: int = 0
    needs: set[str] = field(default_factory=set)


class Hierarchy:
    """Every method does what the call of its name does, or raises `Refused` and changes nothing."""

    def __init__(self) -> None:
        self.nodes: dict[str, Node] = {}
        self._marks = count(1)

    def ids(self, *kinds: str) -> list[str]:
        return [one.id for one in self.nodes.values() if one.kind in kinds]

    def children(self, above: str) -> list[Node]:
        """Those that are not deleted, by position."""
        found = [one for one in self.nodes.values() if above and one.above == above and not one.mark]
        return sorted(found, key=lambda one: one.position)

    def below(self, root: Node) -> Iterable[Node]:
        """The node and all that is in it, deleted or not."""
        yield root
        for one in [one for one in self.nodes.values() if one.above == root.id]:
            yield from self.below(one)

    def course_of(self, one: Node) -> Node:
        return one if one.kind == "course" else self.course_of(self.nodes[one.above])

    def create(self, kind: str, made: str, above: str = "", position: int = 0) -> None:
        one = Node(kind, made, above, position)
        if kind != "course" and (above or kind != "story"):
            self._check_parent(above)
        elif position:
            raise Refused(INVALID)
        self._settle(one)
        self.nodes[made] = one

    def move(self, which: str, above: str | None = None, position: int | None = None) -> None:
        one = self._present(which)
        if one.kind == "story":
            self._check_open(one)
        if one.kind != "story" or (one.above and (above is not None or position is not None)):
            self._check_place_open(one, above, position)
        there = one.above if above is None else above
        wanted = one.position if position is None and there == one.above else position or 0
        if (there, wanted) == (one.above, one.position):
            return
        if not there:
            if wanted:
                raise Refused(INVALID)
        elif there != one.above or one.kind == "story":
            self._check_parent(there)
            if one.kind == "lesson" and self.course_of(self.nodes[there]) is not self.course_of(one):
                raise Refused(MISSING)
        one.above, one.position = there, wanted
        self._settle(one)

    def _check_place_open(self, one: Node, above: str | None, position: int | None) -> None:
        """Units and lessons take no change at all in an archived course; stories none of their place."""
        there = one.above if above is None else above
        stays = there == one.above and position in (None, one.position)
        if one.kind != "story" or not stays:
            self._check_open(self.course_of(one))

    def reorder(self, which: str, wanted: Sequence[str]) -> None:
        one = self._present(which)
        self._check_open(self.course_of(one))
        if {child.id for child in self.children(which)} != set(wanted):
            raise Refused("CONCURRENT_CHANGE")
        for place, child in enumerate(wanted, 1):
            self.nodes[child].position = place

    def delete(self, which: str) -> None:
        mark = next(self._marks)
        for one in self.below(self._present(which)):
            one.mark = one.mark or mark

    def undelete(self, which: str) -> None:
        root = self._there(which)
        if not root.mark or (root.above and self.nodes[root.above].mark):
            raise Refused(WRONG_STATE)
        for one in self.below(root):
            if one is not root and one.mark == root.mark:
                one.mark = 0
        if root.above and root.position in {one.position for one in self.children(root.above)}:
            root.position = 0
            self._settle(root)
        root.mark = 0

    def purge(self, which: str) -> None:
        root = self._there(which)
        if not root.mark:
            raise Refused(WRONG_STATE)
        for one in list(self.below(root)):
            del self.nodes[one.id]
        for one in self.nodes.values():
            one.needs &= self.nodes.keys()

    def step(self, which: str, verb: str) -> None:
        one = self._present(which)
        if one.kind == "lesson":
            self._check_open(self.course_of(one))
        if (one.kind, verb) == ("story", "publish"):
            self._check_open(one)
            one.status = "published"
            return
        start, end = STEPS[one.kind, verb]
        if one.status != start:
            raise Refused(WRONG_STATE)
        one.status = end

    def require_first(self, which: str, before: Sequence[str]) -> None:
        one = self._present(which)
        course = self.course_of(one)
        self._check_open(course)
        found = [self.nodes[name] for name in before if name in self.nodes]
        if len(found) < len(before) or any(other.mark or self.course_of(other) is not course for other in found):
            raise Refused(MISSING)
        if any(which in self._needed(name) for name in before):
            raise Refused(WRONG_STATE)
        one.needs = set(before)

    def _needed(self, which: str) -> set[str]:
        """The lesson and all that comes before it."""
        return {which}.union(*(self._needed(name) for name in self.nodes[which].needs))

    def _settle(self, one: Node) -> None:
        others = [child for child in self.children(one.above) if child is not one]
        if not one.above:
            one.position = 0
        elif not one.position:
            one.position = max((child.position for child in others), default=0) + 1
        elif one.position in {child.position for child in others}:
            for child in others:
                child.position += child.position >= one.position

    def _there(self, which: str) -> Node:
        if which not in self.nodes:
            raise Refused(GONE)
        return self.nodes[which]

    def _present(self, which: str) -> Node:
        one = self._there(which)
        if one.mark:
            raise Refused(GONE)
        return one

    def _check_parent(self, above: str) -> None:
        if above not in self.nodes or self.nodes[above].mark:
            raise Refused(MISSING)
        self._check_open(self.course_of(self.nodes[above]))

    def _check_open(self, one: Node) -> None:
        if one.status == "archived":
            raise Refused(WRONG_STATE)
