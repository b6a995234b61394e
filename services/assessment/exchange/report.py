"""What became of everything in a file of questions: nothing may vanish without being told."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple


class Kind(StrEnum):
    """What became of an element: it is part of the question; it is kept beside it, for the export in the same format;
    or it is lost."""

    MAPPED = "mapped"
    PRESERVED = "preserved"
    REFUSED = "refused"


class Place(NamedTuple):
    """Where something is: its line from 1, or 0, in a file of an archive, or in the only file; of what is written, the
    number of the question from 1."""

    line: int = 0
    file: str = ""


class Finding(NamedTuple):
    """What became of one element. `element` names it as the format does, a path without numbers for XML
    (`question/answer/@fraction`), a word of the syntax elsewhere (`title`, `feedback`). `message` is a sentence without
    its period; it may be empty for what is mapped as it is."""

    kind: Kind
    element: str
    place: Place
    message: str = ""


@dataclass(slots=True)
class Report:
    """Findings in the order in which they were made."""

    findings: list[Finding] = field(default_factory=list)

    def mapped(self, element: str, place: Place, message: str = "") -> None:
        """Notes what is part of the question; a message says what it became when that is not obvious."""
        self.findings.append(Finding(Kind.MAPPED, element, place, message))

    def preserved(self, element: str, place: Place, message: str) -> None:
        """Notes what is kept beside the question."""
        self.findings.append(Finding(Kind.PRESERVED, element, place, message))

    def refused(self, element: str, place: Place, message: str) -> None:
        """Notes what is lost."""
        self.findings.append(Finding(Kind.REFUSED, element, place, message))

    def extend(self, other: "Report") -> None:
        """Adds the findings of the other."""
        self.findings += other.findings

    def lost(self, message: str, kind: Kind | None = None) -> "Report":
        """The same findings when what they are of cannot be taken after all: the question, or what is of this kind."""
        return Report(
            [
                one._replace(kind=Kind.REFUSED, message=message) if kind in (None, one.kind) else one
                for one in self.findings
            ]
        )
