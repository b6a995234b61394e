"""`python -m deploy.secrets FOLDER`: the secrets of one installation, as files that containers take.

An environment file for each program, with no more than it needs, and certificates; run again, it renews these."""

import argparse
import json
import os
from collections.abc import Mapping
from pathlib import Path

from deploy import certificates
from deploy.local.environment import PLATFORM_ADMIN
from deploy.local.secrets import load_secrets, role_passwords, write_private
from kit.migrations import BACKUP, DATABASE_NAME, OWNER, REPLICATION, role_of
from kit.settings import SERVICES

# Of the image: whom its programs run as where nobody else is named.
USER = 10001
SHARED = ("SECRET_KEY", "GATEWAY_SECRET")
ONLY_OF = {
    "identity": ("KEY_ENCRYPTION_KEY", "PLATFORM_ADMIN_PASSWORD"),
    "audit": ("AUDIT_KEY_ENCRYPTION_KEY", "AUDIT_SIGNING_KEY"),
}
ADMIN_PASSWORD = "PASSWORD_POSTGRES"  # noqa: S105


class Handout:
    """What each program is given of the secrets; `database` is host:port, with options after a question mark."""

    def __init__(self, values: Mapping[str, str], database: str, admin: str = PLATFORM_ADMIN) -> None:
        self._values, self._database, self._admin = values, database, admin
        self._passwords = role_passwords(dict(values))

    def files(self) -> dict[str, dict[str, str]]:
        """The variables of each program, by its name."""
        made = {name: self._service(name) for name in SERVICES}
        made["gateway"] = {"GATEWAY_SECRET": self._values["GATEWAY_SECRET"]}
        made["migrations"] = {"OWNER_DATABASE_URL": self._of_role(OWNER)}
        made["bootstrap"] = {
            "ADMIN_DATABASE_URL": self._url("postgres", self._values[ADMIN_PASSWORD], "postgres"),
            "ROLE_PASSWORDS": json.dumps(self._passwords),
        }
        signing = {"BACKUP_SIGNING_KEY": self._values["BACKUP_SIGNING_KEY"]}
        made["backup"] = {"BACKUP_DATABASE_URL": self._of_role(BACKUP)} | signing
        # It asks whether there is a server of its own only when it is not told of one.
        made["backup"]["DATABASE_URL"] = made["backup"]["BACKUP_DATABASE_URL"]
        made["wal"] = {"REPLICATION_DATABASE_URL": self._of_role(REPLICATION)} | signing
        made["postgres"] = {"POSTGRES_PASSWORD": self._values[ADMIN_PASSWORD]}
        return made

    def _service(self, name: str) -> dict[str, str]:
        made = {"DATABASE_URL": self._of_role(role_of(name))}
        made |= {one: self._values[one] for one in (*SHARED, "SERVICE_KEYS", *ONLY_OF.get(name, ()))}
        made["SERVICE_CREDENTIAL"] = self._values[f"SERVICE_CREDENTIAL_{name.upper()}"]
        return made | ({"PLATFORM_ADMIN_EMAIL": self._admin} if name == "identity" else {})

    def _of_role(self, role: str) -> str:
        return self._url(role, self._passwords[role])

    def _url(self, role: str, password: str, database: str = DATABASE_NAME) -> str:
        place, mark, options = self._database.partition("?")
        return f"postgresql://{role}:{password}@{place}/{database}{mark}{options}"


def write(folder: Path, database: str, admin: str = PLATFORM_ADMIN) -> list[Path]:
    """Fills the folder; secrets that are there stay as they are."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    values = load_secrets(folder / "all.secrets")
    values = with_administrator(folder, values)
    certificates.make(folder / "certificates")
    user = f"{USER}:{USER}" if os.geteuid() == 0 else f"{os.geteuid()}:{os.getegid()}"
    made = Handout(values, database, admin).files() | {"compose": {"STORYLOOM_USER": user}}
    for name, variables in made.items():
        # One line a variable, as it is: what both `env_file` (format raw) and `kubectl --from-env-file` read.
        lines = "".join(f"{key}={value}\n" for key, value in variables.items())
        write_private(folder / f"{name}.env", lines.encode())
    if os.geteuid() == 0:
        _hand_over(folder)
    return [folder / f"{name}.env" for name in made]


def with_administrator(folder: Path, values: dict[str, str]) -> dict[str, str]:
    """Adds the password of the database's administrator, whom the local runner knows without one."""
    file = folder / "postgres.password"
    if not file.exists():
        write_private(file, os.urandom(24).hex().encode())
    return values | {ADMIN_PASSWORD: file.read_text()}


def _hand_over(folder: Path) -> None:
    """Nothing runs as root in the containers, so root's files are theirs."""
    for path in (folder, *folder.rglob("*")):
        os.chown(path, USER, USER)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m deploy.secrets", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--database", default="postgres:5432", help="host:port?options of the PostgreSQL server")
    parser.add_argument("--admin", default=PLATFORM_ADMIN, help="e-mail of the platform's first administrator")
    chosen = parser.parse_args()
    for path in write(chosen.folder, chosen.database, chosen.admin):
        print(path)
    print(f"Keep {chosen.folder}/all.secrets and {chosen.folder}/certificates/ca/tls.key where no container sees them")


if __name__ == "__main__":
    main()
