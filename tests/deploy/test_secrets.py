"""Secrets are made once, kept for their user alone, and fit each other."""

import base64
import json
import os
import stat
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from deploy.local.environment import Environments, database_url
from deploy.local.errors import RunError
from deploy.local.secrets import load_secrets, role_passwords
from deploy.local.settings import Settings
from kit.settings import SERVICES

KEYS = ("SECRET_KEY", "KEY_ENCRYPTION_KEY", "AUDIT_KEY_ENCRYPTION_KEY", "AUDIT_SIGNING_KEY", "BACKUP_SIGNING_KEY")


def octets(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def forget(file: Path, name: str) -> None:
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(line for line in lines if not line.startswith(name)))


class TestLoadSecrets:
    def test_are_the_same_at_every_run(self, place: Path) -> None:
        first = load_secrets(place / "secrets.env")
        assert load_secrets(place / "secrets.env") == first
        assert load_secrets(place / "other.env")["SECRET_KEY"] != first["SECRET_KEY"]

    def test_can_be_read_by_their_user_alone(self, place: Path) -> None:
        before = os.umask(0)
        try:
            load_secrets(place / "secrets.env")
        finally:
            os.umask(before)
        assert stat.S_IMODE((place / "secrets.env").stat().st_mode) == 0o600

    def test_what_is_missing_is_added_and_the_rest_kept(self, place: Path) -> None:
        file = place / "secrets.env"
        first = load_secrets(file)
        file.write_text(
            "".join(line for line in file.read_text().splitlines(keepends=True) if not line.startswith("DEMO_PASSWORD"))
        )
        second = load_secrets(file)
        assert second.pop("DEMO_PASSWORD") != first.pop("DEMO_PASSWORD")
        assert second == first

    def test_service_keys_are_the_public_halves_of_the_credentials(self, place: Path) -> None:
        file = place / "secrets.env"
        load_secrets(file)
        file.write_text(
            "".join(
                line
                for line in file.read_text().splitlines(keepends=True)
                if not line.startswith("SERVICE_CREDENTIAL_AUDIT")
            )
        )
        secrets = load_secrets(file)
        public = {key["kid"]: key for key in json.loads(secrets["SERVICE_KEYS"])["keys"]}
        assert tuple(public) == SERVICES
        for service in SERVICES:
            credential = json.loads(secrets[f"SERVICE_CREDENTIAL_{service.upper()}"])
            assert credential["kid"] == service
            key = Ed25519PrivateKey.from_private_bytes(octets(credential["d"]))
            assert key.public_key().public_bytes_raw() == octets(public[service]["x"]) == octets(credential["x"])
            assert "d" not in public[service]

    def test_keys_have_32_bytes(self, place: Path) -> None:
        secrets = load_secrets(place / "secrets.env")
        assert [len(octets(secrets[name])) for name in KEYS] == [32] * len(KEYS)

    def test_a_shell_reads_the_same(self, place: Path) -> None:
        secrets = load_secrets(place / "secrets.env")
        script = f'. {place}/secrets.env; printf %s "$SERVICE_KEYS"'
        assert (
            subprocess.run(["/bin/sh", "-c", script], capture_output=True, check=True, text=True).stdout
            == (secrets["SERVICE_KEYS"])
        )

    def test_a_broken_file_is_named(self, place: Path) -> None:
        (place / "secrets.env").write_text("SECRET_KEY='")
        with pytest.raises(RunError, match=r"secrets\.env can't be read"):
            load_secrets(place / "secrets.env")


class TestEnvironments:
    def test_no_program_gets_a_secret_of_another(self, settings: Settings, place: Path) -> None:
        secrets = load_secrets(place / "secrets.env")
        inherited = {"DATABASE_URL": "postgresql://root:s3cret@db/postgres", "PATH": "/bin"}
        made = Environments(settings, secrets, inherited["DATABASE_URL"], inherited)
        passwords = role_passwords(secrets)
        for service in SERVICES:
            text = json.dumps(made.service(service))
            assert "s3cret" not in text
            assert [role for role, password in passwords.items() if password in text] == [f"storyloom_{service}"]
            assert (secrets["KEY_ENCRYPTION_KEY"] in text) == (service == "identity")
            assert (secrets["AUDIT_KEY_ENCRYPTION_KEY"] in text) == (service == "audit")
            assert (secrets["AUDIT_SIGNING_KEY"] in text) == (service == "audit")
            assert secrets["BACKUP_SIGNING_KEY"] not in text
            assert secrets["GATEWAY_SECRET"] in text
            assert sum(json.loads(secrets[f"SERVICE_CREDENTIAL_{one.upper()}"])["d"] in text for one in SERVICES) == 1
        tool = json.dumps(made.tool())
        assert not [value for value in passwords.values() if value in tool]
        assert secrets["SECRET_KEY"] not in tool
        assert secrets["GATEWAY_SECRET"] not in tool
        configuration = made.gateway_configuration()
        assert configuration == made.tool() | {"GATEWAY_SECRET": secrets["GATEWAY_SECRET"]}

    def test_no_program_gets_the_certificate_of_another(self, settings: Settings, place: Path) -> None:
        inherited = {"TLS_CERTIFICATE": "/tls.crt", "TLS_KEY": "/tls.key", "TLS_CA": "/ca.crt"}
        made = Environments(settings, load_secrets(place / "secrets.env"), "postgresql://x@/y", inherited)
        for environment in (made.gateway_configuration(), *map(made.service, SERVICES)):
            assert not inherited.keys() & environment.keys()

    def test_keys_of_the_environment_win(self, settings: Settings, place: Path) -> None:
        made = Environments(settings, load_secrets(place / "secrets.env"), "postgresql://x@/y", {"SECRET_KEY": "mine"})
        assert made.service("content")["SECRET_KEY"] == "mine"


class TestDatabaseUrl:
    @pytest.mark.parametrize(
        ("admin", "wanted"),
        [
            ("postgresql://postgres@/postgres?host=/tmp/x", "postgresql://r:p@/storyloom?host=/tmp/x"),
            ("postgresql://a:b@db:5432/postgres", "postgresql://r:p@db:5432/storyloom"),
            ("postgresql://db/x?sslmode=require&user=a&password=b", "postgresql://r:p@db/storyloom?sslmode=require"),
        ],
    )
    def test_keeps_the_place_and_changes_who(self, admin: str, wanted: str) -> None:
        assert database_url(admin, "r", "p") == wanted
