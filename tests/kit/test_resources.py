"""Pages, masks, etags and audit entries, as handlers use them."""

import json
from typing import Any
from uuid import UUID, uuid4

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from kit import audit
from storyloom.event.v1.changes_pb2 import ChangeRecorded
from tests.kit.toy import Toy
from tests.stack import refused

EVERYTHING = ("all", "manage")


async def changes_of(toy: Toy, entity_id: str | UUID) -> list[ChangeRecorded]:
    """The audit entries of a note or another thing, oldest first."""
    query = "SELECT payload FROM toy.outbox WHERE aggregate_id = $1::text::uuid ORDER BY seq"
    rows = await toy.rows(query, str(entity_id))
    return [ChangeRecorded.FromString(row["payload"]) for row in rows]


class TestPages:
    async def test_lists_everything_once_newest_first(self, toy: Toy) -> None:
        stub = toy.stub(toy.grant(uuid4(), EVERYTHING, tenant=(tenant := uuid4())))
        made = [(await stub.CreateNote(toy.pb.Note(text=str(n)))).id for n in range(7)]
        listed, token = [], ""
        while True:
            page = await stub.ListNotes(toy.pb.ListNotesRequest(page_size=3, page_token=token))
            listed.append([note.id for note in page.notes])
            token = page.next_page_token
            if not token:
                break
        assert [len(page) for page in listed] == [3, 3, 1], tenant
        assert sum(listed, []) == made[::-1]

    async def test_a_token_is_bound_to_user_tenant_and_query(self, toy: Toy) -> None:
        tenant = uuid4()
        stub = toy.stub(toy.grant(uuid4(), EVERYTHING, tenant=tenant))
        for n in range(3):
            await stub.CreateNote(toy.pb.Note(text=str(n)))
        token = (await stub.ListNotes(toy.pb.ListNotesRequest(page_size=1))).next_page_token
        other_user = toy.stub(toy.grant(uuid4(), EVERYTHING, tenant=tenant))
        other_tenant = toy.stub(toy.grant(uuid4(), EVERYTHING, tenant=uuid4()))
        for who, request in (
            (other_user, toy.pb.ListNotesRequest(page_token=token)),
            (other_tenant, toy.pb.ListNotesRequest(page_token=token)),
            (stub, toy.pb.ListNotesRequest(page_token=token, text="other")),
        ):
            async with refused("INVALID_PAGE_TOKEN", field="page_token"):
                await who.ListNotes(request)

    @pytest.mark.parametrize("token", ["x", "é", "====", "AAAA" * 20])
    async def test_refuses_a_damaged_token(self, toy: Toy, token: str) -> None:
        stub = toy.stub(toy.grant(uuid4(), EVERYTHING))
        async with refused("INVALID_PAGE_TOKEN"):
            await stub.ListNotes(toy.pb.ListNotesRequest(page_token=token))

    async def test_refuses_a_negative_size(self, toy: Toy) -> None:
        async with refused("INVALID_FIELD", field="page_size"):
            await toy.stub(toy.grant(uuid4(), EVERYTHING)).ListNotes(toy.pb.ListNotesRequest(page_size=-1))


class TestUpdates:
    async def test_an_absent_mask_writes_the_populated_fields(self, toy: Toy) -> None:
        stub = toy.stub(toy.grant(uuid4(), EVERYTHING))
        note = await stub.CreateNote(toy.pb.Note(text="old", secret="s"))
        changed = await stub.UpdateNote(toy.pb.UpdateNoteRequest(note=toy.pb.Note(id=note.id, text="new")))
        assert (changed.text, changed.secret, changed.etag) == ("new", "s", "2")

    async def test_a_mask_may_clear_a_field(self, toy: Toy) -> None:
        stub = toy.stub(toy.grant(uuid4(), EVERYTHING))
        note = await stub.CreateNote(toy.pb.Note(text="old", secret="s"))
        mask = FieldMask(paths=["secret"])
        changed = await stub.UpdateNote(toy.pb.UpdateNoteRequest(note=toy.pb.Note(id=note.id), update_mask=mask))
        assert (changed.text, changed.secret) == ("old", "")

    @pytest.mark.parametrize("path", ["id", "etag", "nothing", "author_id", "*"])
    async def test_refuses_a_path_that_may_not_be_written(self, toy: Toy, path: str) -> None:
        stub = toy.stub(toy.grant(uuid4(), EVERYTHING))
        note = await stub.CreateNote(toy.pb.Note(text="old"))
        async with refused("INVALID_UPDATE_MASK", field="update_mask"):
            await stub.UpdateNote(
                toy.pb.UpdateNoteRequest(note=toy.pb.Note(id=note.id), update_mask=FieldMask(paths=[path]))
            )

    async def test_refuses_a_stale_etag(self, toy: Toy) -> None:
        stub = toy.stub(toy.grant(uuid4(), EVERYTHING))
        note = await stub.CreateNote(toy.pb.Note(text="old"))
        request = toy.pb.UpdateNoteRequest(note=toy.pb.Note(id=note.id, text="new", etag=note.etag))
        await stub.UpdateNote(request)
        async with refused("STALE_ETAG"):
            await stub.UpdateNote(request)


