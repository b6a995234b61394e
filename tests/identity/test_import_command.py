"""`python -m tools.import_users` as a process, against the running service; and the zips it refuses."""

import asyncio
import csv
import io
import os
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from storyloom.identity.v1 import users_pb2
from tests.identity.importing import ROLES, USERS, table
from tests.stack import PASSWORD
from tools.import_users import DONE, FAILED, ROWS_REFUSED, find_sources
from tools.signing_in import UsageError, channel_to

COLUMNS = ("email", "display_name", "roles")
PUPIL = {"sourcedId": "s1", "givenName": "Lan", "familyName": "Ngo", "email": "lan@x.example"}


@dataclass
class Ended:
    status: int
    problems: list[list[str]]
    said: str


async def run(own, *arguments, password=PASSWORD):
    """Runs the command as the tenant's administrator."""
    server = own.admin.stack.environments["identity"]["LISTEN_ADDRESS"]
    who = ("--server", server, "--tenant", own.slug, "--user", own.admin.email)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tools.import_users", *who, *map(str, arguments)),
        env={"PATH": os.environ["PATH"], "PYTHONPATH": "gen", "STORYLOOM_PASSWORD": password},
        cwd=Path(__file__).parents[2],
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, said = await asyncio.wait_for(process.communicate(), 60)
    return Ended(process.returncode, list(csv.reader(io.StringIO(out.decode())))[1:], said.decode())


async def emails(own):
    page = await own.users.ListUsers(users_pb2.ListUsersRequest(page_size=100))
    return {user.email for user in page.users} - {own.admin.email}


def zipped(folder, **files):
    path = folder / "roster.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name.replace("__", "/").replace("_csv", ".csv"), data)
    return path


class TestCommand:
    async def test_imports_a_plain_file_and_tells_the_rows_that_it_refuses(self, own, tmp_path):
        file = tmp_path / "people.csv"
        rows = [{"email": f"u{n}@x.example", "display_name": "Lan"} for n in range(90)]
        file.write_bytes(table((*COLUMNS, "shoe"), *rows, {"email": "?", "display_name": "An"}, rows[0]))
        tried = await run(own, "--file", file, "--role", "student", "--dry-run")
        assert await emails(own) == set()
        done = await run(own, "--file", file, "--role", "student")
        assert (done.status, done.problems) == (tried.status, tried.problems)
        assert done.status == ROWS_REFUSED
        assert [row[:4] for row in done.problems] == [
            ["people.csv", "", "notice", "shoe"],
            ["people.csv", "92", "invalid", "email"],
            ["people.csv", "93", "duplicate", "email"],
        ]
        assert "92 rows in" in done.said
        assert "90 created, 1 invalid, 1 duplicate" in done.said
        assert len(await emails(own)) == 90

    async def test_imports_the_zip_of_a_roster(self, own, tmp_path):
        roles = table(ROLES, {"userSourcedId": "s1", "role": "teacher"})
        path = zipped(tmp_path, roles_csv=roles, export__users_csv=table(USERS, PUPIL), orgs_csv="x")
        done = await run(own, "--file", path, "--family-name-first")
        assert (done.status, done.problems) == (DONE, [])
        assert "roster.zip: not used: orgs.csv" in done.said
        (user,) = (await own.users.ListUsers(users_pb2.ListUsersRequest(query="lan@"))).users
        assert (user.display_name, user.roles) == ("Ngo Lan", ["teacher"])

    async def test_fails_without_the_right_password_and_keeps_it_to_itself(self, own, tmp_path, forget_failures):
        file = tmp_path / "people.csv"
        file.write_bytes(b"email\n")
        failed = await run(own, "--file", file, password="not the password")
        assert failed.status == FAILED
        assert "UNAUTHENTICATED" in failed.said
        assert "not the password" not in failed.said

    async def test_says_where_a_file_breaks_off(self, own, tmp_path):
        file = tmp_path / "people.csv"
        file.write_bytes(b"email,display_name\na@x.example,\xff\n")
        failed = await run(own, "--file", file)
        assert failed.status == FAILED
        assert "people.csv: line 2 is not UTF-8 text" in failed.said

    async def test_imports_nothing_of_a_damaged_zip_as_if_it_were_whole(self, own, tmp_path):
        path = zipped(tmp_path, users_csv=table(USERS, *({**PUPIL, "sourcedId": f"s{n}"} for n in range(9_000))))
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 0xFF
        path.write_bytes(data)
        failed = await run(own, "--file", path, "--dry-run")
        assert failed.status == FAILED
        assert "cannot be read" in failed.said


class TestZips:
    def test_lead_nowhere_whatever_their_names(self, tmp_path):
        (source,) = find_sources([zipped(tmp_path, **{"..__..__etc__users_csv": b"x"})])
        with source.open() as file:
            assert (source.name, file.read()) == ("users.csv", b"x")
        assert [path.name for path in tmp_path.iterdir()] == ["roster.zip"]

    def test_have_so_many_files_and_no_more(self, tmp_path):
        with pytest.raises(UsageError, match="more than 100 files"):
            find_sources([zipped(tmp_path, users_csv=b"x", **{f"f{n}": b"" for n in range(100)})])

    def test_that_would_burst_are_refused(self, tmp_path, monkeypatch):
        monkeypatch.setattr("tools.import_users.MOST_BYTES", 1_000_000)
        with pytest.raises(UsageError, match="larger than"):
            find_sources([zipped(tmp_path, users_csv=bytes(1_000_001))])

    def test_have_each_file_once(self, tmp_path):
        with pytest.raises(UsageError, match="the same name"):
            find_sources([zipped(tmp_path, users_csv=b"x", more__users_csv=b"y")])

    def test_without_users_are_told(self, tmp_path):
        with pytest.raises(UsageError, match=r"no users\.csv"):
            find_sources([zipped(tmp_path, orgs_csv=b"x")])


class TestServer:
    @pytest.mark.parametrize("server", ["127.0.0.1:7101", "localhost:7101", "[::1]:7101", "unix:/tmp/x"])
    def test_on_this_machine_needs_no_certificate(self, server):
        channel_to(server, None).close()

    @pytest.mark.parametrize("server", ["10.0.0.1:7101", "school.example:443", "127.0.0.1.example:1", "::1:7101"])
    def test_elsewhere_does(self, server):
        with pytest.raises(UsageError, match="is not on this machine"):
            channel_to(server, None)
