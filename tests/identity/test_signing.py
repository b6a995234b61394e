"""The keys that sign access tokens."""

import asyncio
import base64
import json
import os
import time
from datetime import timedelta
from types import SimpleNamespace
from unittest.mock import AsyncMock
from uuid import uuid4

import asyncpg
import pytest

from kit.auth import TokenVerifier
from kit.db import Database
from kit.errors import Unauthenticated
from kit.models import now
from kit.settings import Settings, decoded_key
from kit.telemetry import Telemetry
from services.identity import rules
from services.identity.signing import Keyring

DAY = timedelta(days=1)


@pytest.fixture
async def keyrings(stack, cluster, monkeypatch):
    """Makes keyrings as several processes have them, on a table that the test has for itself."""
    for work in ("step", "load"):
        monkeypatch.setattr(stack.services["identity"].keyring, work, AsyncMock())
    settings = Settings.from_environment("identity", stack.environments["identity"])
    db = Database(settings.database_url, service="identity", pool_size=4, telemetry=Telemetry(settings))
    superuser = await asyncpg.connect(cluster.superuser_url)
    kept = await superuser.fetch("DELETE FROM identity.signing_keys RETURNING *")

    def make(encryption_key=b""):
        key = encryption_key or decoded_key("KEY_ENCRYPTION_KEY", settings.key_encryption_key)
        return Keyring(db, encryption_key=key, issuer=settings.token_issuer, audience=settings.token_audience)

    yield make
    await superuser.execute("DELETE FROM identity.signing_keys")
    columns = list(kept[0].keys())
    await superuser.copy_records_to_table("signing_keys", schema_name="identity", records=kept, columns=columns)
    await superuser.close()
    await db.close()


def kid_of(keyring):
    token, _ = keyring.access_token(tenant_id=uuid4(), user_id=uuid4(), session_id=uuid4(), roles=[])
    return json.loads(base64.urlsafe_b64decode(token.split(".")[0] + "=="))["kid"]


async def published(keyring):
    return [key["kid"] for key in (await keyring.jwks())["keys"]]


class TestKeyring:
    async def test_processes_that_start_together_share_one_first_key(self, keyrings):
        rings = [keyrings() for _ in range(4)]
        await asyncio.gather(*(ring.load() for ring in rings))
        assert len({kid_of(ring) for ring in rings}) == 1

    async def test_private_keys_are_sealed_in_the_database(self, keyrings, cluster):
        ring = keyrings()
        await ring.load()
        database = await asyncpg.connect(cluster.superuser_url)
        row = await database.fetchrow("SELECT * FROM identity.signing_keys")
        await database.close()
        # Nonce, key and authentication tag.
        assert len(row["sealed_private_key"]) == 12 + 32 + 16
        with pytest.raises(RuntimeError, match="KEY_ENCRYPTION_KEY"):
            await keyrings(os.urandom(32)).load()

    async def test_a_sealed_key_does_not_open_in_another_row(self, keyrings, cluster):
        await keyrings().load()
        database = await asyncpg.connect(cluster.superuser_url)
        await database.execute("UPDATE identity.signing_keys SET id = uuidv7()")
        await database.close()
        with pytest.raises(RuntimeError):
            await keyrings().load()

    async def test_keys_rotate_without_a_moment_in_which_a_token_is_unknown(self, keyrings):
        ring, verifier_ring = keyrings(), keyrings()
        await ring.load()
        first, start = kid_of(ring), now()

        async def at(elapsed):
            await ring.step(start + elapsed)
            await ring.load()
            return kid_of(ring), await published(ring)

        assert await at(29 * DAY) == (first, [first])
        signing, keys = await at(30 * DAY)
        assert (signing, len(keys)) == (first, 2)
        second = keys[1]
        assert await at(30 * DAY + timedelta(seconds=119)) == (first, [first, second])
        promoted = 30 * DAY + timedelta(seconds=120)
        assert await at(promoted) == (second, [first, second])
        assert await at(promoted + rules.RETIRED_BEFORE_REMOVAL) == (second, [first, second])
        gone = promoted + rules.RETIRED_BEFORE_REMOVAL + timedelta(seconds=1)
        assert await at(gone) == (second, [second])
        await verifier_ring.load()
        assert kid_of(verifier_ring) == second

    async def test_two_processes_rotate_once(self, keyrings):
        rings = [keyrings() for _ in range(3)]
        await asyncio.gather(*(ring.load() for ring in rings))
        await asyncio.gather(*(ring.step(now() + 31 * DAY) for ring in rings))
        await rings[0].load()
        assert len(await published(rings[0])) == 2

    async def test_a_token_of_another_key_is_refused(self, keyrings):
        ring = keyrings()
        await ring.load()
        token, _ = ring.access_token(tenant_id=uuid4(), user_id=uuid4(), session_id=uuid4(), roles=["admin"])

        async def foreign():
            return {"keys": []}

        trusting = TokenVerifier(ring.jwks, issuer="https://storyloom.example", audience="storyloom")
        await trusting.verify(token)
        with pytest.raises(Unauthenticated):
            await TokenVerifier(foreign, issuer="https://storyloom.example", audience="storyloom").verify(token)

    @pytest.mark.parametrize("phase", range(4))
    async def test_a_verifier_that_runs_meanwhile_refuses_no_token(self, keyrings, monkeypatch, phase):
        """Two processes sign, of which one reads the keys half a minute late; a service verifies, which asks for keys
        it does not know, and a cache that is two minutes old at most and never asks before."""
        ring, late = keyrings(), keyrings()
        await asyncio.gather(ring.load(), late.load())
        start, seconds = now() + 30 * DAY - timedelta(minutes=1), 0.0
        monkeypatch.setattr("kit.auth.time", SimpleNamespace(time=time.time, monotonic=lambda: seconds))
        verifier = TokenVerifier(ring.jwks, issuer="https://storyloom.example", audience="storyloom")
        issued, signers, cached = [], [], []
        # From a minute before a successor is published until the retired key has gone.
        for half_minute in range(42):
            seconds = 30.0 * half_minute
            await ring.step(start + timedelta(seconds=seconds))
            await ring.load()
            for one in (ring, late):
                token, _ = one.access_token(tenant_id=uuid4(), user_id=uuid4(), session_id=uuid4(), roles=[])
                issued.append((seconds, token, kid_of(one)))
                signers.append(kid_of(one))
            if not cached or half_minute % 4 == phase:
                cached = await published(ring)
            await late.load()
            verifier._remembered.clear()
            for issued_at, token, kid in issued:
                if seconds - issued_at < rules.ACCESS_TOKEN_LIFETIME.total_seconds():
                    await verifier.verify(token)
                    assert kid in cached
        assert len(set(signers)) == 2
        assert await published(ring) == [signers[-1]]
