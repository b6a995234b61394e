"""Nothing that may name a person is forgotten by what services declare of it, and no table by the purge of a tenant."""

import re
from dataclasses import replace
from importlib import import_module

import pytest
from sqlalchemy import Column, Table, Uuid

from kit.holdings import DELETED, Holdings, Part
from kit.settings import SERVICES
from services.identity.catalogue import catalogue
from tests.contract.tree import nothing

# Names of columns that are, or say something of, a person.
PERSONAL = re.compile(
    r"(^|_)(user|author|requester|approver|creator|owner|actor|inviter|invitee|learner|student|teacher|person|assignee"
    r"|reviewer|subject|grantee|member|guardian|parent)(_ids?)?$"
    r"|_by$|address|e?mail|phone|display_name|given_name|family_name|full_name|birth|sourced_id|external_id"
    r"|comment|answer|attributes$|locale$|reason$|note(s)?$"
)
# Kinds of rows that are nobody: an id of theirs tells of no person.
RESOURCES = {resource for resource, _ in catalogue()} - {"user"}
# Parts of resources, and what is about calls.
THINGS = RESOURCES | {"version", "choice", "attempt", "event", "aggregate", "prerequisite", "session", "tenant"}
# The kit's own, the same in every service, with the reason why none is a person's row.
OF_THE_KIT = {
    "outbox.aggregate_id": "events wait for their delivery, and the erasure for them",
    "jobs.position": "where a job is, until it is done",
}


SECRET = re.compile("hash$|secret|private")
# Of texts that are shown anyway.
PUBLIC_HASHES = {"story_versions.content_hash", "story_versions.approved_hash", "approvals.content_hash"}


def holdings(service: str) -> Holdings:
    found: Holdings = import_module(f"services.{service}.subjects").HOLDINGS
    return found


def names_somebody(column: Column[object]) -> bool:
    """By its name; or because it is an id of nothing that is known to be a thing."""
    if PERSONAL.search(column.name):
        return True
    if not isinstance(column.type, Uuid) or column.name in {"id", "tenant_id"} or column.foreign_keys:
        return False
    return column.name.removesuffix("_id").rpartition("_")[2] not in THINGS


def mentioned(declared: Holdings, column: Column[object]) -> bool:
    table = column.table
    key = f"{table.name}.{column.name}"
    if key in declared.excused or key in OF_THE_KIT:
        return True
    of_table = [held for held in declared.held if held.table is table]
    by_name = any(column.name in {held.user, *held.fate.values} for held in of_table)
    # With the row of a user goes all that it says, but another person whom it names has to be found by that too.
    with_row = any(held.fate.action == DELETED for held in of_table if _is_theirs(held.user))
    return by_name or (with_row and not isinstance(column.type, Uuid))


def _is_theirs(user: str | Part) -> bool:
    return isinstance(user, Part) or user in {"id", "user_id"}


@pytest.mark.parametrize("service", SERVICES)
class TestHoldings:
    def test_mention_every_column_that_may_name_somebody(self, service: str) -> None:
        declared = holdings(service)
        columns = [column for table in declared.metadata.tables.values() for column in table.columns]
        nothing(f"{column}" for column in columns if names_somebody(column) and not mentioned(declared, column))

    def test_mention_every_column_that_refers_to_a_user(self, service: str) -> None:
        declared = holdings(service)
        found = [
            column
            for table in declared.metadata.tables.values()
            for key in table.foreign_key_constraints
            if key.referred_table.fullname == "identity.users"
            for column in key.columns
            if column.name != "tenant_id"
        ]
        nothing(f"{column}" for column in found if not mentioned(declared, column))

    def test_mention_only_what_exists(self, service: str) -> None:
        declared = holdings(service)
        by_name = {table.name: table for table in declared.metadata.tables.values()}
        excused = [key.partition(".") for key in declared.excused]
        nothing(f"{table}.{name}" for table, _, name in excused if name not in columns_of(by_name.get(table)))
        nothing(table for table in declared.immortal if table not in by_name)
        for held in declared.held:
            used = {held.user} if isinstance(held.user, str) else {held.user.column}
            assert used | set(held.fate.values) | set(held.omit) <= columns_of(held.table), held

    def test_say_why_something_stays(self, service: str) -> None:
        declared = holdings(service)
        assert all(held.fate.why for held in declared.held if held.fate.action != DELETED)
        assert all((*declared.excused.values(), *declared.immortal.values()))

    def test_export_no_secret(self, service: str) -> None:
        declared = holdings(service)
        told = {
            f"{table.name}.{column.name}"
            for table in {held.table for held in declared.held}
            for column in table.columns
            if column.name not in {name for held in declared.held if held.table is table for name in held.omit}
        }
        nothing(one for one in told if SECRET.search(one) and one not in PUBLIC_HASHES)

    def test_are_seen_to_be_incomplete_when_one_is_left_out(self, service: str) -> None:
        declared = holdings(service)
        columns = [column for table in declared.metadata.tables.values() for column in table.columns]
        for left_out in declared.held:
            if isinstance(left_out.user, Part) or left_out.user == "id":
                continue
            others = (held for held in declared.held if (held.table, held.user) != (left_out.table, left_out.user))
            rest = replace(declared, held=tuple(others))
            assert [one for one in columns if names_somebody(one) and not mentioned(rest, one)] or left_out.user in {
                key.partition(".")[2] for key in declared.excused
            }, left_out

    def test_purge_every_table_of_tenants(self, service: str) -> None:
        declared = holdings(service)
        covered = {table.name for table in declared.tables}
        tenants = {table.name for table in declared.metadata.tables.values() if "tenant_id" in table.columns}
        # Events wait for their delivery, entries for their tree, files for their removal; revisions are forgotten
        # after fifteen minutes.
        others = {"identity": {"access_revisions"}, "audit": {"tree_queue", "trees"}, "content": {"stored_files"}}
        assert tenants - covered - {"jobs"} == {"outbox"} | others.get(service, set())


def columns_of(table: Table | None) -> set[str]:
    return set() if table is None else {column.name for column in table.columns}


class TestNames:
    @pytest.mark.parametrize("name", ["user_id", "granted_by", "client_address", "email", "invitee_id", "display_name"])
    def test_of_people_are_noticed(self, name: str) -> None:
        assert PERSONAL.search(name)

    def test_of_unknown_ids_are_noticed_by_their_type(self) -> None:
        assert names_somebody(Column("grandmother_id", Uuid()))
        assert not names_somebody(Column("lesson_id", Uuid()))
