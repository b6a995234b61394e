"""Units of work: tenant, commit at the edge, and what is left behind when something goes wrong."""

import asyncio
import itertools
import random
from contextlib import suppress
from uuid import UUID, uuid4, uuid5

import asyncpg
import grpc
import pytest
from sqlalchemy import bindparam, select, text

from kit.db import prepared
from kit.errors import NotFound, from_exception, sqlstate
from tests.kit.toy import Toy
from tests.stack import refused

EVERYTHING = ("all", "manage")


def made(toy: Toy, text: str) -> object:
    return toy.note(text=text, secret="", author_id=uuid4())


class TestWrite:
    async def test_commits_when_the_block_ends(self, toy: Toy) -> None:
        tenant = uuid4()
        async with toy.db.write(tenant) as session:
            note = made(toy, "kept")
            session.add(note)
        assert [r["id"] for r in await toy.rows("SELECT id FROM toy.notes WHERE tenant_id = $1", tenant)] == [note.id]

    async def test_leaves_nothing_when_the_block_raises(self, toy: Toy) -> None:
        tenant = uuid4()
        with pytest.raises(ValueError, match="stop"):
            async with toy.db.write(tenant) as session:
                session.add(made(toy, "lost"))
                await session.flush()
                raise ValueError("stop")
        assert not await toy.rows("SELECT 1 FROM toy.notes WHERE tenant_id = $1", tenant)

    async def test_refuses_a_row_of_another_tenant(self, toy: Toy) -> None:
        with pytest.raises(Exception) as caught:
            async with toy.db.write(uuid4()) as session:
                note = made(toy, "smuggled")
                session.add(note)
                note.tenant_id = uuid4()
        assert sqlstate(caught.value) == "42501"

    async def test_a_concurrent_change_is_refused_by_its_revision(self, toy: Toy) -> None:
        tenant = uuid4()
        async with toy.db.write(tenant) as session:
            note = made(toy, "first")
            session.add(note)
        query = select(toy.note).where(toy.note.tenant_id == tenant, toy.note.id == note.id)
        with pytest.raises(Exception) as caught:
            async with toy.db.write(tenant) as one, toy.db.write(tenant) as two:
                mine = (await one.execute(query)).scalar_one()
                theirs = (await two.execute(query)).scalar_one()
                theirs.text = "theirs"
                await toy.db.commit(two)
                mine.text = "mine"
        assert from_exception(caught.value).code is grpc.StatusCode.ABORTED


class TestRead:
    async def test_sees_only_its_tenant_even_without_a_predicate(self, toy: Toy) -> None:
        mine, theirs = uuid4(), uuid4()
        for tenant in (mine, theirs):
            async with toy.db.write(tenant) as session:
                session.add(made(toy, "one"))
        async with toy.db.read(mine) as session:
            rows = (await session.execute(select(toy.note.tenant_id))).scalars().all()
        assert rows == [mine]

    async def test_cannot_write(self, toy: Toy) -> None:
        with pytest.raises(Exception) as caught:
            async with toy.db.read(uuid4()) as session:
                await session.execute(text("DELETE FROM toy.notes"))
        assert sqlstate(caught.value) == "25006"

    async def test_without_a_tenant_the_database_refuses(self, toy: Toy) -> None:
        connection = await asyncpg.connect(toy.settings.database_url)
        for _ in range(2):
            with pytest.raises(asyncpg.PostgresError):
                await connection.fetch("SELECT * FROM toy.notes")
            # After a transaction that had set it, the setting reads as an empty text: that must fail as well.
            await connection.execute(f"BEGIN; SET LOCAL app.tenant_id = '{uuid4()}'; COMMIT")
        await connection.close()


