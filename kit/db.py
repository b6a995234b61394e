"""The database of a service: units of work that set the tenant first and commit at their edge."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager, suppress
from functools import cached_property
from typing import TYPE_CHECKING, Any
from uuid import UUID

import asyncpg
from google.protobuf.message import Message
from sqlalchemy import Connection, Executable, PoolProxiedConnection, Result, Select, event, make_url
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.exc import TimeoutError as NoConnection
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, create_async_engine

from kit import outbox
from kit.auth import current
from kit.call import current_call
from kit.connecting import DIRECT, NOT_LIMITED, connect_arguments
from kit.measures import Tally, Waits
from kit.minimums import POSTGRESQL, refuse_older
from kit.models import TenantRow
from kit.telemetry import Telemetry

if TYPE_CHECKING:
    Driver = asyncpg.Connection[asyncpg.Record]

DIALECT: Any = make_url("postgresql+asyncpg://").get_dialect()()
POOL_TIMEOUT_SECONDS = 2.0
MOST_SHAPES = 500


class Row(asyncpg.Record):
    """A row of `fetch` and `fetchrow`: its columns are attributes."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


def prepared(statement: Select[Any], *names: str) -> str:
    """The SQL text of a statement whose parameters are exactly these, for `fetch`: `tenant` is the first of them.

    For the few hottest statements: SQLAlchemy takes some four times as long to build and run one as PostgreSQL's
    driver takes to run its text.
    """
    text, found = _numbered(statement, names)
    if names[0] != "tenant" or found != set(names):
        raise ValueError(f"the statement's parameters are {found}, not {names}")
    return text


def _numbered(statement: Select[Any], names: tuple[str, ...]) -> tuple[str, set[str]]:
    """The statement's text with its parameters numbered in this order, and the names of those that it has."""
    compiled = statement.compile(dialect=DIALECT)
    order = compiled.positiontup or ()
    numbers = {name: number for number, name in enumerate(dict.fromkeys((*names, *order)), 1)}
    number = {f"${position}": f"${numbers[name]}" for position, name in enumerate(order, 1)}
    return re.sub(r"\$\d+", lambda found: number[found[0]], str(compiled)), set(order)


class Shapes:
    """Texts of a statement that is put together anew for each request: one for each shape that it takes, made once.

    The values of all its parameters are given by name; `tenant` must be one of them.
    """

    # Of all in the process.
    tally = Tally()

    def __init__(self) -> None:
        self._known: dict[Any, str] = {}

    async def fetch(
        self, session: "ReadSession", shape: Any, build: Callable[[], Select[Any]], values: Mapping[str, Any]
    ) -> list[Any]:
        """The rows of the statement that `build` makes; all statements of one shape have one text, and the same
        parameters in the order of `values`."""
        key = (shape, *values)
        if key in self._known:
            self.tally.hits += 1
        else:
            self.tally.misses += 1
            if len(self._known) >= MOST_SHAPES:
                self._known.clear()
            self._known[key] = prepared(build(), "tenant", *values)
        return await session.fetch(self._known[key], *values.values())


class Lent:
    """A connection of the pool while a transaction has it. SQLAlchemy's view of it is made for the first statement
    that goes through SQLAlchemy: making it takes longer than running a short statement, and the hottest need none."""

    def __init__(self, engine: AsyncEngine, fairy: PoolProxiedConnection) -> None:
        self._engine, self._fairy = engine, fairy
        driver = fairy.driver_connection
        assert isinstance(driver, asyncpg.Connection)  # noqa: S101  # the engine's URL says asyncpg
        self.driver: Driver = driver

    @cached_property
    def connection(self) -> AsyncConnection:
        return AsyncConnection(self._engine, Connection(self._engine.sync_engine, self._fairy))

    def give_back(self) -> None:
        self._fairy.close()


class ReadSession:
    """A read-only transaction of one tenant."""

    def __init__(self, lent: Lent, tenant_id: UUID, telemetry: Telemetry) -> None:
        self.tenant_id = tenant_id
        self.driver = lent.driver
        self.telemetry = telemetry
        self._lent = lent

    async def execute(self, statement: Executable, values: Mapping[str, Any] | None = None) -> Result[Any]:
        """The rows of a Core statement."""
        return await self._lent.connection.execute(statement, values)

    async def scalar(self, statement: Executable) -> Any:
        """The first column of the first row, or None."""
        return (await self.execute(statement)).scalar()

    async def fetch(self, statement: str, *values: Any) -> list[Any]:
        """The rows of SQL text, past SQLAlchemy. `$1` is the session's tenant, `$2` the first of the values."""
        with self.telemetry.statement_span(statement):
            return await self.driver.fetch(statement, self.tenant_id, *values, record_class=Row)

    async def fetchrow(self, statement: str, *values: Any) -> Any:
        """The first row of SQL text as `fetch` takes it, or None."""
        with self.telemetry.statement_span(statement):
            return await self.driver.fetchrow(statement, self.tenant_id, *values, record_class=Row)


