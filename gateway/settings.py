"""What the gateway's configuration depends on besides the protos: addresses, limits and trust."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from kit.settings import PORTS, TlsFiles, is_loopback, plaintext_refused

Address = tuple[str, int]
Addresses = tuple[Address, ...]
# Of administration, unless told otherwise: within the folder that is written, in one for its owner alone.
OWN_SOCKET = Path("administration/socket")


@dataclass(frozen=True, slots=True)
class PublicTls:
    """The PEM files that clients are shown: the certificate with its chain, and its key."""

    certificate: Path
    key: Path


@dataclass(frozen=True)
class Settings:
    listen: Address
    public_tls: PublicTls | None
    trusted_proxies: int
    admin: Address | Path | None
    metrics: Address | None
    services: Mapping[str, Addresses]
    collector: Addresses
    trace_percent: float
    issuer: str
    audience: str
    cors_origins: tuple[str, ...]
    per_tenant: int
    per_user: int
    sign_ins_per_address: int
    access_log: str
    tls: TlsFiles | None
    secret: str = field(repr=False)

    @classmethod
    def read(cls, environment: Mapping[str, str]) -> "Settings":
        """Every variable has a working default; a value that cannot be meant raises ValueError naming the variable."""
        tls, public = _tls(environment), _public_tls(environment)
        proxies = _count(environment, "TRUSTED_PROXIES", "0", 0)
        return cls(
            listen=_listen(environment, encrypted=bool(public or proxies)),
            public_tls=public,
            trusted_proxies=proxies,
            admin=_admin("GATEWAY_ADMIN_ADDRESS", environment.get("GATEWAY_ADMIN_ADDRESS", "")),
            metrics=_metrics(environment.get("GATEWAY_METRICS_ADDRESS", "")),
            services={
                name: _addresses(environment, f"{name.upper()}_ADDRESS", f"127.0.0.1:{port}", tls)
                for name, port in PORTS.items()
            },
            collector=_collector(environment.get("OTEL_EXPORTER_OTLP_ENDPOINT", "")),
            trace_percent=_percent(environment, "TRACE_SAMPLE_PERCENT", "100"),
            issuer=environment.get("TOKEN_ISSUER", "https://storyloom.example"),
            audience=environment.get("TOKEN_AUDIENCE", "storyloom"),
            cors_origins=tuple(filter(None, environment.get("CORS_ORIGINS", "http://localhost:[0-9]+").split(","))),
            per_tenant=_count(environment, "RATE_LIMIT_PER_TENANT", "2000", 1),
            per_user=_count(environment, "RATE_LIMIT_PER_USER", "500", 1),
            sign_ins_per_address=_count(environment, "SIGN_IN_LIMIT_PER_ADDRESS", "100", 1),
            access_log=environment.get("ACCESS_LOG", "/dev/stdout"),
            tls=tls,
            secret=environment.get("GATEWAY_SECRET", ""),
        )

    def administration(self, files: Path) -> Address | Path:
        """Where administration listens; `files` is the folder that is written."""
        return self.admin or files / OWN_SOCKET


def _tls(environment: Mapping[str, str]) -> TlsFiles | None:
    read = environment.get
    files = TlsFiles.of(read("TLS_CERTIFICATE", ""), read("TLS_KEY", ""), read("TLS_CA", ""))
    # Absolute for Envoy, but through the symbolic links by which secrets are mounted: they are what a renewal changes.
    return files and TlsFiles(files.certificate.absolute(), files.key.absolute(), files.ca.absolute())


def _addresses(environment: Mapping[str, str], name: str, default: str, tls: TlsFiles | None) -> Addresses:
    addresses = [address.strip() for address in environment.get(name, default).split(",")]
    found = tuple(_split(name, address) for address in addresses)
    for address in addresses:
        if tls is None and not is_loopback(address):
            raise plaintext_refused(name, address)
    return found


def _public_tls(environment: Mapping[str, str]) -> PublicTls | None:
    certificate, key = environment.get("GATEWAY_TLS_CERTIFICATE", ""), environment.get("GATEWAY_TLS_KEY", "")
    if bool(certificate) is not bool(key):
        missing = "GATEWAY_TLS_KEY" if certificate else "GATEWAY_TLS_CERTIFICATE"
        raise ValueError(f"{missing} is not set: GATEWAY_TLS_CERTIFICATE and GATEWAY_TLS_KEY are set together or not")
    return PublicTls(Path(certificate).absolute(), Path(key).absolute()) if certificate else None


def _listen(environment: Mapping[str, str], *, encrypted: bool) -> Address:
    """Refuses plaintext from other machines: passwords and tokens come here."""
    text = environment.get("GATEWAY_ADDRESS", "127.0.0.1:8080")
    found = _split("GATEWAY_ADDRESS", text)
    if not encrypted and not is_loopback(text):
        raise ValueError(
            f"GATEWAY_ADDRESS is {text}: beyond this machine plaintext is refused, so set GATEWAY_TLS_CERTIFICATE and "
            "GATEWAY_TLS_KEY, or TRUSTED_PROXIES to the number of proxies before it, which end TLS"
        )
    return found


def _metrics(address: str) -> Address | None:
    return _split("GATEWAY_METRICS_ADDRESS", address) if address else None


def _admin(name: str, text: str) -> Address | Path | None:
    """Whoever reaches it may change the limits and stop the gateway: so nobody from another machine."""
    if not text:
        return None
    if not text.startswith("unix:"):
        found = _split(name, text)
        if not is_loopback(text):
            raise ValueError(
                f"{name} is {text}: administration is for this machine alone; GATEWAY_METRICS_ADDRESS is for Prometheus"
            )
        return found
    path = Path(text.removeprefix("unix:"))
    if not path.is_absolute():
        raise ValueError(f"{name}: {text!r} is not unix: and an absolute path")
    return path


def _split(name: str, address: str) -> Address:
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise ValueError(f"{name}: {address!r} is not host:port")
    return host.strip("[]"), int(port)


def _collector(endpoint: str) -> Addresses:
    if not endpoint:
        return ()
    parts = urlsplit(endpoint)
    if parts.scheme != "http" or not parts.hostname or not parts.port:
        raise ValueError(f"OTEL_EXPORTER_OTLP_ENDPOINT: {endpoint!r} is not http://host:port")
    return ((parts.hostname, parts.port),)


def _percent(environment: Mapping[str, str], name: str, default: str) -> float:
    text = environment.get(name, default)
    try:
        percent = float(text)
    except ValueError:
        percent = -1.0
    if not 0 <= percent <= 100:
        raise ValueError(f"{name}: {text!r} is not between 0 and 100")
    return percent


def _count(environment: Mapping[str, str], name: str, default: str, least: int) -> int:
    text = environment.get(name, default)
    if not text.isascii() or not text.isdigit() or int(text) < least:
        raise ValueError(f"{name}: {text!r} is not a whole number of {least} or more")
    return int(text)
