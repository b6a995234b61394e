"""Mutual TLS between the platform's processes: the files, read again when they change, and who is at the other end.

A certificate's DNS name is the name of its service; Python's gRPC verifies no other kind of name when it dials."""

import logging
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization

from kit.settings import Settings, SettingsError, TlsFiles

log = logging.getLogger(__name__)

Option = tuple[str, Any]
Stamp = tuple[tuple[int, int, int] | None, ...]

LOOK_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Material:
    """What the three files hold, fit to be used."""

    certificate: bytes
    key: bytes = field(repr=False)
    ca: bytes
    expires: datetime


def read_material(name: str, files: TlsFiles) -> Material:
    """The files' content; SettingsError says which of them cannot serve the process of this name, and why."""
    certificate = _read("TLS_CERTIFICATE", files.certificate)
    key, ca = _read("TLS_KEY", files.key), _read("TLS_CA", files.ca)
    chain = _certificates("TLS_CERTIFICATE", files.certificate, certificate)
    own, roots = chain[0], _certificates("TLS_CA", files.ca, ca)
    if _public_key(files.key, key) != own.public_key():
        raise SettingsError(f"TLS_KEY is not the key of TLS_CERTIFICATE: {files.key}")
    if name not in _dns_names(own):
        raise SettingsError(f"TLS_CERTIFICATE does not have the DNS name {name}: {files.certificate}")
    if not own.not_valid_before_utc <= datetime.now(UTC) < own.not_valid_after_utc:
        lifetime = f"{own.not_valid_before_utc:%F %T} to {own.not_valid_after_utc:%F %T} UTC"
        raise SettingsError(f"TLS_CERTIFICATE is not valid now, only from {lifetime}: {files.certificate}")
    if not any(_issued_by(chain[-1], root) for root in roots):
        raise SettingsError(f"TLS_CERTIFICATE is of no CA in TLS_CA: {files.certificate}")
    return Material(certificate, key, ca, own.not_valid_after_utc)


class Tls:
    """A process's own certificate and the CAs it trusts, renewed with their files. gRPC's threads use it too."""

    def __init__(self, name: str, files: TlsFiles) -> None:
        self._name, self._files = name, files
        self._seen = _stamp(files)
        self._material = read_material(name, files)
        self._looked = time.monotonic()
        self._lock = threading.Lock()

    @classmethod
    def of(cls, settings: Settings) -> "Tls | None":
        """The service's own, or None for plaintext; SettingsError for files that cannot be used."""
        return cls(settings.service, settings.tls_files) if settings.tls_files else None

    def material(self) -> Material:
        """The newest that can be used, the same object until there is a newer one."""
        with self._lock:
            if time.monotonic() - self._looked >= LOOK_SECONDS:
                self._look()
                self._looked = time.monotonic()
            return self._material

    def _look(self) -> None:
        # The stamp is older than what is read, so a change in between is read once more.
        stamp = _stamp(self._files)
        if stamp == self._seen:
            return
        self._seen = stamp
        try:
            self._material = read_material(self._name, self._files)
        except SettingsError as error:
            # Perhaps the half of a renewal: what it has goes on serving.
            log.warning("new TLS files cannot be used", extra={"error": str(error)})
        else:
            log.info("new TLS files", extra={"expires": self._material.expires.isoformat()})

    def server_credentials(self) -> grpc.ServerCredentials:
        """Credentials of a port that asks for the newest certificate at every connection, and wants the client's."""
        given = self.material()

        def newer() -> grpc.ServerCertificateConfiguration | None:
            nonlocal given
            newest = self.material()
            if newest is given:
                return None
            given = newest
            return _configuration(newest)

        return grpc.dynamic_ssl_server_credentials(_configuration(given), newer, require_client_authentication=True)


def open_port(server: grpc.aio.Server, address: str, tls: Tls | None) -> int:
    """Opens the port, for none but the platform's processes when there is TLS; returns its number."""
    if tls is None:
        return int(server.add_insecure_port(address))
    return int(server.add_secure_port(address, tls.server_credentials()))


def channel_to(name: str, address: str, material: Material | None, options: Sequence[Option]) -> grpc.aio.Channel:
    """A channel to the process of this name: whatever its address, its certificate must have the name."""
    if material is None:
        return grpc.aio.insecure_channel(address, options=options)
    credentials = grpc.ssl_channel_credentials(material.ca, material.key, material.certificate)
    return grpc.aio.secure_channel(address, credentials, options=(*options, ("grpc.default_authority", name)))


def speaks_for(context: Any, service: str) -> bool:
    """Whether the certificate at the other end of an RPC's connection has the service's name."""
    return service.encode() in context.auth_context().get("peer_dns", ())


def _configuration(material: Material) -> grpc.ServerCertificateConfiguration:
    pair = (material.key, material.certificate)
    return grpc.ssl_server_certificate_configuration([pair], root_certificates=material.ca)


def _stamp(files: TlsFiles) -> Stamp:
    """Changes when a file does, also when it is replaced through a symbolic link or goes away."""

    def of(path: Path) -> tuple[int, int, int] | None:
        try:
            found = path.stat()
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns, found.st_size

    return of(files.certificate), of(files.key), of(files.ca)


def _read(variable: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise SettingsError(f"{variable} cannot be read ({error.strerror}): {path}") from error


def _certificates(variable: str, path: Path, pem: bytes) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError as error:
        raise SettingsError(f"{variable} has no certificate in PEM: {path}") from error


def _public_key(path: Path, pem: bytes) -> Any:
    try:
        return serialization.load_pem_private_key(pem, None).public_key()
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise SettingsError(f"TLS_KEY has no private key in PEM that is not encrypted: {path}") from error


def _dns_names(certificate: x509.Certificate) -> list[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return names.get_values_for_type(x509.DNSName)


def _issued_by(certificate: x509.Certificate, root: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(root)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True
