"""What the environment decides, read once at start-up into a frozen dataclass."""

import base64
import ipaddress
import os
import socket
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any, Self

SERVICES = ("identity", "content", "learning", "assessment", "audit")
# Below 32768, where Linux begins to hand out ports to outgoing connections.
PORTS = {name: 7101 + nth for nth, name in enumerate(SERVICES)}
# What services believe of a call: the gateway takes these from what clients send, and says them itself.
TRUSTED_HEADERS = ("x-tenant-id", "x-user-id", "x-gateway-secret", "x-envoy-external-address")
# What may be between a service and its database.
POOLERS = ("", "transaction")


class SettingsError(ValueError):
    """A setting is missing or cannot be read; the message names it and says what it takes."""


def setting(doc: str, default: Any = MISSING) -> Any:
    """A field read from the environment variable of the same name in capitals; without default it is required."""
    return field(metadata={"doc": doc}) if default is MISSING else field(default=default, metadata={"doc": doc})


def address(service: str) -> Any:
    """The setting that says where another service is; on this machine, unless told otherwise."""
    return setting(f"Address of the {service} service, or several with commas.", f"127.0.0.1:{PORTS[service]}")


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """The PEM files of mutual TLS: a process's own certificate and key, and the CAs it trusts."""

    certificate: Path
    key: Path
    ca: Path

    @classmethod
    def of(cls, certificate: str, key: str, ca: str) -> Self | None:
        """None without TLS; SettingsError for some of the three without the others."""
        given = {"TLS_CERTIFICATE": certificate, "TLS_KEY": key, "TLS_CA": ca}
        missing = [name for name, path in given.items() if not path]
        if len(missing) == len(given):
            return None
        if missing:
            raise SettingsError(f"{missing[0]} is not set: TLS_CERTIFICATE, TLS_KEY and TLS_CA are set together or not")
        return cls(*map(Path, given.values()))


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The settings of one service. Durations are seconds."""

    service: str
    database_url: str = setting("PostgreSQL URL of the service's own role.")
    database_pooler: str = setting("`transaction`: DATABASE_URL is of a pooler in that mode, as PgBouncer.", "")
    secret_key: str = setting("32 random bytes, base64url: seals tokens. The same for all processes of a service.")
    service_credential: str = setting("The service's own Ed25519 key as a private JWK.")
    service_keys: str = setting("JWK set of the public keys of all services.")
    key_encryption_key: str = setting("identity only: 32 random bytes, base64url, that encrypt the signing keys.", "")
    audit_key_encryption_key: str = setting("audit only: 32 random bytes, base64url, that encrypt subjects' keys.", "")
    audit_signing_key: str = setting("audit only: the Ed25519 key that signs checkpoints, 32 bytes, base64url.", "")
    audit_earlier_keys: str = setting("audit only: JSON array of the public keys that signed before it.", "")
    audit_checkpoint_seconds: float = setting("audit only: time from an entry to its checkpoint, at most 60.", 30.0)
    audit_checkpoint_directory: str = setting("audit only: where checkpoints are published; empty for nowhere.", "")
    audit_retention_months: int = setting("audit only: whole months that the log is kept, 3 or more; 0 for ever.", 0)
    storage_directory: str = setting("content only: folder of recordings, unless a bucket has them.", ".run/storage")
    storage_bucket: str = setting("content only: S3 bucket of the recordings; empty for the folder.", "")
    storage_endpoint: str = setting("content only: URL of an S3-compatible server; empty for Amazon's.", "")
    storage_region: str = setting("content only: region of the bucket.", "us-east-1")
    storage_access_key_id: str = setting("content only: key of the bucket; empty for what AWS's own variables say.", "")
    storage_secret_access_key: str = setting("content only: secret of that key.", "")
    storage_link_seconds: int = setting("content only: how long a signed link works, 10 to 3600.", 600)
    audio_largest_bytes: int = setting("content only: size of the largest recording that is taken.", 50_000_000)
    gateway_secret: str = setting("What the gateway proves itself with; empty: nobody's word on addresses counts.", "")
    listen_address: str = setting("Address the gRPC server listens on, host:port or unix:path.", "127.0.0.1:0")
    identity_address: str = address("identity")
    content_address: str = address("content")
    learning_address: str = address("learning")
    assessment_address: str = address("assessment")
    audit_address: str = address("audit")
    tls_certificate: str = setting("PEM file of the service's certificate, which names it; empty for no TLS.", "")
    tls_key: str = setting("PEM file of the certificate's private key.", "")
    tls_ca: str = setting("PEM file of the CAs whose certificates are trusted.", "")
    token_issuer: str = setting("Issuer of access tokens.", "https://storyloom.example")
    token_audience: str = setting("Audience of access tokens.", "storyloom")
    pool_size: int = setting("Database connections a process may hold; all but three of them for users' calls.", 8)
    queue_timeout: float = setting("How long a call may wait for its turn before it is refused.", 0.5)
    default_deadline: float = setting("Time a call gets when the client sends no deadline.", 10.0)
    snapshot_max_stale: float = setting("How long access snapshots serve while identity is down.", 300.0)
    drain_delay: float = setting("Time between NOT_SERVING and the end of new calls, for load balancers to see.", 0.0)
    drain_grace: float = setting("Time that running calls get to end at shut-down.", 10.0)
    log_level: str = setting("DEBUG, INFO, WARNING or ERROR.", "INFO")
    otel_exporter_otlp_endpoint: str = setting("OTLP gRPC collector of traces and metrics; empty for none.", "")
    otel_metrics_exporter: str = setting("`otlp`, or `none` to keep metrics at home.", "otlp")
    trace_sample_percent: float = setting("Share of calls that are traced when no caller has decided.", 100.0)
    reflection: int = setting("1: the server tells anyone who asks which RPCs there are.", 0)
    instance: str = setting("Name of this process in telemetry.", socket.gethostname())

    def __post_init__(self) -> None:
        """Refuses a pooler that is not known, more than all traces; and plaintext beyond this machine: what services
        say to each other is everybody's data."""
        if self.database_pooler not in POOLERS:
            raise SettingsError(f"DATABASE_POOLER is {self.database_pooler!r}, neither empty nor transaction")
        if not 0 <= self.trace_sample_percent <= 100:
            raise SettingsError(f"TRACE_SAMPLE_PERCENT is {self.trace_sample_percent}, not within 0 and 100")
        if self.tls_files is not None:
            return
        for one in fields(self):
            address = getattr(self, one.name)
            if one.name.endswith("_address") and address and not all(map(is_loopback, address.split(","))):
                raise plaintext_refused(one.name.upper(), address)

    @classmethod
    def from_environment(cls, service: str, environ: Mapping[str, str] = os.environ) -> Self:
        """Of the environment; raises SettingsError naming the first variable that is missing or wrong."""
        values: dict[str, Any] = {"service": service}
        for one in fields(cls):
            name = one.name.upper()
            if one.name == "service":
                continue
            if name in environ:
                values[one.name] = _parsed(name, environ[name], one.type)
            elif one.default is MISSING:
                raise SettingsError(f"{name} is not set: {one.metadata['doc']}")
        return cls(**values)

    def address_of(self, service: str) -> str:
        return str(getattr(self, f"{service}_address"))

    @property
    def tls_files(self) -> TlsFiles | None:
        return TlsFiles.of(self.tls_certificate, self.tls_key, self.tls_ca)

    @property
    def secret(self) -> bytes:
        return decoded_key("SECRET_KEY", self.secret_key)


