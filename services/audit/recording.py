"""The way into the log and out of it again: sealed with the keys of those whom entries are about, opened with them.

No key is remembered from one transaction to the next: the moment one is destroyed, no process has it.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC
from typing import Any
from uuid import UUID

from kit.db import ReadSession, WriteSession
from kit.ids import NIL, new_id
from services.audit import queries, sealing
from services.audit.sealing import Key, Wrapper
from storyloom.event.v1.changes_pb2 import ChangeRecorded
from storyloom.event.v1.events_pb2 import Event

CANONICAL_ID = re.compile("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}").fullmatch
# What stands, in what is exported to one user, where a value is another's.
OF_OTHERS = "[sealed]"


@dataclass(frozen=True, slots=True)
class _Arrival:
    """A change on its way into the log. Without subject there is nothing to seal."""

    event: Event
    change: ChangeRecorded
    entry: dict[str, Any]
    sensitive: frozenset[str]
    of_values: UUID | None
    of_address: UUID | None


class Seals:
    """Seals entries and opens them; `encryption_key` is what the keys of subjects are wrapped with."""

    def __init__(self, encryption_key: bytes) -> None:
        self._wrapper = Wrapper(encryption_key)

    async def on_changes_recorded(
        self, session: WriteSession, changes: Sequence[tuple[Event, ChangeRecorded]]
    ) -> None:
        """Adds an entry for each; one that is there already stays as it is."""
        arrivals = [_arrival(session.tenant_id, event, change) for event, change in changes]
        subjects = {one for arrival in arrivals for one in (arrival.of_values, arrival.of_address) if one}
        keys = await self._keys_of(session, subjects)
        await queries.insert_entries(session, [_row(arrival, keys) for arrival in arrivals])

    async def opened(self, session: ReadSession, leaves: Iterable[bytes]) -> list[dict[str, Any]]:
        """The entries of these leaves in clear, as far as their keys are there: one statement for all of them."""
        entries = [sealing.parsed(leaf) for leaf in leaves]
        wanted = {key_id for entry in entries for key_id in sealing.key_ids(entry)}
        rows = await queries.list_keys(session, [*wanted]) if wanted else []
        keys = {row.id: self._open(session.tenant_id, row) for row in rows}
        return [sealing.opened(entry, keys) for entry in entries]

    async def shown(
        self, session: ReadSession, user_id: UUID, rows: Sequence[dict[str, Any]]
    ) -> Sequence[dict[str, Any]]:
        """What is exported to this user of rows that name them: opened with their own key, and nobody else's."""
        found = await queries.list_keys_of_subjects(session, [user_id])
        keys = {row.id: self._open(session.tenant_id, row) for row in found}
        # PostgreSQL's JSON has bytes in hexadecimal, after two other characters.
        leaves = (bytes.fromhex(row["leaf"][2:]) for row in rows)
        return [sealing.opened(sealing.parsed(leaf), keys, closed=OF_OTHERS) for leaf in leaves]

    async def _keys_of(self, session: WriteSession, subjects: set[UUID]) -> dict[UUID, Key]:
        """The subjects' keys; those that had none have one now."""
        if not subjects:
            return {}
        rows = await queries.list_keys_of_subjects(session, [*subjects])
        if missing := subjects - {row.subject_id for row in rows}:
            # In one order, so that two processes never wait for each other.
            made = [(new_id(), subject_id) for subject_id in sorted(missing)]
            await queries.insert_keys(
                session, [(one, of, self._wrapper.new_key(session.tenant_id, one, of)) for one, of in made]
            )
            rows = await queries.list_keys_of_subjects(session, [*subjects])
        return {row.subject_id: self._open(session.tenant_id, row) for row in rows}

    def _open(self, tenant_id: UUID, row: Any) -> Key:
        return self._wrapper.open(tenant_id, row.id, row.subject_id, row.wrapped_key)


def _arrival(tenant_id: UUID, event: Event, change: ChangeRecorded) -> _Arrival:
    entry, sensitive = _entry(event, change), frozenset(change.sensitive_fields)
    is_personal = any(sealing.needs_key(entry[part], sensitive) for part in ("old_values", "new_values"))
    who = change.user_id or (change.entity_id if change.entity_type == "user" else "")
    whose = change.subject_id or who
    return _Arrival(
        event,
        change,
        entry,
        sensitive,
        of_values=_subject(whose, tenant_id) if is_personal else None,
        of_address=_subject(who or whose, tenant_id) if change.client_address else None,
    )


def _subject(user_id: str, tenant_id: UUID) -> UUID:
    """The user, or the tenant for what is nobody's: the address of a stranger who tried to sign in."""
    found = UUID(user_id) if user_id else NIL
    return tenant_id if found == NIL else found


def _entry(event: Event, change: ChangeRecorded) -> dict[str, Any]:
    """The entry in clear, as the leaf names its parts; what is not there is None."""
    return {
        "id": _id(event.id),
        "tenant_id": _id(event.tenant_id),
        "action": change.action,
        "entity_type": change.entity_type,
        "entity_id": _id(change.entity_id),
        "user_id": _id(change.user_id) if change.user_id else None,
        "acting_tenant_id": _id(change.acting_tenant_id) if change.acting_tenant_id else None,
        "service": change.service or None,
        "request_id": change.request_id or None,
        "trace_id": change.trace_id or None,
        "rpc": change.rpc or None,
        "occur_time": event.occur_time.ToDatetime().isoformat(timespec="microseconds") + "Z",
        "old_values": sealing.parsed(change.old_values) if change.old_values else None,
        "new_values": sealing.parsed(change.new_values) if change.new_values else None,
        "client_address": change.client_address or None,
    }


def _id(text: str) -> str:
    """An id in its one form, which is the one that nearly always comes; ValueError for what is none."""
    return text if CANONICAL_ID(text) else str(UUID(text))


def _row(arrival: _Arrival, keys: Mapping[UUID, Key]) -> tuple[Any, ...]:
    change, entry = arrival.change, arrival.entry
    leaf = sealing.leaf(
        entry,
        sensitive=arrival.sensitive,
        of_values=keys[arrival.of_values] if arrival.of_values else None,
        of_address=keys[arrival.of_address] if arrival.of_address else None,
    )
    return (
        entry["id"],
        change.action,
        change.entity_type,
        entry["entity_id"],
        entry["user_id"],
        entry["acting_tenant_id"],
        change.service,
        change.request_id,
        change.trace_id,
        change.rpc,
        arrival.event.occur_time.ToDatetime(tzinfo=UTC),
        leaf,
    )
