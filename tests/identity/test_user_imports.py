"""People from files, as rows with outcomes: both formats, rights, dry runs, memory, and clients that go away."""

import asyncio
import gc
import sys
import tracemalloc

import grpc
import pytest

from kit import streams
from storyloom.audit.v1 import audit_logs_pb2
from storyloom.audit.v1.audit_logs_pb2_grpc import AuditLogServiceStub
from storyloom.identity.v1 import users_pb2
from storyloom.identity.v1.user_imports_pb2 import ImportUsersChunk, ImportUsersOptions, ImportUsersRequest
from storyloom.identity.v1.user_imports_pb2_grpc import UserImportServiceStub
from tests.identity.importing import (
    PLAIN,
    SKIP,
    USERS,
    import_users,
    in_dry_run_too,
    people,
    person,
    pupil,
    roster,
    table,
    user_of,
)
from tests.stack import refused


class TestPlainFiles:
    async def test_make_invited_users(self, own):
        given = person("lan", locale="vi-VN", level="B1", roles="student", **{"attributes.class": "5a"})
        done = await import_users(own.admin, people(given))
        user = await user_of(own, "lan@")
        assert done.words == ["created"]
        assert (done.rows[0].line, done.rows[0].user_id) == (2, user.id)
        assert user.status == users_pb2.USER_STATUS_INVITED
        assert (user.display_name, user.locale, user.level, user.roles) == ("Lan", "vi-VN", "B1", ["student"])
        assert dict(user.attributes) == {"class": "5a"}

    async def test_make_none_of_a_row_that_is_wrong_and_all_of_the_others(self, own):
        rows = (
            person("a", roles="nobody"),
            person("b", email="no address"),
            person("c", locale="?", level="x" * 33),
            person("d"),
            person("e", display_name=""),
            person("D"),
        )
        done = await in_dry_run_too(own.admin, people(*rows))
        assert done.words == ["invalid", "invalid", "invalid", "created", "invalid", "duplicate"]
        assert [(line, field) for line, field, _ in done.problems] == [
            (2, "roles"), (3, "email"), (4, "locale"), (4, "level"), (6, "display_name"), (7, "email"),
        ]  # fmt: skip
        counted = done.summary
        assert (counted.rows, counted.created, counted.invalid, counted.duplicate) == (6, 1, 4, 1)
        assert [user.email for user in (await own.users.ListUsers(users_pb2.ListUsersRequest(query="d@"))).users] == [
            "d@x.example"
        ]

    async def test_give_default_roles_to_whom_they_give_no_others(self, own):
        rows = (person("a"), person("b", roles="teacher"))
        await import_users(own.admin, people(*rows), default_roles=["student"])
        assert [(await user_of(own, f"{name}@")).roles for name in "ab"] == [["student"], ["teacher"]]

    async def test_change_users_as_far_as_they_say_something(self, own):
        await import_users(own.admin, people(person("a", level="B1", roles="student", **{"attributes.class": "5a"})))
        rows = (person("A", display_name="An", level="B2", roles="teacher"), person("b"))
        done = await in_dry_run_too(own.admin, people(*rows))
        user = await user_of(own, "a@")
        assert done.words == ["updated", "created"]
        assert (user.display_name, user.level, user.roles, dict(user.attributes)) == (
            "An", "B2", ["teacher"], {"class": "5a"},
        )  # fmt: skip
        assert (await import_users(own.admin, people(*rows))).words == ["unchanged", "unchanged"]

    async def test_leave_users_alone_who_are_to_be_skipped(self, own):
        await import_users(own.admin, people(person("a")))
        done = await in_dry_run_too(own.admin, people(person("a", level="C1"), person("b")), on_existing=SKIP)
        assert done.words == ["unchanged", "created"]
        assert (await user_of(own, "a@")).level == ""

    async def test_may_come_in_pieces_cut_anywhere(self, own):
        rows = [person(f"u{n}", display_name=f'Người\n"số" {n}') for n in range(30)]
        done = await import_users(own.admin, b"\xef\xbb\xbf" + people(*rows), size=7)
        assert done.words == ["created"] * 30
        assert (await user_of(own, "u29@")).display_name == 'Người\n"số" 29'

    async def test_that_break_off_leave_what_stands_before(self, own):
        async with refused("INVALID_FIELD", field="chunk.data") as refusal:
            await import_users(own.admin, people(*(person(f"u{n}") for n in range(150))) + b'x@x.example,"\n')
        assert "line 152 has a quote without end" in refusal.error.details()
        assert await user_of(own, "u149@") is not None

    async def test_beyond_the_quota_of_users_are_refused(self, own, database):
        await database.execute(
            "UPDATE identity.tenants SET settings = settings || '{\"quotas\": {\"users\": 152}}' WHERE id = $1",
            own.tenant.id,
        )
        done = await in_dry_run_too(own.admin, people(*(person(f"u{n}") for n in range(152))))
        assert done.words == ["created"] * 151 + ["invalid"]


