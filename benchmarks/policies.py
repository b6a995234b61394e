"""What fifty policies cost: one check, a page of stories; and what a caller costs who is known already."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from statistics import median
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

from joserfc import jwt
from joserfc.jwk import OKPKey

from benchmarks.cpu import processor_times, until_idle
from benchmarks.data import ADMIN, TENANT
from benchmarks.load import send
from benchmarks.report import Policies
from benchmarks.scenarios import CALLERS, Setting, list_stories
from deploy.rest import Rest
from kit.access import Access, Policy, PolicySet, Snapshot
from kit.access.attributes import attributes_of
from kit.access.documents import read
from kit.access.snapshots import Change, SnapshotCache
from kit.auth import USER_ALGORITHM, USER_TOKEN, TokenVerifier
from storyloom.content.v1 import stories_pb2

NAME = "policies"
MANY = 50
ROUNDS = 3
CALLS = 20_000
PATIENCE = 15.0
# Changes of policies reach the services by their stream of revisions.
IN_FORCE_SECONDS = 2.0
FIELDS = attributes_of(stories_pb2.DESCRIPTOR.message_types_by_name["Story"])


def document(number: int) -> dict[str, Any]:
    """Conditions of which part is decided by the caller and part by the row, as no row of the bench's is."""
    return {
        "all": [
            {"field": "user.role", "operator": "contains", "value": "student"},
            {"any": [
                {"field": "story.language", "operator": "eq", "value": f"x{number}"},
                {"field": "story.author_id", "operator": "eq", "value": {"ref": "user.id"}},
            ]},
            {"not": {"field": "story.status", "operator": "in", "value": ["draft", "archived"]}},
        ]
    }


def seconds_needed(setting: Setting) -> float:
    return 2 * ROUNDS * (_span(setting) + IN_FORCE_SECONDS) + 15


def measure(setting: Setting, echo: float) -> Policies:
    """Microseconds of processor time; pages with policies and without take turns."""
    admin = Rest(setting.stack.state.gateway).sign_in(TENANT, ADMIN, setting.school.password)
    without, with_policies = [], []
    for _ in range(ROUNDS):
        without.append(_page(setting))
        with _policies(admin):
            with_policies.append(_page(setting))
    token = asyncio.run(known_caller_cost())
    return Policies(check_cost(), token, (median(without), median(with_policies)), echo)


def check_cost() -> float:
    """Of one check on a snapshot that is cached, with fifty policies about the resource and the action."""
    caller = uuid4()
    policies = [
        Policy(
            id=uuid4(),
            tenant_id=caller,
            name=str(number),
            resource="story",
            actions=frozenset(),
            condition=read(document(number), "story", FIELDS),
            allow=False,
            priority=number,
        )
        for number in range(MANY)
    ]
    snapshot = Snapshot(
        tenant_id=caller,
        user_id=caller,
        roles=frozenset({"student"}),
        permissions=frozenset({("story", "read")}),
        policies=PolicySet(policies),
    )
    story = SimpleNamespace(language="vi", author_id=uuid4(), status="published")
    access = Access()
    return _each(lambda: access.allows(snapshot, "story", "read", story))


async def known_caller_cost() -> float:
    """Of a token that was verified before and a snapshot that is cached: what every call of a user begins with."""
    key = OKPKey.generate_key("Ed25519", parameters={"kid": "bench"})
    user, ids = uuid4(), {name: str(uuid4()) for name in ("sub", "tid", "sid")}
    claims = {"iss": "bench", "aud": "bench", "exp": int(time.time()) + 600, **ids}
    header = {"alg": USER_ALGORITHM, "typ": USER_TOKEN, "kid": "bench"}
    token = jwt.encode(header, claims, key, algorithms=[USER_ALGORITHM])

    async def keys() -> dict[str, Any]:
        return {"keys": [key.as_dict(private=False)]}

    async def snapshots(tenant_id: UUID, user_id: UUID) -> Snapshot:
        return Snapshot(tenant_id=tenant_id, user_id=user_id, roles=frozenset(), permissions=frozenset())

    async def changes() -> AsyncIterator[Change | None]:
        while True:
            yield None
            await asyncio.sleep(0.5)

    async def policies(tenant_id: UUID) -> tuple[Policy, ...]:
        return ()

    verifier = TokenVerifier(keys, issuer="bench", audience="bench")
    cache = SnapshotCache(snapshots, changes, policies, max_stale=60)
    watching = asyncio.create_task(cache.watch())
    await asyncio.sleep(0.01)
    for _ in range(10):
        await cache.get((await verifier.verify(token)).tenant_id, user)
    began = time.process_time()
    for _ in range(CALLS):
        await cache.get((await verifier.verify(token)).tenant_id, user)
    spent = time.process_time() - began
    watching.cancel()
    return spent / CALLS * 1e6


def _each(work: Callable[[], Any]) -> float:
    """The median of some rounds, each of many calls."""
    found = []
    for _ in range(5):
        began = time.process_time()
        for _ in range(CALLS // 5):
            work()
        found.append((time.process_time() - began) / (CALLS // 5) * 1e6)
    return median(found)


def _page(setting: Setting) -> float:
    """Of one page of twenty stories, over all programs."""
    programs = setting.stack.programs
    send(list_stories(setting), CALLERS, 1.0, setting.driver)
    until_idle(programs, PATIENCE)
    before = processor_times(programs)
    load = send(list_stories(setting), CALLERS, _span(setting), setting.driver)
    until_idle(programs, PATIENCE)
    after = processor_times(programs)
    return sum(after[name] - before[name] for name in programs) / max(1, load.answered) * 1e6


@contextmanager
def _policies(admin: Rest) -> Iterator[None]:
    """Fifty policies in force meanwhile; they are deleted afterwards."""
    made: list[str] = []
    mark = uuid4().hex[:8]
    try:
        for number in range(MANY):
            policy = {"name": f"bench {mark} {number}", "resource": "story", "effect": "POLICY_EFFECT_DENY"}
            found = admin.post("/v1/policies", {**policy, "priority": number, "conditions": document(number)})
            made.append(found["id"])
            admin.post(f"/v1/policies/{found['id']}:activate")
        time.sleep(IN_FORCE_SECONDS)
        yield
    finally:
        for one in made:
            admin.post(f"/v1/policies/{one}:deactivate")
            admin.call("DELETE", f"/v1/policies/{one}")
        time.sleep(IN_FORCE_SECONDS)


def _span(setting: Setting) -> float:
    return max(3.0, setting.seconds / 2)