class TestPool:
    @pytest.mark.slow
    async def test_carries_no_tenant_over_when_calls_are_cancelled(self, toy: Toy) -> None:
        tenants = [uuid4() for _ in range(20)]
        for tenant in tenants:
            async with toy.db.write(tenant) as session:
                session.add(made(toy, tenant.hex[:20]))
        seed = random.randrange(1 << 30)
        dice = random.Random(seed)

        async def look(tenant: UUID) -> None:
            async with toy.db.read(tenant) as session:
                await session.execute(text("SELECT pg_sleep(0.002)"))
                found = (await session.execute(select(toy.note.tenant_id))).scalars().all()
                assert found == [tenant], f"seed {seed}"

        async def look_and_perhaps_give_up(tenant: UUID) -> None:
            task = asyncio.create_task(look(tenant))
            if dice.random() < 0.33:
                await asyncio.sleep(dice.random() * 0.01)
                task.cancel()
            with suppress(asyncio.CancelledError):
                await task

        limit = asyncio.Semaphore(4)

        async def limited(tenant: UUID) -> None:
            async with limit:
                await look_and_perhaps_give_up(tenant)

        await asyncio.gather(*(limited(dice.choice(tenants)) for _ in range(400)))
        idle = await toy.rows(
            "SELECT 1 FROM pg_stat_activity WHERE usename = 'storyloom_toy' AND state LIKE 'idle in transaction%'"
        )
        assert not idle, f"seed {seed}"

    async def test_asks_on_one_connection_only_what_a_type_is_made_of(self, toy: Toy) -> None:
        ran: list[str] = []
        async with toy.db.read(uuid4()) as one, toy.db.read(uuid4()) as other:
            for session in (one, other):
                with session.driver.query_logger(lambda record: ran.append(record.query)):
                    row = await session.fetchrow("SELECT $1::uuid, $2::macaddr[] AS it", ["08:00:2b:01:02:03"])
                    await asyncio.sleep(0)
                assert row.it == ["08:00:2b:01:02:03"]
        assert sum("typeinfo" in query for query in ran) == 1

    async def test_a_cancelled_rpc_leaves_nothing_behind(self, toy: Toy) -> None:
        stub = toy.stub(toy.grant(uuid4(), EVERYTHING))
        calls = [asyncio.ensure_future(stub.CreateNote(toy.pb.Note(text="x"))) for _ in range(30)]
        await asyncio.sleep(0.01)
        for call in calls[::3]:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        await stub.ListNotes(toy.pb.ListNotesRequest())
        async with asyncio.timeout(3):
            # The relay holds one for moments at a time.
            while toy.db.engine.pool.checkedout():  # type: ignore[attr-defined]
                await asyncio.sleep(0.01)


class TestRole:
    async def test_refuses_to_start_as_a_superuser(self, toy: Toy) -> None:
        from kit.db import Database
        from kit.telemetry import Telemetry

        db = Database(toy.superuser_url, service="toy", pool_size=1, telemetry=Telemetry(toy.settings))
        with pytest.raises(RuntimeError, match="row-level security"):
            await db.check_role()
        await db.close()


