"""Tenants, and passwords of their users."""

import argparse
import secrets
from collections.abc import Iterator
from typing import Any
from uuid import UUID

from google.protobuf.duration_pb2 import Duration

from deploy.admin.client import PLATFORM, Client
from storyloom.audit.v1.checkpoints_pb2 import GetVerifierKeyRequest
from storyloom.audit.v1.checkpoints_pb2_grpc import CheckpointServiceStub
from storyloom.identity.v1 import tenants_pb2
from storyloom.identity.v1.invitations_pb2 import INVITATION_KIND_RESET, CreateInvitationRequest, Invitation
from storyloom.identity.v1.invitations_pb2_grpc import InvitationServiceStub
from storyloom.identity.v1.parked_events_pb2 import GetOutboxStandingsRequest
from storyloom.identity.v1.parked_events_pb2_grpc import ParkedEventServiceStub
from storyloom.identity.v1.tenants_pb2 import Tenant, TenantStatus
from storyloom.identity.v1.tenants_pb2_grpc import TenantServiceStub

Row = dict[str, Any]
TAKEN_OUT = (
    "{file}: {slug} as of {snapshot_time}, {rows} rows, {files} recordings, {octets} bytes\n  SHA-256 {sha256}\n"
    "  signed with {key}"
)
BROUGHT_IN = "{slug:<24} {status:<10} {id}  as of {snapshot_time}, {rows} rows, {files} recordings"
HOUR = 3600


def listed(client: Client, asked: argparse.Namespace) -> Iterator[Row]:
    status = f"TENANT_STATUS_{(asked.status or 'unspecified').upper()}"
    request = tenants_pb2.ListTenantsRequest(query=asked.query, status=status)
    for page in client.pages(client.stub(TenantServiceStub).ListTenants, request):
        yield from map(row_of, page.tenants)


def create(client: Client, asked: argparse.Namespace) -> Iterator[Row]:
    """Nobody ever knows the first password: the administrator is invited to choose another."""
    administrator = tenants_pb2.TenantAdministrator(
        email=asked.email, display_name=asked.display_name, password=secrets.token_urlsafe(48)
    )
    request = tenants_pb2.CreateTenantRequest(
        tenant=Tenant(slug=asked.slug, name=asked.name), administrator=administrator
    )
    tenant = client.call(client.stub(TenantServiceStub).CreateTenant, request)
    yield row_of(tenant) | invite(client, tenant.id, asked)


def suspend(client: Client, asked: argparse.Namespace) -> Iterator[Row]:
    request = tenants_pb2.SuspendTenantRequest(id=client.tenant(asked.slug).id)
    yield row_of(client.call(client.stub(TenantServiceStub).SuspendTenant, request))


def resume(client: Client, asked: argparse.Namespace) -> Iterator[Row]:
    request = tenants_pb2.ResumeTenantRequest(id=client.tenant(asked.slug).id)
    yield row_of(client.call(client.stub(TenantServiceStub).ResumeTenant, request))


def reset_password(client: Client, asked: argparse.Namespace) -> Iterator[Row]:
    """The old password works until another is chosen: whoever asked may not have been its owner."""
    tenant_id = "" if asked.slug == PLATFORM else client.tenant(asked.slug).id
    yield {"slug": asked.slug} | invite(client, tenant_id, asked)


def take_out(client: Client, asked: argparse.Namespace) -> Iterator[Row]:
    """The tenant's archive. Its rows are read past the services, so identity is asked whether the operator may."""
    # Imported here: what reads rows, keys and recordings is not needed by what calls services.
    from deploy.tenants.commands import export_tenant

    operator_id = operating(client)
    yield export_tenant(UUID(client.tenant(asked.slug).id), asked.out, asked.recipient, operator_id)


def bring_in(client: Client, asked: argparse.Namespace) -> Iterator[Row]:
    from deploy.tenants.commands import import_tenant

    operator_id = operating(client)
    known = client.call(client.stub(CheckpointServiceStub, "audit").GetVerifierKey, GetVerifierKeyRequest())
    row = import_tenant(
        asked.file,
        asked.identity,
        asked.slug,
        operator_id,
        replaces=asked.replace,
        verifier_keys=(known.key, *known.earlier_keys),
    )
    yield row | {"status": row_of(client.tenant(row["slug"]))["status"]}


def operating(client: Client) -> str:
    """Who signed in, if they may operate the platform; an error of gRPC if not."""
    client.call(client.stub(ParkedEventServiceStub).GetOutboxStandings, GetOutboxStandingsRequest(service="identity"))
    assert client.session is not None
    return client.session.user.id


def invite(client: Client, tenant_id: str, asked: argparse.Namespace) -> Row:
    request = CreateInvitationRequest(
        user_id=client.user(tenant_id, asked.email).id,
        kind=INVITATION_KIND_RESET,
        lifetime=Duration(seconds=asked.hours * HOUR),
    )
    made: Invitation = client.call(client.stub(InvitationServiceStub).CreateInvitation, request, tenant_id)
    expires = f"{made.expire_time.ToDatetime():%Y-%m-%d %H:%M} UTC"
    return {"user_id": made.user_id, "email": made.email, "invitation": made.token, "expires": expires}


def row_of(tenant: Tenant) -> Row:
    status = TenantStatus.Name(tenant.status).removeprefix("TENANT_STATUS_").lower()
    return {"id": tenant.id, "slug": tenant.slug, "name": tenant.name, "status": status}