class WriteSession(ReadSession):
    """A transaction of one tenant with the ORM's unit of work; committed by whoever opened it, never by its user.

    `events` collects what goes into the outbox with the commit.
    """

    def __init__(self, lent: Lent, tenant_id: UUID, telemetry: Telemetry, routes: outbox.Routes) -> None:
        super().__init__(lent, tenant_id, telemetry)
        self.routes = routes
        self.events: list[outbox.Pending] = []

    @cached_property
    def _orm(self) -> AsyncSession:
        return AsyncSession(bind=self._lent.connection, autoflush=False, expire_on_commit=False)

    @property
    def _used_orm(self) -> AsyncSession | None:
        found: AsyncSession | None = self.__dict__.get("_orm")
        return found

    async def execute(self, statement: Executable, values: Mapping[str, Any] | None = None) -> Result[Any]:
        """The rows of a statement; entities it selects are tracked for changes."""
        return await self._orm.execute(statement, values)

    def add(self, entity: TenantRow) -> None:
        """Inserts the entity, in the session's tenant, at the next flush."""
        entity.tenant_id = self.tenant_id
        self._orm.add(entity)

    async def delete(self, entity: TenantRow) -> None:
        """Removes the entity's row at the next flush."""
        await self._orm.delete(entity)

    async def flush(self) -> None:
        """Sends pending changes to the database, so that later statements of this transaction see them."""
        if self._used_orm:
            await self._orm.flush()

    async def finish(self) -> None:
        """Sends what is pending and the outbox rows. For the unit of work's edge."""
        await self.flush()
        await outbox.insert(self.driver, self.routes.schema, self.events)

    async def close(self) -> None:
        if self._used_orm:
            await self._orm.close()


@asynccontextmanager
async def in_tenant(session: ReadSession, tenant_id: UUID) -> AsyncIterator[None]:
    """Continues the session's transaction in another tenant, and comes back.

    A tenant and its entry in the platform's list are rows of two tenants that must change together; so must a failed
    sign-in's count and its audit entry. One transaction that changes its tenant on the way does that without a state
    in between to repair; each statement is still bound to one tenant.
    """
    home = session.tenant_id
    await _move(session, tenant_id)
    yield
    await _move(session, home)


async def _move(session: ReadSession, tenant_id: UUID) -> None:
    # Though it be there already: no answer may tell by its time which tenants exist.
    if isinstance(session, WriteSession):
        await session.flush()
    await session.driver.execute(f"SET LOCAL app.tenant_id = '{tenant_id}'")
    session.tenant_id = tenant_id


