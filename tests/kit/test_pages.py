"""Pages by any key in either direction, and masks: what lists and updates are made of."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta, timezone
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from sqlalchemy import func, select

from kit import fieldmask
from kit.access import Access
from kit.call import Call, enter, leave
from kit.errors import InvalidArgument
from kit.pagination import Page, Sealer
from tests.kit.toy import Toy

SEALER = Sealer(os.urandom(32))


@contextmanager
def listing() -> Iterator[None]:
    token = enter(Call(rpc="/toy.v1.NoteService/ListNotes", request_id="r", access=Access(), sealer=SEALER))
    try:
        yield
    finally:
        leave(token)


@pytest.fixture(scope="module")
async def tenant(toy: Toy) -> UUID:
    """Nine notes: made in threes at the same microsecond, at times told in other zones than UTC."""
    tenant = uuid4()
    start = datetime(2026, 3, 29, 1, 59, 59, 999_999, UTC)
    async with toy.db.write(tenant) as session:
        for n in range(9):
            at = (start + timedelta(microseconds=n // 3)).astimezone(timezone(timedelta(hours=n - 4)))
            session.add(toy.note(text=f"{'aBÄ'[n % 3]}{n}", secret="", author_id=uuid4(), created_at=at))
    return tenant


async def walk(toy: Toy, tenant: UUID, keys: dict[str, Any], *, descending: bool, size: int) -> list[Any]:
    """All rows, page by page, with the keys as columns."""
    found: list[Any] = []
    request = toy.pb.ListNotesRequest(page_size=size)
    while True:
        with listing():
            page = Page.of(request)
            columns = [key.label(name) for name, key in keys.items()]
            statement = select(*columns).where(toy.note.tenant_id == tenant)
            async with toy.db.read(tenant) as session:
                statement = page.apply(statement, *keys.values(), descending=descending)
                rows = (await session.execute(statement)).all()
            rows, request.page_token = page.split(rows, key=tuple)
        assert len(rows) <= size
        found += rows
        if not request.page_token:
            return found


class TestOrder:
    @pytest.mark.parametrize("descending", [False, True])
    @pytest.mark.parametrize("size", [1, 2, 4, 9, 100])
    @pytest.mark.parametrize("key", ["id", "time", "text"])
    async def test_every_row_comes_once_and_in_order(
        self, toy: Toy, tenant: UUID, key: str, size: int, descending: bool
    ) -> None:
        note = toy.note
        keys = {
            "id": {"id": note.id},
            "time": {"created_at": note.created_at, "id": note.id},
            "text": {"lower": func.lower(note.text), "revision": note.revision, "id": note.id},
        }[key]
        found = await walk(toy, tenant, keys, descending=descending, size=size)
        assert len({row.id for row in found}) == 9
        order = [tuple(row) for row in found]
        if key != "text":
            assert order == sorted(order, reverse=descending)
        assert order == [tuple(row) for row in await walk(toy, tenant, keys, descending=descending, size=100)]

    def test_the_size_has_a_default_and_a_limit(self, toy: Toy) -> None:
        with listing():
            sizes = [Page.of(toy.pb.ListNotesRequest(page_size=size)).size for size in (0, 1, 100, 101, 2**31 - 1)]
        assert sizes == [20, 1, 100, 100, 100]

    def test_the_page_size_may_change_between_pages(self, toy: Toy) -> None:
        with listing():
            page = Page.of(toy.pb.ListNotesRequest(page_size=1))
            _, token = page.split([1, 2], key=lambda row: (row,))
            assert Page.of(toy.pb.ListNotesRequest(page_size=5, page_token=token)).after == [1]

    def test_a_token_tells_nothing_and_is_never_the_same(self, toy: Toy) -> None:
        with listing():
            page = Page.of(toy.pb.ListNotesRequest(page_size=1))
            tokens = [page.split(["secret-name", "b"], key=lambda row: (row,))[1] for _ in range(2)]
        assert tokens[0] != tokens[1]
        assert not any("secret" in token for token in tokens)

    def test_a_token_of_another_key_is_refused(self, toy: Toy) -> None:
        with listing():
            token = Sealer(os.urandom(32)).seal(b"[1]", b"")
            with pytest.raises(InvalidArgument, match="page_token"):
                Page.of(toy.pb.ListNotesRequest(page_token=token))


class TestMask:
    def test_names_every_path_that_may_not_be_written(self, toy: Toy) -> None:
        mask = FieldMask(paths=["text", "id", "note.text", ""])
        with pytest.raises(InvalidArgument) as caught:
            fieldmask.changes(toy.pb.Note(), mask, {"text"})
        told = [one.description for one in caught.value.details[0].field_violations]  # type: ignore[attr-defined]
        assert [one.split("'")[1] for one in told] == ["id", "note.text", ""]

    def test_changes_nothing_when_one_path_is_wrong(self, toy: Toy) -> None:
        entity = SimpleNamespace(text="old")
        with pytest.raises(InvalidArgument):
            fieldmask.apply(entity, toy.pb.Note(text="new"), FieldMask(paths=["text", "id"]), {"text"})
        assert entity.text == "old"

    def test_converts_only_what_is_written(self, toy: Toy) -> None:
        entity = SimpleNamespace(text="old", secret="old")
        convert = {"text": str.upper, "secret": lambda _: pytest.fail("not in the mask")}
        sent, mask = toy.pb.Note(text="a", secret="b"), FieldMask(paths=["text"])
        fieldmask.apply(entity, sent, mask, {"text", "secret"}, convert)
        assert (entity.text, entity.secret) == ("A", "old")

    def test_without_a_mask_read_only_fields_are_passed_over(self, toy: Toy) -> None:
        sent = toy.pb.Note(id="x", etag="7", text="new", author_id="y")
        assert fieldmask.changes(sent, FieldMask(), {"text", "secret"}) == {"text": "new"}
