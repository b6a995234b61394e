"""What it takes to reach the rows, keys and recordings of an installation, read from the environment."""

from collections.abc import Mapping
from dataclasses import dataclass

from deploy.local.environment import Environments
from deploy.local.secrets import load_secrets
from deploy.local.settings import Settings as LocalSettings
from kit.settings import Settings, decoded_key
from services.audit.sealing import Wrapper
from services.audit.signing import Signer
from services.content.storage import Storage

OURS = ("OWNER_DATABASE_URL", "AUDIT_", "STORAGE_")


@dataclass(frozen=True, slots=True)
class Installation:
    """`owner_url` is of the role that owns all tables; `wrapper` has the key of the subjects' keys, `signer` those of
    checkpoints."""

    owner_url: str
    wrapper: Wrapper
    signer: Signer
    storage: Storage


def installation(local: LocalSettings, environ: Mapping[str, str]) -> Installation:
    """The one that the environment names by OWNER_DATABASE_URL and the services' variables, else that of this machine.
    """
    if "OWNER_DATABASE_URL" in environ:
        # What else a service cannot do without, nobody asks here.
        unused = dict.fromkeys(("DATABASE_URL", "SECRET_KEY", "SERVICE_CREDENTIAL", "SERVICE_KEYS"), "")
        found = unused | {name: value for name, value in environ.items() if name.startswith(OURS)}
    else:
        secrets = load_secrets(local.directory / "secrets.env")
        one = Environments(local, secrets, local.database_url or local.admin_url, environ)
        every = one.service("audit") | one.service("content") | one.migrations()
        found = {name: value for name, value in every.items() if not name.endswith("_ADDRESS")}
    settings = Settings.from_environment("content", found)
    return Installation(
        owner_url=found["OWNER_DATABASE_URL"],
        wrapper=Wrapper(decoded_key("AUDIT_KEY_ENCRYPTION_KEY", settings.audit_key_encryption_key)),
        signer=Signer.of(settings.audit_signing_key, settings.audit_earlier_keys),
        storage=Storage(settings),
    )