class TestOneRoster:
    async def test_makes_users_with_their_roles(self, own):
        users = (pupil(1), pupil(2, middleName="Thu"), pupil(3, enabledUser="false"))
        roles = (
            {"userSourcedId": "s1", "role": "student"},
            {"userSourcedId": "s1", "role": "student", "orgSourcedId": "another"},
            {"userSourcedId": "s2", "role": "siteAdministrator"},
            {"userSourcedId": "s3", "role": "guardian"},
            {"userSourcedId": "s4", "role": "student"},
            {"userSourcedId": "s3", "role": "teacher", "endDate": "2020-01-01"},
        )
        files = {"orgs.csv": b"sourcedId\n1\n", **roster(users, roles)}
        done = await in_dry_run_too(own.admin, files, family_name_first=True)
        assert done.words == [
            *("created", "created", "created"),
            *("updated", "unchanged", "updated", "invalid", "invalid", "unchanged"),
        ]
        assert [(line, field) for line, field, _ in done.problems] == [(5, "roles"), (6, "userSourcedId"), (7, "")]
        assert done.notices == [("orgs.csv", "", "The file is not used.")]
        first, second, third = [await user_of(own, f"s{n}@") for n in (1, 2, 3)]
        assert (first.display_name, first.roles, first.attributes["sourced_id"]) == ("Ngo Lan", ["student"], "s1")
        assert (second.display_name, second.roles) == ("Ngo Thu Lan", ["admin"])
        assert third.status == users_pb2.USER_STATUS_DEACTIVATED

    async def test_finds_users_again_by_the_ids_of_their_source(self, own):
        student = {"userSourcedId": "s1", "role": "student"}
        await import_users(own.admin, roster([pupil(n) for n in range(1, 5)], [student]))
        later = (
            pupil(1, email="new@x.example", grades="06"),
            pupil(2, status="tobedeleted"),
            pupil(3, enabledUser="false"),
            pupil(4),
            pupil(5, email="s1@x.example"),
            pupil(6, email="s2@x.example"),
            pupil(1),
            pupil(7, status="tobedeleted"),
        )
        roles = (
            {"userSourcedId": "s1", "role": "student", "status": "tobedeleted"},
            {"userSourcedId": "s1", "role": "teacher"},
            {"userSourcedId": "s1", "role": "teacher", "status": "tobedeleted"},
            {"userSourcedId": "s2", "role": "student"},
        )
        done = await in_dry_run_too(own.admin, roster(later, roles))
        assert done.words == [
            *("updated", "deleted", "updated", "unchanged", "invalid", "invalid", "duplicate", "unchanged"),
            *("updated", "updated", "unchanged", "invalid"),
        ]
        user = await user_of(own, "new@")
        assert (user.roles, user.attributes["grades"]) == (["teacher"], "06")
        assert await user_of(own, "s2@") is None
        assert (await user_of(own, "s3@")).status == users_pb2.USER_STATUS_DEACTIVATED

    async def test_links_users_who_have_the_address_already(self, own):
        user = await own.user("student", email="s1@x.example")
        done = await in_dry_run_too(own.admin, roster([pupil(1)], [{"userSourcedId": "s1", "role": "teacher"}]))
        assert done.words == ["updated", "updated"]
        found = await user_of(own, "s1@")
        assert (found.id, found.roles, found.attributes["sourced_id"]) == (user.id, ["student", "teacher"], "s1")
        assert (await import_users(own.admin, roster([pupil(2, email="s1@x.example")]))).words == ["invalid"]

    async def test_leaves_the_roles_of_skipped_users_alone(self, own):
        await own.user(email="s1@x.example")
        await import_users(own.admin, roster([pupil(2)]))
        roles = [{"userSourcedId": f"s{n}", "role": "student"} for n in (1, 2, 3)]
        done = await in_dry_run_too(own.admin, roster([pupil(1), pupil(2), pupil(3)], roles), on_existing=SKIP)
        assert done.words == ["unchanged", "unchanged", "created", "unchanged", "unchanged", "updated"]

    async def test_tells_that_passwords_are_not_read(self, own, stack):
        files = {"users.csv": table((*USERS, "password"), pupil(1, password="correct horse battery staple"))}
        done = await import_users(own.admin, files)
        assert done.notices == [("users.csv", "password", "Passwords in files are not read.")]
        async with refused("INVALID_CREDENTIALS"):
            await stack.sign_in(own.slug, "s1@x.example")

    async def test_dry_runs_of_many_batches_tell_what_will_be(self, own):
        users = [pupil(n, email=f"s{n % 240}@x.example") for n in range(250)]
        roles = [{"userSourcedId": f"s{n}", "role": role} for n in range(245) for role in ("student", "teacher")]
        await import_users(own.admin, roster(users[:50], roles[:30]))
        users[3]["email"] = "other@x.example"
        users[120]["email"] = "s3@x.example"
        done = await in_dry_run_too(own.admin, roster(users, roles))
        assert {"created", "updated", "unchanged", "invalid", "duplicate"} == set(done.words)