class Database:
    """The connections of one service's role. `publishes` says which consumers get the events of a type."""

    def __init__(
        self,
        url: str,
        *,
        service: str,
        pool_size: int,
        telemetry: Telemetry,
        publishes: Mapping[type[Message], tuple[str, ...]] | None = None,
        pooler: str = DIRECT,
    ) -> None:
        self.service = service
        self.routes = outbox.Routes(service, publishes or {})
        self.committed_events = {consumer: asyncio.Event() for consumer in self.routes.all}
        self.engine: AsyncEngine = create_async_engine(
            url.replace("postgresql://", "postgresql+asyncpg://", 1),
            isolation_level="AUTOCOMMIT",
            pool_size=pool_size,
            max_overflow=0,
            # The last one used has the plans and caches of its work at hand; in turn, all of them would have to.
            pool_use_lifo=True,
            pool_timeout=POOL_TIMEOUT_SECONDS,
            # Every transaction is ended by whoever opened it, so there is nothing to reset.
            pool_reset_on_return=None,
            hide_parameters=True,
            connect_args=connect_arguments(service, pooler),
        )
        event.listen(self.engine.sync_engine, "checkout", _refuse_lost)
        self.waits = Waits(NoConnection)
        self.telemetry = telemetry
        telemetry.trace_statements(self.engine.sync_engine)

    @property
    def pool(self) -> Any:
        # Of whichever kind the engine has made, once more whenever it was disposed of.
        return self.engine.pool

    @asynccontextmanager
    async def read(self, tenant_id: UUID | None = None) -> AsyncIterator[ReadSession]:
        """A read-only transaction of the caller's tenant, or of the one given in background work."""
        tenant = tenant_id or current().tenant_id
        call = current_call()
        if call is not None and call.uncommitted is not None and call.uncommitted.tenant_id == tenant:
            yield call.uncommitted
            return
        async with self._transaction(f"BEGIN READ ONLY; SET LOCAL app.tenant_id = '{tenant}'") as lent:
            yield ReadSession(lent, tenant, self.telemetry)
            await lent.driver.execute("COMMIT")

    @asynccontextmanager
    async def write(self, tenant_id: UUID | None = None) -> AsyncIterator[WriteSession]:
        """A transaction of the caller's tenant, or of the one given in background work.

        Commits when the block ends well. With an idempotency key the pipeline commits, once it can store the
        response in the same transaction.
        """
        tenant = tenant_id or current().tenant_id
        call = current_call()
        if call is not None and call.key is not None:
            if call.uncommitted is not None:
                if call.uncommitted.tenant_id != tenant:
                    raise RuntimeError("a keyed call writes in one tenant only")
                yield call.uncommitted
                await call.uncommitted.flush()
                return
            async with call.key.hold(self, tenant) as session:
                yield session
            return
        async with self.open_write(tenant) as session:
            yield session
            await self.commit(session)

    @asynccontextmanager
    async def open_write(self, tenant: UUID) -> AsyncIterator[WriteSession]:
        """A transaction that its opener must `commit`; otherwise it is rolled back."""
        async with self._transaction(f"BEGIN; SET LOCAL app.tenant_id = '{tenant}'") as lent:
            session = WriteSession(lent, tenant, self.telemetry, self.routes)
            try:
                yield session
            finally:
                await session.close()

    async def commit(self, session: WriteSession) -> None:
        """Commits the transaction with its events, and has the relay deliver them."""
        await session.finish()
        # PostgreSQL answers the COMMIT of a transaction in which a statement failed with ROLLBACK, not with an error.
        if await session.driver.execute("COMMIT") != "COMMIT":
            raise RuntimeError("nothing was committed: the error of an earlier statement was swallowed")
        for consumer in {one.consumer for one in session.events}:
            self.committed_events[consumer].set()

    @asynccontextmanager
    async def _transaction(self, begin: str) -> AsyncIterator[Lent]:
        # Opened by hand on the driver: one round trip for both statements, and no second transaction below it.
        lent = Lent(self.engine, await self._connection())
        try:
            await lent.driver.execute(begin)
            yield lent
            if lent.driver.is_in_transaction():
                await lent.driver.execute("ROLLBACK")
        except asyncio.CancelledError:
            # The statement that was cut off may still be running: nothing on this connection can be trusted.
            lent.driver.terminate()
            raise
        except BaseException:
            await _to_the_end(_roll_back(lent.driver))
            raise
        finally:
            lent.give_back()

    async def _connection(self) -> PoolProxiedConnection:
        if self.pool.checkedin():
            return await self.engine.raw_connection()
        with self.waits.one():
            return await self.engine.raw_connection()

    async def check_role(self) -> None:
        """Refuses to start on an old server, with a role that policies do not bind: an owner, a superuser or
        BYPASSRLS; or where statements would have no limits."""
        async with self.engine.connect() as connection:
            version = await connection.exec_driver_sql("SHOW server_version")
            refuse_older("PostgreSQL", str(version.scalar_one()), POSTGRESQL)
            found = await connection.exec_driver_sql(
                "SELECT rolsuper OR rolbypassrls OR EXISTS (SELECT 1 FROM pg_class WHERE relowner = pg_roles.oid)"
                " FROM pg_roles WHERE rolname = current_user"
            )
            if found.scalar_one():
                raise RuntimeError("row-level security does not bind the database role: it owns tables or bypasses it")
            # With a pooler in between they are the role's settings, or nobody's.
            if missing := (await connection.exec_driver_sql(NOT_LIMITED)).scalar_one():
                raise RuntimeError(f"the database role has other limits than it should, of {missing}: bootstrap again")

    async def close(self) -> None:
        await self.engine.dispose()


async def _to_the_end(work: Coroutine[Any, Any, None]) -> None:
    """Waits for the work however often it is cancelled meanwhile; the caller raises what it was about to."""
    task = asyncio.create_task(work)
    while not task.done():
        with suppress(asyncio.CancelledError):
            await asyncio.shield(task)
    task.result()


def _refuse_lost(connection: Any, record: Any, proxy: Any) -> None:
    # The driver sees that the server closed a connection, the pool does not: it would lend it out for ever.
    if connection.driver_connection.is_closed():
        raise DisconnectionError("the server closed the connection")


async def _roll_back(driver: "Driver") -> None:
    try:
        if driver.is_in_transaction():
            await driver.execute("ROLLBACK")
    except Exception:  # noqa: BLE001  # whatever the reason, the connection is not used again
        driver.terminate()
