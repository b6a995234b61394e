"""What a service declares of the rows that are about users: whose they are, and what becomes of them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from sqlalchemy import MetaData, Table

# Stands where the id of an erased user stood: the Max UUID of RFC 9562, which is nobody's.
ERASED = UUID(int=2**128 - 1)
DELETED, ANONYMIZED, DESTROYED, SUSPENDED, KEPT = "deleted", "anonymized", "destroyed", "suspended", "kept"
# Tables of the kit that are no tenant's rows, or have a step of their own.
APART = frozenset({"outbox", "inbox", "jobs"})


@dataclass(frozen=True, slots=True)
class Fate:
    """What becomes of rows at an erasure. `values` are SQL by column, in which `$2` is the user's id. `pending` is SQL
    that is true of rows not treated yet, where they are still the user's afterwards."""

    action: str
    values: Mapping[str, str] = field(default_factory=dict)
    why: str = ""
    pending: str = ""


GOES = Fate(DELETED)
# The value of a column that named the user.
NOBODY = f"'{ERASED}'::uuid"
# The same where two erased users must not become one.
SOMEBODY = "gen_random_uuid()"


def loses_name(why: str, **values: str) -> Fate:
    """The rows stay, because of this, with these values in place of what was the user's."""
    return Fate(ANONYMIZED, values, why)


def destroyed(why: str, *, pending: str, **values: str) -> Fate:
    """The rows stay, because of this, without what they held, at the end of their tenant too."""
    return Fate(DESTROYED, values, why, pending)


def suspended(why: str, *, pending: str, **values: str) -> Fate:
    """The rows of a table whose rows are otherwise destroyed stay until later, because of this."""
    return Fate(SUSPENDED, values, why, pending)


def kept(why: str) -> Fate:
    """The rows stay as they are, because of this."""
    return Fate(KEPT, why=why)


@dataclass(frozen=True, slots=True)
class Part:
    """The user of a row is that of another one, which this column refers to."""

    column: str
    of: Any
    user: str


@dataclass(frozen=True, slots=True)
class Held:
    """Rows of a model that are about a user: `user` is the column with the user's id, or whose part they are.

    `omit` are secrets and copies, which are not exported.
    """

    model: Any
    user: str | Part
    fate: Fate
    omit: tuple[str, ...] = ()

    @property
    def table(self) -> Table:
        found: Table = self.model.__table__
        return found

    @property
    def condition(self) -> str:
        """SQL that is true of the rows; `$1` is the tenant, `$2` the user."""
        if isinstance(self.user, str):
            return f"{self.user} = $2"
        above = self.user.of.__table__
        return f"{self.user.column} IN (SELECT id FROM {above} WHERE tenant_id = $1 AND {self.user.user} = $2)"  # noqa: S608


@dataclass(frozen=True, slots=True, kw_only=True)
class Holdings:
    """All that a service holds of users.

    `excused` names, as `table.column`, what looks like a person and is not treated as one, with the reason. `immortal`
    are tables whose rows outlive their tenant, with the reason. `inseparable` is, for a model whose rows and another's
    refer to each other, the other and its column.
    """

    metadata: MetaData
    held: tuple[Held, ...]
    excused: Mapping[str, str] = field(default_factory=dict)
    immortal: Mapping[str, str] = field(default_factory=dict)
    inseparable: Mapping[Any, tuple[Any, str]] = field(default_factory=dict)

    @property
    def tables(self) -> list[Table]:
        """The tables of tenants' rows, those that refer to others before them."""
        return [table for table in reversed(self.metadata.sorted_tables) if table.name not in APART and _scoped(table)]


def _scoped(table: Table) -> bool:
    return [column.name for column in table.primary_key] == ["tenant_id", "id"]
