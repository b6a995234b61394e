"""`python -m services.identity`: the identity service."""

from kit.decisions import Decided
from kit.server import Service, run
from kit.settings import SERVICES, Settings, decoded_key
from services.callers import may_call
from services.identity import policies
from services.identity.access import AccessService, own_trust
from services.identity.erasures import Eraser, ErasureService
from services.identity.invitations import InvitationService
from services.identity.models import Erasure, Invitation, Role, Tenant, User, UserPermission
from services.identity.parked_events import ParkedEventService
from services.identity.passwords import Passwords
from services.identity.policy_trials import PolicyTrialService
from services.identity.resource_policies import ResourcePolicyService, on_approval_decided
from services.identity.revisions import RevisionFeed
from services.identity.roles import RoleService
from services.identity.seeding import PlatformSettings, seed_platform
from services.identity.sessions import SessionService
from services.identity.signing import Keyring
from services.identity.signing_keys import SigningKeyService
from services.identity.subjects import HOLDINGS
from services.identity.tenants import TenantService
from services.identity.throttling import Devices, Throttle
from services.identity.user_imports import UserImportService
from services.identity.user_permissions import UserPermissionService
from services.identity.users import UserService
from storyloom.access.v1.decisions_pb2_grpc import DecisionServiceStub
from storyloom.audit.v1.events_pb2 import ApprovalDecided
from storyloom.identity.v1.events_pb2 import ResourcePolicyEdited, TenantChanged

PUBLISHES = {TenantChanged: ("content", "learning"), ResourcePolicyEdited: ("audit",)}


class Identity(Service):
    """A service that makes its keys and the platform's own tenant before it serves the first call."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings, rules=policies.RULES, publishes=PUBLISHES, callers=may_call)
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
    trust = own_trust(db, keyring, feed)
    service.trust(trust)
    subjects = service.holds(HOLDINGS)
    own = service.decides(*(Decided(model=one) for one in (Tenant, User, Role, Invitation, Erasure, UserPermission)))
    stubs = {name: service.clients.stub(DecisionServiceStub, name) for name in SERVICES if name != settings.service}
    deciders = {**stubs, settings.service: own}
    service.add(
        SessionService(db, keyring, passwords, throttle, Devices(settings.secret)),
        UserService(db, passwords, throttle),
        UserImportService(db, trust.snapshots),
        TenantService(db, passwords),
        RoleService(db),
        UserPermissionService(db),
        InvitationService(db, passwords, throttle),
        AccessService(db, feed, deciders),
        ResourcePolicyService(db),
        PolicyTrialService(db, deciders),
        ErasureService(db, service.clients, subjects),
        ParkedEventService(db, service.clients),
        SigningKeyService(db, keyring),
    )
    service.consume({ApprovalDecided: on_approval_decided})
    service.run_in_background(feed.run)
    service.run_in_background(keyring.rotate)
    service.run_in_background(Eraser(db, service.clients, subjects).run)
    return service


if __name__ == "__main__":
    run("identity", build)
