"""Who is calling: tokens of users, credentials of services, and the Principal both become."""

import asyncio
import base64
import json
import time
import warnings
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from joserfc import jws, jwt
from joserfc.errors import JoseError, SecurityWarning
from joserfc.jwk import KeySet, OKPKey

from kit.access.snapshots import Snapshot
from kit.call import Call, current_call
from kit.errors import (
    DeadlineExceeded,
    InvalidArgument,
    PermissionDenied,
    ResourceExhausted,
    StoryloomError,
    Unauthenticated,
    Unavailable,
)
from kit.ids import SYSTEM_TENANT
from kit.measures import Tally
from storyloom.type.v1.errors_pb2 import ErrorReason

SERVICE_ALGORITHM = "Ed25519"
# Envoy knows the algorithm by its older name only, which RFC 9864 deprecates for not naming the curve.
USER_ALGORITHM = "EdDSA"
warnings.filterwarnings("ignore", "EdDSA is deprecated via RFC 9864", SecurityWarning)
USER_TOKEN = "at+jwt"  # noqa: S105  # RFC 9068 names the type of access tokens
SERVICE_TOKEN = "service+jwt"  # noqa: S105
SERVICE_TOKEN_SECONDS = 300
CLOCK_SKEW_SECONDS = 5
KEYS_FRESH_SECONDS = 60
# The gateway's limit. Identity's own is far below.
LONGEST_LIFETIME_SECONDS = 86_400
REMEMBERED_TOKENS = 10_000
# What reading a forged token may end with.
NOT_A_TOKEN = (JoseError, ValueError, KeyError, TypeError, AttributeError, RecursionError)

KeySource = Callable[[], Awaitable[Mapping[str, Any]]]


@dataclass(frozen=True, slots=True)
class Claims:
    """What a verified access token says. `expires` is in Unix seconds."""

    user_id: UUID
    tenant_id: UUID
    session_id: UUID
    expires: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """The caller: a user with what they may do, or a service.

    `tenant_id` is the tenant acted in, `home_tenant_id` the caller's own; they differ only for platform staff.
    """

    tenant_id: UUID
    home_tenant_id: UUID
    user_id: UUID | None = None
    session_id: UUID | None = None
    service: str = ""
    token: str = ""
    snapshot: Snapshot | None = None

    @property
    def subject(self) -> UUID:
        """The user's id; services have none, so asking for it is a fault in the handler's `requires`."""
        if self.user_id is None:
            raise Unauthenticated("Only a user may do this.")
        return self.user_id


def current() -> Principal:
    """The caller of the RPC being served; UNAUTHENTICATED in public RPCs and background work."""
    call = current_call()
    if call is None or call.principal is None:
        raise Unauthenticated("No access token was sent.", reason=ErrorReason.MISSING_TOKEN)
    return call.principal


def act_as(tenant_id: UUID, user_id: UUID) -> None:
    """From here on the RPC being served is that user's: its audit entries and spans say so."""
    call = current_call()
    assert call is not None  # noqa: S101  # only RPCs get here
    call.principal = Principal(tenant_id=tenant_id, home_tenant_id=tenant_id, user_id=user_id)


async def identify(token: str) -> Principal:
    """Whose another access token is that the caller shows, at home in its own tenant. Raises what a call with that
    token would be refused with before it begins."""
    call = current_call()
    if call is None or call.identify is None:
        raise Unauthenticated("Only a signed-in user may do this.")
    return await call.identify(token)


@contextmanager
def acting(principal: Principal) -> Iterator[None]:
    """What the block does is done by this user, whom `identify` told: its permissions, transactions and audit entries.

    A refusal stays theirs: their tenant's log is told of it.
    """
    call = current_call()
    assert call is not None  # noqa: S101  # only RPCs get here
    before, call.principal = call.principal, principal
    try:
        yield
    except PermissionDenied:
        raise
    except BaseException:
        call.principal = before
        raise
    call.principal = before


async def renew() -> None:
    """For streams that live long: looks again at what the caller may do. Raises what a new call would be refused with;
    otherwise `current()` and what is decided for the caller are up to date again."""
    call = current_call()
    if call is not None and call.renew is not None:
        await call.renew()


