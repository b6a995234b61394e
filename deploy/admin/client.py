"""Calls in the name of an operator who has signed in."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import grpc

from storyloom.identity.v1.sessions_pb2 import DeleteSessionRequest, RefreshSessionRequest, Session
from storyloom.identity.v1.sessions_pb2_grpc import SessionServiceStub
from storyloom.identity.v1.tenants_pb2 import ListTenantsRequest, Tenant
from storyloom.identity.v1.tenants_pb2_grpc import TenantServiceStub
from storyloom.identity.v1.users_pb2 import ListUsersRequest, User
from storyloom.identity.v1.users_pb2_grpc import UserServiceStub
from tools.signing_in import SECONDS, UsageError, channel_to, sign_in

Stub = TypeVar("Stub")
PLATFORM = "platform"
PAGE = 100


class Client:
    """One operator's connections to the services at these addresses, which may all be that of one gateway."""

    def __init__(self, addresses: Mapping[str, str], ca: Path | None = None) -> None:
        self.addresses = addresses
        self._ca = ca
        self._channels: dict[str, grpc.Channel] = {}
        self.session: Session | None = None

    def channel(self, service: str) -> grpc.Channel:
        address = self.addresses[service]
        if address not in self._channels:
            self._channels[address] = channel_to(address, self._ca)
        return self._channels[address]

    def stub(self, kind: Callable[[grpc.Channel], Stub], service: str = "identity") -> Stub:
        return kind(self.channel(service))

    def sign_in(self, user: str, password: str) -> None:
        """Only staff of the platform do what there is to do here, so that is whose tenant it is."""
        self.session = sign_in(self.channel("identity"), PLATFORM, user, password)

    def renew(self) -> None:
        """For what goes on longer than an access token lives."""
        assert self.session is not None
        request = RefreshSessionRequest(refresh_token=self.session.refresh_token)
        self.session = self.stub(SessionServiceStub).RefreshSession(request, timeout=SECONDS)

    def metadata(self, tenant_id: str = "") -> tuple[tuple[str, str], ...]:
        """Of a call in this tenant, or in the platform's own."""
        assert self.session is not None
        token = ("authorization", f"Bearer {self.session.access_token}")
        return (token, ("x-act-in-tenant", tenant_id)) if tenant_id else (token,)

    def call(self, rpc: Callable[..., Any], request: Any, tenant_id: str = "") -> Any:
        return rpc(request, metadata=self.metadata(tenant_id), timeout=SECONDS)

    def pages(self, rpc: Callable[..., Any], request: Any, tenant_id: str = "") -> Iterator[Any]:
        """The pages of a list, to its end."""
        request.page_size = PAGE
        while True:
            page = self.call(rpc, request, tenant_id)
            yield page
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    def tenant(self, slug: str) -> Tenant:
        """The tenant of this slug; UsageError when there is none."""
        for page in self.pages(self.stub(TenantServiceStub).ListTenants, ListTenantsRequest(query=slug)):
            for tenant in page.tenants:
                if tenant.slug == slug:
                    return Tenant.FromString(tenant.SerializeToString())
        raise UsageError(f"there is no tenant {slug}")

    def user(self, tenant_id: str, email: str) -> User:
        """The tenant's user with this e-mail address; UsageError when there is none."""
        for page in self.pages(self.stub(UserServiceStub).ListUsers, ListUsersRequest(query=email), tenant_id):
            for user in page.users:
                if user.email.lower() == email.lower():
                    return User.FromString(user.SerializeToString())
        raise UsageError(f"the tenant has no user {email}")

    def close(self) -> None:
        """Signs out: a session that nobody ended would be good until it expires."""
        if self.session is not None:
            with suppress(grpc.RpcError):
                self.call(self.stub(SessionServiceStub).DeleteSession, DeleteSessionRequest())
        for channel in self._channels.values():
            channel.close()
