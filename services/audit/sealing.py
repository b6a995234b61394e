"""The bytes of an entry: canonical JSON, in which whatever is personal is sealed with the key of the person it is of.

The tree commits to these bytes: who destroys a key makes what it sealed unreadable in every copy, and changes none."""

import base64
import json
import math
import os
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

# Version of the form of entries.
VERSION = 1
# What stands where a value was whose key is destroyed.
ERASED = "[erased]"
KEY_BYTES, NONCE_BYTES = 32, 12
SEALED = {"sealed"}


def _finite(text: str) -> float | str:
    number = float(text)
    return number if math.isfinite(number) else text


# Made once: that takes longer than what they do for a small value.
ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
DECODER = json.JSONDecoder(parse_constant=str, parse_float=_finite)


@dataclass(frozen=True, slots=True)
class Key:
    """A subject's key. `cipher` is None once it is destroyed."""

    id: UUID
    subject_id: UUID
    cipher: AESGCM | None


class Wrapper:
    """Encrypts the keys of subjects for their rest in the database, and opens them again. `encryption_key` are 32
    bytes that are not in that database."""

    def __init__(self, encryption_key: bytes) -> None:
        self._cipher = AESGCM(encryption_key)

    def new_key(self, tenant_id: UUID, key_id: UUID, subject_id: UUID) -> bytes:
        """A new key, wrapped. It opens for this tenant, id and subject alone: in another row it is worth nothing."""
        return self.wrap(tenant_id, key_id, subject_id, os.urandom(KEY_BYTES))

    def wrap(self, tenant_id: UUID, key_id: UUID, subject_id: UUID, secret: bytes) -> bytes:
        """A key that there is already, wrapped for its row."""
        nonce = os.urandom(NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, secret, tenant_id.bytes + key_id.bytes + subject_id.bytes)

    def unwrap(self, tenant_id: UUID, key_id: UUID, subject_id: UUID, wrapped: bytes) -> bytes:
        """The key itself. RuntimeError when it was wrapped with another one, or for another row."""
        bound = tenant_id.bytes + key_id.bytes + subject_id.bytes
        try:
            return self._cipher.decrypt(wrapped[:NONCE_BYTES], wrapped[NONCE_BYTES:], bound)
        except (InvalidTag, ValueError):
            raise RuntimeError("AUDIT_KEY_ENCRYPTION_KEY does not open the subjects' keys in the database") from None

    def open(self, tenant_id: UUID, key_id: UUID, subject_id: UUID, wrapped: bytes | None) -> Key:
        """The key; without its cipher when it was destroyed. RuntimeError when it was wrapped with another one."""
        if wrapped is None:
            return Key(key_id, subject_id, None)
        return Key(key_id, subject_id, AESGCM(self.unwrap(tenant_id, key_id, subject_id, wrapped)))


def canonical(value: Any) -> bytes:
    """The one JSON text of a value: keys sorted, no spaces, UTF-8. Numbers must be finite."""
    return ENCODER.encode(value).encode()


def parsed(text: str | bytes) -> Any:
    """The value of a JSON text. Numbers beyond all bounds become text: what arrived is kept, and JSON cannot say it."""
    return DECODER.decode(text if isinstance(text, str) else text.decode())


def leaf(
    entry: Mapping[str, Any], *, sensitive: Collection[str], of_values: Key | None, of_address: Key | None
) -> bytes:
    """The bytes of an entry in clear.

    `sensitive` are the names of old and new values to be sealed with `of_values`; the client's address is sealed with
    `of_address`. A key may be None where there is nothing to seal, and destroyed: then nobody can ever open it.
    """
    bound = f"{entry['tenant_id']}|{entry['id']}"
    address = entry["client_address"]
    made = {
        **entry,
        "v": VERSION,
        "old_values": _seal_values(entry["old_values"], sensitive, of_values, f"{bound}|old_values"),
        "new_values": _seal_values(entry["new_values"], sensitive, of_values, f"{bound}|new_values"),
        "client_address": None if address is None else _seal(address, of_address, f"{bound}|client_address"),
    }
    return canonical(made)


def needs_key(values: Mapping[str, Any] | None, sensitive: Collection[str]) -> bool:
    """Whether some of these old or new values are to be sealed."""
    return values is not None and any(_is_to_be_sealed(name, value, sensitive) for name, value in values.items())


def key_ids(entry: Mapping[str, Any]) -> Iterator[UUID]:
    """Ids of the keys that a parsed leaf is sealed with; some more than once."""
    for values in (entry["old_values"], entry["new_values"], {"client_address": entry["client_address"]}):
        yield from (UUID(value["sealed"]["key"]) for value in (values or {}).values() if _is_sealed(value))


def opened(entry: Mapping[str, Any], keys: Mapping[UUID, Key], *, closed: str = ERASED) -> dict[str, Any]:
    """A parsed leaf with its values in clear: `[erased]` where the key was destroyed, `closed` where it is not among
    these."""
    bound = f"{entry['tenant_id']}|{entry['id']}"
    found = dict(entry)
    for part in ("old_values", "new_values"):
        if entry[part] is not None:
            found[part] = {
                name: _open(value, keys, f"{bound}|{part}.{name}", closed) for name, value in entry[part].items()
            }
    found["client_address"] = _open(entry["client_address"], keys, f"{bound}|client_address", closed)
    return found


def _seal_values(
    values: Mapping[str, Any] | None, sensitive: Collection[str], key: Key | None, path: str
) -> dict[str, Any] | None:
    if values is None:
        return None
    return {
        name: _seal(value, key, f"{path}.{name}") if _is_to_be_sealed(name, value, sensitive) else value
        for name, value in values.items()
    }


def _is_to_be_sealed(name: str, value: Any, sensitive: Collection[str]) -> bool:
    # What merely looks sealed is sealed in truth: it cannot be taken for another value's seal.
    return name in sensitive or _is_sealed(value)


def _is_sealed(value: Any) -> bool:
    return isinstance(value, dict) and value.keys() == SEALED


def _seal(value: Any, key: Key | None, path: str) -> dict[str, Any]:
    assert key is not None, path  # noqa: S101  # whoever calls asked `needs_key`
    # What arrives after the key was destroyed is sealed with one that nobody keeps.
    cipher = key.cipher or AESGCM(os.urandom(KEY_BYTES))
    nonce = os.urandom(NONCE_BYTES)
    data = cipher.encrypt(nonce, canonical(value), path.encode())
    return {
        "sealed": {
            "subject": str(key.subject_id),
            "key": str(key.id),
            "nonce": base64.b64encode(nonce).decode(),
            "data": base64.b64encode(data).decode(),
        }
    }


def _open(value: Any, keys: Mapping[UUID, Key], path: str, closed: str) -> Any:
    if not _is_sealed(value):
        return value
    sealed = value["sealed"]
    key = keys.get(UUID(sealed["key"]))
    if key is None:
        return closed
    if key.cipher is None:
        return ERASED
    nonce, data = base64.b64decode(sealed["nonce"]), base64.b64decode(sealed["data"])
    try:
        return parsed(key.cipher.decrypt(nonce, data, path.encode()))
    except InvalidTag:
        # Sealed after its key was destroyed in another process, or tampered with: the tree tells which.
        return ERASED
