"""What every RPC goes through before and after its handler."""

import asyncio
import json
from uuid import UUID, uuid4

import grpc
import pytest

from kit.errors import NotFound, Unavailable
from kit.ids import SYSTEM_TENANT
from storyloom.event.v1.changes_pb2 import ChangeRecorded
from tests.kit.toy import Toy
from tests.stack import refused

EVERYTHING = ("all", "manage")


async def entries_of(toy: Toy, user: UUID) -> list[ChangeRecorded]:
    """The entries about no entity that the service wrote of this user, once there are any."""
    async with asyncio.timeout(5):
        while True:
            rows = await toy.rows("SELECT payload FROM toy.outbox WHERE aggregate_type = 'rpc' ORDER BY seq")
            entries = [ChangeRecorded.FromString(row["payload"]) for row in rows]
            if mine := [entry for entry in entries if entry.user_id == str(user)]:
                return mine
            await asyncio.sleep(0.05)


class TestErrors:
    async def test_tells_nothing_of_an_unknown_exception(self, toy: Toy) -> None:
        async with refused("INTERNAL_FAULT", code=grpc.StatusCode.INTERNAL) as refusal:
            await toy.stub().Misbehave(toy.pb.Note())
        assert "secret" not in str(refusal.error)

    async def test_gives_code_reason_and_message_of_a_known_one(self, toy: Toy) -> None:
        toy.failing["gone"] = NotFound("note")
        async with refused("RESOURCE_NOT_FOUND", code=grpc.StatusCode.NOT_FOUND) as refusal:
            await toy.stub().Misbehave(toy.pb.Note(text="gone"))
        assert refusal.status.message == "There is no such note."
        assert refusal.metadata == {"resource": "note"}

    async def test_refuses_bytes_that_are_no_message(self, toy: Toy) -> None:
        call = toy.channel.unary_unary("/toy.v1.NoteService/Misbehave")
        async with refused("MALFORMED_REQUEST"):
            await call(b"\xff\xff\xff")

    async def test_refuses_text_that_is_not_utf8(self, toy: Toy) -> None:
        call = toy.channel.unary_unary("/toy.v1.NoteService/Misbehave")
        async with refused("MALFORMED_REQUEST"):
            await call(b"\x12\x02\xc3\x28")

    async def test_keeps_the_request_id_of_the_client(self, toy: Toy) -> None:
        async with refused("INTERNAL_FAULT") as refusal:
            await toy.stub(x_request_id="phone-7").Misbehave(toy.pb.Note())
        assert refusal.error is not None
        assert dict(refusal.error.trailing_metadata())["grpc-status-details-bin"]


class TestDeadline:
    async def test_ends_a_call_that_takes_too_long(self, toy: Toy) -> None:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await toy.stub().Misbehave(toy.pb.Note(text="sleep"), timeout=0.3)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED

    async def test_refuses_to_begin_with_too_little_time(self, toy: Toy) -> None:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await toy.stub().Misbehave(toy.pb.Note(text="sleep"), timeout=0.05)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


