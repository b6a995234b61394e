"""`python -m services.identity`: the identity service."""

from kit.server import Service, run
from kit.settings import Settings, decoded_key
from services.callers import may_call
from services.identity import policies
from services.identity.access import AccessService, own_trust
from services.identity.passwords import Passwords
from services.identity.revisions import RevisionFeed
from services.identity.roles import RoleService
from services.identity.seeding import PlatformSettings, seed_platform
from services.identity.sessions import SessionService
from services.identity.signing import Keyring
from services.identity.tenants import TenantService
from services.identity.throttling import Throttle
from services.identity.users import UserService
from storyloom.identity.v1.events_pb2 import TenantChanged


class Identity(Service):
    """A service that makes its keys and the platform's own tenant before it serves the first call."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings, rules=policies.RULES, publishes={TenantChanged: ("content",)}, callers=may_call)
        self.platform = PlatformSettings.from_environment()
        self.passwords = Passwords()
        self.keyring = Keyring(
            self.db,
            encryption_key=decoded_key("KEY_ENCRYPTION_KEY", settings.key_encryption_key),
            issuer=settings.token_issuer,
            audience=settings.token_audience,
        )

    async def start(self) -> None:
        await self.db.check_role()
        await self.keyring.load()
        await seed_platform(self.db, self.passwords, self.platform)
        await super().start()


def build(settings: Settings) -> Service:
    service = Identity(settings)
    db, passwords, keyring = service.db, service.passwords, service.keyring
    throttle, feed = Throttle(settings.secret), RevisionFeed(db)
    service.trust(own_trust(db, keyring, feed))
    service.add(
        SessionService(db, keyring, passwords, throttle),
        UserService(db, passwords, throttle),
        TenantService(db, passwords),
        RoleService(db),
        AccessService(db, feed),
    )
    service.run_in_background(feed.run)
    service.run_in_background(keyring.rotate)
    return service


if __name__ == "__main__":
    run("identity", build)
