"""What `python -m deploy.admin tenants export` and `import` do once the operator may."""

import asyncio
import hashlib
import os
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg

from deploy.local.errors import RunError
from deploy.local.settings import read_settings
from deploy.tenants.exporting import export
from deploy.tenants.importing import bring_in
from deploy.tenants.installation import Installation, installation
from deploy.tenants.manifest import Manifest
from deploy.tenants.origin import as_text, check_served
from kit.settings import SettingsError


def export_tenant(tenant_id: UUID, out: Path, recipient: str, operator_id: str) -> dict[str, Any]:
    """Writes the file. Its key is for whoever gets it and does not know this installation, by another way."""
    here = _here()
    manifest = _run(export(here, tenant_id, out, recipient=recipient, operator_id=operator_id))
    with out.open("rb") as written:
        digest = hashlib.file_digest(written, "sha256").hexdigest()
    told = {"file": str(out), "octets": out.stat().st_size, "sha256": digest}
    return _row(manifest) | told | {"key": as_text(here.signer.keys.public[0])}


def import_tenant(
    file: Path, identity: Path | None, slug: str, operator_id: str, *, replaces: bool, verifier_keys: Sequence[str]
) -> dict[str, Any]:
    """Brings the file in. The keys are those that the audit service verifies logs with."""
    here = _here()
    check_served(here.signer.keys, verifier_keys)
    manifest = _run(
        bring_in(here, file, identity=identity, slug=slug, operator_id=operator_id, replaces=replaces)
    )
    return _row(manifest) | ({"slug": slug} if slug else {})


def _here() -> Installation:
    try:
        return installation(read_settings(os.environ), os.environ)
    except SettingsError as error:
        raise RunError(f"{error}.") from None


def _run(work: Coroutine[Any, Any, Manifest]) -> Manifest:
    try:
        return asyncio.run(work)
    except asyncpg.PostgresError as error:
        # Of rows it would tell what is in them.
        raise RunError(f"The database refused: {type(error).__name__}.") from None


def _row(manifest: Manifest) -> dict[str, Any]:
    return {
        "id": str(manifest.tenant_id),
        "slug": manifest.slug,
        "snapshot_time": f"{manifest.snapshot_time:%Y-%m-%d %H:%M:%S} UTC",
        "rows": sum(manifest.rows.values()),
        "files": manifest.files,
    }
