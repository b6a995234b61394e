"""What the platform cannot start without: its own tenant, the staff's roles, the first super administrator."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from sqlalchemy import func, select

from kit import audit
from kit.audit import Action
from kit.db import Database, WriteSession
from kit.ids import SYSTEM_TENANT
from kit.settings import SettingsError, setting
from services.identity import queries, rules
from services.identity.models import Tenant, User
from services.identity.passwords import Passwords
from services.identity.policies import PLATFORM_ROLES, SUPER_ADMINISTRATOR

PLATFORM_SLUG = "platform"
SHORTEST_PASSWORD = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class PlatformSettings:
    """The first super administrator, made at start-up when both are set; later values change nothing."""

    platform_admin_email: str = setting("E-mail address of the platform's first super administrator.", "")
    platform_admin_password: str = setting("First password of that administrator, 8 to 128 characters.", "")

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> Self:
        made = cls(
            platform_admin_email=environ.get("PLATFORM_ADMIN_EMAIL", ""),
            platform_admin_password=environ.get("PLATFORM_ADMIN_PASSWORD", ""),
        )
        if made.platform_admin_email and len(made.platform_admin_password) < SHORTEST_PASSWORD:
            raise SettingsError(f"PLATFORM_ADMIN_PASSWORD has fewer than {SHORTEST_PASSWORD} characters")
        return made


async def seed_platform(db: Database, passwords: Passwords, settings: PlatformSettings) -> None:
    """Makes what is missing and changes nothing that is there."""
    async with db.write(SYSTEM_TENANT) as session:
        # Processes that start together take turns: the second finds everything made.
        await session.execute(select(func.pg_advisory_xact_lock(func.hashtext("identity.seed_platform"))))
        await _ensure_tenant(session)
        if settings.platform_admin_email:
            await _ensure_administrator(session, passwords, settings)


async def _ensure_tenant(session: WriteSession) -> None:
    if await session.scalar(select(Tenant.id).where(Tenant.tenant_id == session.tenant_id)):
        return
    settings = dict(rules.DEFAULT_SETTINGS)
    tenant = Tenant(id=SYSTEM_TENANT, slug=PLATFORM_SLUG, name="Storyloom", settings=settings)
    session.add(tenant)
    audit.record(session, Action.CREATE, tenant)
    await queries.write_listing(session, tenant)
    for slug, role in PLATFORM_ROLES.items():
        await queries.insert_default_role(session, slug, role, system=True)


async def _ensure_administrator(session: WriteSession, passwords: Passwords, settings: PlatformSettings) -> None:
    if await queries.find_account(session, settings.platform_admin_email):
        return
    password_hash = await passwords.hash(settings.platform_admin_password)
    user = User(
        email=settings.platform_admin_email,
        display_name="Platform administrator",
        status="active",
        password_hash=password_hash,
    )
    session.add(user)
    audit.record(session, Action.CREATE, user)
    roles: Any = await queries.list_roles_by_slug(session, [SUPER_ADMINISTRATOR])
    await queries.replace_roles(session, user.id, [role.id for role in roles])