class TestAuthenticate:
    async def test_refuses_a_call_without_token(self, toy: Toy) -> None:
        async with refused("MISSING_TOKEN", code=grpc.StatusCode.UNAUTHENTICATED):
            await toy.stub().GetNote(toy.pb.GetNoteRequest(id=str(uuid4())))

    @pytest.mark.parametrize(
        ("header", "claims"),
        [
            ({"typ": "JWT"}, {}),
            ({"kid": "unknown"}, {}),
            ({}, {"exp": 1}),
            ({}, {"exp": None}),
            ({}, {"iss": "https://elsewhere.example"}),
            ({}, {"aud": "another"}),
            ({}, {"sub": "not-a-uuid"}),
            ({}, {"tid": None}),
            ({}, {"sid": None}),
            ({}, {"nbf": 4_000_000_000}),
        ],
    )
    async def test_refuses_a_token_with_a_wrong(self, toy: Toy, header: dict[str, str], claims: dict[str, str]) -> None:
        user = uuid4()
        toy.grant(user, EVERYTHING)
        token = toy.token(user, toy.tenant, header=header, **claims)
        async with refused("INVALID_TOKEN", code=grpc.StatusCode.UNAUTHENTICATED):
            await toy.stub(token).ListNotes(toy.pb.ListNotesRequest())

    @pytest.mark.parametrize("token", ["", "x", "a.b.c", "é", "eyJhbGciOiJub25lIn0.e30.", "." * 5000])
    async def test_refuses_what_is_no_token(self, toy: Toy, token: str) -> None:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await toy.stub(authorization=f"Bearer {token.encode().hex() if token == 'é' else token}").ListNotes(
                toy.pb.ListNotesRequest()
            )
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED

    async def test_refuses_headers_that_disagree_with_the_token(self, toy: Toy) -> None:
        token = toy.grant(uuid4(), EVERYTHING)
        for header in ("x_tenant_id", "x_user_id"):
            async with refused("IDENTITY_MISMATCH"):
                await toy.stub(token, **{header: str(uuid4())}).ListNotes(toy.pb.ListNotesRequest())

    async def test_refuses_a_session_that_has_ended(self, toy: Toy) -> None:
        user, session = uuid4(), uuid4()
        toy.grant(user, EVERYTHING, revoked_sessions=frozenset({session}))
        async with refused("INVALID_TOKEN"):
            await toy.stub(toy.token(user, toy.tenant, sid=str(session))).ListNotes(toy.pb.ListNotesRequest())

    async def test_refuses_everyone_of_a_suspended_tenant(self, toy: Toy) -> None:
        token = toy.grant(uuid4(), EVERYTHING, tenant_suspended=True)
        async with refused("TENANT_SUSPENDED"):
            await toy.stub(token).ListNotes(toy.pb.ListNotesRequest())

    async def test_lets_nobody_act_in_another_tenant(self, toy: Toy) -> None:
        token = toy.grant(uuid4(), EVERYTHING)
        async with refused("PERMISSION_REQUIRED"):
            await toy.stub(token, x_act_in_tenant=str(uuid4())).ListNotes(toy.pb.ListNotesRequest())

    async def test_an_internal_rpc_takes_only_services_on_its_list(self, toy: Toy) -> None:
        from kit.auth import ServiceCredential

        def credential(name: str) -> str:
            import json

            return ServiceCredential(name, json.dumps(toy.credentials[name].as_dict(private=True))).token("toy")

        await toy.stub(credential("content")).CountNotes(toy.pb.ListNotesRequest())
        async with refused("SERVICE_NOT_ALLOWED"):
            await toy.stub(credential("audit")).CountNotes(toy.pb.ListNotesRequest())
        async with refused("INVALID_TOKEN"):
            await toy.stub(toy.grant(uuid4(), EVERYTHING)).CountNotes(toy.pb.ListNotesRequest())

    async def test_a_service_credential_is_no_user(self, toy: Toy) -> None:
        import json

        from kit.auth import ServiceCredential

        own = ServiceCredential("content", json.dumps(toy.credentials["content"].as_dict(private=True)))
        async with refused("INVALID_TOKEN"):
            await toy.stub(own.token("toy")).ListNotes(toy.pb.ListNotesRequest())


class TestAuthorize:
    async def test_refuses_before_it_validates(self, toy: Toy) -> None:
        token = toy.grant(uuid4())
        async with refused("PERMISSION_REQUIRED") as refusal:
            await toy.stub(token).CreateNote(toy.pb.Note(text="x" * 100))
        assert refusal.metadata["permission"] == "note:create"

    async def test_writes_the_refusal_into_the_outbox_for_audit(self, toy: Toy) -> None:
        user = uuid4()
        async with refused("PERMISSION_REQUIRED"):
            await toy.stub(toy.grant(user)).CreateNote(toy.pb.Note())
        assert len(await entries_of(toy, user)) == 1

    async def test_a_flood_of_refusals_is_one_entry_and_its_repetitions_another(self, toy: Toy) -> None:
        user = uuid4()
        stub = toy.stub(toy.grant(user))
        for _ in range(2):
            calls = (stub.CreateNote(toy.pb.Note()) for _ in range(30))
            await asyncio.gather(*calls, return_exceptions=True)
            assert len(await entries_of(toy, user)) == 1
        await toy.service.notes.write(everything=True)
        entries = await entries_of(toy, user)
        assert [json.loads(entry.new_values)["reason"] for entry in entries] == ["PERMISSION_REQUIRED"] * 2
        assert sum(json.loads(entry.new_values)["count"] for entry in entries) == 60

    async def test_writes_down_who_acts_in_another_tenant_there(self, toy: Toy) -> None:
        root, elsewhere = uuid4(), uuid4()
        token = toy.grant(root, EVERYTHING, tenant=SYSTEM_TENANT)
        await toy.stub(token, x_act_in_tenant=str(elsewhere)).ListNotes(toy.pb.ListNotesRequest())
        (entry,) = await entries_of(toy, root)
        assert (entry.action, entry.acting_tenant_id) == ("act_in_tenant", str(SYSTEM_TENANT))
        rows = await toy.rows("SELECT 1 FROM toy.outbox WHERE tenant_id = $1", elsewhere)
        assert len(rows) == 1

    async def test_writes_down_who_tried_to_act_in_another_tenant(self, toy: Toy) -> None:
        user = uuid4()
        async with refused("PERMISSION_REQUIRED"):
            await toy.stub(toy.grant(user, EVERYTHING), x_act_in_tenant=str(uuid4())).ListNotes(
                toy.pb.ListNotesRequest()
            )
        assert [entry.action for entry in await entries_of(toy, user)] == ["deny"]

    @pytest.mark.parametrize(
        "permission", [("note", "create"), ("note", "manage"), ("all", "create"), ("all", "manage")]
    )
    async def test_accepts_every_permission_that_covers_it(self, toy: Toy, permission: tuple[str, str]) -> None:
        await toy.stub(toy.grant(uuid4(), permission)).CreateNote(toy.pb.Note(text="mine"))

    async def test_a_rule_lets_an_author_read_their_own_note_only(self, toy: Toy) -> None:
        author, other = toy.grant(uuid4(), ("note", "create")), toy.grant(uuid4(), ("note", "create"))
        note = await toy.stub(author).CreateNote(toy.pb.Note(text="mine"))
        assert (await toy.stub(author).GetNote(toy.pb.GetNoteRequest(id=note.id))).text == "mine"
        async with refused("PERMISSION_REQUIRED"):
            await toy.stub(other).GetNote(toy.pb.GetNoteRequest(id=note.id))

    async def test_a_list_holds_what_may_be_read_and_nothing_else(self, toy: Toy) -> None:
        author, other = toy.grant(uuid4(), ("note", "create")), toy.grant(uuid4(), ("note", "create"))
        note = await toy.stub(author).CreateNote(toy.pb.Note(text="mine"))
        await toy.stub(other).CreateNote(toy.pb.Note(text="theirs"))
        listed = await toy.stub(author).ListNotes(toy.pb.ListNotesRequest())
        assert [one.id for one in listed.notes] == [note.id]


