"""Where the local stack keeps its files and which addresses it uses, read from the environment."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from kit.settings import PORTS, SERVICES

from .errors import RunError

ROOT = Path(__file__).resolve().parents[2]
# How far the second process's port is above the first's.
NEXT_PROCESS = 100
MOST_REPLICAS = 2


class UnixAddress(NamedTuple):
    """The address of a Unix socket, written `unix:/path`."""

    path: Path

    def __str__(self) -> str:
        return f"unix:{self.path}"


class Address(NamedTuple):
    """A TCP address, written `host:port`."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Settings:
    """What `run` was asked for."""

    root: Path
    directory: Path
    services: Mapping[str, tuple[Address, ...]]
    gateway: Address
    gateway_admin: Address | UnixAddress
    traces: Address
    metrics: Address | None
    otlp_endpoint: str | None
    database_url: str | None
    load_demo: bool
    gateway_drain: int

    @property
    def logs(self) -> Path:
        return self.directory / "logs"

    @property
    def trace_file(self) -> Path:
        return self.directory / "traces.db"

    @property
    def migrated_file(self) -> Path:
        """The mark of a database that needs no migration."""
        return self.directory / "migrated"

    @property
    def state_file(self) -> Path:
        return self.directory / "state.json"

    @property
    def socket_directory(self) -> Path:
        """Short, because the path of a Unix socket may have some 100 bytes; one for each checkout."""
        return short_directory(self.directory)

    @property
    def admin_directory(self) -> Path:
        """Of Envoy's administration and the runner's own: PostgreSQL's directory may belong to another user."""
        return short_directory(self.directory, "-gateway")

    @property
    def control_socket(self) -> Path:
        """Where the runner takes orders."""
        return self.admin_directory / "runner.sock"

    @property
    def admin_url(self) -> str:
        """Of the embedded PostgreSQL's administrator, who is known by the OS user and has no password."""
        return f"postgresql://postgres@/postgres?host={self.socket_directory}"

    @property
    def gateway_url(self) -> str:
        return f"http://{self.gateway}"


def read_settings(environ: Mapping[str, str], root: Path = ROOT) -> Settings:
    """The settings of the environment; `RunError` names a variable that can't be understood."""
    directory = root / (environ.get("RUN_DIRECTORY") or ".run")
    replicas = read_number(environ, "REPLICAS", 1, MOST_REPLICAS)
    return Settings(
        root=root,
        directory=directory,
        services={name: read_addresses(environ, f"{name.upper()}_ADDRESS", PORTS[name], replicas) for name in SERVICES},
        gateway=read_address(environ, "GATEWAY_ADDRESS", 8080),
        gateway_admin=read_admin_address(environ, short_directory(directory, "-gateway") / "admin.sock"),
        traces=read_address(environ, "TRACE_ADDRESS", 4317),
        metrics=read_address(environ, "METRICS_ADDRESS", 8889) if environ.get("METRICS_ADDRESS") else None,
        otlp_endpoint=environ.get("OTEL_EXPORTER_OTLP_ENDPOINT") or None,
        database_url=environ.get("DATABASE_URL") or None,
        load_demo=environ.get("LOAD_DEMO", "1") != "0",
        gateway_drain=read_number(environ, "GATEWAY_DRAIN", 35, 3600),
    )


def short_directory(directory: Path, suffix: str = "") -> Path:
    name = hashlib.sha256(str(directory).encode()).hexdigest()[:10]
    # Everyone may write there: whoever makes the directory checks its owner and mode.
    return Path("/tmp", f"storyloom-{name}{suffix}")  # noqa: S108


def read_admin_address(environ: Mapping[str, str], default: Path) -> Address | UnixAddress:
    """A Unix socket unless told otherwise: every user and every web page of the machine reaches a TCP port."""
    text = environ.get("GATEWAY_ADMIN_ADDRESS") or f"unix:{default}"
    if not text.startswith("unix:"):
        return read_address(environ, "GATEWAY_ADMIN_ADDRESS", 9901)
    path = Path(text.removeprefix("unix:"))
    if not path.is_absolute():
        raise RunError(f"GATEWAY_ADMIN_ADDRESS={text} is not an address: write it as unix:/path or host:port.")
    return UnixAddress(path)


def read_addresses(environ: Mapping[str, str], variable: str, port: int, replicas: int) -> tuple[Address, ...]:
    """Those of a service's processes: the given ones, else the usual ones of so many."""
    text = environ.get(variable) or ",".join(f"127.0.0.1:{port + NEXT_PROCESS * nth}" for nth in range(replicas))
    return tuple(_address(variable, one.strip(), port) for one in text.split(","))


def read_address(environ: Mapping[str, str], variable: str, port: int) -> Address:
    return _address(variable, environ.get(variable) or f"127.0.0.1:{port}", port)


def _address(variable: str, text: str, port: int) -> Address:
    host, _, number = text.rpartition(":")
    if not host or not number.isascii() or not number.isdigit() or not 0 < int(number) < 65536:
        raise RunError(f"{variable}={text} is not an address: write it as host:port, for example 127.0.0.1:{port}.")
    return Address(host, int(number))


def read_number(environ: Mapping[str, str], variable: str, default: int, most: int) -> int:
    text = environ.get(variable) or str(default)
    if not text.isascii() or not text.isdigit() or not 0 < int(text) <= most:
        raise RunError(f"{variable}={text} is not a whole number from 1 to {most}.")
    return int(text)
