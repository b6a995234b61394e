"""Isolation once more, with requests put together at random until there are enough: `make proof` wants 20,000.

What reproduces a run is its seed, which it prints and takes from the environment as SEED."""

import os
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import cycle
from random import Random
from typing import Any

import pytest
from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor
from google.protobuf.message import Message

from kit.ids import new_id
from kit.options import is_read, requires
from tests.contract import api, requests
from tests.contract.answers import Answer, answer
from tests.contract.population import Population, Tenancy, ask, populate
from tests.e2e.test_isolation import MAY_SUCCEED, WITHOUT_IDS, filled, first_token, named, secrets, shown
from tests.profile import PROOF
from tests.stack import PASSWORD, Person, Stack

ATTEMPTS = 20_000 if PROOF else 500
ROLES = ("admin", "teacher", "student", "auditor", "nobody")
# Tokens are good for ten minutes.
RENEW_SECONDS = 300
# They ask for a service's credential, so whoever has a user's learns nothing from them at all.
REACHED = [
    rpc
    for rpc in api.rpcs()
    if not api.is_internal(rpc) and not rpc.client_streaming and rpc.name not in WITHOUT_IDS
]
NO_ANSWER = {"UNAUTHENTICATED", "UNAVAILABLE", "INTERNAL", "UNKNOWN", "RESOURCE_EXHAUSTED"}
OTHER_FIELDS = ("id", "tenant_id", "*", "create_time", "author_id", "user_id", "etag", "deleted_at")

pytestmark = pytest.mark.slow


@dataclass
class Visitors:
    """The other tenant's people, one of each role, who stay signed in however long the run takes."""

    tenancy: Tenancy
    people: dict[str, Person] = field(default_factory=dict)
    since: float = 0.0

    async def person(self, role: str) -> Person:
        if time.monotonic() - self.since > RENEW_SECONDS:
            self.people = {name: await self._sign_in(name) for name in ROLES}
            self.since = time.monotonic()
        return self.people[role]

    async def _sign_in(self, role: str) -> Person:
        stack, slug = self.tenancy.admin.stack, self.tenancy.canary
        if role in ("admin", "teacher", "student"):
            return await stack.sign_in(slug, getattr(self.tenancy, role).email)
        email = f"{role}-at-length@{slug}.example"
        if not self.since:
            boss = await stack.sign_in(slug, self.tenancy.admin.email)
            user = {"email": email, "display_name": role, "roles": [role] if role != "nobody" else []}
            await ask(boss, "CreateUser", user=user, password=PASSWORD)
        return await stack.sign_in(slug, email)


@dataclass
class Attempt:
    """Two requests that differ only in that one means rows of the other tenant, and the other rows of nobody."""

    rpc: MethodDescriptor
    kind: str
    foreign: Message
    absent: Message
    extra: tuple[tuple[tuple[str, str], ...], tuple[tuple[str, str], ...]] = ((), ())
    only_foreign: bool = False
    everything: bool = False


