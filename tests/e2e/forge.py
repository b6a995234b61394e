"""Tokens made with the platform's own keys, right in everything but what a test wants to be wrong."""

import base64
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import asyncpg
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from kit.settings import decoded_key

Json = dict[str, Any]
Sign = Callable[[bytes], bytes]


@dataclass(frozen=True, slots=True)
class Form:
    """A way to ask for something that must be refused: header lines, and what the URL says besides its path."""

    name: str
    lines: tuple[tuple[str, str], ...]
    query: str = ""

    @property
    def metadata(self) -> bool:
        """Whether gRPC can carry it: its client refuses to send other characters."""
        sendable = all(value.isascii() and value.isprintable() and len(value) < 40_000 for _, value in self.lines)
        return sendable and not self.query

    def echoed(self, answer: bytes) -> list[str]:
        """What of the token the answer repeats."""
        said = " ".join(value for _, value in self.lines).replace(".", " ").replace(",", " ").split()
        return [one for one in said if len(one) > 15 and one.encode() in answer]


@dataclass(frozen=True)
class Forge:
    """Makes tokens that are right in all but what the form is about, with the platform's own key.

    `other` are right claims about somebody else; `aliases` what verifiers might take for the key's algorithm.
    """

    key: Ed25519PrivateKey
    header: Json
    claims: Json
    other: Json
    alias: str

    def token(self, header: Json | None = None, claims: Json | None = None, sign: Sign | None = None) -> str:
        """With these parameters and claims changed; None takes one away."""
        whole = [_merged(self.header, header), _merged(self.claims, claims)]
        return compact(*whole, sign or self.key.sign)

    def with_text(self, name: str, text: str) -> str:
        """The claim is this piece of JSON, whatever it is."""
        claims = json.dumps(self.claims | {name: "?here?"}).replace('"?here?"', text)
        return compact(self.header, claims.encode(), self.key.sign)

    def twice(self, name: str, first: Any, last: Any) -> str:
        """The claim is there two times."""
        rest = json.dumps({key: value for key, value in self.claims.items() if key != name})
        pairs = f"{json.dumps(name)}: {json.dumps(first)}, {json.dumps(name)}: {json.dumps(last)}"
        return compact(self.header, f"{{{pairs}, {rest[1:]}".encode(), self.key.sign)


def _merged(whole: Json, changed: Json | None) -> Json:
    return {name: value for name, value in (whole | (changed or {})).items() if value is not None}


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def unb64(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def compact(header: Json | bytes, claims: Json | bytes, sign: Sign) -> str:
    parts = [one if isinstance(one, bytes) else json.dumps(one).encode() for one in (header, claims)]
    signed = ".".join(map(b64, parts))
    return f"{signed}.{b64(sign(signed.encode()))}"


async def user_forge(database: str, encryption_key: str, mine: str, other: str) -> Forge:
    """From two access tokens, the first of the caller; opens the platform's signing key as identity does."""
    header, claims = (json.loads(unb64(part)) for part in mine.split(".")[:2])
    connection = await asyncpg.connect(database)
    row = await connection.fetchrow("SELECT * FROM identity.signing_keys WHERE id = $1", UUID(header["kid"]))
    await connection.close()
    cipher = AESGCM(decoded_key("KEY_ENCRYPTION_KEY", encryption_key))
    sealed = row["sealed_private_key"]
    private = cipher.decrypt(sealed[:12], sealed[12:], row["id"].bytes)
    claims |= {"iat": int(time.time()), "exp": int(time.time()) + 600}
    others = claims | json.loads(unb64(other.split(".")[1])) | {"iat": claims["iat"], "exp": claims["exp"]}
    return Forge(Ed25519PrivateKey.from_private_bytes(private), header, claims, others, "Ed25519")


def service_forge(caller: str, credential: str, audience: str) -> Forge:
    """Of tokens with which one service calls another."""
    header = {"alg": "Ed25519", "typ": "service+jwt", "kid": caller}
    claims = {"iss": caller, "aud": audience, "exp": int(time.time()) + 200}
    private = Ed25519PrivateKey.from_private_bytes(unb64(json.loads(credential)["d"]))
    other = claims | {"iss": "platform", "aud": "elsewhere"}
    return Forge(private, header, claims, other, "EdDSA")