class TestValidate:
    async def test_names_each_field_that_is_wrong(self, toy: Toy) -> None:
        token = toy.grant(uuid4(), EVERYTHING)
        async with refused("INVALID_FIELD", field="text"):
            await toy.stub(token).CreateNote(toy.pb.Note(text="x" * 21))

    async def test_refuses_nul(self, toy: Toy) -> None:
        token = toy.grant(uuid4(), EVERYTHING)
        async with refused("INVALID_FIELD", field="text"):
            await toy.stub(token).CreateNote(toy.pb.Note(text="a\0b"))

    async def test_checks_every_message_of_a_stream(self, toy: Toy) -> None:
        token = toy.grant(uuid4(), EVERYTHING)

        async def notes() -> object:
            yield toy.pb.Note(text="fine")
            yield toy.pb.Note(text="x" * 21)

        async with refused("INVALID_FIELD", field="text"):
            await toy.stub(token).ImportNotes(notes())


class TestStreams:
    async def test_sends_what_the_handler_yields(self, toy: Toy) -> None:
        stub = toy.stub(toy.grant(uuid4()))
        assert [note.text async for note in stub.WatchNotes(toy.pb.ListNotesRequest())] == ["0", "1", "2"]

    async def test_ends_with_the_error_after_what_was_sent(self, toy: Toy) -> None:
        stub, seen = toy.stub(toy.grant(uuid4())), []
        async with refused("RESOURCE_NOT_FOUND"):
            async for note in stub.WatchNotes(toy.pb.ListNotesRequest(text="fail")):
                seen.append(note.text)
        assert seen == ["0", "1", "2"]

    async def test_echoes_both_ways(self, toy: Toy) -> None:
        stub = toy.stub(toy.grant(uuid4()))

        async def notes() -> object:
            for text in ("a", "b"):
                yield toy.pb.Note(text=text)

        assert [note.text async for note in stub.EchoNotes(notes())] == ["a", "b"]


class TestLimit:
    async def test_serves_more_calls_than_it_has_connections(self, toy: Toy) -> None:
        stub = toy.stub(toy.grant(uuid4(), EVERYTHING))
        answers = await asyncio.gather(*(stub.ListNotes(toy.pb.ListNotesRequest()) for _ in range(40)))
        assert len(answers) == 40

    async def test_a_database_that_is_away_is_unavailable(self, toy: Toy) -> None:
        toy.failing["away"] = Unavailable("The database cannot be reached; try again.")
        async with refused("DEPENDENCY_UNAVAILABLE", code=grpc.StatusCode.UNAVAILABLE):
            await toy.stub().Misbehave(toy.pb.Note(text="away"))