class Attacker:
    """Makes attempts from what it knows of the other tenant: every id, its texts, page tokens and idempotency keys."""

    def __init__(self, random: Random, ours: Tenancy, theirs: Tenancy, tokens: dict[str, str], keys: list[str]) -> None:
        self.random, self.ours, self.theirs, self.tokens, self.keys = random, ours, theirs, tokens, keys
        self.known = sorted({one for ids in ours.ids.values() for one in ids})
        self.shapes = {rpc.full_name: list(requests.shapes(rpc)) for rpc in REACHED}

    def attempt(self, rpc: MethodDescriptor) -> Attempt:
        shape = self.random.choice(self.shapes[rpc.full_name])
        fields = requests.leaves(rpc)
        ids = [path for path in sorted(shape) if requests.is_id(fields[path])]
        made = (self._ids, self._ids, self._filter, self._mask, self._cursor, self._key)
        found = self.random.choice(made)(rpc, shape, ids) or self._ids(rpc, shape, ids)
        return found or self._filter(rpc, shape, ids) or self._cursor(rpc, shape, ids) or self._call(rpc)

    def _call(self, rpc: MethodDescriptor) -> Attempt:
        request = filled(rpc, self.theirs)
        return Attempt(rpc, "nothing but the call", request, request, only_foreign=True)

    def _ids(self, rpc: MethodDescriptor, shape: frozenset[str], ids: list[str]) -> Attempt | None:
        if not ids:
            return None
        aimed = set(self.random.sample(ids, self.random.randint(1, len(ids))))
        chosen: dict[str, tuple[str, str]] = {}
        for path in ids:
            kind, nowhere = requests.kind_of(rpc, requests.leaves(rpc)[path]), str(new_id())
            own, foreign = (self._unused(tenancy, kind, chosen) for tenancy in (self.theirs, self.ours))
            other = self.random.choice((own, own, nowhere))
            chosen[path] = (foreign, nowhere) if path in aimed else (other, other)
        return Attempt(rpc, "ids", *self._pair(rpc, shape, chosen), everything=len(aimed) == len(ids))

    def _unused(self, tenancy: Tenancy, kind: str, chosen: dict[str, tuple[str, str]]) -> str:
        """Another id of the kind for each field, as far as there are: some requests must not name one twice."""
        taken = {one for pair in chosen.values() for one in pair}
        return self.random.choice([one for one in tenancy.ids[kind] if one not in taken] or tenancy.ids[kind])

    def _pair(
        self, rpc: MethodDescriptor, shape: frozenset[str], chosen: dict[str, tuple[str, str]]
    ) -> tuple[Message, Message]:
        first = requests.make(rpc, sorted(shape), {path: pair[0] for path, pair in chosen.items()})
        second = type(first)()
        second.CopyFrom(first)
        for path, (_, absent) in chosen.items():
            requests.put(second, path, absent)
        return first, second

    def _filter(self, rpc: MethodDescriptor, shape: frozenset[str], ids: list[str]) -> Attempt | None:
        """The other tenant's own words where this one may look for some."""
        fields = requests.leaves(rpc).items()
        texts = [path for path, one in fields if one.cpp_type == FieldDescriptor.CPPTYPE_STRING]
        texts = [path for path in texts if path not in (*ids, "page_token", "order_by")]
        if not texts or not rpc.name.startswith("List"):
            return None
        found = self._ids(rpc, shape, ids) or self._call(rpc)
        requests.put(found.foreign, self.random.choice(texts), self.random.choice((self.ours.canary, *self.known)))
        if requests.problems(found.foreign):
            return None
        return Attempt(rpc, "filter", found.foreign, found.foreign, only_foreign=True)

    def _mask(self, rpc: MethodDescriptor, shape: frozenset[str], ids: list[str]) -> Attempt | None:
        found = self._ids(rpc, shape, ids)
        if found is None or "update_mask" not in rpc.input_type.fields_by_name:
            return None
        (resource,) = (one for one in rpc.input_type.fields if one.message_type and api.is_ours(one.message_type))
        names = [*(one.name for one in resource.message_type.fields), *OTHER_FIELDS]
        paths = self.random.sample(names, self.random.randint(1, 3))
        for request in (found.foreign, found.absent):
            request.update_mask.paths[:] = paths  # type: ignore[attr-defined]
        found.kind = "mask"
        return found

    def _cursor(self, rpc: MethodDescriptor, shape: frozenset[str], ids: list[str]) -> Attempt | None:
        token = self.tokens.get(self.random.choice([rpc.name, *self.tokens]))
        if "page_token" not in rpc.input_type.fields_by_name or not token:
            return None
        whose = self.random.choice((self.ours, self.theirs))
        request: Any = filled(rpc, whose, page_token=token, page_size=self.random.choice((1, 2, 50)))
        return Attempt(rpc, "cursor", request, request, only_foreign=True)

    def _key(self, rpc: MethodDescriptor, shape: frozenset[str], ids: list[str]) -> Attempt | None:
        found = self._ids(rpc, shape, ids)
        if found is None or is_read(api.path_of(rpc)) or not self.keys:
            return None
        used, fresh = self.random.choice(self.keys), str(new_id())
        found.kind, found.extra = "idempotency key", ((("idempotency-key", used),), (("idempotency-key", fresh),))
        return found