class TestStream:
    def stub(self, own):
        return own.admin.stub(UserImportServiceStub, "identity")

    async def test_begins_with_the_options_and_has_them_once(self, own):
        options = ImportUsersRequest(options=ImportUsersOptions(format=PLAIN, on_existing=SKIP))
        chunk = ImportUsersRequest(chunk=ImportUsersChunk(file_name="a.csv", data=b"email\n"))
        for messages in ([], [chunk], [options, chunk, options]):
            async with refused("INVALID_FIELD", field="options"):
                async for _ in self.stub(own).ImportUsers(iter(messages)):
                    pass

    @pytest.mark.parametrize("said", [{}, {"format": PLAIN}, {"on_existing": SKIP}, {"format": 9, "on_existing": SKIP}])
    async def test_wants_options_that_say_what_to_do(self, own, said):
        options = ImportUsersRequest(options=ImportUsersOptions(**said))
        async with refused("INVALID_FIELD"):
            async for _ in self.stub(own).ImportUsers(iter([options])):
                pass

    async def test_knows_the_default_roles_before_anything_is_read(self, own):
        async with refused("REFERENCE_NOT_FOUND"):
            await import_users(own.admin, people(), default_roles=["nobody"])

    async def test_tells_how_far_it_is(self, own):
        data = people(*(person(f"u{n}") for n in range(250)))
        done = await import_users(own.admin, data, dry_run=True)
        assert [one.progress.rows for one in done.responses] == [100, 200, 250, 250]
        assert done.responses[-1].progress.bytes == len(data)
        assert [one.HasField("summary") for one in done.responses] == [False] * 3 + [True]

    async def test_of_a_client_that_hangs_up_ends(self, own, database):
        ended = asyncio.Event()

        async def endless():
            yield ImportUsersRequest(options=ImportUsersOptions(format=PLAIN, on_existing=SKIP))
            yield ImportUsersRequest(chunk=ImportUsersChunk(file_name="a.csv", data=b"email,display_name\n"))
            try:
                for number in range(1_000_000):
                    row = f"u{number}@x.example,{'x' * 100}\n".encode()
                    yield ImportUsersRequest(chunk=ImportUsersChunk(file_name="a.csv", data=row))
            finally:
                ended.set()

        call = self.stub(own).ImportUsers(endless(), timeout=60)
        await call.read()
        call.cancel()
        await asyncio.wait_for(ended.wait(), 5)
        count = "SELECT count(*) FROM identity.users WHERE tenant_id = $1"
        await asyncio.sleep(0.5)
        before = await database.fetchval(count, own.tenant.id)
        await asyncio.sleep(0.5)
        assert await database.fetchval(count, own.tenant.id) == before
        (entry,) = await entries(own, entity_type="user_import")
        assert (entry.new_values["complete"], entry.new_values["created"]) == (False, before - 1)

    async def test_does_not_wait_for_ever_for_what_does_not_come(self, own, monkeypatch):
        monkeypatch.setattr(streams, "LONGEST_SILENCE_SECONDS", 0.3)
        never = asyncio.Event()

        async def requests():
            yield ImportUsersRequest(options=ImportUsersOptions(format=PLAIN, on_existing=SKIP))
            await never.wait()

        call = own.admin.stub(UserImportServiceStub, "identity").ImportUsers(requests(), timeout=10)
        async with refused("DEADLINE_TOO_SHORT", code=grpc.StatusCode.DEADLINE_EXCEEDED):
            async for _ in call:
                pass


