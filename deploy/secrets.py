"""`python -m deploy.secrets FOLDER`: the secrets of one installation, as files that containers take.

An environment file for each program, with no more than it needs, and certificates; run again, it renews these."""

import argparse
import json
import os
from collections.abc import Mapping
from pathlib import Path

from deploy import certificates
from deploy.local.secrets import BACKUP, OWNER, REPLICATION, load_secrets, role_passwords
from kit.migrations import DATABASE_NAME, role_of
from kit.settings import SERVICES

# Of the image: whom its programs run as where nobody else is named.
USER = 10001
SHARED = ("SECRET_KEY", "GATEWAY_SECRET")
ONLY_OF = {
    "identity": ("KEY_ENCRYPTION_KEY", "PLATFORM_ADMIN_PASSWORD"),
    "audit": ("AUDIT_KEY_ENCRYPTION_KEY", "AUDIT_SIGNING_KEY"),
}
ADMIN_PASSWORD = "PASSWORD_POSTGRES"  # noqa: S105
PLATFORM_ADMIN = "admin@platform.example"


class Handout:
    """What each program is given of the secrets; `database` is host:port, with options after a question mark."""

    def __init__(self, values: Mapping[str, str], database: str, admin: str = PLATFORM_ADMIN) -> None:
        self._values, self._database, self._admin = values, database, admin

    def files(self) -> dict[str, dict[str, str]]:
        """The variables of each program, by its name."""
        made = {name: self._service(name) for name in SERVICES}
        made["gateway"] = {"GATEWAY_SECRET": self._values["GATEWAY_SECRET"]}
        made["migrations"] = {"OWNER_DATABASE_URL": self._url("storyloom_owner", self._password(OWNER))}
        made["bootstrap"] = {
            "ADMIN_DATABASE_URL": self._url("postgres", self._values[ADMIN_PASSWORD], "postgres"),
            "ROLE_PASSWORDS": json.dumps(role_passwords(dict(self._values))),
        }
        made["backup"] = {"BACKUP_DATABASE_URL": self._url("storyloom_backup", self._password(BACKUP))}
        # It asks whether there is a server of its own only when it is not told of one.
        made["backup"]["DATABASE_URL"] = made["backup"]["BACKUP_DATABASE_URL"]
        receiver = self._url("storyloom_replication", self._password(REPLICATION))
        made["wal"] = {"REPLICATION_DATABASE_URL": receiver}
        made["postgres"] = {"POSTGRES_PASSWORD": self._values[ADMIN_PASSWORD]}
        return made

    def _service(self, name: str) -> dict[str, str]:
        made = {"DATABASE_URL": self._url(role_of(name), self._password(name))}
        made |= {one: self._values[one] for one in (*SHARED, "SERVICE_KEYS", *ONLY_OF.get(name, ()))}
        made["SERVICE_CREDENTIAL"] = self._values[f"SERVICE_CREDENTIAL_{name.upper()}"]
        return made | ({"PLATFORM_ADMIN_EMAIL": self._admin} if name == "identity" else {})

    def _password(self, role: str) -> str:
        return self._values[f"PASSWORD_{role.upper()}"]

    def _url(self, role: str, password: str, database: str = DATABASE_NAME) -> str:
        place, mark, options = self._database.partition("?")
        return f"postgresql://{role}:{password}@{place}/{database}{mark}{options}"


def write(folder: Path, database: str, admin: str = PLATFORM_ADMIN) -> list[Path]:
    """Fills the folder; secrets that are there stay as they are."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    values = load_secrets(folder / "all.secrets")
    values = with_administrator(folder, values)
    certificates.make(folder / "certificates")
    made = []
    for name, variables in Handout(values, database, admin).files().items():
        # One line a variable, as it is: what both `env_file` (format raw) and `kubectl --from-env-file` read.
        made.append(_private(folder / f"{name}.env", "".join(f"{key}={value}\n" for key, value in variables.items())))
    user = f"{USER}:{USER}" if os.geteuid() == 0 else f"{os.geteuid()}:{os.getegid()}"
    made.append(_private(folder / "compose.env", f"STORYLOOM_USER={user}\n"))
    if os.geteuid() == 0:
        _hand_over(folder)
    return made


def with_administrator(folder: Path, values: dict[str, str]) -> dict[str, str]:
    """Adds the password of the database's administrator, whom the local runner knows without one."""
    file = folder / "postgres.password"
    if not file.exists():
        _private(file, os.urandom(24).hex())
    return values | {ADMIN_PASSWORD: file.read_text()}


def _private(file: Path, text: str) -> Path:
    """Put in place whole, and created with its final mode: at no moment can another user open it."""
    scratch = file.with_name(file.name + ".new")
    scratch.unlink(missing_ok=True)
    with os.fdopen(os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out:
        out.write(text)
    scratch.replace(file)
    return file


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