def refuse_suspended(user: Principal) -> None:
    """Refuses the users of a tenant that is suspended."""
    if user.snapshot is not None and user.snapshot.tenant_suspended:
        raise PermissionDenied("The tenant is suspended.", reason=ErrorReason.TENANT_SUSPENDED)


def refuse_mismatch(call: Call, header: str, value: UUID) -> None:
    """The gateway sets these headers from the token; whoever comes past it must not claim to be somebody else."""
    if call.metadata.get(header, str(value)) != str(value):
        raise PermissionDenied(
            f"The header {header} disagrees with the access token.", reason=ErrorReason.IDENTITY_MISMATCH
        )


def acting_tenant(wish: str, home: UUID, all_rights: bool) -> UUID:
    """The tenant that somebody at home in `home` wishes to act in."""
    try:
        tenant_id = UUID(wish)
    except ValueError as error:
        raise InvalidArgument.fields([("x-act-in-tenant", "must be the id of a tenant")]) from error
    if tenant_id != home and not (home == SYSTEM_TENANT and all_rights):
        raise PermissionDenied(
            "Only a super administrator of the platform acts in another tenant.",
            metadata={"permission": "all:manage", "resource": "all"},
        )
    return tenant_id


class TokenVerifier:
    """Verifies access tokens against identity's published keys; a token is verified once, then remembered."""

    def __init__(self, source: KeySource, *, issuer: str, audience: str) -> None:
        self._source, self._issuer, self._audience = source, issuer, audience
        self._keys = KeySet([])
        self._asked = float("-inf")
        self._asking = asyncio.Lock()
        self._silent: StoryloomError | None = None
        self._remembered: dict[str, Claims] = {}
        self.tally = Tally()

    async def verify(self, token: str) -> Claims:
        """The token's claims; UNAUTHENTICATED for whatever is not a current access token of this platform."""
        claims = self._remembered.get(token)
        if claims is not None:
            self.tally.hits += 1
        else:
            self.tally.misses += 1
            claims = await self._decode(token)
            while len(self._remembered) >= REMEMBERED_TOKENS:
                self._remembered.pop(next(iter(self._remembered)))
            self._remembered[token] = claims
        if claims.expires + CLOCK_SKEW_SECONDS < time.time():
            self._remembered.pop(token, None)
            raise Unauthenticated("The access token has expired; refresh the session.")
        return claims

    async def _decode(self, token: str) -> Claims:
        try:
            header = _header(token)
            await self._ensure_key(str(header.get("kid", "")))
            claims = _verified(token, header, self._keys, USER_ALGORITHM, USER_TOKEN, LONGEST_LIFETIME_SECONDS)
            if claims["iss"] != self._issuer or claims["aud"] != self._audience:
                raise ValueError("issued by or for somebody else")
            return Claims(_uuid(claims["sub"]), _uuid(claims["tid"]), _uuid(claims["sid"]), float(claims["exp"]))
        except NOT_A_TOKEN as error:
            raise Unauthenticated("The access token is not valid; sign in again.") from error

    async def _ensure_key(self, kid: str) -> None:
        if self._knows(kid) and (self._asking.locked() or time.monotonic() - self._asked < KEYS_FRESH_SECONDS):
            return
        # An unknown key may be a new one, but a flood of forged tokens must not become a flood of look-ups.
        async with self._asking:
            if time.monotonic() - self._asked >= 1.0:
                await self._ask()
        if self._silent is not None and not self._knows(kid):
            raise self._silent

    def _knows(self, kid: str) -> bool:
        return any(key.kid == kid for key in self._keys.keys)

    async def _ask(self) -> None:
        try:
            self._keys = KeySet.import_key_set(await self._source())  # type: ignore[arg-type]
            self._silent = None
        except (Unavailable, DeadlineExceeded, ResourceExhausted) as error:
            # The keys it has may still be good; what they cannot verify is nobody's fault.
            self._silent = Unavailable(error.message)
        self._asked = time.monotonic()


