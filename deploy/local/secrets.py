"""The secrets of one local stack: made at the first run, kept in .run/secrets.env, the same ever after."""

import base64
import json
import os
import secrets
import shlex
from pathlib import Path

from kit.settings import SERVICES

from .errors import RunError

# Whose passwords there are: `storyloom_owner` and so on.
OF_DATABASE = ("owner", "backup", "replication", *SERVICES)


def load_secrets(file: Path) -> dict[str, str]:
    """The secrets in `file`; those it lacks are made and added, none is ever changed."""
    found = read_secrets(file)
    made = {name: value for name, value in _make(found).items() if name not in found}
    if made:
        lines = (f"{name}={shlex.quote(value)}\n" for name, value in (found | made).items())
        write_private(file, "".join(lines).encode())
    return found | made


def role_passwords(values: dict[str, str]) -> dict[str, str]:
    """The password of each database role, by role name."""
    return {f"storyloom_{name}": values[f"PASSWORD_{name.upper()}"] for name in OF_DATABASE}


def read_secrets(file: Path) -> dict[str, str]:
    """What the file holds; nothing when there is none yet."""
    try:
        text = file.read_text()
    except FileNotFoundError:
        return {}
    try:
        return dict(line.split("=", 1) for line in shlex.split(text, comments=True))
    except ValueError:
        raise RunError(f"{file} can't be read as NAME='value': repair it, or remove it to get new ones.") from None


def write_private(file: Path, data: bytes) -> None:
    """Puts it in place whole, and created with its final mode: at no moment can another user open it."""
    scratch = file.with_name(f"{file.name}.new")
    scratch.unlink(missing_ok=True)
    with os.fdopen(os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
        out.write(data)
    scratch.replace(file)


def _make(found: dict[str, str]) -> dict[str, str]:
    values = {
        "SECRET_KEY": secrets.token_urlsafe(32),
        "KEY_ENCRYPTION_KEY": secrets.token_urlsafe(32),
        "AUDIT_KEY_ENCRYPTION_KEY": secrets.token_urlsafe(32),
        "AUDIT_SIGNING_KEY": secrets.token_urlsafe(32),
        "BACKUP_SIGNING_KEY": secrets.token_urlsafe(32),
        "GATEWAY_SECRET": secrets.token_urlsafe(32),
        "DEMO_PASSWORD": f"weave-{secrets.token_hex(4)}",
        "PLATFORM_ADMIN_PASSWORD": secrets.token_urlsafe(18),
    }
    values |= {f"PASSWORD_{name.upper()}": secrets.token_hex(24) for name in OF_DATABASE}
    if not all(_credential(name) in found for name in SERVICES):
        # All five anew: SERVICE_KEYS must hold the public half of each.
        for name in (*map(_credential, SERVICES), "SERVICE_KEYS"):
            found.pop(name, None)
        values |= _service_keys()
    return values


def _credential(service: str) -> str:
    return f"SERVICE_CREDENTIAL_{service.upper()}"


def _service_keys() -> dict[str, str]:
    # Imported here: only a first run needs it, and it is the heaviest import of the runner.
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    values: dict[str, str] = {}
    public_keys = []
    for service in SERVICES:
        key = Ed25519PrivateKey.generate()
        public = {"kty": "OKP", "crv": "Ed25519", "kid": service, "x": _base64url(key.public_key().public_bytes_raw())}
        public_keys.append(public)
        values[_credential(service)] = json.dumps(public | {"d": _base64url(key.private_bytes_raw())})
    return values | {"SERVICE_KEYS": json.dumps({"keys": public_keys})}


def _base64url(octets: bytes) -> str:
    return base64.urlsafe_b64encode(octets).rstrip(b"=").decode()
