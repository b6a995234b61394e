"""Files to import, and what an import says of them."""

import csv
import io
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from storyloom.identity.v1 import user_imports_pb2, users_pb2
from storyloom.identity.v1.user_imports_pb2 import ImportUsersChunk, ImportUsersOptions, ImportUsersRequest
from storyloom.identity.v1.user_imports_pb2_grpc import UserImportServiceStub
from tests.stack import Person

PLAIN, ONEROSTER = user_imports_pb2.IMPORT_FORMAT_PLAIN_CSV, user_imports_pb2.IMPORT_FORMAT_ONEROSTER_1_2
SKIP, UPDATE = user_imports_pb2.ON_EXISTING_USER_SKIP, user_imports_pb2.ON_EXISTING_USER_UPDATE
COLUMNS = ("email", "display_name", "locale", "level", "roles", "attributes.class")
USERS = ("sourcedId", "status", "enabledUser", "username", "givenName", "familyName", "middleName", "email", "grades")
ROLES = ("sourcedId", "userSourcedId", "roleType", "role", "beginDate", "endDate", "orgSourcedId", "status")


@dataclass
class Outcome:
    """Everything that an import answered."""

    responses: list[user_imports_pb2.ImportUsersResponse]

    @property
    def rows(self) -> list[user_imports_pb2.ImportedRow]:
        return [row for response in self.responses for row in response.rows]

    @property
    def words(self) -> list[str]:
        """What became of each row."""
        names = [user_imports_pb2.RowOutcome.Name(row.outcome) for row in self.rows]
        return [name.removeprefix("ROW_OUTCOME_").lower() for name in names]

    @property
    def problems(self) -> list[tuple[int, str, str]]:
        return [(row.line, one.field, one.description) for row in self.rows for one in row.problems]

    @property
    def notices(self) -> list[tuple[str, str, str]]:
        return [(one.file_name, one.field, one.message) for response in self.responses for one in response.notices]

    @property
    def summary(self) -> user_imports_pb2.ImportSummary:
        return self.responses[-1].summary

    def comparable(self) -> list[Any]:
        """Without the ids of what was created, which a dry run cannot know."""
        rows = []
        for row in self.rows:
            seen = user_imports_pb2.ImportedRow()
            seen.CopyFrom(row)
            seen.user_id = ""
            rows.append(seen)
        return rows


def table(columns: Iterable[str], *rows: Mapping[str, str]) -> bytes:
    """A CSV file."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(columns), restval="")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def roster(users: Iterable[Mapping[str, str]], roles: Iterable[Mapping[str, str]] = ()) -> dict[str, bytes]:
    """OneRoster's two files."""
    enabled = [{"enabledUser": "true", **user} for user in users]
    return {"users.csv": table(USERS, *enabled), "roles.csv": table(ROLES, *roles)}


async def requests(files: Mapping[str, bytes], options: ImportUsersOptions, size: int) -> AsyncIterator[Any]:
    yield ImportUsersRequest(options=options)
    for name, data in files.items():
        for at in range(0, len(data) or 1, size):
            yield ImportUsersRequest(chunk=ImportUsersChunk(file_name=name, data=data[at : at + size]))


async def import_users(
    person: Person, files: Mapping[str, bytes] | bytes, *, size: int = 50_000, timeout: float = 100, **options: Any
) -> Outcome:
    """Imports as this person; a file without a name is a plain one."""
    named = {"people.csv": files} if isinstance(files, bytes) else files
    given = {"format": PLAIN if isinstance(files, bytes) else ONEROSTER, "on_existing": UPDATE, **options}
    stub = person.stub(UserImportServiceStub, "identity")
    call = stub.ImportUsers(requests(named, ImportUsersOptions(**given), size), timeout=timeout)
    return Outcome([response async for response in call])


def people(*rows):
    return table(COLUMNS, *rows)


def person(name, **cells):
    return {"email": f"{name}@x.example", "display_name": name.title(), **cells}


def pupil(number, **cells):
    return {"sourcedId": f"s{number}", "givenName": "Lan", "familyName": "Ngo", "email": f"s{number}@x.example"} | cells


async def user_of(own, email):
    """The only user whose address begins so, or None."""
    found = (await own.users.ListUsers(users_pb2.ListUsersRequest(query=email))).users
    assert len(found) < 2
    return found[0] if found else None


async def in_dry_run_too(admin, files, **options):
    """The outcome, which a dry run before it has told already."""
    told = await import_users(admin, files, dry_run=True, **options)
    done = await import_users(admin, files, **options)
    assert told.comparable() == done.comparable()
    assert told.notices == done.notices
    assert told.summary.import_id == ""
    return done
