"""What the rows of an import do to the users of a tenant, each as the RPC for one user would."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from google.rpc import error_details_pb2

from kit import audit
from kit.access import denied, require
from kit.audit import Action
from kit.auth import current
from kit.db import WriteSession
from kit.errors import FailedPrecondition, InvalidArgument, PermissionDenied
from kit.models import now
from kit.sheets import Memory
from kit.validation import validator
from services.identity import grants, queries, rules
from services.identity.models import User
from services.identity.policies import OWN_FIELDS
from services.identity.rosters import Entry, Person, RoleAssignment
from services.identity.users import IN_SNAPSHOT, changed, check_rights, facts, holds, revoke_invitations
from storyloom.identity.v1 import user_imports_pb2, users_pb2
from storyloom.identity.v1.user_imports_pb2 import RowOutcome

EVERYTHING = "all:manage"
KEEPS_EVERYTHING = "an import takes nobody's right to do everything in the tenant away"
MOST_ATTRIBUTES = 64
# Other calls need the processor as well.
ROWS_AT_A_STRETCH = 20
_check = validator(users_pb2.User)


class Refused(Exception):
    """A row that is not imported: the column, and a sentence without its subject."""

    def __init__(self, column: str, sentence: str, outcome: Any = RowOutcome.ROW_OUTCOME_INVALID) -> None:
        super().__init__(sentence)
        self.column, self.sentence, self.outcome = column, sentence, outcome


@dataclass
class Terms:
    """How an import is done, and what is known of its rows. `growth` counts the users it created less those it deleted,
    `growing` those of the batch at hand."""

    options: user_imports_pb2.ImportUsersOptions
    memory: Memory = field(default_factory=Memory)
    growth: int = 0
    growing: int = 0

    def keep(self) -> None:
        """The batch is done."""
        self.memory.keep()
        self.growth, self.growing = self.growth + self.growing, 0

    def forget(self) -> None:
        """The batch is undone."""
        self.memory.forget()
        self.growing = 0

    @property
    def leaves_existing(self) -> bool:
        return self.options.on_existing == user_imports_pb2.ON_EXISTING_USER_SKIP


async def check_default_roles(session: WriteSession, slugs: Sequence[str]) -> None:
    """Refuses an import whose created users would get roles that the tenant lacks, or that the caller may not give."""
    if slugs:
        if not holds("set_roles"):
            raise denied("user", "set_roles")
        roles = await queries.list_roles_by_slug(session, slugs)
        rules.check_roles_exist(slugs, roles)
        await grants.check_grant(session, {rules.pair(one) for role in roles for one in role.permissions})


async def admit(session: WriteSession, terms: Terms, entries: Sequence[Entry]) -> list[user_imports_pb2.ImportedRow]:
    """Does what the rows say, as far as it may be done. They are of one file."""
    batch = await _Batch.load(session, terms, [entry.says for entry in entries])
    rows = []
    for number, entry in enumerate(entries):
        if number % ROWS_AT_A_STRETCH == 0:
            await asyncio.sleep(0)
        rows.append(await batch.row(entry))
    await batch.finish()
    return rows


class _Batch:
    """The rows' users, locked, with their roles."""

    def __init__(self, session: WriteSession, terms: Terms, users: dict[UUID, User], room: int | None) -> None:
        self.session, self.terms, self.memory, self.room = session, terms, terms.memory, room
        self.by_email = {user.email.lower(): user for user in users.values()}
        self.by_source: dict[str, list[User]] = {}
        for user in users.values():
            self.by_source.setdefault(str(user.attributes.get("sourced_id", "")), []).append(user)
        self.held: dict[UUID, set[str]] = {}
        self.roles: dict[str, Any] = {}
        self.given: list[tuple[UUID, UUID]] = []
        self.changed: set[UUID] = set()

    @classmethod
    async def load(
        cls, session: WriteSession, terms: Terms, says: Sequence[Person | RoleAssignment | None]
    ) -> "_Batch":
        persons = [one for one in says if isinstance(one, Person)]
        assignments = [one for one in says if isinstance(one, RoleAssignment)]
        sourced_ids = {one.sourced_id for one in says if one is not None and one.sourced_id}
        linked = {one: UUID(bytes=found) for one in sourced_ids if (found := terms.memory.value("linked", one))}
        room = await _room(session, terms) if persons else None
        emails = {one.email.lower() for one in persons if one.email}
        users = await queries.list_users_to_import(
            session, emails=emails, sourced_ids=sourced_ids, ids=linked.values()
        )
        batch = cls(session, terms, users, room)
        for sourced_id, user_id in linked.items():
            if user_id in users:
                batch.by_source.setdefault(sourced_id, [users[user_id]])
        batch.held = await queries.list_held_roles(session, list(users))
        slugs = {one.role for one in assignments}.union(*(one.roles for one in persons), *batch.held.values())
        slugs.update(terms.options.default_roles)
        batch.roles = {role.slug: role for role in await queries.list_roles_by_slug(session, slugs)}
        return batch

    async def row(self, entry: Entry) -> user_imports_pb2.ImportedRow:
        row = user_imports_pb2.ImportedRow(file_name=entry.file, line=entry.line)
        for problem in entry.problems:
            row.problems.add(field=problem.field, description=problem.sentence)
        if entry.says is None:
            row.outcome = RowOutcome.ROW_OUTCOME_INVALID
            return row
        try:
            if isinstance(entry.says, Person):
                _check_values(entry.says)
                row.outcome, row.user_id = await self._person(entry.says)
            else:
                row.outcome, row.user_id = await self._assignment(entry.says)
        except Refused as refused:
            row.outcome = refused.outcome
            row.problems.add(field=refused.column, description=refused.sentence)
        except InvalidArgument as error:
            row.outcome = RowOutcome.ROW_OUTCOME_INVALID
            row.problems.extend(_problems(error))
        except (PermissionDenied, FailedPrecondition) as error:
            row.outcome = RowOutcome.ROW_OUTCOME_INVALID
            row.problems.add(description=error.message)
        return row

    async def finish(self) -> None:
        await self.session.flush()
        await queries.insert_roles_of_users(self.session, self.given)
        await queries.change_access_of(self.session, self.changed)

    async def _person(self, person: Person) -> tuple[Any, str]:
        email = person.email.lower()
        for kind, column, text in (("email", "email", email), ("sourced_id", "sourcedId", person.sourced_id)):
            if text and self.memory.knows(kind, text):
                raise Refused(column, "is that of an earlier row", RowOutcome.ROW_OUTCOME_DUPLICATE)
        user = self._match(person)
        if user is None and person.removed:
            raise Refused("status", "is that of nobody to delete", RowOutcome.ROW_OUTCOME_UNCHANGED)
        if user is None:
            outcome, user_id = RowOutcome.ROW_OUTCOME_CREATED, await self._create(person)
        else:
            outcome, user_id = await self._change(user, person), str(user.id)
        self.memory.note("email", "" if person.removed else email)
        self.memory.note("sourced_id", person.sourced_id)
        return outcome, user_id

    def _match(self, person: Person) -> User | None:
        """The user that the row is about, if there is one."""
        found = self.by_source.get(person.sourced_id, []) if person.sourced_id else []
        if len(found) > 1:
            raise Refused("sourcedId", "is that of several users")
        if found:
            return found[0]
        self._check_freed(person.email)
        user = self.by_email.get(person.email.lower())
        if user and person.sourced_id and user.attributes.get("sourced_id"):
            raise Refused("email", "is that of a user with another sourcedId")
        return user

    def _check_freed(self, email: str) -> None:
        # Whether it is free already depends on what is written; so nobody gets it, written or not.
        if self.memory.knows("freed", email.lower()):
            raise Refused("email", "was another user's until this import; import the row again")

    async def _create(self, person: Person) -> str:
        for column in ("email", "display_name"):
            if not getattr(person, column):
                raise Refused(column, "is required for a new user")
        user = User(
            email=person.email,
            display_name=person.display_name,
            locale=person.locale,
            level=person.level,
            attributes=dict(person.attributes),
            status="deactivated" if person.barred else "invited",
        )
        require("create", user)
        if self.room is not None and self.terms.growing >= self.room:
            raise Refused("", "is beyond the tenant's quota of users")
        await grants.check_facts(self.session, changed({}, facts(user)))
        slugs = set(person.roles or self.terms.options.default_roles)
        await self._check_roles(user, set(), slugs)
        self.session.add(user)
        audit.record(self.session, Action.CREATE, user)
        if slugs:
            self._give(user, set(), slugs)
        self.terms.growing += 1
        self.memory.note("created", person.sourced_id)
        return "" if self.terms.options.dry_run else str(user.id)

    async def _change(self, user: User, person: Person) -> Any:
        if self.terms.leaves_existing:
            self.memory.note("left", person.sourced_id)
            raise Refused("", "is about a user who exists already", RowOutcome.ROW_OUTCOME_UNCHANGED)
        if person.removed:
            await self._delete(user)
            self.memory.note("gone", person.sourced_id)
            return RowOutcome.ROW_OUTCOME_DELETED
        values, held = _changes(user, person), self.held[user.id]
        roles = set(person.roles) or held
        bars = person.barred and user.status != "deactivated"
        if values:
            await self._check_update(user, values)
        await self._check_roles(user, held, roles)
        if bars:
            await self._check_bar(user, "deactivate")
        if "sourced_id" in values.get("attributes", {}) and person.sourced_id:
            self.memory.note("linked", person.sourced_id, user.id.bytes)
        if not values and roles == held and not bars:
            return RowOutcome.ROW_OUTCOME_UNCHANGED
        if values:
            await self._update(user, values)
        if roles != held:
            await self._replace(user, held, roles)
        if bars:
            user.status = rules.deactivated(user.status)
            audit.record(self.session, "deactivate", user, only=frozenset({"status"}))
            await self._end_access(user)
        return RowOutcome.ROW_OUTCOME_UPDATED

    async def _check_update(self, user: User, values: dict[str, Any]) -> None:
        require("update", user)
        if not values.keys() <= OWN_FIELDS and not holds("update"):
            raise denied("user", "update")
        if len(values.get("attributes", {})) > MOST_ATTRIBUTES:
            raise Refused("attributes", f"would be more than {MOST_ATTRIBUTES}")
        new = User(level=values.get("level", user.level), attributes=values.get("attributes", user.attributes))
        await grants.check_facts(self.session, changed(facts(user), facts(new)))
        if email := values.get("email"):
            self._check_freed(email)
            if email.lower() in self.by_email:
                raise Refused("email", "is that of another user")
            if user.id != current().subject:
                await check_rights(self.session, user)

    async def _update(self, user: User, values: dict[str, Any]) -> None:
        if "email" in values:
            self.memory.note("freed", user.email.lower())
            await revoke_invitations(self.session, user.id)
        for name, value in values.items():
            setattr(user, name, value)
        audit.record(self.session, Action.UPDATE, user, only=frozenset(values))
        if values.keys() & IN_SNAPSHOT:
            self.changed.add(user.id)

    async def _delete(self, user: User) -> None:
        await self._check_bar(user, "delete")
        self.memory.note("freed", user.email.lower())
        user.deleted_at = now()
        audit.record(self.session, Action.DELETE, user)
        await self._end_access(user)
        self.terms.growing -= 1

    async def _check_bar(self, user: User, action: str) -> None:
        require(action, user)
        rules.check_not_self(user.id, current().subject)
        await check_rights(self.session, user)
        if EVERYTHING in (await queries.get_access(self.session, user.id)).permissions:
            raise Refused("", KEEPS_EVERYTHING)

    async def _end_access(self, user: User) -> None:
        await queries.end_sessions(self.session, user.id, "barred")
        await revoke_invitations(self.session, user.id)
        self.changed.add(user.id)

    async def _check_roles(self, user: User, before: set[str], after: set[str]) -> None:
        moved = before ^ after
        if missing := sorted(moved - self.roles.keys()):
            raise Refused("roles", f"the tenant has no role {missing[0]}")
        if not moved:
            return
        if not holds("set_roles"):
            raise denied("user", "set_roles")
        require("set_roles", user)
        permissions = {rules.pair(one) for slug in moved for one in self.roles[slug].permissions}
        await grants.check_grant(self.session, permissions)
        await grants.check_facts(self.session, roles=moved)
        if any(EVERYTHING in self.roles[slug].permissions for slug in before - after):
            raise Refused("roles", KEEPS_EVERYTHING)

    async def _replace(self, user: User, before: set[str], after: set[str]) -> None:
        for slug in before - after:
            await queries.delete_role_of_user(self.session, user.id, self.roles[slug].id)
        self._give(user, before, after)
        # The roles are rows of their own; this makes the user's etag change with them.
        user.updated_at = now()
        self.changed.add(user.id)

    def _give(self, user: User, before: set[str], after: set[str]) -> None:
        self.given += [(user.id, self.roles[slug].id) for slug in sorted(after - before)]
        self.held[user.id] = after
        old, new = {"roles": sorted(before)}, {"roles": sorted(after)}
        audit.write(self.session, "set_roles", "user", user.id, old=old, new=new)

    async def _assignment(self, assignment: RoleAssignment) -> tuple[Any, str]:
        user, created = self._holder(assignment.sourced_id), self.memory.knows("created", assignment.sourced_id)
        if user is None and not created and not self.memory.knows("left", assignment.sourced_id):
            raise Refused("userSourcedId", "is that of nobody")
        user_id = str(user.id) if user else ""
        if self.terms.leaves_existing and not created:
            raise Refused("", "is about a user who exists already", RowOutcome.ROW_OUTCOME_UNCHANGED)
        if not assignment.in_force:
            raise Refused("", "is not in force today", RowOutcome.ROW_OUTCOME_UNCHANGED)
        pair = f"{assignment.sourced_id}\0{assignment.role}"
        before = self._held_before(user, pair, assignment.role)
        # Somebody may have a role at several schools: it is taken away only when no row gives it.
        taken = assignment.removed and not self.memory.knows("given", pair)
        role = {assignment.role}
        after = before - role if taken else before if assignment.removed else before | role
        # In a dry run, users who would have been created are not there: they would all be like this one.
        await self._check_roles(user or User(email="", display_name="", status="invited"), before, after)
        self.memory.note("taken" if taken else "given", pair)
        if before == after:
            return RowOutcome.ROW_OUTCOME_UNCHANGED, user_id
        if user:
            await self._replace(user, before, after)
        return RowOutcome.ROW_OUTCOME_UPDATED, user_id

    def _holder(self, sourced_id: str) -> User | None:
        found = self.by_source.get(sourced_id, [])
        if len(found) > 1:
            raise Refused("userSourcedId", "is that of several users")
        return found[0] if found and not self.memory.knows("gone", sourced_id) else None

    def _held_before(self, user: User | None, pair: str, role: str) -> set[str]:
        """The user's roles, with what earlier rows made of this one."""
        before = self.held[user.id] if user else set(self.terms.options.default_roles)
        if self.memory.knows("given", pair):
            return before | {role}
        return before - {role} if self.memory.knows("taken", pair) else before


