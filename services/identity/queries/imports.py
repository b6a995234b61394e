"""Queries of imports, which are about many users at once."""

from collections.abc import Collection, Iterable
from uuid import UUID

from sqlalchemy import ColumnElement, delete, func, insert, literal_column, select

from kit.db import WriteSession
from services.identity.models import Role, User, UserRole, access_revisions

# As the index has it: a parameter instead of the name would not be recognised.
SOURCED_ID: ColumnElement[str] = literal_column("(attributes ->> 'sourced_id'::text)")


async def list_users_to_import(
    session: WriteSession, *, emails: Collection[str], sourced_ids: Collection[str], ids: Collection[UUID]
) -> dict[UUID, User]:
    """The users with one of the addresses, in lower case, one of the ids of their source or one of the ids; locked."""
    users = {}
    for column, values in ((func.lower(User.email), emails), (SOURCED_ID, sourced_ids), (User.id, ids)):
        if values:
            statement = select(User).where(
                User.tenant_id == session.tenant_id, User.deleted_at.is_(None), column.in_(sorted(values))
            )
            # In one order, so that two imports wait for one another and not for ever.
            found = (await session.execute(statement.order_by(User.id).with_for_update())).scalars()
            users.update({user.id: user for user in found})
    return users


async def list_held_roles(session: WriteSession, user_ids: Collection[UUID]) -> dict[UUID, set[str]]:
    """The slugs of the roles of each of the users."""
    held: dict[UUID, set[str]] = {user_id: set() for user_id in user_ids}
    if held:
        statement = (
            select(UserRole.user_id, Role.slug)
            .join(Role, (Role.tenant_id == UserRole.tenant_id) & (Role.id == UserRole.role_id))
            .where(UserRole.tenant_id == session.tenant_id, UserRole.user_id.in_(held))
        )
        for row in await session.execute(statement):
            held[row.user_id].add(row.slug)
    return held


async def delete_role_of_user(session: WriteSession, user_id: UUID, role_id: UUID) -> None:
    await session.execute(
        delete(UserRole)
        .where(UserRole.tenant_id == session.tenant_id, UserRole.user_id == user_id, UserRole.role_id == role_id)
        .execution_options(synchronize_session=False)
    )


async def change_access_of(session: WriteSession, user_ids: Iterable[UUID]) -> None:
    """Makes what services know of the users out of date at the commit."""
    rows = [{"tenant_id": session.tenant_id, "user_id": user_id, "session_id": None} for user_id in user_ids]
    if rows:
        await session.execute(insert(access_revisions).values(rows))


async def insert_roles_of_users(session: WriteSession, given: Iterable[tuple[UUID, UUID]]) -> None:
    """Gives each user the role; (user, role) pairs that do not exist yet."""
    for user_id, role_id in given:
        session.add(UserRole(user_id=user_id, role_id=role_id))
    await session.flush()
