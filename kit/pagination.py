"""Keyset pages. A page token is sealed, and bound to the RPC, its parameters, the tenant and the user."""

import base64
import hashlib
import hmac
import json
import os
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, Self, TypeVar
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from google.protobuf.message import Message
from sqlalchemy import Integer, Select, bindparam, tuple_

from kit.call import Call, current_call
from kit.errors import InvalidArgument
from storyloom.type.v1.errors_pb2 import ErrorReason

DEFAULT_SIZE = 20
LARGEST_SIZE = 100
NONCE_BYTES = 12
Row = TypeVar("Row")


class Sealer:
    """Seals page tokens, and hashes requests, with a key that all processes of a service share."""

    def __init__(self, key: bytes) -> None:
        self._key, self._cipher = key, AESGCM(key)

    def digest(self, data: bytes) -> bytes:
        """A keyed hash: 32 bytes that tell nobody without the key what was hashed, however short it was."""
        return hmac.digest(self._key, data, "sha256")

    def seal(self, value: bytes, bound_to: bytes) -> str:
        nonce = os.urandom(NONCE_BYTES)
        return base64.urlsafe_b64encode(nonce + self._cipher.encrypt(nonce, value, bound_to)).decode().rstrip("=")

    def open(self, token: str, bound_to: bytes) -> bytes:
        """The value; INVALID_ARGUMENT when the token is damaged or bound to something else."""
        try:
            data = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
            return self._cipher.decrypt(data[:NONCE_BYTES], data[NONCE_BYTES:], bound_to)
        except (InvalidTag, ValueError) as error:
            raise InvalidArgument.fields(
                [("page_token", "is damaged or was made for another request")], reason=ErrorReason.INVALID_PAGE_TOKEN
            ) from error


class Page:
    """One page of a list: its size and where it starts."""

    def __init__(self, size: int, after: Sequence[Any] | None, call: Call, bound_to: bytes) -> None:
        self.size, self.after = size, after
        self._call, self._bound_to = call, bound_to

    @classmethod
    def of(cls, request: Any) -> Self:
        """The page a list request asks for: `page_size` (0: 20, at most 100) and `page_token`."""
        call = current_call()
        assert call is not None  # noqa: S101  # lists are RPCs
        size = min(request.page_size or DEFAULT_SIZE, LARGEST_SIZE)
        bound_to = _binding(request, call)
        after = None
        if request.page_token:
            after = [_restored(value) for value in json.loads(call.sealer.open(request.page_token, bound_to))]
        return cls(size, after, call, bound_to)

    def apply(self, statement: Select[Any], *keys: Any, descending: bool = True) -> Select[Any]:
        """The statement ordered by the key columns (unique as a whole), from where the page starts, one row more
        than the page holds."""
        if self.after is not None:
            start = tuple_(*keys)
            after = tuple_(*(bindparam(name, value) for name, value in self._after.items()))
            statement = statement.where(start < after if descending else start > after)
        order = [key.desc() if descending else key.asc() for key in keys]
        return statement.order_by(*order).limit(bindparam("page_limit", self.size + 1, Integer))

    @property
    def _after(self) -> dict[str, Any]:
        return {f"page_after_{number}": value for number, value in enumerate(self.after or ())}

    @property
    def values(self) -> dict[str, Any]:
        """What `apply` adds to the statement's parameters, by name."""
        return {**self._after, "page_limit": self.size + 1}

    def split(self, rows: Sequence[Row], key: Callable[[Row], Sequence[Any]]) -> tuple[Sequence[Row], str]:
        """The rows of the page, and the token of the next one ('' at the end)."""
        if len(rows) <= self.size:
            return rows, ""
        rows = rows[: self.size]
        values = json.dumps([_plain(value) for value in key(rows[-1])]).encode()
        return rows, self._call.sealer.seal(values, self._bound_to)


def _binding(request: Message, call: Call) -> bytes:
    parameters = type(request)()
    parameters.CopyFrom(request)
    parameters.ClearField("page_token")
    parameters.ClearField("page_size")
    digest = hashlib.sha256(call.rpc.encode())
    if call.principal:
        digest.update(f"|{call.principal.tenant_id}|{call.principal.user_id}|".encode())
    digest.update(parameters.SerializeToString(deterministic=True))
    return digest.digest()


def _plain(value: Any) -> Any:
    if isinstance(value, UUID):
        return {"u": value.hex}
    if isinstance(value, datetime):
        return {"t": value.isoformat()}
    return value


def _restored(value: Any) -> Any:
    match value:
        case {"u": text}:
            return UUID(text)
        case {"t": text}:
            return datetime.fromisoformat(text)
        case _:
            return value
