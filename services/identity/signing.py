"""The keys that sign access tokens: made, sealed, published, rotated."""

import asyncio
import base64
import logging
import os
import time
from datetime import datetime
from typing import Any
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from joserfc import jwt
from joserfc.jwk import OKPKey
from sqlalchemy import delete, select
from sqlalchemy.dialects.postgresql import insert

from kit.auth import USER_ALGORITHM, USER_TOKEN
from kit.db import Database, ReadSession, WriteSession
from kit.ids import SYSTEM_TENANT, new_id
from kit.models import now
from services.identity import rules
from services.identity.models import SigningKey

log = logging.getLogger(__name__)

RELOAD_SECONDS = 30
NONCE_BYTES = 12
CLAIMS_VERSION = 1


class Keyring:
    """The signing keys, as this process last read them; `encryption_key` opens their private parts."""

    def __init__(self, db: Database, *, encryption_key: bytes, issuer: str, audience: str) -> None:
        self._db, self._issuer, self._audience = db, issuer, audience
        self._cipher = AESGCM(encryption_key)
        self._public: list[dict[str, str]] = []
        self._signing_key: OKPKey | None = None

    async def load(self) -> None:
        """Reads the keys, and makes the first one on an empty database, whichever process comes first."""
        async with self._db.read(SYSTEM_TENANT) as session:
            keys = await _all(session)
        if not any(key.state == "active" for key in keys):
            async with self._db.write(SYSTEM_TENANT) as session:
                await session.execute(
                    insert(SigningKey)
                    .values(tenant_id=SYSTEM_TENANT, state="active", activated_at=now(), **self._new_key())
                    .on_conflict_do_nothing()
                )
                keys = await _all(session)
        self._public = [_jwk(key) for key in keys]
        self._signing_key = self._open(next(key for key in keys if key.state == "active"))

    async def jwks(self) -> dict[str, Any]:
        """The public keys as a JSON Web Key Set (RFC 7517): of tokens that are valid, and of those to come."""
        return {"keys": self._public}

    def access_token(self, *, tenant_id: UUID, user_id: UUID, session_id: UUID, roles: list[str]) -> tuple[str, int]:
        """A signed access token (RFC 9068), and when it expires in Unix seconds."""
        issued = int(time.time())
        expires = issued + int(rules.ACCESS_TOKEN_LIFETIME.total_seconds())
        claims = {
            "iss": self._issuer,
            "aud": self._audience,
            "sub": str(user_id),
            "tid": str(tenant_id),
            "sid": str(session_id),
            "ver": CLAIMS_VERSION,
            "roles": roles,
            "iat": issued,
            "exp": expires,
        }
        key = self._signing_key
        assert key is not None  # noqa: S101  # load() ran before the first call is served
        # Ed25519 under the name that the gateway knows; RFC 9864 has a newer one.
        header = {"alg": USER_ALGORITHM, "typ": USER_TOKEN, "kid": key.kid}
        return jwt.encode(header, claims, key, algorithms=[USER_ALGORITHM]), expires

    async def rotate(self) -> None:
        """Keeps the keys young and this process's copy of them current, for ever."""
        while True:
            await asyncio.sleep(RELOAD_SECONDS)
            await self.step(now())
            await self.load()

    async def step(self, at: datetime) -> None:
        """Does what is due at this moment, if no other process has done it."""
        async with self._db.write(SYSTEM_TENANT) as session:
            keys = await _locked(session)
            active, successor = keys["active"], keys.get("published")
            match rules.rotation(active.activated_at, successor and successor.created_at, at):
                case rules.Rotation.PUBLISH:
                    self._publish(session, at)
                case rules.Rotation.PROMOTE:
                    await _promote(session, active, successor, at)
            await session.execute(
                delete(SigningKey).where(
                    SigningKey.tenant_id == session.tenant_id,
                    SigningKey.retired_at < at - rules.RETIRED_BEFORE_REMOVAL,
                )
            )

    async def publish_successor(self, session: WriteSession, at: datetime) -> SigningKey:
        """The key that signs next: the one that is published already, or one that is from this moment on."""
        published: SigningKey | None = (await _locked(session)).get("published")
        return published or self._publish(session, at)

    def _publish(self, session: WriteSession, at: datetime) -> SigningKey:
        key = SigningKey(state="published", created_at=at, **self._new_key())
        session.add(key)
        return key

    def _new_key(self) -> dict[str, Any]:
        identity, private = new_id(), Ed25519PrivateKey.generate()
        nonce = os.urandom(NONCE_BYTES)
        return {
            "id": identity,
            "public_key": private.public_key().public_bytes_raw(),
            # Bound to the key's id: a sealed key cannot be put into another row.
            "sealed_private_key": nonce + self._cipher.encrypt(nonce, private.private_bytes_raw(), identity.bytes),
        }

    def _open(self, key: Any) -> OKPKey:
        sealed = key.sealed_private_key
        try:
            private = self._cipher.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], key.id.bytes)
        except InvalidTag:
            raise RuntimeError("KEY_ENCRYPTION_KEY does not open the signing keys in the database") from None
        return OKPKey.import_key({**_jwk(key), "d": _base64url(private)})


async def _all(session: ReadSession) -> list[Any]:
    columns = (SigningKey.id, SigningKey.state, SigningKey.public_key, SigningKey.sealed_private_key)
    statement = select(*columns).where(SigningKey.tenant_id == session.tenant_id).order_by(SigningKey.id)
    return list((await session.execute(statement)).all())


async def _locked(session: WriteSession) -> dict[str, Any]:
    """The keys that are in use, or will be, by their state; nobody else changes them until the commit."""
    mine = select(SigningKey).where(SigningKey.tenant_id == session.tenant_id)
    # Whoever had to wait for the lock reads anew what the one before made of the keys.
    await session.execute(mine.with_only_columns(SigningKey.id).with_for_update())
    found = await session.execute(mine)
    return {key.state: key for key in found.scalars() if key.state != "retired"}


async def _promote(session: WriteSession, active: SigningKey, successor: Any, at: datetime) -> None:
    active.state, active.retired_at = "retired", at
    # There is one active key at most: the old one has to go before the new one comes.
    await session.flush()
    successor.state, successor.activated_at = "active", at
    log.info("signing key rotated", extra={"kid": str(successor.id)})


def _jwk(key: Any) -> dict[str, str]:
    return {
        "kty": "OKP",
        "crv": "Ed25519",
        "alg": USER_ALGORITHM,
        "use": "sig",
        "kid": str(key.id),
        "x": _base64url(key.public_key),
    }


def _base64url(octets: bytes) -> str:
    return base64.urlsafe_b64encode(octets).decode().rstrip("=")
