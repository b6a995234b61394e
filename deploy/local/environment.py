"""What each started program finds in its environment; no more secrets than it needs."""

import os
import socket
from collections.abc import Mapping
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from .settings import Settings

# Taken out of what programs inherit: each gets its own value, or none.
PRIVATE = {
    "DATABASE_URL",
    "OWNER_DATABASE_URL",
    "BACKUP_DATABASE_URL",
    "REPLICATION_DATABASE_URL",
    "SECRET_KEY",
    "KEY_ENCRYPTION_KEY",
    "AUDIT_KEY_ENCRYPTION_KEY",
    "AUDIT_SIGNING_KEY",
    "BACKUP_SIGNING_KEY",
    "GATEWAY_SECRET",
    "STORAGE_ACCESS_KEY_ID",
    "STORAGE_SECRET_ACCESS_KEY",
    "SERVICE_CREDENTIAL",
    "DEMO_PASSWORD",
    "PLATFORM_ADMIN_EMAIL",
    "PLATFORM_ADMIN_PASSWORD",
    # Each process has a certificate of its own, and here all of them talk over loopback.
    "TLS_CERTIFICATE",
    "TLS_KEY",
    "TLS_CA",
    # As do the runner's own clients with the gateway.
    "GATEWAY_TLS_CERTIFICATE",
    "GATEWAY_TLS_KEY",
}
OF_STORAGE = ("STORAGE_ACCESS_KEY_ID", "STORAGE_SECRET_ACCESS_KEY")
PLATFORM_ADMIN = "admin@platform.example"
DRAIN_DELAY = "2.5"


def database_url(admin_url: str, role: str, password: str) -> str:
    """The URL of Storyloom's database for one role, on the server of the administrator's URL."""
    parts = urlsplit(admin_url)
    query = [(key, value) for key, value in parse_qsl(parts.query) if key not in ("user", "password", "dbname")]
    place = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, f"{role}:{password}@{place}", "/storyloom", urlencode(query, safe="/:"), ""))


class Environments:
    """The environment of every program of one stack, made from its settings and secrets."""

    def __init__(
        self, settings: Settings, secrets: Mapping[str, str], admin_url: str, inherited: Mapping[str, str] = os.environ
    ) -> None:
        self.settings, self.secrets, self.admin_url, self.inherited = settings, secrets, admin_url, inherited

    def tool(self) -> dict[str, str]:
        """What every program gets: addresses, shared keys, no password."""
        settings = self.settings
        environment = {name: value for name, value in self.inherited.items() if name not in PRIVATE}
        for name, addresses in settings.services.items():
            environment[f"{name.upper()}_ADDRESS"] = ",".join(map(str, addresses))
        environment |= {
            "PYTHONPATH": str(settings.root / "gen"),
            "GATEWAY_ADDRESS": str(settings.gateway),
            "GATEWAY_ADMIN_ADDRESS": str(settings.gateway_admin),
            "OTEL_EXPORTER_OTLP_ENDPOINT": settings.otlp_endpoint or f"http://{settings.traces}",
            "SERVICE_KEYS": self.secrets["SERVICE_KEYS"],
        }
        if settings.otlp_endpoint is None and settings.metrics is None:
            # The runner then keeps traces only; metrics sent to it would be refused again and again.
            environment["OTEL_METRICS_EXPORTER"] = "none"
        # What glibc keeps for later costs each service some ten megabytes: one arena for all threads, free memory given
        # back, and large blocks (Argon2 takes 19 MiB for a moment) never taken from the heap.
        environment.setdefault("MALLOC_ARENA_MAX", "1")
        environment.setdefault("MALLOC_TRIM_THRESHOLD_", "131072")
        environment.setdefault("MALLOC_MMAP_THRESHOLD_", "1048576")
        return environment

    def service(self, name: str, nth: int = 0) -> dict[str, str]:
        """Of one of the service's processes."""
        addresses = self.settings.services[name]
        environment = self.tool() | {
            "DATABASE_URL": self._url(name),
            "LISTEN_ADDRESS": str(addresses[nth]),
            "SECRET_KEY": self._chosen("SECRET_KEY"),
            "GATEWAY_SECRET": self._chosen("GATEWAY_SECRET"),
            "SERVICE_CREDENTIAL": self.secrets[f"SERVICE_CREDENTIAL_{name.upper()}"],
        }
        if len(addresses) > 1:
            # Each is seen by itself, and goes only when the gateway, which looks once a second, has stopped asking it.
            environment["INSTANCE"] = f"{self.inherited.get('INSTANCE') or socket.gethostname()}-{nth + 1}"
            environment.setdefault("DRAIN_DELAY", DRAIN_DELAY)
        if name == "identity":
            # Argon2's memory in huge pages: to map and clear ten of them takes a tenth of what 4,900 small ones take,
            # which is half as long again as Argon2 itself.
            environment.setdefault("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1")
            environment |= {"KEY_ENCRYPTION_KEY": self._chosen("KEY_ENCRYPTION_KEY")} | self._platform_admin()
        if name == "content":
            environment |= {one: self.inherited[one] for one in OF_STORAGE if one in self.inherited}
            environment.setdefault("STORAGE_DIRECTORY", str(self.settings.directory / "storage"))
        if name == "audit":
            environment |= {name: self._chosen(name) for name in ("AUDIT_KEY_ENCRYPTION_KEY", "AUDIT_SIGNING_KEY")}
            environment.setdefault("AUDIT_CHECKPOINT_DIRECTORY", str(self.settings.directory / "checkpoints"))
            # Who looks at the log of a local stack has just made it.
            environment.setdefault("AUDIT_CHECKPOINT_SECONDS", "5")
        return environment

    def gateway_configuration(self) -> dict[str, str]:
        """Of the program that writes it; Envoy itself finds the secret there."""
        return self.tool() | {"GATEWAY_SECRET": self._chosen("GATEWAY_SECRET")}

    def migrations(self) -> dict[str, str]:
        return self.tool() | {"OWNER_DATABASE_URL": self._url("owner")}

    def demo(self) -> dict[str, str]:
        """The loader uses the API alone, and signs in as the platform's administrator to make the schools."""
        return self.tool() | {"DEMO_PASSWORD": self._chosen("DEMO_PASSWORD")} | self._platform_admin()

    def _url(self, role: str) -> str:
        return database_url(self.admin_url, f"storyloom_{role}", self.secrets[f"PASSWORD_{role.upper()}"])

    def _platform_admin(self) -> dict[str, str]:
        """Whom identity makes at its first start."""
        email = self.inherited.get("PLATFORM_ADMIN_EMAIL") or PLATFORM_ADMIN
        return {"PLATFORM_ADMIN_EMAIL": email, "PLATFORM_ADMIN_PASSWORD": self._chosen("PLATFORM_ADMIN_PASSWORD")}

    def _chosen(self, name: str) -> str:
        """The user's own value, else the one made at the first run."""
        return self.inherited.get(name) or self.secrets[name]
