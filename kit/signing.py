"""Ed25519 signatures over what was written, each good for one purpose only."""

import json
from collections.abc import Sequence

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from kit.settings import SettingsError, decoded_key


class Keyring:
    """A key that signs, if there is one, and the public keys whose signatures count: its own, and the trusted."""

    def __init__(self, key: bytes | None, trusted: Sequence[bytes] = ()) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(key) if key else None
        own = (self._key.public_key().public_bytes_raw(),) if self._key else ()
        self.public = (*own, *trusted)

    @property
    def signs(self) -> bool:
        return self._key is not None

    def sign(self, purpose: str, data: bytes) -> bytes:
        """The signature; SettingsError without a key."""
        if self._key is None:
            raise SettingsError("there is no key to sign with")
        return self._key.sign(_bound(purpose, data))

    def signed(self, purpose: str, data: bytes, signature: bytes) -> bool:
        """Whether one of the keys has signed that, for this purpose."""
        return any(_verified(public, _bound(purpose, data), signature) for public in self.public)


NO_KEYS = Keyring(None)


def public_keys(name: str, text: str) -> list[bytes]:
    """Those of a setting: a JSON array of keys, 32 bytes as base64url each."""
    try:
        texts = json.loads(text or "[]")
        if not isinstance(texts, list):
            raise TypeError
        return [decoded_key(name, str(one)) for one in texts]
    except (ValueError, TypeError) as error:
        raise SettingsError(f"{name} is not a JSON array of public keys: {error}") from error


def _bound(purpose: str, data: bytes) -> bytes:
    """One line that says what for, then what: no signature passes for one of another purpose."""
    if "\n" in purpose:
        raise ValueError("a purpose is one line")
    return f"{purpose}\n".encode() + data


def _verified(public: bytes, data: bytes, signature: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, data)
    except InvalidSignature:
        return False
    return True
