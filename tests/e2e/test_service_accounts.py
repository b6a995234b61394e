"""A service's credential opens the internal RPCs that `services/callers.py` gives it, and nothing else at all."""

from collections.abc import AsyncIterator

import grpc
import pytest
from google.protobuf.descriptor import MethodDescriptor

from kit.auth import ServiceCredential
from kit.options import requires
from kit.settings import SERVICES
from services.callers import ALLOWED
from tests.contract import api
from tests.stack import Refusal, Stack

pytestmark = pytest.mark.slow

INTERNAL = [pytest.param(rpc, id=api.short(rpc)) for rpc in api.rpcs() if api.is_internal(rpc)]
OF_USERS = [rpc for rpc in api.rpcs() if not api.is_internal(rpc) and not requires(rpc).public]


def servers(stack: Stack, rpc: MethodDescriptor) -> list[str]:
    """The services that serve it: its owner, or all consumers for the inbox."""
    grpc_service = rpc.containing_service.full_name
    found = [
        name
        for name, service in stack.services.items()
        if grpc_service in {one.SERVICE.full_name for one in service._servicers}
    ]
    assert found, grpc_service
    return found


async def ending(stack: Stack, server: str, rpc: MethodDescriptor, caller: str) -> tuple[grpc.StatusCode, str]:
    """Code and ErrorReason of the call with the caller's credential, made for this server; an empty request."""
    token = ServiceCredential(caller, stack.environments[caller]["SERVICE_CREDENTIAL"]).token(server)
    kind = f"{'stream' if rpc.client_streaming else 'unary'}_{'stream' if rpc.server_streaming else 'unary'}"
    call = getattr(stack.channel(server), kind)(api.path_of(rpc))
    running = call(
        requests() if rpc.client_streaming else b"", metadata=(("authorization", f"Bearer {token}"),), timeout=10
    )
    try:
        if rpc.server_streaming:
            async for _ in running:
                break
            running.cancel()
        else:
            await running
    except grpc.aio.AioRpcError as error:
        return error.code(), Refusal(error).reason
    return grpc.StatusCode.OK, ""


async def requests() -> AsyncIterator[bytes]:
    yield b""


class TestInternalRpc:
    @pytest.mark.parametrize("caller", SERVICES)
    @pytest.mark.parametrize("rpc", INTERNAL)
    async def test_is_open_to_the_listed_services_only(self, stack: Stack, rpc: MethodDescriptor, caller: str) -> None:
        listed = caller in ALLOWED[rpc.containing_service.full_name]
        for server in servers(stack, rpc):
            code, reason = await ending(stack, server, rpc, caller)
            refused = (code, reason) == (grpc.StatusCode.PERMISSION_DENIED, "SERVICE_NOT_ALLOWED")
            assert refused is not listed, (server, code, reason)
            assert code is not grpc.StatusCode.UNAUTHENTICATED

    @pytest.mark.parametrize("rpc", INTERNAL)
    async def test_takes_no_credential_made_for_another_service(self, stack: Stack, rpc: MethodDescriptor) -> None:
        caller = min(ALLOWED[rpc.containing_service.full_name])
        credential = ServiceCredential(caller, stack.environments[caller]["SERVICE_CREDENTIAL"])
        for server in servers(stack, rpc):
            for other in set(SERVICES) - {server}:
                metadata = (("authorization", f"Bearer {credential.token(other)}"),)
                running = stack.channel(server).unary_unary(api.path_of(rpc))(b"", metadata=metadata, timeout=10)
                assert await running.code() is grpc.StatusCode.UNAUTHENTICATED


class TestRpcOfUsers:
    @pytest.mark.parametrize("caller", SERVICES)
    async def test_is_closed_to_a_service_without_a_user(self, stack: Stack, caller: str) -> None:
        opened = []
        for rpc in OF_USERS:
            for server in servers(stack, rpc):
                found = await ending(stack, server, rpc, caller)
                if found != (grpc.StatusCode.UNAUTHENTICATED, "INVALID_TOKEN"):
                    opened.append(f"{api.short(rpc)} of {server}: {found}")
        assert not opened, "\n".join(opened)