@dataclass
class Run:
    """What was tried, and what is wrong with the answers."""

    secrets: set[str] = field(default_factory=set)
    count: Counter[str] = field(default_factory=Counter)
    codes: Counter[str] = field(default_factory=Counter)
    covered: set[str] = field(default_factory=set)
    findings: list[str] = field(default_factory=list)
    spent: set[str] = field(default_factory=set)

    async def make(self, person: Person, role: str, attempt: Attempt) -> None:
        rpc = attempt.rpc
        first = await self._ask(person, attempt, attempt.foreign, attempt.extra[0])
        if first.ok and attempt.kind == "idempotency key":
            # From now on it is the visitors' own key too.
            self.spent.add(attempt.extra[0][0][1])
        second = first if attempt.only_foreign else await self._ask(person, attempt, attempt.absent, attempt.extra[1])
        if first.ok and not second.ok:
            # What could be made once can't be made twice: that has nothing to do with the ids.
            first = await self._ask(person, attempt, attempt.foreign, attempt.extra[1])
        self.covered.add(rpc.full_name)
        name = f"{api.short(rpc)} as {role}, {attempt.kind}"
        if not first.same_as(second):
            self.findings.append(f"{name}: foreign {shown(first)}, absent {shown(second)}")
        if leaked := first.holds(self.secrets - named):
            self.findings.append(f"{name}: tells {leaked}")
        # What is public takes tokens of its own, and says so.
        if first.code.name in NO_ANSWER - ({"UNAUTHENTICATED"} if requires(rpc).public else set()):
            self.findings.append(f"{name}: {shown(first)}")
        if first.ok and attempt.kind == "cursor":
            self.findings.append(f"{name}: takes another tenant's page token")
        if first.ok and attempt.everything and not rpc.name.startswith(MAY_SUCCEED):
            self.findings.append(f"{name}: succeeds")

    async def _ask(self, person: Person, attempt: Attempt, request: Message, extra: Any) -> Answer:
        self.count[attempt.kind] += 1
        said = requests.texts(request) | {key for _, key in extra}
        named.update(said)
        caller = Person(person.stack, person.user_id, person.email, person.token, extra=extra)
        got = await self.send(caller, attempt.rpc, request)
        self.codes[got.code.name] += 1
        return got.without(said)

    async def send(self, caller: Person, rpc: MethodDescriptor, request: Message) -> Answer:
        return await answer(caller, rpc, request)


async def keys_used_by(tenancy: Tenancy) -> list[str]:
    """Idempotency keys under which answers of the other tenant are stored."""
    keys = [str(new_id()) for _ in range(200 if PROOF else 10)]
    boss = await tenancy.admin.stack.sign_in(tenancy.canary, tenancy.admin.email)
    for number, key in enumerate(keys):
        boss.extra = (("idempotency-key", key),)
        await ask(boss, "CreateCourse", course={"title": f"{tenancy.canary} {number}"})
        await ask(boss, "CreateQuiz", quiz={"title": f"{tenancy.canary} {number}"})
    return keys


async def attack(stack: Stack, run: Run, rpcs: Sequence[MethodDescriptor], attempts: int) -> None:
    """Calls the RPCs in turn, as one role after the other, until there are enough attempts; fails for what it finds."""
    population = await populate(stack)
    ours, theirs = population.ours, population.theirs
    run.secrets = secrets(ours)
    seed = int(os.environ.get("SEED") or Random().getrandbits(32))
    random, visitors = Random(seed), Visitors(theirs)
    boss = await stack.sign_in(ours.canary, ours.admin.email)
    current = Tenancy(boss, ours.teacher, ours.student, ours.canary, ours.ids)
    listing = [rpc for rpc in rpcs if "page_token" in rpc.input_type.fields_by_name]
    tokens = {rpc.name: token for rpc in listing if (token := await first_token(rpc, current))}
    attacker = Attacker(random, ours, theirs, tokens, await keys_used_by(ours))
    for number, rpc in enumerate(cycle(rpcs)):
        role = ROLES[number // len(rpcs) % len(ROLES)] if PROOF else random.choice(ROLES)
        await run.make(await visitors.person(role), role, attacker.attempt(rpc))
        attacker.keys = [key for key in attacker.keys if key not in run.spent]
        if run.count.total() >= attempts and number >= len(rpcs):
            break
    report(run, seed, population)
    assert not run.findings, "\n" + "\n".join(run.findings[:50])
    assert {rpc.full_name for rpc in rpcs} - run.covered == set()


def report(run: Run, seed: int, population: Population) -> None:
    each = ", ".join(f"{count} by {kind}" for kind, count in run.count.most_common())
    codes = ", ".join(f"{count} {code}" for code, count in run.codes.most_common())
    sys.stdout.write(
        f"{run.count.total()} attempts on {len(run.covered)} RPCs as {len(ROLES)} roles, seed {seed}: {each};"
        f" {len(run.secrets)} canaries of {population.ours.canary}, {len(run.findings)} findings; {codes}\n"
    )


class TestAtLength:
    @pytest.mark.timeout(3000 if PROOF else 120)
    async def test_nothing_of_one_tenant_is_told_to_another(self, stack: Stack) -> None:
        await attack(stack, Run(), REACHED, ATTEMPTS)
