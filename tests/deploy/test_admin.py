"""`python -m deploy.admin` against the running services: each act is done, and in the log in the operator's name."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from deploy.admin.__main__ import main
from deploy.local.settings import ROOT
from kit.ids import NIL
from storyloom.audit.v1.audit_logs_pb2 import ListAuditLogsRequest
from storyloom.audit.v1.audit_logs_pb2_grpc import AuditLogServiceStub
from storyloom.event.v1.changes_pb2 import ChangeRecorded
from storyloom.identity.v1.invitations_pb2 import AcceptInvitationRequest
from storyloom.identity.v1.invitations_pb2_grpc import InvitationServiceStub
from storyloom.identity.v1.sessions_pb2 import DeleteSessionRequest
from storyloom.identity.v1.sessions_pb2_grpc import SessionServiceStub
from tests.stack import PASSWORD, PLATFORM_EMAIL, School, free_port, refused

PARK = """
INSERT INTO content.outbox (event_id, tenant_id, consumer, aggregate_type, aggregate_id, payload_type, payload,
  attempts, parked_at)
SELECT uuidv7(), $1, 'audit', 'course', $2, 'storyloom.event.v1.ChangeRecorded', $3, 8, now() RETURNING event_id
"""


@dataclass
class Admin:
    """The command, with the addresses of the stack and the platform administrator's password in a file."""

    school: School
    password: Path
    capture: pytest.CaptureFixture[str]

    async def run(self, *arguments: str, user: str = PLATFORM_EMAIL) -> tuple[int, str, str]:
        """Exit status, standard output and standard error."""
        who = ("--user", user, "--password-file", str(self.password))
        status = await asyncio.to_thread(main, [*arguments, *who])
        return status, *self.capture.readouterr()

    async def rows(self, *arguments: str) -> list[dict[str, Any]]:
        status, out, said = await self.run(*arguments, "--json")
        assert (status, said) == (0, "")
        return [json.loads(line) for line in out.splitlines()]

    async def entries(self, tenant_id: str = "", **wanted: str) -> list[Any]:
        """What the log of the platform, or of a tenant, says that the operator did."""
        await self.school.settle()
        stub = self.school.root.stub(AuditLogServiceStub, "audit")
        metadata = (("x-act-in-tenant", tenant_id),) if tenant_id else ()
        request = ListAuditLogsRequest(user_id=self.school.root.user_id, **wanted)
        return list((await stub.ListAuditLogs(request, metadata=metadata)).audit_logs)


