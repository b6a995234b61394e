"""The keys of what the log says of people, from one installation's key-encryption key to another's.

Rows of that table are ids, times and bytes: no value of it is ever quoted."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import IO
from uuid import UUID

from deploy.local.errors import RunError
from deploy.tenants.manifest import OPEN
from services.audit.sealing import KEY_BYTES, Wrapper

# What becomes of a key, of its id, its subject's and its bytes.
Change = Callable[[UUID, UUID, bytes], bytes]
LONGEST_LINE = 4096


def rewritten(rows: IO[bytes], columns: Sequence[str], change: Change) -> Iterator[bytes]:
    """The rows, lines without their header, with each key that is not destroyed changed."""
    while line := rows.readline(LONGEST_LINE):
        try:
            row = dict(zip(columns, line.decode("ascii").removesuffix("\n").split(","), strict=True))
            if row["wrapped_key"]:
                octets = bytes.fromhex(row["wrapped_key"].removeprefix("\\x"))
                changed = change(UUID(row["id"]), UUID(row["subject_id"]), octets)
                row["wrapped_key"] = f"\\x{changed.hex()}"
        except ValueError:
            raise RunError("The keys of what the log says of people are not as an export writes them.") from None
        except RuntimeError as error:
            raise RunError(f"{error}.") from None
        yield f"{','.join(row.values())}\n".encode()


def arriving(wrapper: Wrapper, tenant_id: UUID, keys: str) -> Change:
    """What becomes of keys that arrive open, or wrapped: then only with the key-encryption key that is here as well."""
    return partial(_wrap if keys == OPEN else _look, wrapper, tenant_id)


def _wrap(wrapper: Wrapper, tenant_id: UUID, key_id: UUID, subject_id: UUID, secret: bytes) -> bytes:
    if len(secret) != KEY_BYTES:
        raise ValueError
    return wrapper.wrap(tenant_id, key_id, subject_id, secret)


def _look(wrapper: Wrapper, tenant_id: UUID, key_id: UUID, subject_id: UUID, wrapped: bytes) -> bytes:
    wrapper.unwrap(tenant_id, key_id, subject_id, wrapped)
    return wrapped
