"""SigningKeyService: when the keys of access tokens change, for those who run the platform."""

from typing import Any

from kit import audit
from kit.access import denied
from kit.auth import current
from kit.db import Database
from kit.ids import SYSTEM_TENANT
from kit.models import now
from services.identity import rules
from services.identity.models import SigningKey
from services.identity.signing import Keyring
from storyloom.identity.v1 import signing_keys_pb2


class SigningKeyService:
    SERVICE = signing_keys_pb2.DESCRIPTOR.services_by_name["SigningKeyService"]

    def __init__(self, db: Database, keyring: Keyring) -> None:
        self.db, self.keyring = db, keyring

    async def RotateSigningKey(
        self, request: signing_keys_pb2.RotateSigningKeyRequest, context: Any
    ) -> signing_keys_pb2.SigningKey:
        # Tenants' administrators hold `all:manage`, but within their tenant only.
        if current().home_tenant_id != SYSTEM_TENANT:
            raise denied("tenant", "operate")
        async with self.db.write(SYSTEM_TENANT) as session:
            key = await self.keyring.publish_successor(session, now())
            audit.write(session, "rotate", "signing_key", key.id, new={"created_at": key.created_at})
            return signing_key_to_proto(key)


def signing_key_to_proto(key: SigningKey) -> signing_keys_pb2.SigningKey:
    message = signing_keys_pb2.SigningKey(id=str(key.id))
    message.create_time.FromDatetime(key.created_at)
    message.sign_time.FromDatetime(key.created_at + rules.PUBLISHED_BEFORE_USE)
    return message