async def _room(session: WriteSession, terms: Terms) -> int | None:
    """How many users the tenant may have besides those it has; None for any number."""
    quota = await queries.get_user_quota(session)
    if not quota:
        return None
    await queries.get_tenant(session)
    return quota - await queries.count_users(session) - (terms.growth if terms.options.dry_run else 0)


def _changes(user: User, person: Person) -> dict[str, Any]:
    """What the row says otherwise than the user is. An empty cell says nothing; nor does the case of an address."""
    said = {name: getattr(person, name) for name in ("display_name", "locale", "level")}
    values = {name: value for name, value in said.items() if value and value != getattr(user, name)}
    if person.email and person.email.lower() != user.email.lower():
        values["email"] = person.email
    attributes = {**user.attributes, **person.attributes}
    return values | ({"attributes": attributes} if attributes != user.attributes else {})


def _check_values(person: Person) -> None:
    """Refuses with INVALID_ARGUMENT what `CreateUser` would refuse."""
    texts = {name: getattr(person, name) for name in ("email", "display_name", "locale", "level")}
    sent = users_pb2.User(**texts, roles=person.roles)
    sent.attributes.update(person.attributes)
    _check(sent)


def _problems(error: InvalidArgument) -> list[user_imports_pb2.RowProblem]:
    bad = [one for one in error.details if isinstance(one, error_details_pb2.BadRequest)]
    return [
        user_imports_pb2.RowProblem(field=one.field.partition("[")[0], description=one.description)
        for one in bad[0].field_violations
    ]
