"""The command line of backups: what it tells the programs that it starts, and how it ends."""

import subprocess
import sys

import pytest

from deploy.backups.programs import connection

# A drill that has begun, and tells when it has put away what it began with.
BEGUN = """
import asyncio, sys
import deploy.backups.drill
from deploy.backups.__main__ import main

async def drill(*_):
    try:
        print("begun", flush=True)
        await asyncio.sleep(30)
    finally:
        print("put away", flush=True)

deploy.backups.drill.drill = drill
sys.argv = ["backups", "drill"]
main()
"""


class TestPrograms:
    @pytest.mark.parametrize("url", ["postgresql://me:s%26cret@h/db", "postgresql://h/db?user=me&password=s%26cret"])
    def test_are_told_passwords_where_other_users_cannot_read_them(self, url: str) -> None:
        place, environment = connection(url)
        assert environment["PGPASSWORD"] == "s&cret"
        assert "cret" not in place


class TestCommand:
    @pytest.mark.slow
    def test_told_to_end_leaves_no_server_with_everybodys_data_behind(self) -> None:
        program = subprocess.Popen([sys.executable, "-c", BEGUN], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        with program:
            assert program.stdout is not None
            assert program.stdout.readline() == b"begun\n"
            program.terminate()
            assert program.stdout.read() == b"put away\n"
