"""What the rows of a file of people say, in the plain format and in OneRoster 1.2."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Any

from kit.sheets import CsvRows, Problem, Table, UnreadableFile

MOST_ROWS = 200_000
SLUGS = re.compile(r"[\s;]+")
ATTRIBUTE = "attributes."
PLAIN_COLUMNS = ("email", "display_name", "locale", "level", "roles")
USER_COLUMNS = (
    *("sourcedId", "status", "dateLastModified", "enabledUser", "username", "userIds", "givenName", "familyName"),
    *("middleName", "identifier", "email", "sms", "phone", "agentSourcedIds", "grades", "password"),
    *("userMasterIdentifier", "resourceSourcedIds", "preferredGivenName", "preferredMiddleName"),
    *("preferredFamilyName", "primaryOrgSourcedId", "pronouns"),
)
ROLE_COLUMNS = (
    *("sourcedId", "status", "dateLastModified", "userSourcedId", "roleType", "role", "beginDate", "endDate"),
    *("orgSourcedId", "userProfileSourcedId"),
)
# Every other role is looked for under its own name: a tenant that makes a role `aide` has its aides imported.
ROLE_SLUGS = {
    "siteadministrator": "admin",
    "districtadministrator": "admin",
    "systemadministrator": "admin",
}
REMOVED = "tobedeleted"


@dataclass(frozen=True, slots=True)
class Person:
    """What a row says of a user. Empty, or None, is what it does not say."""

    email: str
    display_name: str
    locale: str = ""
    level: str = ""
    roles: tuple[str, ...] = ()
    attributes: Mapping[str, Any] = field(default_factory=dict)
    sourced_id: str = ""
    barred: bool = False
    removed: bool = False


@dataclass(frozen=True, slots=True)
class RoleAssignment:
    """What a row says of one role of one user. Out of its dates it is not in force."""

    sourced_id: str
    role: str
    removed: bool = False
    in_force: bool = True


@dataclass(frozen=True, slots=True)
class Entry:
    """A row of a file. With problems it says nothing else."""

    file: str
    line: int
    says: Person | RoleAssignment | None
    problems: tuple[Problem, ...] = ()


def plain_person(cells: Mapping[str, str]) -> tuple[Person, list[Problem]]:
    """Of a row of the plain format."""
    attributes = {name.removeprefix(ATTRIBUTE): cell for name, cell in cells.items() if name.startswith(ATTRIBUTE)}
    roles = tuple(dict.fromkeys(filter(None, SLUGS.split(cells.get("roles", "")))))
    person = Person(
        email=cells.get("email", ""),
        display_name=cells.get("display_name", ""),
        locale=cells.get("locale", ""),
        level=cells.get("level", ""),
        roles=roles,
        attributes=attributes,
    )
    return person, _missing(cells, "email")


def oneroster_person(cells: Mapping[str, str], *, family_name_first: bool) -> tuple[Person, list[Problem]]:
    """Of a row of `users.csv`. An address in `username` stands in for one that is missing."""
    given = cells.get("preferredGivenName") or cells.get("givenName", "")
    middle = cells.get("preferredMiddleName") or cells.get("middleName", "")
    family = cells.get("preferredFamilyName") or cells.get("familyName", "")
    names = (family, middle, given) if family_name_first else (given, middle, family)
    username = cells.get("username", "")
    person = Person(
        email=cells.get("email") or (username if "@" in username else ""),
        display_name=" ".join(filter(None, names)),
        attributes={
            name: value
            for name, column in (("sourced_id", "sourcedId"), ("identifier", "identifier"), ("grades", "grades"))
            if (value := cells.get(column, ""))
        },
        sourced_id=cells.get("sourcedId", ""),
        barred=cells.get("enabledUser", "").lower() == "false",
        removed=cells.get("status", "").lower() == REMOVED,
    )
    return person, [*_missing(cells, "sourcedId"), *_not_among(cells, enabledUser="true false"), *_status(cells)]


def oneroster_assignment(cells: Mapping[str, str], *, today: date) -> tuple[RoleAssignment, list[Problem]]:
    """Of a row of `roles.csv`."""
    dates, problems = _dates(cells, "beginDate", "endDate")
    begin, end = dates
    role = cells.get("role", "").lower()
    assignment = RoleAssignment(
        sourced_id=cells.get("userSourcedId", ""),
        role=ROLE_SLUGS.get(role, role),
        removed=cells.get("status", "").lower() == REMOVED,
        in_force=(begin is None or begin <= today) and (end is None or today <= end),
    )
    return assignment, [*_missing(cells, "userSourcedId", "role"), *_status(cells), *problems]


def _missing(cells: Mapping[str, str], *columns: str) -> list[Problem]:
    return [Problem(column, "is required") for column in columns if column not in cells]


def _not_among(cells: Mapping[str, str], **allowed: str) -> list[Problem]:
    return [
        Problem(column, f"is neither {' nor '.join(words.split())}")
        for column, words in allowed.items()
        if column in cells and cells[column].lower() not in words.split()
    ]


def _status(cells: Mapping[str, str]) -> list[Problem]:
    return _not_among(cells, status=f"active {REMOVED}")


def _dates(cells: Mapping[str, str], *columns: str) -> tuple[list[date | None], list[Problem]]:
    dates: list[date | None] = []
    problems = []
    for column in columns:
        try:
            dates.append(date.fromisoformat(cells[column]) if column in cells else None)
        except ValueError:
            dates.append(None)
            problems.append(Problem(column, "is no date such as 2027-01-31"))
    return dates, problems


Reader = Callable[[Mapping[str, str]], tuple[Person | RoleAssignment, list[Problem]]]


class Files:
    """The files of one import, one after the other. `notices` collects (file, what is to be said of it)."""

    def __init__(self, *, oneroster: bool, family_name_first: bool = False, today: date) -> None:
        self._oneroster = oneroster
        self._readers: dict[str, Reader] = {
            "users.csv": lambda cells: oneroster_person(cells, family_name_first=family_name_first),
            "roles.csv": lambda cells: oneroster_assignment(cells, today=today),
        }
        self._name = ""
        self._done: set[str] = set()
        self._current: tuple[CsvRows, Table, Reader] | None = None
        self.notices: list[tuple[str, Problem]] = []
        self.rows = self.bytes = 0

    def feed(self, name: str, data: bytes) -> Iterator[Entry]:
        """The rows that this piece of the file completes, after those that are left of the file before."""
        if name != self._name:
            yield from self.end()
            self._open(name)
        self.bytes += len(data)
        if self._current:
            yield from self._entries(self._current[0].feed(data))

    def end(self) -> Iterator[Entry]:
        """The rows that are left of the last file."""
        if self._current:
            yield from self._entries(self._current[0].end())
            if not self._current[1].columns:
                raise UnreadableFile(f"{self._name}: the file is empty")
            self._current = None

    def _open(self, name: str) -> None:
        key = name.lower()
        if key in self._done:
            raise UnreadableFile(f"{name}: the file comes twice, or in pieces between those of another")
        if not self._oneroster and self._done:
            raise UnreadableFile(f"{name}: a plain import has one file")
        if key == "users.csv" and "roles.csv" in self._done and self._oneroster:
            raise UnreadableFile(f"{name}: must come before roles.csv")
        self._name, self._current = name, self._opened(key)
        self._done.add(key)
        if self._current is None:
            self.notices.append((name, Problem("", "The file is not used.")))

    def _opened(self, key: str) -> tuple[CsvRows, Table, Reader] | None:
        if not self._oneroster:
            return CsvRows(), Table(PLAIN_COLUMNS, ("email",), prefix=ATTRIBUTE), plain_person
        if key == "users.csv":
            return CsvRows(), Table(USER_COLUMNS, ("sourcedId",)), self._readers[key]
        if key == "roles.csv":
            return CsvRows(), Table(ROLE_COLUMNS, ("userSourcedId", "role")), self._readers[key]
        return None

    def _entries(self, rows: Iterator[tuple[int, list[str] | None]]) -> Iterator[Entry]:
        assert self._current is not None  # noqa: S101  # only called for a file that is read
        _, table, reader = self._current
        try:
            for line, row in rows:
                cells = table.cells(row)
                if cells is None:
                    self._tell_columns(table)
                    continue
                self.rows += 1
                if self.rows > MOST_ROWS:
                    raise UnreadableFile(f"an import has at most {MOST_ROWS:,} rows")
                yield self._entry(line, cells, reader)
        except UnreadableFile as error:
            raise UnreadableFile(f"{self._name}: {error}") from None

    def _entry(self, line: int, cells: dict[str, str] | Problem, reader: Reader) -> Entry:
        if isinstance(cells, Problem):
            return Entry(self._name, line, None, (cells,))
        says, problems = reader(cells)
        return Entry(self._name, line, None if problems else says, tuple(problems))

    def _tell_columns(self, table: Table) -> None:
        self.notices += [(self._name, notice) for notice in table.notices]
        if "password" in table.columns:
            self.notices.append((self._name, Problem("password", "Passwords in files are not read.")))
