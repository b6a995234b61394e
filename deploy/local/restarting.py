"""Replaces processes one after another, so that none of the calls on them fails."""

import asyncio
from dataclasses import fields
from typing import TYPE_CHECKING

from kit.settings import SERVICES, Settings

from .environment import Environments
from .errors import RunError
from .gateway import gateway_program, until_healthy, validation
from .processes import Child, Say, run_step

if TYPE_CHECKING:
    from .stack import Stack

ALL = "all"
# As services read them; what a process may need to end after both, before it is killed.
DRAIN = {one.name.upper(): str(one.default) for one in fields(Settings) if one.name in ("drain_delay", "drain_grace")}
REST = 15.0
# How long a process that serves again stays unknown to others: the gateway looks once a second, and services that could
# not reach it try again within 1.2 s. Only then may the next one go.
SETTLING = 2.0
UNTIL_HEALTHY = 15.0


class Restarter:
    """Restarts parts of a running stack."""

    def __init__(self, stack: "Stack", environments: Environments) -> None:
        self._stack, self._environments = stack, environments
        self._retiring: asyncio.Task[None] | None = None

    async def restart(self, what: str, say: Say) -> None:
        """`all`, `gateway` or a service; `RunError` says where it stopped: what is not yet replaced goes on."""
        if what not in (ALL, "gateway", *SERVICES):
            raise RunError(f"There is no {what}: restart {', '.join(SERVICES)}, gateway or all.")
        for name in SERVICES:
            if what in (ALL, name):
                await self._service(name, say)
        if what in (ALL, "gateway"):
            await self._gateway(say)

    async def _service(self, name: str, say: Say) -> None:
        children = [child for child in self._stack.children if child.program.kind == name]
        if len(children) == 1:
            say(f"{name} has one process: calls fail until it is back (REPLICAS=2 gives it two)")
        for nth, child in enumerate(children):
            if nth:
                await asyncio.sleep(SETTLING)
                await self._until_healthy(name)
            before, clock = child.pid, asyncio.get_running_loop().time
            began = clock()
            await child.replace(_grace(child))
            say(f"{child.program.name:<12} process {before} is now {child.pid} ({clock() - began:.1f} s)")

    async def _until_healthy(self, name: str) -> None:
        try:
            async with asyncio.timeout(UNTIL_HEALTHY):
                await until_healthy(self._stack.settings, name)
        except TimeoutError:
            raise RunError(f"The gateway finds a process of {name} unhealthy: the others stay as they are.") from None

    async def _gateway(self, say: Say) -> None:
        stack, clock = self._stack, asyncio.get_running_loop().time
        if self._retiring:
            # Only two can share a port.
            await self._retiring
        began = clock()
        (old,) = (child for child in stack.children if child.program.name == "gateway")
        epoch = self._epoch(old) + 1
        await stack.write_gateway_configuration(self._environments, epoch)
        settings = stack.settings
        check = validation(settings, self._environments, epoch)
        await run_step("Checking the gateway's configuration", check, settings.logs / "gateway-configuration.log")
        new = stack.child(gateway_program(settings, self._environments, epoch))
        before = old.pid
        old.let_die()
        try:
            await new.start()
        except BaseException:
            stack.children.remove(new)
            await new.stop(0.0)
            old.keep()
            stack.write_state()
            raise
        self._retiring = asyncio.create_task(self._retire(old))
        say(f"{'gateway':<12} process {before} is now {new.pid} ({clock() - began:.1f} s)")
        say(f"{'':<12} what {before} has begun may take {settings.gateway_drain} s more")

    async def _retire(self, old: Child) -> None:
        """The new one ends it when its time is over, and could not bear to lose it before."""
        await old.until_ended(self._stack.settings.gateway_drain + REST)
        self._stack.children.remove(old)

    @staticmethod
    def _epoch(child: Child) -> int:
        """After a death Envoy began with the first again."""
        arguments = child.program.command.arguments
        return 0 if child.deaths else int(arguments[-1])


def _grace(child: Child) -> float:
    environment = child.program.command.environment
    return REST + sum(float(environment.get(name, usual)) for name, usual in DRAIN.items())