@pytest.fixture
def admin(
    school: School, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Admin:
    for name, value in school.stack.environments["content"].items():
        if name.endswith("_ADDRESS"):
            monkeypatch.setenv(name, value)
    monkeypatch.delenv("STORYLOOM_PASSWORD", raising=False)
    (tmp_path / "password").write_text(f"{PASSWORD}\n")
    return Admin(school, tmp_path / "password", capfd)


@pytest.fixture
async def parked(school: School) -> AsyncIterator[str]:
    """The id of an event that its consumer failed to take eight times."""
    connection = await asyncpg.connect(school.stack.cluster.superuser_url)
    course = uuid4()
    change = ChangeRecorded(action="update", entity_type="course", entity_id=str(course), new_values="{}")
    yield str(await connection.fetchval(PARK, NIL, course, change.SerializeToString()))
    await connection.execute("DELETE FROM content.outbox")
    await connection.close()


def slug() -> str:
    return f"school-{uuid4().hex[:12]}"


async def created(admin: Admin, name: str) -> dict[str, Any]:
    who = ("--email", f"head@{name}.example", "--display-name", "Head")
    (row,) = await admin.rows("tenants", "create", name, "A School", *who)
    return row


async def accept(admin: Admin, token: str, password: str) -> None:
    stub = InvitationServiceStub(admin.school.stack.channel("identity"))
    await stub.AcceptInvitation(AcceptInvitationRequest(token=token, password=password))


class TestTenants:
    async def test_are_created_with_an_invitation_that_lets_the_first_administrator_in(self, admin: Admin) -> None:
        name = slug()
        row = await created(admin, name)
        await accept(admin, row["invitation"], "a password of their own")
        head = await admin.school.stack.sign_in(name, f"head@{name}.example", "a password of their own")
        assert head.user_id == row["user_id"]
        async with refused("INVALID_TOKEN"):
            await accept(admin, row["invitation"], "another password")

    async def test_created_are_in_their_log_in_the_operators_name(self, admin: Admin) -> None:
        row = await created(admin, slug())
        done = {(one.action, one.entity_type) for one in await admin.entries(row["id"])}
        assert {("create", "tenant"), ("create", "user"), ("create", "invitation")} <= done

    async def test_are_suspended_and_resumed_in_the_operators_name(self, admin: Admin) -> None:
        name = slug()
        row = await created(admin, name)
        for verb, status in (("suspend", "suspended"), ("resume", "active")):
            assert [one["status"] for one in await admin.rows("tenants", verb, name)] == [status]
            assert [one["slug"] for one in await admin.rows("tenants", "list", "--query", name)] == [name]
            assert not await admin.rows("tenants", "list", "--query", name, "--status", "active") or verb == "resume"
            (entry,) = await admin.entries(row["id"], action=verb)
            assert (entry.entity_type, entry.entity_id, entry.acting_tenant_id) == ("tenant", row["id"], str(NIL))

    async def test_that_cannot_be_suspended_twice_say_why_in_a_line(self, admin: Admin) -> None:
        name = slug()
        await created(admin, name)
        await admin.rows("tenants", "suspend", name)
        status, out, said = await admin.run("tenants", "suspend", name)
        assert (status, out, said.count("\n")) == (1, "", 1)
        assert said.startswith("admin: FAILED_PRECONDITION: ")

    async def test_that_do_not_exist_are_not_tried(self, admin: Admin) -> None:
        assert await admin.run("tenants", "suspend", "nowhere") == (2, "", "admin: there is no tenant nowhere\n")


class TestResetPassword:
    async def test_gives_an_invitation_in_the_operators_name(self, admin: Admin) -> None:
        name = slug()
        tenant = await created(admin, name)
        email = f"head@{name}.example"
        (row,) = await admin.rows("users", "reset-password", "--email", email.upper(), "--in", name)
        await accept(admin, row["invitation"], "yet another password")
        await admin.school.stack.sign_in(name, email, "yet another password")
        entries = await admin.entries(tenant["id"], action="create", entity_type="invitation")
        assert len(entries) == 2
        # The first invitation ended with the second.
        assert row["invitation"] != tenant["invitation"]

    async def test_of_nobody_is_not_tried(self, admin: Admin) -> None:
        status, _, said = await admin.run(
            "users", "reset-password", "--email", "x@y.example", "--in", admin.school.slug
        )
        assert (status, said) == (2, "admin: the tenant has no user x@y.example\n")


class TestEvents:
    async def test_parked_are_shown_and_replayed_in_the_operators_name(self, admin: Admin, parked: str) -> None:
        (row,) = await admin.rows("events", "list", "content")
        assert (row["id"], row["consumer"], row["attempts"]) == (parked, "audit", 8)
        (standing,) = [one for one in await admin.rows("outbox", "content") if one["consumer"] == "audit"]
        assert standing["parked"] == 1
        assert await admin.rows("events", "replay", "content", "--event", parked) == [
            {"service": "content", "replayed": 1}
        ]
        (entry,) = await admin.entries(entity_id=parked)
        assert (entry.action, entry.entity_type) == ("replay", "parked_event")

    async def test_when_there_are_none_it_says_so(self, admin: Admin) -> None:
        assert await admin.run("events", "list", "learning") == (0, "", "admin: nothing is parked\n")


class TestKeys:
    async def test_are_rotated_in_the_operators_name(self, admin: Admin) -> None:
        (row,) = await admin.rows("keys", "rotate")
        (entry, *_) = await admin.entries(action="rotate", entity_type="signing_key")
        assert entry.entity_id == row["id"]


class TestJobs:
    @pytest.fixture
    def environment(self, school: School, monkeypatch: pytest.MonkeyPatch) -> None:
        for name, value in school.stack.environments["content"].items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("PYTHONPATH", "gen")

    @pytest.mark.usefixtures("environment")
    async def test_run_in_the_operators_name(self, admin: Admin) -> None:
        status, _, said = await admin.run("jobs", "run", "content", "backfill_chunks")
        assert (status, said.splitlines()[-1].partition(" · ")[0]) == (0, "backfill_chunks done")
        (entry, *_) = await admin.entries(entity_type="job")
        assert (entry.action, entry.new_values["name"], entry.service) == ("run", "backfill_chunks", "")
        (row, *_) = await admin.rows("jobs", "list", "content")
        assert (row["name"], row["state"]) == ("backfill_chunks", "done")

    @pytest.mark.usefixtures("environment")
    async def test_begun_without_an_operator_are_in_the_services_name(self, admin: Admin) -> None:
        job = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "kit.jobs", "run", "content", "backfill_chunks"), env=os.environ, cwd=ROOT
        )
        assert await asyncio.wait_for(job.wait(), 60) == 0
        await admin.school.settle()
        stub = admin.school.root.stub(AuditLogServiceStub, "audit")
        (entry, *_) = (await stub.ListAuditLogs(ListAuditLogsRequest(entity_type="job"))).audit_logs
        assert (entry.action, entry.user_id, entry.service) == ("run", "", "content")

    @pytest.mark.usefixtures("environment")
    @pytest.mark.parametrize("who", ["admin", "gone"])
    async def test_are_for_staff_of_the_platform_who_are_signed_in(self, school: School, who: str) -> None:
        person = school.admin
        if who == "gone":
            person = await school.stack.sign_in("platform", PLATFORM_EMAIL)
            await person.stub(SessionServiceStub, "identity").DeleteSession(DeleteSessionRequest())
        job = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "kit.jobs", "run", "content", "backfill_chunks", "--as-operator"),
            env=os.environ,
            cwd=ROOT,
            stdin=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        _, said = await asyncio.wait_for(job.communicate(f"{person.token}\n".encode()), 60)
        assert job.returncode == 2
        assert said.decode().startswith("jobs: ")


