"""Who made an archive: told by a key that signs audit logs, and believed when this installation knows it."""

import base64
import json
from collections.abc import Sequence
from contextlib import suppress

from deploy.local.errors import RunError
from kit.signing import Keyring
from services.audit.signing import ED25519

PURPOSE = "storyloom tenant archive v1"
# What is signed is the line that `sha256sum SHA256SUMS` prints.
SIGNED = "{}  SHA256SUMS\n"


def signature(keys: Keyring, digest: str) -> str:
    """The line that signs an archive, whose list of digests has this one: the public key, and what it signed."""
    return f"{as_text(keys.public[0])} {as_text(keys.sign(PURPOSE, SIGNED.format(digest).encode()))}\n"


def check_origin(keys: Keyring, digest: str, line: bytes) -> str:
    """That the line signs an archive, whose list of digests has this one, with a key that is known; that key."""
    try:
        key, signed = (base64.b64decode(one, b"-_", validate=True) for one in line.removesuffix(b"\n").split(b" "))
        fits = Keyring(None, [key]).signed(PURPOSE, SIGNED.format(digest).encode(), signed)
    except ValueError:
        fits = False
    if not fits:
        raise RunError("The archive was changed: its signature is not of what is in it.")
    if key not in keys.public:
        raise unknown("The archive is", [as_text(key)])
    return as_text(key)


def check_served(keys: Keyring, verifier_keys: Sequence[str]) -> None:
    """That the audit service, whose verifier keys these are, knows what this command does: a log that a stranger signed
    would be to it one that was changed."""
    if missing := {as_text(one) for one in keys.public} - set(public_of(verifier_keys)):
        raise RunError(
            f"The audit service runs without {', '.join(sorted(missing))}: begin it with the AUDIT_SIGNING_KEY and the"
            " AUDIT_EARLIER_KEYS that this command has, and try again."
        )


def unknown(what: str, keys: Sequence[str]) -> RunError:
    """What to do about something that is signed with a key that is not known."""
    return RunError(
        f"{what} signed with a key that this installation does not know. If the archive is from whom you think, add to"
        f" AUDIT_EARLIER_KEYS {json.dumps(keys)}, restart the audit service, and try again."
    )


def public_of(verifier_keys: Sequence[str]) -> list[str]:
    """The public keys of these verifier keys, as that setting takes them. They are whatever the archive says."""
    found = []
    for one in verifier_keys:
        with suppress(ValueError):
            # Name, id and key: the last of them may have the sign that parts them.
            _, _, key = one.split("+", 2)
            found.append(as_text(base64.b64decode(key, validate=True).removeprefix(ED25519)))
    return found


def as_text(octets: bytes) -> str:
    """As settings have keys."""
    return base64.urlsafe_b64encode(octets).decode()
