"""Audit entries made of the session's own change tracking, written with the change they tell of."""

import json
import re
from collections.abc import Collection
from datetime import date, datetime
from decimal import Decimal
from enum import StrEnum
from functools import cache
from typing import Any, cast
from uuid import UUID

from sqlalchemy import inspect

from kit import outbox
from kit.call import Call, current_call
from kit.db import WriteSession
from kit.ids import NIL, new_id
from kit.models import Resource
from kit.options import is_input_only, is_sensitive
from kit.telemetry import current_trace_id
from storyloom.event.v1.changes_pb2 import ChangeRecorded

# Whose a row is: the user's of the first of these columns that its model has.
SUBJECTS = ("user_id", "requester_id", "author_id", "creator_id")
# No entry has these, sealed or not: they open doors, and prove nothing.
SECRET = re.compile(r"(^|_)(password|token|credential|private_key)(_|$)")
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

    Fields that the public message does not have are left out, and so are secrets; `only` narrows the fields further.
    The log seals those that are `sensitive`, as values of the user whose row it is.
    """
    old, new = _changed(entity, only)
    write(
        session,
        action,
        entity.__resource__,
        entity.id,
        old=old,
        new=new,
        sensitive=_sensitive(cast("Any", type(entity))),
        subject_id=subject_of(entity),
    )


def write(
    session: WriteSession,
    action: str,
    entity_type: str,
    entity_id: UUID,
    *,
    old: dict[str, Any] | None = None,
    new: dict[str, Any] | None = None,
    sensitive: Collection[str] = (),
    subject_id: UUID | None = None,
) -> None:
    """Records an entry with the values given, for what change tracking does not see: sign-ins, bulk statements.

    `sensitive` names the values that the log has to seal, and `subject_id` the user whom they are about: by default
    the user whom the entry is about, or else who did it, or else nobody but the tenant.
    """
    change = entry(action, entity_type, entity_id, call=current_call(), tenant_id=session.tenant_id)
    change.old_values, change.new_values = as_json(old), as_json(new)
    if found := [name for name in sensitive if name in (old or ()) or name in (new or ())]:
        change.sensitive_fields.extend(sorted(found))
        about = entity_id if entity_type == "user" else None
        change.subject_id = str(subject_id or about or change.user_id or session.tenant_id)
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
    for name in _told(model):
        if only is not None and name not in only:
            continue
        history = state.attrs[name].history
        if history.added and (fresh or history.has_changes()):
            new[name] = history.added[0]
        if history.deleted and not fresh:
            old[name] = history.deleted[0]
    if state.deleted or entity in _deleted_in(state):
        return {name: getattr(entity, name) for name in _told(model)}, None
    return (None if fresh else old), new


def _deleted_in(state: Any) -> Any:
    return state.session.deleted if state.session is not None else ()


def subject_of(entity: Resource) -> UUID | None:
    """The user whose row this is; None when its columns do not say."""
    column = _subject_column(cast("Any", type(entity)))
    found: UUID | None = getattr(entity, column) if column else None
    return found


@cache
def _subject_column(model: Any) -> str:
    if model.__resource__ == "user":
        return "id"
    columns = {column.key for column in inspect(model).column_attrs}
    return next((name for name in SUBJECTS if name in columns), "")


@cache
def _told(model: Any) -> tuple[str, ...]:
    """The columns an entry may name: the fields of the public message, but for secrets."""
    fields = {field.name for field in model.__message__.fields if not is_input_only(field)}
    names = [column.key for column in inspect(model).column_attrs if column.key not in UNTOLD]
    return tuple(name for name in names if name in fields | {"deleted_at"} and not SECRET.search(name))


@cache
def _sensitive(model: Any) -> frozenset[str]:
    return frozenset(field.name for field in model.__message__.fields if is_sensitive(field)) & set(_told(model))


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
