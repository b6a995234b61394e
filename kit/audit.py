"""Audit entries made of the session's own change tracking, written with the change they tell of."""

import json
from datetime import date, datetime
from decimal import Decimal
from enum import StrEnum
from functools import cache
from typing import Any, cast
from uuid import UUID

from google.protobuf.descriptor import Descriptor
from sqlalchemy import inspect

from kit import outbox
from kit.call import Call, current_call
from kit.db import WriteSession
from kit.ids import NIL, new_id
from kit.models import Resource
from kit.options import is_sensitive
from kit.telemetry import current_trace_id
from storyloom.event.v1.changes_pb2 import ChangeRecorded

REDACTED = "[redacted]"
# What changes with every change says nothing.
UNTOLD = frozenset({"tenant_id", "id", "created_at", "updated_at", "revision"})


class Action(StrEnum):
    """What an entry says was done; services may use other words for what only they do."""

    CREATE = "create"
    UPDATE = "update"
    DELETE = "delete"
    UNDELETE = "undelete"
    PUBLISH = "publish"
    ARCHIVE = "archive"
    DENY = "deny"
    ACT = "act_in_tenant"


def record(session: WriteSession, action: str, entity: Resource, *, only: frozenset[str] | None = None) -> None:
    """Records what the pending changes of the entity are. Call it before `flush`, once for each change.

    Fields that the public message does not have are left out, `sensitive` ones are redacted; `only` narrows the
    fields further.
    """
    old, new = _changed(entity, only)
    write(session, action, entity.__resource__, entity.id, old=old, new=new)


def write(
    session: WriteSession,
    action: str,
    entity_type: str,
    entity_id: UUID,
    *,
    old: dict[str, Any] | None = None,
    new: dict[str, Any] | None = None,
) -> None:
    """Records an entry with the values given, for what change tracking does not see: sign-ins, bulk statements."""
    change = entry(action, entity_type, entity_id, call=current_call(), tenant_id=session.tenant_id)
    change.old_values, change.new_values = as_json(old), as_json(new)
    # What is about no entity stands for itself: such entries must not wait for one another.
    outbox.publish(session, entity_type, new_id() if entity_id == NIL else entity_id, change)


def entry(
    action: str, entity_type: str, entity_id: UUID, *, call: Call | None, tenant_id: UUID
) -> ChangeRecorded:
    """An entry without values: what was done, and by whom in which call."""
    change = ChangeRecorded(
        action=action, entity_type=entity_type, entity_id=str(entity_id), trace_id=current_trace_id()
    )
    if call is not None:
        _add_caller(change, call, tenant_id)
    return change


def _add_caller(change: ChangeRecorded, call: Call, tenant_id: UUID) -> None:
    change.request_id, change.rpc, change.client_address = call.request_id, call.rpc, call.client_address
    if (who := call.principal) is None:
        return
    change.user_id, change.service = str(who.user_id or ""), who.service
    if who.home_tenant_id != tenant_id:
        change.acting_tenant_id = str(who.home_tenant_id)


def _changed(entity: Resource, only: frozenset[str] | None) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    state, model = inspect(entity), cast("Any", type(entity))
    fresh = state.transient or state.pending
    old: dict[str, Any] = {}
    new: dict[str, Any] = {}
    for name, is_secret in _told(model).items():
        if only is not None and name not in only:
            continue
        history = state.attrs[name].history
        if history.added and (fresh or history.has_changes()):
            new[name] = REDACTED if is_secret else history.added[0]
        if history.deleted and not fresh:
            old[name] = REDACTED if is_secret else history.deleted[0]
    if state.deleted or entity in _deleted_in(state):
        return {name: getattr(entity, name) for name, secret in _told(model).items() if not secret}, None
    return (None if fresh else old), new


def _deleted_in(state: Any) -> Any:
    return state.session.deleted if state.session is not None else ()


@cache
def _told(model: Any) -> dict[str, bool]:
    """The columns an entry may name, and whether each is sensitive, by the fields of the public message."""
    fields = _fields(model.__message__)
    names = [column.key for column in inspect(model).column_attrs if column.key not in UNTOLD]
    return {name: fields[name] for name in names if name in fields} | dict.fromkeys(
        set(names) & {"deleted_at"}, False
    )


def _fields(message: Descriptor) -> dict[str, bool]:
    return {field.name: is_sensitive(field) for field in message.fields}


def as_json(values: dict[str, Any] | None) -> str:
    """Values as an entry holds them; '' for None."""
    return "" if values is None else json.dumps(values, default=_plain, ensure_ascii=False, sort_keys=True)


def _plain(value: Any) -> Any:
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, UUID | Decimal):
        return str(value)
    if isinstance(value, frozenset | set):
        return sorted(value)
    return str(value)
