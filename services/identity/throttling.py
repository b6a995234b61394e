"""Slows down guessing of passwords, in a way that cannot be used to lock somebody out."""

import base64
import hashlib
import hmac
import ipaddress
import os
import struct
from typing import Any, NamedTuple
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from sqlalchemy import LargeBinary, bindparam, delete, func, select
from sqlalchemy.dialects.postgresql import ARRAY, insert

from kit.call import current_call
from kit.db import ReadSession, WriteSession, prepared
from kit.errors import ResourceExhausted
from kit.ids import new_id
from kit.models import now
from services.identity.backoff import ACCOUNT_AT_ADDRESS, ADDRESS, DEVICE, Backoff, refused_until
from services.identity.models import SignInFailures
from services.identity.rules import DEVICE_TOKEN_LIFETIME
from storyloom.type.v1.errors_pb2 import ErrorReason

FORGOTTEN_AFTER = max(one.forgotten_after for one in (ACCOUNT_AT_ADDRESS, ADDRESS, DEVICE))
NONCE_BYTES = 12
# The device's id, and when its token was issued in Unix seconds.
DEVICE_FORM = struct.Struct(">16sQ")
_COUNTED: tuple[Any, ...] = (SignInFailures.key, SignInFailures.last_failed_at, SignInFailures.blocked_until)
_FAILURES = select(*_COUNTED).where(
    SignInFailures.tenant_id == bindparam("tenant"),
    SignInFailures.key == func.any(bindparam("keys", type_=ARRAY(LargeBinary))),
)
FAILURES = prepared(_FAILURES, "tenant", "keys")


class Counter(NamedTuple):
    """What is counted under one key, and how it backs off."""

    key: bytes
    backoff: Backoff


class Attempt(NamedTuple):
    """One try to prove who one is; what it counts against.

    `account` is the account as it is seen from the caller's address, or from a device that its owner used before:
    then the address does not matter.
    """

    account: Counter
    address: Counter | None

    @property
    def counters(self) -> list[Counter]:
        return [self.account] if self.address is None else [self.account, self.address]


class Devices:
    """Device tokens: proof that an account's owner signed in on a device before. Nothing of them is stored.

    A token is sealed for one account and the password hash that it had, so that it ends with the password; what it
    seals is the device's random id, under which its failures are counted.
    """

    def __init__(self, secret: bytes) -> None:
        self._cipher = AESGCM(hmac.digest(secret, b"device tokens", hashlib.sha256))

    def token(self, device: UUID, user: Any, password_hash: str) -> str:
        """The device's token for its next sign-in as this user."""
        nonce, issued = os.urandom(NONCE_BYTES), int(now().timestamp())
        sealed = self._cipher.encrypt(nonce, DEVICE_FORM.pack(device.bytes, issued), _account(user, password_hash))
        return base64.urlsafe_b64encode(nonce + sealed).decode().rstrip("=")

    def find(self, token: str, user: Any) -> UUID | None:
        """The device of a token that is good for this user; None for all others, and when there is no such user."""
        # Without a user the same is done for one that nobody is: no answer may tell by its time who exists.
        bound_to = _account(user, user.password_hash or "") if user else _account(None, "")
        try:
            data = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
            opened = self._cipher.decrypt(data[:NONCE_BYTES], data[NONCE_BYTES:], bound_to)
        except (InvalidTag, ValueError):
            return None
        device, issued = DEVICE_FORM.unpack(opened)
        return UUID(bytes=device) if now().timestamp() - issued < DEVICE_TOKEN_LIFETIME.total_seconds() else None


def _account(user: Any, password_hash: str) -> bytes:
    tenant_id, user_id = (user.tenant_id, user.id) if user else (new_id(), new_id())
    return bytes(tenant_id.bytes + user_id.bytes + hashlib.sha256(password_hash.encode()).digest())


class Throttle:
    """Counts failures in the system tenant's rows. Its keys are hashes made with `secret`."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def attempt(self, purpose: str, account: str, device: UUID | None = None) -> Attempt:
        """Of the caller's address, or of a device known to be the account's owner's. What fails for one purpose, such
        as a sign-in, never counts for another; `account` is any text that names one account."""
        if device is not None:
            return Attempt(Counter(self._key(purpose, "device", account, device.hex), DEVICE), None)
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
        found = {row.key: row for row in await session.fetch(FAILURES, [one.key for one in attempt.counters])}
        account = found.get(attempt.account.key)
        until = refused_until(account, attempt.address and found.get(attempt.address.key))
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
        for counter in sorted(attempt.counters, key=lambda one: one.key):
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
        """Forgets the account's failures here: its owner is there. The address itself stays suspect."""
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
    statement = select(SignInFailures).where(
        SignInFailures.tenant_id == session.tenant_id, SignInFailures.key == key
    )
    found: SignInFailures = (await session.execute(statement.with_for_update())).scalar_one()
    return found


def _network(address: str) -> str:
    """What one client can easily have many addresses of counts as one: a /64 of IPv6."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if parsed.version == 4:
        return str(parsed)
    return str(ipaddress.ip_network((parsed, 64), strict=False))
