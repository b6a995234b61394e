"""TenantService: the tenants of the platform, and a tenant's own settings."""

from dataclasses import replace
from functools import partial
from typing import Any
from uuid import UUID

from kit import audit, fieldmask, outbox
from kit.access import denied, require
from kit.audit import Action
from kit.auth import current
from kit.call import current_call
from kit.db import Database, WriteSession, in_tenant
from kit.enums import stored_name
from kit.errors import NotFound
from kit.ids import SYSTEM_TENANT, new_id
from kit.models import check_etag
from kit.pagination import Page
from services.identity import queries, rules
from services.identity.models import Tenant, User
from services.identity.passwords import Passwords
from services.identity.policies import ADMINISTRATOR, TENANT_ROLES
from storyloom.identity.v1 import tenants_pb2
from storyloom.identity.v1.events_pb2 import TenantChanged

WRITABLE = ("name", "settings")


class TenantService:
    SERVICE = tenants_pb2.DESCRIPTOR.services_by_name["TenantService"]

    def __init__(self, db: Database, passwords: Passwords) -> None:
        self.db, self.passwords = db, passwords

    async def CreateTenant(self, request: tenants_pb2.CreateTenantRequest, context: Any) -> tenants_pb2.Tenant:
        _require_staff("create")
        identity, sent = new_id(), request.tenant
        tenant = Tenant(id=identity, slug=sent.slug, name=sent.name, settings=rules.settings_of(sent.settings))
        password_hash = await self.passwords.hash(request.administrator.password)
        _act_in(identity)
        # Begins in the platform's tenant: an idempotency key is looked up there, where a repeated call finds it.
        async with self.db.write(SYSTEM_TENANT) as session, in_tenant(session, identity):
            session.add(tenant)
            await _publish(session, Action.CREATE, tenant)
            await _insert_administrator(session, request.administrator, password_hash)
            return tenant_to_proto(tenant)

    async def GetTenant(self, request: tenants_pb2.GetTenantRequest, context: Any) -> tenants_pb2.Tenant:
        identity = UUID(request.id)
        if _is_staff():
            async with self.db.read(SYSTEM_TENANT) as session:
                return tenant_to_proto(await queries.get_listing(session, identity))
        _require_own(identity)
        return await self._own()

    async def GetMyTenant(self, request: tenants_pb2.GetMyTenantRequest, context: Any) -> tenants_pb2.Tenant:
        return await self._own()

    async def _own(self) -> tenants_pb2.Tenant:
        async with self.db.read() as session:
            return tenant_to_proto(await queries.get_tenant_row(session))

    async def ListTenants(
        self, request: tenants_pb2.ListTenantsRequest, context: Any
    ) -> tenants_pb2.ListTenantsResponse:
        page = Page.of(request)
        status = stored_name(tenants_pb2.TenantStatus, request.status)
        own = None if _is_staff() else current().tenant_id
        async with self.db.read(SYSTEM_TENANT) as session:
            rows = await queries.list_listings(
                session, page, query=request.query, status=status, only=own
            )
        rows, token = page.split(rows, key=lambda row: (row.id,))
        return tenants_pb2.ListTenantsResponse(tenants=[tenant_to_proto(row) for row in rows], next_page_token=token)

    async def UpdateTenant(self, request: tenants_pb2.UpdateTenantRequest, context: Any) -> tenants_pb2.Tenant:
        _act_in(UUID(request.tenant.id))
        async with self.db.write() as session:
            tenant = await queries.get_tenant(session)
            require("update", tenant)
            check_etag(tenant, request.tenant.etag)
            convert = {"settings": partial(_settings, tenant)}
            fieldmask.apply(tenant, request.tenant, request.update_mask, WRITABLE, convert)
            await _publish(session, Action.UPDATE, tenant)
            return tenant_to_proto(tenant)

    async def SuspendTenant(self, request: tenants_pb2.SuspendTenantRequest, context: Any) -> tenants_pb2.Tenant:
        _require_staff("suspend")
        _act_in(UUID(request.id))
        async with self.db.write() as session:
            tenant = await queries.get_tenant(session)
            check_etag(tenant, request.etag)
            tenant.status = rules.suspended(tenant.id, tenant.status)
            await queries.change_access(session)
            await _publish(session, "suspend", tenant)
            return tenant_to_proto(tenant)

    async def ResumeTenant(self, request: tenants_pb2.ResumeTenantRequest, context: Any) -> tenants_pb2.Tenant:
        _require_staff("resume")
        _act_in(UUID(request.id))
        async with self.db.write() as session:
            tenant = await queries.get_tenant(session)
            await queries.check_not_erased(session, "tenant", tenant.id)
            check_etag(tenant, request.etag)
            tenant.status = rules.resumed(tenant.status)
            await queries.change_access(session)
            await _publish(session, "resume", tenant)
            return tenant_to_proto(tenant)


def _is_staff() -> bool:
    return current().home_tenant_id == SYSTEM_TENANT


def _require_staff(action: str) -> None:
    """Tenants' administrators hold `all:manage`, but within their tenant only."""
    if not _is_staff():
        raise denied("tenant", action)


def _settings(tenant: Tenant, written: tenants_pb2.TenantSettings) -> dict[str, Any]:
    settings = rules.settings_of(written)
    return settings if _is_staff() else rules.quotas_kept(settings, tenant.settings.get("quotas", {}))


def _require_own(tenant_id: UUID) -> None:
    if tenant_id != current().tenant_id:
        raise NotFound("tenant")


def _act_in(tenant_id: UUID) -> None:
    """Moves the call into the tenant: its rows, its audit log. For staff, whose permission the RPC has checked, and
    for whom the tenant is their own."""
    if not _is_staff():
        _require_own(tenant_id)
    call = current_call()
    assert call is not None  # noqa: S101  # only RPCs get here
    call.principal = replace(current(), tenant_id=tenant_id)


async def _publish(session: WriteSession, action: str, tenant: Tenant) -> None:
    """Writes down the change of the tenant wherever it has to be known."""
    audit.record(session, action, tenant)
    await queries.write_listing(session, tenant)
    shown = tenant_to_proto(tenant)
    outbox.publish(session, "tenant", tenant.id, TenantChanged(status=shown.status, settings=shown.settings))


async def _insert_administrator(
    session: WriteSession, sent: tenants_pb2.TenantAdministrator, password_hash: str
) -> None:
    roles = {slug: await queries.insert_default_role(session, slug, role) for slug, role in TENANT_ROLES.items()}
    user = User(email=sent.email, display_name=sent.display_name, status="active", password_hash=password_hash)
    session.add(user)
    audit.record(session, Action.CREATE, user)
    await queries.replace_roles(session, user.id, [roles[ADMINISTRATOR].id])


def tenant_to_proto(row: Any) -> tenants_pb2.Tenant:
    """Of a tenant, or of its entry in the platform's list."""
    message = tenants_pb2.Tenant(
        id=str(row.id),
        slug=row.slug,
        name=row.name,
        status=f"TENANT_STATUS_{row.status.upper()}",
        settings=tenants_pb2.TenantSettings(**row.settings),
        etag=str(row.revision),
    )
    message.create_time.FromDatetime(row.created_at)
    message.update_time.FromDatetime(row.updated_at)
    return message
