"""Checkpoints as text: C2SP tlog-checkpoint, signed as C2SP signed-note; and the key that signs them."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Self
from uuid import UUID

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from kit.settings import SettingsError, decoded_key
from kit.signing import Keyring, public_keys

ED25519 = b"\1"
ID_BYTES = 4
# A dash of this length begins each signature.
DASH = "\u2014"


@dataclass(frozen=True, slots=True)
class Head:
    """What a checkpoint says: the root of a tenant's tree at one size."""

    tenant_id: UUID
    size: int
    root: bytes

    @property
    def origin(self) -> str:
        return origin_of(self.tenant_id)

    @property
    def text(self) -> str:
        """What is signed."""
        return f"{self.origin}\n{self.size}\n{_base64(self.root)}\n"

    @classmethod
    def of(cls, text: str) -> Self:
        """Of the text; ValueError when that is no checkpoint of a tenant's tree."""
        origin, size, root = text.split("\n")[:3]
        found = cls(UUID(origin.rpartition("/")[2]), int(size), base64.b64decode(root, validate=True))
        if not text.startswith(found.text):
            raise ValueError("not a checkpoint as this service writes it")
        return found


class Signer:
    """The key that signs, and the public keys that signed before it. Every tenant's key has the name of its origin, so
    that no checkpoint of one tenant passes for another's."""

    def __init__(self, key: bytes, earlier: Sequence[bytes] = ()) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(key)
        # The same keys for what is no checkpoint: it begins with its purpose, and a checkpoint with its origin.
        self.keys = Keyring(key, earlier)
        self._public = self.keys.public

    @classmethod
    def of(cls, key: str, earlier: str) -> Self:
        """Of the settings: the key's 32 bytes as base64url, and a JSON array of public ones."""
        if not key:
            raise SettingsError("AUDIT_SIGNING_KEY is not set: nothing would prove what is in the log")
        return cls(decoded_key("AUDIT_SIGNING_KEY", key), public_keys("AUDIT_EARLIER_KEYS", earlier))

    def sign(self, head: Head) -> str:
        """The signed checkpoint."""
        name = head.origin
        signature = _key_id(name, self._public[0]) + self._key.sign(head.text.encode())
        return f"{head.text}\n{DASH} {name} {_base64(signature)}\n"

    def opened(self, checkpoint: str) -> Head:
        """What a checkpoint says that this key or an earlier one signed; ValueError for any other text."""
        head = Head.of(checkpoint)
        signatures = checkpoint.removeprefix(head.text).removeprefix("\n").splitlines()
        if not any(self._signed(head, line) for line in signatures):
            raise ValueError("not signed by a key of this service")
        return head

    def _signed(self, head: Head, line: str) -> bool:
        mark, _, rest = line.partition(f" {head.origin} ")
        if mark != DASH:
            return False
        octets = base64.b64decode(rest, validate=True)
        for public in self._public:
            if octets[:ID_BYTES] == _key_id(head.origin, public):
                try:
                    Ed25519PublicKey.from_public_bytes(public).verify(octets[ID_BYTES:], head.text.encode())
                except InvalidSignature:
                    return False
                return True
        return False

    def verifier_keys(self, tenant_id: UUID) -> list[str]:
        """The public keys as verifiers take them, the one that signs first: name+key id+key."""
        name = origin_of(tenant_id)
        return [f"{name}+{_key_id(name, public).hex()}+{_base64(ED25519 + public)}" for public in self._public]


def origin_of(tenant_id: UUID) -> str:
    """What names a tenant's log."""
    return f"storyloom/audit/{tenant_id}"


def _key_id(name: str, public: bytes) -> bytes:
    return sha256(name.encode() + b"\n" + ED25519 + public).digest()[:ID_BYTES]


def _base64(octets: bytes) -> str:
    return base64.b64encode(octets).decode()