async def entries(own, **about):
    """What the audit log has, the oldest first."""
    await own.admin.stack.settle()
    logs = own.admin.stub(AuditLogServiceStub, "audit")
    page = await logs.ListAuditLogs(audit_logs_pb2.ListAuditLogsRequest(page_size=100, **about))
    return page.audit_logs[::-1]


class TestAudit:
    async def test_has_what_was_done_to_each_user_and_the_import_itself(self, own):
        await import_users(own.admin, people(person("a", roles="student"), person("b"), person("c", email="?")))
        done = await import_users(own.admin, people(person("a", level="B1", roles="teacher"), person("b")))
        about_a = await entries(own, entity_type="user", entity_id=done.rows[0].user_id)
        assert [one.action for one in about_a] == ["create", "set_roles", "update", "set_roles"]
        assert dict(about_a[2].new_values) == {"level": "B1"}
        assert dict(about_a[3].old_values) == {"roles": ["student"]}
        first, second = await entries(own, entity_type="user_import")
        assert second.entity_id == done.summary.import_id
        assert (first.new_values["created"], first.new_values["invalid"], first.new_values["complete"]) == (2, 1, True)
        assert (second.new_values["updated"], second.new_values["unchanged"]) == (1, 1)
        assert {one.user_id for one in (first, *about_a)} == {own.admin.user_id}

    async def test_has_nothing_of_a_dry_run(self, own, database):
        await import_users(own.admin, people(person("a", roles="student")), dry_run=True)
        assert await entries(own, entity_type="user_import") == []
        count = "SELECT count(*) FROM identity.users WHERE tenant_id = $1"
        assert await database.fetchval(count, own.tenant.id) == 1


class TestMemory:
    async def peak(self, own, count):
        """The most memory in use during an import of so many rows, in bytes, with that of this client."""

        async def file():
            options = ImportUsersOptions(format=PLAIN, on_existing=SKIP, dry_run=True)
            yield ImportUsersRequest(options=options)
            head = b"email,display_name,attributes.class\n"
            for at in range(0, count, 500):
                rows = b"".join(b"u%d@x.example,A longer name %d,5a\n" % (n, n) for n in range(at, at + 500))
                data, head = head + rows, b""
                yield ImportUsersRequest(chunk=ImportUsersChunk(file_name="p.csv", data=data))

        tracemalloc.start()
        try:
            stub, done, most = own.admin.stub(UserImportServiceStub, "identity"), 0, 0
            async for response in stub.ImportUsers(file(), timeout=110):
                done = response.progress.rows
                if done % 500 == 0:
                    # What nothing refers to any more is not in use, though it is there.
                    gc.collect()
                    most = max(most, tracemalloc.get_traced_memory()[0])
            assert done == count
            return most
        finally:
            tracemalloc.stop()

    @pytest.mark.slow
    async def test_does_not_grow_with_the_file(self, own):
        await self.peak(own, 500)
        small, large = await self.peak(own, 500), await self.peak(own, 1_500)
        sys.stdout.write(f"in use during 500 rows {small:,} bytes, during 1,500 rows {large:,}\n")
        # Some ten bytes a row are remembered. The rest is what else goes on in this process, some hundred thousand
        # either way; users and answers would be thousands for each row.
        assert large - small < 1_000 * 1_000
