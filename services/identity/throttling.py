"""Slows down guessing of passwords, in a way that cannot be used to lock somebody out."""

import hashlib
import hmac
import ipaddress
from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import delete, select
from sqlalchemy.dialects.postgresql import insert

from kit.call import current_call
from kit.db import ReadSession, WriteSession
from kit.errors import ResourceExhausted
from kit.models import now
from services.identity.models import SignInFailures
from services.identity.rules import ACCOUNT_AT_ADDRESS, ADDRESS, Backoff, refused_until
from storyloom.type.v1.errors_pb2 import ErrorReason

FORGOTTEN_AFTER = max(ACCOUNT_AT_ADDRESS.forgotten_after, ADDRESS.forgotten_after)


class Counter(NamedTuple):
    """What is counted under one key, and how it backs off."""

    key: bytes
    backoff: Backoff


class Attempt(NamedTuple):
    """One try to prove who one is; what it counts against."""

    account: Counter
    address: Counter


class Throttle:
    """Counts failures in the system tenant's rows. Its keys are hashes made with `secret`."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def attempt(self, purpose: str, account: str) -> Attempt:
        """Of the caller's address. What fails for one purpose, such as a sign-in, never counts for another;
        `account` is any text that names one account."""
        call = current_call()
        network = _network(call.client_address if call else "")
        return Attempt(
            Counter(self._key(purpose, "account", account, network), ACCOUNT_AT_ADDRESS),
            Counter(self._key(purpose, "address", network), ADDRESS),
        )

    def _key(self, *parts: str) -> bytes:
        return hmac.digest(self._secret, "\0".join(parts).encode(), hashlib.sha256)

    async def check(self, session: ReadSession, attempt: Attempt) -> bool:
        """Refuses with RESOURCE_EXHAUSTED while the backoff lasts; tells whether the account failed here before.

        What is counted is what failed: attempts that run at the same time may overshoot, by at most the calls that
        the limiter lets in at once.
        """
        statement = select(SignInFailures.key, SignInFailures.last_failed_at, SignInFailures.blocked_until).where(
            SignInFailures.tenant_id == session.tenant_id,
            SignInFailures.key.in_([counter.key for counter in attempt]),
        )
        found = {row.key: row for row in await session.execute(statement)}
        account = found.get(attempt.account.key)
        until = refused_until(account, found.get(attempt.address.key))
        if until is not None and (wait := until - now()).total_seconds() > 0:
            raise ResourceExhausted(
                "Too many failed attempts; wait before the next.",
                retry_after=wait,
                reason=ErrorReason.TOO_MANY_ATTEMPTS,
            )
        return account is not None

    async def count_failure(self, session: WriteSession, attempt: Attempt) -> None:
        """Counts one more failure, and forgets old ones now and then."""
        # In the order of their keys: two failures at once lock the same rows in the same order.
        for counter in sorted(attempt, key=lambda one: one.key):
            row = await _locked(session, counter.key)
            row.failures, row.blocked_until = counter.backoff.after_failure(row.failures, row.last_failed_at, now())
            row.last_failed_at = now()
        if attempt.account.key[0] < 4:
            await session.flush()
            await session.execute(
                delete(SignInFailures).where(
                    SignInFailures.tenant_id == session.tenant_id,
                    SignInFailures.last_failed_at < now() - FORGOTTEN_AFTER,
                )
            )

    async def forgive(self, session: WriteSession, attempt: Attempt) -> None:
        """Forgets the account's failures at this address: its owner is there. The address itself stays suspect."""
        await session.execute(
            delete(SignInFailures).where(
                SignInFailures.tenant_id == session.tenant_id, SignInFailures.key == attempt.account.key
            )
        )


async def _locked(session: WriteSession, key: bytes) -> SignInFailures:
    fresh = {"failures": 0, "last_failed_at": now(), "blocked_until": now()}
    await session.execute(
        insert(SignInFailures).values(tenant_id=session.tenant_id, key=key, **fresh).on_conflict_do_nothing()
    )
    found: Sequence[SignInFailures] = (
        (
            await session.execute(
                select(SignInFailures)
                .where(SignInFailures.tenant_id == session.tenant_id, SignInFailures.key == key)
                .with_for_update()
            )
        )
        .scalars()
        .all()
    )
    return found[0]


def _network(address: str) -> str:
    """What one client can easily have many addresses of counts as one: a /64 of IPv6."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if parsed.version == 4:
        return str(parsed)
    return str(ipaddress.ip_network((parsed, 64), strict=False))