class TestHealth:
    async def test_of_the_services_needs_nobody_to_sign_in(
        self, admin: Admin, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("GATEWAY_ADDRESS", f"127.0.0.1:{free_port()}")
        admin.password.unlink()
        status, out, said = await admin.run("health")
        found = dict(line.split() for line in out.splitlines())
        assert found.pop("gateway") == "UNAVAILABLE"
        assert set(found.values()) == {"SERVING"}
        assert (status, said) == (1, "admin: not serving: gateway\n")

    async def test_from_outside_is_whether_identity_hears_of_them(self, admin: Admin) -> None:
        server = admin.school.stack.environments["identity"]["LISTEN_ADDRESS"]
        rows = await admin.rows("health", "--server", server)
        assert {row["status"] for row in rows} == {"SERVING"}
        assert len(rows) == 5


class TestAuditTail:
    async def test_shows_the_newest_entries_last(self, admin: Admin) -> None:
        row = await created(admin, name := slug())
        await admin.school.settle()
        rows = await admin.rows("audit", "tail", "--in", name, "-n", "3")
        assert len(rows) == 3
        assert rows == sorted(rows, key=lambda one: one["id"])
        (shown,) = await admin.rows("audit", "tail", "--in", name, "--action", "create", "--type", "tenant")
        assert (shown["entity_id"], shown["who"]) == (row["id"], admin.school.root.user_id)

    async def test_goes_on_with_what_comes_after_and_after_a_restart(self, admin: Admin) -> None:
        row = await created(admin, name := slug())
        server = [f"{key}={value}" for key, value in os.environ.items() if key.endswith("_ADDRESS")]
        process = await asyncio.create_subprocess_exec(
            *("env", "PYTHONPATH=gen", *server, sys.executable, "-m", "deploy.admin", "audit", "tail", "-f", "--json"),
            *("--in", name, "--user", PLATFORM_EMAIL, "--password-file", "-", "--type", "tenant", "-n", "1"),
            cwd=ROOT,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(f"{PASSWORD}\n".encode())
        try:
            assert json.loads(await asyncio.wait_for(process.stdout.readline(), 30))["action"] == "create"
            for verb in ("suspend", "resume"):
                await admin.rows("tenants", verb, name)
                entry = json.loads(await asyncio.wait_for(process.stdout.readline(), 30))
                assert (entry["action"], entry["entity_id"]) == (verb, row["id"])
                await admin.school.stack.stop_service("audit")
                await admin.school.stack.start_service("audit")
        finally:
            process.kill()
            await process.wait()


class TestCommandLine:
    async def test_who_may_not_is_told_so_in_a_line(self, admin: Admin) -> None:
        admin.password.write_text("wrong\n")
        status, out, said = await admin.run("tenants", "list")
        assert (status, out, said.count("\n")) == (1, "", 1)
        assert said.startswith("admin: UNAUTHENTICATED: ")

    async def test_leaves_no_session_behind(self, admin: Admin) -> None:
        count = "SELECT count(*) FROM identity.sessions WHERE tenant_id = $1 AND ended_at IS NULL"
        connection = await asyncpg.connect(admin.school.stack.cluster.superuser_url)
        try:
            before = await connection.fetchval(count, NIL)
            await admin.rows("tenants", "list")
            assert await connection.fetchval(count, NIL) == before
        finally:
            await connection.close()

    async def test_an_empty_password_is_not_tried(self, admin: Admin) -> None:
        admin.password.write_text("\n")
        assert (await admin.run("tenants", "list"))[0] == 2

    async def test_a_service_that_is_away_is_told_in_a_line(
        self, admin: Admin, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("IDENTITY_ADDRESS", f"127.0.0.1:{free_port()}")
        status, _, said = await admin.run("tenants", "list")
        assert (status, said.count("\n")) == (1, 1)
        assert said.startswith("admin: UNAVAILABLE: ")

    def test_takes_no_password_as_an_argument(self, capfd: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit) as ended:
            main(["tenants", "list", "--password", "x"])
        assert ended.value.code == 2
