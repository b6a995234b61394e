"""PgBouncer in transaction mode, as a process of its own, between services and the server of a test."""

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from subprocess import DEVNULL
from typing import Any
from urllib.parse import parse_qs, urlsplit, urlunsplit

PROGRAM = shutil.which("pgbouncer")
ABSENT = "PgBouncer is not installed: nothing was run through it"
# How many server connections each role gets when the tests' services are to go through PgBouncer; 0: they do not.
ASKED_FOR = int(os.environ.get("PGBOUNCER", "0"))
SETTINGS = """
[databases]
* = host={server}
[pgbouncer]
pool_mode = transaction
default_pool_size = {connections}
max_client_conn = 500
unix_socket_dir = {folder}
listen_port = 5432
auth_type = scram-sha-256
auth_file = {folder}/users.txt
"""


def through(url: str, folder: str) -> str:
    """The URL with PgBouncer's directory of sockets instead of the server's."""
    return urlunsplit(urlsplit(url)._replace(query=f"host={folder}"))


@contextmanager
def pgbouncer(admin_url: str, passwords: Mapping[str, str], *, connections: int) -> Iterator[str]:
    """Its directory of sockets. `passwords` are by role, and each role has so many connections to the server."""
    assert PROGRAM, ABSENT
    server = parse_qs(urlsplit(admin_url).query)["host"][0]
    with tempfile.TemporaryDirectory(prefix="sl-pb-") as folder:
        settings, users = Path(folder, "pgbouncer.ini"), Path(folder, "users.txt")
        settings.write_text(SETTINGS.format(server=server, connections=connections, folder=folder))
        users.write_text("".join(f'"{role}" "{password}"\n' for role, password in passwords.items()))
        user: dict[str, Any] = {}
        if os.geteuid() == 0:
            # As root it refuses to run, as the server does: whoever owns the server's sockets can reach them.
            owner = Path(server).stat()
            user = {"user": owner.st_uid, "group": owner.st_gid, "extra_groups": []}
            for path in (Path(folder), settings, users):
                os.chown(path, owner.st_uid, owner.st_gid)
        with subprocess.Popen([PROGRAM, "-q", str(settings)], stdout=DEVNULL, stderr=DEVNULL, **user) as process:
            try:
                give_up = time.monotonic() + 5
                while not Path(folder, ".s.PGSQL.5432").exists():
                    assert process.poll() is None, "PgBouncer did not start"
                    assert time.monotonic() < give_up, "PgBouncer does not listen"
                    time.sleep(0.01)
                yield folder
            finally:
                process.terminate()
