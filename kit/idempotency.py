"""`idempotency-key` on any mutation: the response is stored in the mutation's transaction and replayed."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING
from uuid import UUID, uuid5

from kit.call import current_call
from kit.errors import InvalidArgument, wrong_state
from storyloom.type.v1.errors_pb2 import ErrorReason

if TYPE_CHECKING:
    from kit.db import Database, WriteSession
    from kit.pagination import Sealer

LONGEST_KEY = 128
KEPT = "24 hours"


class Replay(Exception):  # not an error: it carries the answer of the first call
    """The call was made before; `response` are the bytes it was answered with."""

    def __init__(self, response: bytes) -> None:
        super().__init__()
        self.response = response


class Key:
    """The key of one call. Keys are the user's own; `request_hash` tells a repetition from another request."""

    def __init__(self, key: str, *, user_id: UUID, request_hash: bytes) -> None:
        if not 0 < len(key) <= LONGEST_KEY or not key.isprintable():
            raise InvalidArgument.fields([("idempotency-key", f"must have 1 to {LONGEST_KEY} printable characters")])
        self.id = uuid5(user_id, key)
        self.request_hash = request_hash
        self.stack = AsyncExitStack()
        self._db: Database | None = None

    @asynccontextmanager
    async def hold(self, db: "Database", tenant: UUID) -> AsyncIterator["WriteSession"]:
        """The call's transaction, with the key claimed in it; it stays open until `commit`.

        A concurrent call with the same key waits for the first to end, and then replays it.
        """
        session = await self.stack.enter_async_context(db.open_write(tenant))
        await self._claim(session, db.service)
        self._db = db
        call = current_call()
        assert call is not None  # noqa: S101  # the key came from the call
        call.uncommitted = session
        yield session
        await session.flush()

    async def _claim(self, session: "WriteSession", schema: str) -> None:
        claimed = await session.driver.fetchval(
            f"INSERT INTO {schema}.idempotency_keys (tenant_id, id, request_hash) VALUES ($1, $2, $3)"  # noqa: S608
            " ON CONFLICT DO NOTHING RETURNING id",
            session.tenant_id, self.id, self.request_hash,
        )  # fmt: skip
        if claimed is None:
            first = await session.driver.fetchrow(
                f"SELECT request_hash, response FROM {schema}.idempotency_keys WHERE tenant_id = $1 AND id = $2",  # noqa: S608
                session.tenant_id, self.id,
            )  # fmt: skip
            assert first is not None  # noqa: S101  # the conflict says that it exists
            if first["request_hash"] != self.request_hash:
                raise InvalidArgument(
                    "The idempotency key was used for a different request.", reason=ErrorReason.IDEMPOTENCY_KEY_REUSED
                )
            if first["response"] is None:
                raise wrong_state(
                    "The call took effect before; its answer is forgotten, because somebody's data were erased since.",
                    "answer_forgotten",
                )
            raise Replay(_sealer().open(first["response"].decode(), self.id.bytes))
        if self.id.bytes[-1] < 4:
            await session.driver.execute(
                f"DELETE FROM {schema}.idempotency_keys WHERE tenant_id = $1"  # noqa: S608
                f" AND created_at < now() - interval '{KEPT}'",
                session.tenant_id,
            )

    async def commit(self, session: "WriteSession", response: bytes) -> None:
        """Stores the response and commits, with the mutation."""
        assert self._db is not None  # noqa: S101  # hold() opened the session
        # An answer may say a secret that is otherwise kept as a hash.
        sealed = _sealer().seal(response, self.id.bytes).encode()
        await session.driver.execute(
            f"UPDATE {self._db.service}.idempotency_keys SET response = $3 WHERE tenant_id = $1 AND id = $2",  # noqa: S608
            session.tenant_id, self.id, sealed,
        )  # fmt: skip
        await self._db.commit(session)


def _sealer() -> "Sealer":
    call = current_call()
    assert call is not None  # noqa: S101  # the key came from the call
    return call.sealer