class TestIdempotency:
    async def test_replays_the_answer_and_does_the_work_once(self, toy: Toy) -> None:
        stub = toy.stub(toy.grant(uuid4(), EVERYTHING), idempotency_key=uuid4().hex)
        text = uuid4().hex[:20]
        answers = [await stub.CreateNote(toy.pb.Note(text=text)) for _ in range(3)]
        assert answers[0] == answers[1] == answers[2]
        assert len(await toy.rows("SELECT 1 FROM toy.notes WHERE text = $1", text)) == 1

    async def test_concurrent_calls_with_one_key_do_the_work_once(self, toy: Toy) -> None:
        stub = toy.stub(toy.grant(uuid4(), EVERYTHING), idempotency_key=uuid4().hex)
        text = uuid4().hex[:20]
        answers = await asyncio.gather(*(stub.CreateNote(toy.pb.Note(text=text)) for _ in range(4)))
        assert len({answer.id for answer in answers}) == 1
        assert len(await toy.rows("SELECT 1 FROM toy.notes WHERE text = $1", text)) == 1

    async def test_refuses_the_key_for_another_request(self, toy: Toy) -> None:
        stub = toy.stub(toy.grant(uuid4(), EVERYTHING), idempotency_key=uuid4().hex)
        await stub.CreateNote(toy.pb.Note(text="one"))
        async with refused("IDEMPOTENCY_KEY_REUSED"):
            await stub.CreateNote(toy.pb.Note(text="two"))

    async def test_forgets_a_call_that_failed(self, toy: Toy) -> None:
        stub = toy.stub(toy.grant(uuid4(), EVERYTHING), idempotency_key=uuid4().hex)
        text = uuid4().hex[:20]
        toy.failing[text] = NotFound("note")
        async with refused("RESOURCE_NOT_FOUND"):
            await stub.CreateNote(toy.pb.Note(text=text))
        assert not await toy.rows("SELECT 1 FROM toy.notes WHERE text = $1", text)
        del toy.failing[text]
        assert (await stub.CreateNote(toy.pb.Note(text=text))).text == text

    async def test_keys_of_two_users_are_unrelated(self, toy: Toy) -> None:
        key = uuid4().hex
        one, two = (toy.stub(toy.grant(uuid4(), EVERYTHING), idempotency_key=key) for _ in range(2))
        first, second = await one.CreateNote(toy.pb.Note(text="a")), await two.CreateNote(toy.pb.Note(text="b"))
        assert first.id != second.id

    async def test_keys_are_forgotten_after_a_day_in_their_tenant(self, toy: Toy) -> None:
        user, tenant, other = uuid4(), uuid4(), uuid4()
        for owner, age in ((tenant, "25 hours"), (tenant, "23 hours"), (other, "25 hours")):
            await toy.rows(
                "INSERT INTO toy.idempotency_keys (tenant_id, id, request_hash, created_at)"
                f" VALUES ($1, gen_random_uuid(), '', now() - interval '{age}')",
                owner,
            )
        token = toy.grant(user, EVERYTHING, tenant=tenant)
        # One call in 64 cleans up, by its key.
        key = next(one for one in map(str, itertools.count()) if uuid5(user, one).bytes[-1] < 4)
        await toy.stub(token, idempotency_key=key).CreateNote(toy.pb.Note(text="x"))
        count = "SELECT count(*) FROM toy.idempotency_keys WHERE tenant_id = $1 AND created_at < now() - interval '1 h'"
        assert [(await toy.rows(count, one))[0][0] for one in (tenant, other)] == [1, 1]

    @pytest.mark.parametrize("key", ["x" * 129, "x" * 1000])
    async def test_refuses_a_key_out_of_form(self, toy: Toy, key: str) -> None:
        stub = toy.stub(toy.grant(uuid4(), EVERYTHING), idempotency_key=key)
        async with refused("INVALID_FIELD", field="idempotency-key"):
            await stub.CreateNote(toy.pb.Note(text="one"))


class TestPrepared:
    async def test_runs_the_text_of_a_statement_with_the_tenant_first(self, toy: Toy) -> None:
        tenant = uuid4()
        async with toy.db.write(tenant) as session:
            for text in ("a", "b"):
                session.add(made(toy, text))
        statement = (
            select(toy.note.text, toy.note.secret)
            .where(toy.note.text == bindparam("text"), toy.note.tenant_id == bindparam("tenant"))
            .order_by(toy.note.text == bindparam("text"))
        )
        sql = prepared(statement, "tenant", "text")
        async with toy.db.read(tenant) as session:
            row = await session.fetchrow(sql, "b")
            assert (row.text, row.secret) == ("b", "")
            with pytest.raises(AttributeError):
                _ = row.nothing
            assert await session.fetchrow(sql, "c") is None
            assert len(await session.fetch(sql, "a")) == 1

    def test_refuses_parameters_that_are_not_the_statements(self, toy: Toy) -> None:
        statement = select(toy.note.id).where(toy.note.tenant_id == bindparam("tenant"))
        for names in (("tenant", "text"), ("text", "tenant")):
            with pytest.raises(ValueError, match="parameters"):
                prepared(statement, *names)