def is_loopback(address: str) -> bool:
    """Whether host:port or unix:path never leaves this machine; no for whatever else gRPC may take for an address."""
    if address.startswith("unix:"):
        return True
    host = address.rpartition(":")[0]
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        # Without brackets the port may be the address's last part.
        return False
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def target_of(addresses: str) -> str:
    """What gRPC takes for one address, or for several with commas; a host's name stands for all that it resolves to,
    so that several have to be IP addresses of one kind."""
    found = addresses.split(",")
    if len(found) == 1:
        return addresses
    try:
        kinds = {ipaddress.ip_address(one.rpartition(":")[0].strip("[]")).version for one in found}
    except ValueError:
        kinds = set()
    if len(kinds) != 1:
        raise SettingsError(f"{addresses}: several addresses of a service are all IPv4 or all IPv6, each with its port")
    return f"ipv{kinds.pop()}:{addresses}"


def plaintext_refused(name: str, address: str) -> SettingsError:
    """The refusal of an address for which there is no TLS."""
    return SettingsError(
        f"{name} is {address}: beyond this machine plaintext is refused, so set TLS_CERTIFICATE, TLS_KEY and TLS_CA"
    )


def decoded_key(name: str, text: str) -> bytes:
    """32 bytes of their base64url form."""
    try:
        key = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except ValueError as error:
        raise SettingsError(f"{name} is not base64url") from error
    if len(key) != 32:
        raise SettingsError(f"{name} has {len(key)} bytes instead of 32")
    return key


def _parsed(name: str, text: str, kind: Any) -> Any:
    try:
        return {"int": int, "float": float, int: int, float: float}.get(kind, str)(text)
    except ValueError as error:
        raise SettingsError(f"{name} is {text!r}, not a number") from error