class ServiceCredential:
    """A service's own key: mints the tokens that it shows to other services, each of which takes only its own."""

    def __init__(self, service: str, private_jwk: str) -> None:
        self._service = service
        self._key = OKPKey.import_key(json.loads(private_jwk))
        self._minted: dict[str, tuple[str, float]] = {}

    def token(self, audience: str) -> str:
        """A token for one service, of at most five minutes; the same one until a minute before its end."""
        now = time.time()
        token, renew_at = self._minted.get(audience, ("", 0.0))
        if now >= renew_at:
            claims = {"iss": self._service, "aud": audience, "exp": int(now) + SERVICE_TOKEN_SECONDS}
            header = {"alg": SERVICE_ALGORITHM, "typ": SERVICE_TOKEN, "kid": self._service}
            token = jwt.encode(header, claims, self._key, algorithms=[SERVICE_ALGORITHM])
            self._minted[audience] = (token, now + SERVICE_TOKEN_SECONDS - 60)
        return token


class ServiceVerifier:
    """Verifies the tokens that services show to this one, against their public keys from the environment."""

    def __init__(self, service: str, jwks: str) -> None:
        self._service = service
        self._keys = KeySet.import_key_set(json.loads(jwks))
        self._remembered: dict[str, tuple[str, float]] = {}
        self.tally = Tally()

    def verify(self, token: str) -> str:
        """The name of the calling service; UNAUTHENTICATED for anything but a current token made for this one."""
        known = self._remembered.get(token)
        if known:
            self.tally.hits += 1
        else:
            self.tally.misses += 1
        name, expires = known or self._decode(token)
        if expires + CLOCK_SKEW_SECONDS < time.time():
            raise Unauthenticated("The service credential has expired.")
        if len(self._remembered) >= 100:
            self._remembered.clear()
        self._remembered[token] = (name, expires)
        return name

    def _decode(self, token: str) -> tuple[str, float]:
        try:
            header = _header(token)
            claims = _verified(token, header, self._keys, SERVICE_ALGORITHM, SERVICE_TOKEN, SERVICE_TOKEN_SECONDS)
            if header["kid"] != claims["iss"] or claims["aud"] != self._service:
                raise ValueError("signed by or made for somebody else")
            return str(claims["iss"]), float(claims["exp"])
        except NOT_A_TOKEN as error:
            raise Unauthenticated("The service credential is not valid.") from error


def _header(token: str) -> dict[str, Any]:
    """The header as it is spelled, not yet to be believed."""
    return _read(jws.extract_compact(token.encode()).segments["header"])


def _verified(
    token: str, header: dict[str, Any], keys: KeySet, algorithm: str, kind: str, lifetime: int
) -> dict[str, Any]:
    """The claims of a token that is signed, of this kind and valid now; raises one of NOT_A_TOKEN.

    The header says nothing but which key signed it: what tokens of the platform never say could only mislead.
    """
    if header != {"alg": algorithm, "typ": kind, "kid": header["kid"]} or not isinstance(header["kid"], str):
        raise ValueError("not a token of this kind")
    jwt.decode(token, keys, algorithms=[algorithm])
    claims = _read(token.encode().split(b".")[1])
    now = time.time()
    issued, expires = _moment(claims.get("iat", int(now))), _moment(claims["exp"])
    if max(issued, _moment(claims.get("nbf", issued))) > now + CLOCK_SKEW_SECONDS:
        raise ValueError("not valid yet")
    if expires - issued > lifetime + CLOCK_SKEW_SECONDS:
        raise ValueError("lives too long")
    return claims


def _read(part: bytes) -> dict[str, Any]:
    """One part of a token as JSON in which nothing has two readings: no name twice, no NaN."""
    data = base64.urlsafe_b64decode(part + b"=" * (-len(part) % 4))
    return dict(json.loads(data.decode(), object_pairs_hook=_unique, parse_constant=_no_number))


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(found := dict(pairs)) != len(pairs):
        raise ValueError("a name is there twice")
    return found


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is no number")


def _moment(value: Any) -> int:
    # To Python, true is a number.
    if type(value) is not int:
        raise TypeError("not a moment in whole seconds")
    return value


def _uuid(text: str) -> UUID:
    """Of the one spelling that headers are compared with."""
    found = UUID(text)
    if str(found) != text:
        raise ValueError("not the usual spelling")
    return found