class TestAudit:
    async def test_tells_old_and_new_values_of_what_changed(self, toy: Toy) -> None:
        user = uuid4()
        stub = toy.stub(toy.grant(user, EVERYTHING), x_request_id="request-7")
        note = await stub.CreateNote(toy.pb.Note(text="old", secret="s"))
        await stub.UpdateNote(toy.pb.UpdateNoteRequest(note=toy.pb.Note(id=note.id, text="new")))
        created, updated = await changes_of(toy, note.id)
        assert (created.action, created.old_values) == ("create", "")
        assert json.loads(created.new_values)["text"] == "old"
        assert json.loads(updated.old_values) == {"text": "old"}
        assert json.loads(updated.new_values) == {"text": "new"}
        assert (updated.user_id, updated.request_id) == (str(user), "request-7")
        assert updated.rpc == "/toy.v1.NoteService/UpdateNote"

    async def test_says_which_values_are_sensitive_and_whose_they_are(self, toy: Toy) -> None:
        author, editor = uuid4(), uuid4()
        note = await toy.stub(toy.grant(author, EVERYTHING)).CreateNote(toy.pb.Note(text="t", secret="old"))
        changed = toy.pb.Note(id=note.id, secret="new")
        await toy.stub(toy.grant(editor, EVERYTHING)).UpdateNote(toy.pb.UpdateNoteRequest(note=changed))
        created, updated = await changes_of(toy, note.id)
        assert json.loads(updated.old_values) == {"secret": "old"}
        assert json.loads(updated.new_values) == {"secret": "new"}
        assert [*created.sensitive_fields] == [*updated.sensitive_fields] == ["secret"]
        assert created.subject_id == updated.subject_id == str(author)
        assert updated.user_id == str(editor)

    async def test_says_of_nobody_that_it_is_theirs_when_nothing_is_sensitive(self, toy: Toy) -> None:
        stub = toy.stub(toy.grant(uuid4(), EVERYTHING))
        note = await stub.CreateNote(toy.pb.Note(text="old"))
        await stub.UpdateNote(toy.pb.UpdateNoteRequest(note=toy.pb.Note(id=note.id, text="new")))
        updated = (await changes_of(toy, note.id))[1]
        assert (updated.subject_id, [*updated.sensitive_fields]) == ("", [])

    async def test_values_given_by_hand_are_of_whom_the_entry_is_about_or_else_nobodys(self, toy: Toy) -> None:
        user, other, thing = uuid4(), uuid4(), uuid4()
        values: dict[str, Any] = {"new": {"secret": "s", "text": "t"}, "sensitive": {"secret", "absent"}}
        async with toy.db.write(toy.tenant) as session:
            audit.write(session, "update", "user", user, **values)
            audit.write(session, "update", "note", thing, **values)
            audit.write(session, "update", "note", thing, subject_id=other, **values)
        (about_user,) = await changes_of(toy, user)
        about_nobody, about_other = await changes_of(toy, thing)
        subjects = [one.subject_id for one in (about_user, about_nobody, about_other)]
        assert subjects == [str(user), str(toy.tenant), str(other)]
        assert [*about_user.sensitive_fields] == ["secret"]

    async def test_records_nothing_of_a_call_that_failed(self, toy: Toy) -> None:
        stub = toy.stub(toy.grant(uuid4(), EVERYTHING))
        before = len(await toy.rows("SELECT 1 FROM toy.outbox"))
        async with refused("RESOURCE_NOT_FOUND"):
            await stub.UpdateNote(toy.pb.UpdateNoteRequest(note=toy.pb.Note(id=str(uuid4()), text="x")))
        assert len(await toy.rows("SELECT 1 FROM toy.outbox")) == before
