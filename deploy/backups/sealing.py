"""Encryption of backups, in the age format: anybody may encrypt to a recipient, only its identity opens."""

import shutil
from pathlib import Path
from typing import IO, Any

from deploy.local.errors import RunError

SUFFIX = ".age"


def seal(reader: IO[bytes], writer: Any, recipient: str) -> None:
    """Copies, encrypted to the recipient; as it is without one."""
    if not recipient:
        shutil.copyfileobj(reader, writer)
        return
    # Imported here: most of what runs from this package does without.
    import pyrage

    try:
        to = pyrage.x25519.Recipient.from_str(recipient)
    except pyrage.RecipientError:
        raise RunError(f"{recipient} is not an age recipient: one begins with `age1`.") from None
    pyrage.encrypt_io(reader, writer, [to])


def open_sealed(reader: IO[bytes], writer: Any, identity: Path | None) -> None:
    """Copies, decrypted with the identity file's keys. `RunError` without the right one, and for what was changed."""
    if identity is None:
        raise RunError("The backup is encrypted: name the file of the age identity in BACKUP_IDENTITY.")
    import pyrage

    try:
        lines = [line.strip() for line in identity.read_text().splitlines()]
        keys = [pyrage.x25519.Identity.from_str(line) for line in lines if line and not line.startswith("#")]
    except OSError as error:
        raise RunError(f"{identity} can't be read: {error.strerror}.") from None
    except pyrage.IdentityError:
        raise RunError(f"{identity} is not a file of age identities.") from None
    try:
        pyrage.decrypt_io(reader, writer, keys)
    except (pyrage.DecryptError, OSError) as error:
        # Whoever reads may have ended before: what it said is the better reason.
        if not isinstance(error, BrokenPipeError):
            raise RunError(f"The backup can't be decrypted: {error}.") from None
