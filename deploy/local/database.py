"""Brings the database to the newest schema: roles and schemas, then every service's migrations."""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from .environment import Environments
from .errors import RunError
from .processes import Command, run_step
from .secrets import load_secrets, role_passwords
from .settings import Settings
from .state import read_state


async def migrate(settings: Settings, environments: Environments, stamp_of: Path | None) -> None:
    """
    Makes the roles and runs the migrations, in programs of their own: what they import would stay in the runner.

    `stamp_of` is a file that lives and dies with the database. Given one, nothing is run when neither it nor a
    migration nor a password has changed since the last time; without one (somebody else's server) all is run again.
    """
    mark = _mark(settings, environments, stamp_of) if stamp_of else None
    stamp = settings.migrated_file
    if mark is not None and stamp.exists() and stamp.read_text() == mark:
        return
    passwords = {"ROLE_PASSWORDS": json.dumps(role_passwords(dict(environments.secrets)))}
    administrator = environments.tool() | passwords | {"ADMIN_DATABASE_URL": environments.admin_url}
    bootstrap = Command([sys.executable, "-m", "deploy.local.bootstrap"], administrator, settings.root)
    await run_step("Making the database roles", bootstrap, settings.logs / "bootstrap.log")
    upgrade = Command([sys.executable, "-m", "kit.migrations", "upgrade"], environments.migrations(), settings.root)
    await run_step("Migrating the database", upgrade, settings.logs / "migrations.log")
    if mark is not None:
        stamp.write_text(mark)


def begin_migration(settings: Settings, service: str, name: str) -> int:
    """Writes the file of a new migration: what the service's models have and the running database lacks."""
    environments = _running(settings, "A migration is made by comparing with the running database")
    command = [sys.executable, "-m", "kit.migrations", "revision", service, name]
    return subprocess.run(command, env=environments.migrations(), cwd=settings.root, check=False).returncode


def run_job(settings: Settings, verb: str, service: str, names: Sequence[str]) -> int:
    """Runs one of a service's jobs, or does what else can be done with it, in the service's environment."""
    environment = service_environment(settings, service)
    command = [sys.executable, "-m", "kit.jobs", verb, service, *names]
    return subprocess.run(command, env=environment, cwd=settings.root, check=False).returncode


def service_environment(settings: Settings, service: str) -> dict[str, str]:
    """That of a service's process on this machine; its own, where a service's environment is already."""
    if "SERVICE_CREDENTIAL" in os.environ:
        return dict(os.environ)
    return _running(settings, "Jobs need the running database").service(service)


def _running(settings: Settings, why: str) -> Environments:
    state = read_state(settings.state_file)
    if settings.database_url is None and (state is None or state.runner.process() is None):
        raise RunError(f"{why}: `make run` first.")
    admin_url = settings.database_url or settings.admin_url
    return Environments(settings, load_secrets(settings.directory / "secrets.env"), admin_url)


def _mark(settings: Settings, environments: Environments, stamp_of: Path) -> str:
    found = stamp_of.stat()
    digest = hashlib.sha256(f"{found.st_ino} {found.st_ctime_ns}".encode())
    for _, password in sorted(role_passwords(dict(environments.secrets)).items()):
        digest.update(password.encode())
    for file in _sources(settings.root):
        digest.update(f"{file.relative_to(settings.root)}\0".encode() + file.read_bytes())
    return digest.hexdigest()


def _sources(root: Path) -> Iterator[Path]:
    yield from sorted(root.glob("kit/migrations*.py"))
    yield from sorted(root.glob("kit/alembic/**/*.py"))
    yield from sorted(root.glob("services/*/migrations/**/*.py"))
