"""`python -m deploy.probe SERVICE`: 0 when the service in this container says SERVING, 1 when it does not.

Mutual TLS is why the platforms' own gRPC probes do not do: the probe shows the service's own certificate."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

import grpc

from kit.settings import SERVICES, SettingsError, TlsFiles

CHECK = "/grpc.health.v1.Health/Check"
SECONDS = 3.0
# HealthCheckResponse with field 1 at SERVING. In bytes, as a probe runs often: it imports no generated messages.
SERVING = b"\x08\x01"
WILDCARDS = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}  # noqa: S104


def target(listen: str) -> str:
    """Where a server that listens there is reached from beside it."""
    host, colon, port = listen.rpartition(":")
    return f"{WILDCARDS.get(host, host)}{colon}{port}"


def serving(service: str, environment: Mapping[str, str], seconds: float = SECONDS) -> bool:
    """Whether the service answers SERVING within the time; SettingsError for an environment without its address."""
    listen = environment.get("LISTEN_ADDRESS", "")
    if not listen or listen.endswith(":0"):
        raise SettingsError("LISTEN_ADDRESS is not set, or leaves the port to chance")
    name = f"storyloom.{service}".encode()
    with _channel(service, target(listen), environment) as channel:
        check = channel.unary_unary(CHECK)
        try:
            return bool(check(b"\x0a" + bytes([len(name)]) + name, timeout=seconds) == SERVING)
        except grpc.RpcError:
            return False


def _channel(service: str, address: str, environment: Mapping[str, str]) -> grpc.Channel:
    read = environment.get
    files = TlsFiles.of(read("TLS_CERTIFICATE", ""), read("TLS_KEY", ""), read("TLS_CA", ""))
    options = [("grpc.enable_http_proxy", 0)]
    if files is None:
        return grpc.insecure_channel(address, options)
    ca, key, certificate = (_content(one) for one in (files.ca, files.key, files.certificate))
    credentials = grpc.ssl_channel_credentials(ca, key, certificate)
    # The certificate names the service, wherever it runs.
    return grpc.secure_channel(address, credentials, [*options, ("grpc.ssl_target_name_override", service)])


def _content(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise SettingsError(f"{file} can't be read: {error.strerror}") from None


def main() -> int:
    if len(sys.argv) != 2 or sys.argv[1] not in SERVICES:
        print(f"usage: python -m deploy.probe {{{','.join(SERVICES)}}}", file=sys.stderr)
        return 2
    try:
        found = serving(sys.argv[1], os.environ)
    except SettingsError as error:
        print(f"probe: {error}", file=sys.stderr)
        return 2
    return 0 if found else 1


if __name__ == "__main__":
    sys.exit(main())
