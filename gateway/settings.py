"""What the gateway's configuration depends on besides the protos: addresses, limits and trust."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from gateway.descriptors import CLUSTERS
from kit.settings import TlsFiles, is_loopback, plaintext_refused

Address = tuple[str, int]
Addresses = tuple[Address, ...]
FIRST_PORT = 7101


@dataclass(frozen=True)
class Settings:
    listen: Address
    admin: Address | Path
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
        tls = _tls(environment)
        return cls(
            listen=_address(environment, "GATEWAY_ADDRESS", "127.0.0.1:8080"),
            admin=_socket_or_address(environment, "GATEWAY_ADMIN_ADDRESS", "127.0.0.1:9901"),
            services={
                name: _addresses(environment, f"{name.upper()}_ADDRESS", f"127.0.0.1:{FIRST_PORT + nth}", tls)
                for nth, name in enumerate(CLUSTERS)
            },
            collector=_collector(environment.get("OTEL_EXPORTER_OTLP_ENDPOINT", "")),
            trace_percent=_percent(environment, "TRACE_SAMPLE_PERCENT", "100"),
            issuer=environment.get("TOKEN_ISSUER", "https://storyloom.example"),
            audience=environment.get("TOKEN_AUDIENCE", "storyloom"),
            cors_origins=tuple(filter(None, environment.get("CORS_ORIGINS", "http://localhost:[0-9]+").split(","))),
            per_tenant=_limit(environment, "RATE_LIMIT_PER_TENANT", "2000"),
            per_user=_limit(environment, "RATE_LIMIT_PER_USER", "500"),
            sign_ins_per_address=_limit(environment, "SIGN_IN_LIMIT_PER_ADDRESS", "100"),
            access_log=environment.get("ACCESS_LOG", "/dev/stdout"),
            tls=tls,
            secret=environment.get("GATEWAY_SECRET", ""),
        )


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


def _address(environment: Mapping[str, str], name: str, default: str) -> Address:
    return _split(name, environment.get(name, default))


def _socket_or_address(environment: Mapping[str, str], name: str, default: str) -> Address | Path:
    text = environment.get(name, default)
    if not text.startswith("unix:"):
        return _split(name, text)
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


def _limit(environment: Mapping[str, str], name: str, default: str) -> int:
    text = environment.get(name, default)
    if not text.isdigit() or int(text) < 1:
        raise ValueError(f"{name}: {text!r} is not a positive whole number")
    return int(text)
