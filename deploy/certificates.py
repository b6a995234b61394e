"""`python -m deploy.certificates FOLDER`: a CA and, for each process of the platform, a certificate of it.

For development, and where no other CA is at hand. Run again, it renews the certificates and keeps the CA."""

import argparse
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from deploy.local.secrets import write_private
from kit.settings import SERVICES

PROCESSES = (*SERVICES, "gateway")
CA_LIFETIME = timedelta(days=3650)
DAYS = 90
# Clocks differ.
EARLIER = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate and its key, both in PEM."""

    certificate: bytes
    key: bytes


class Authority:
    """A CA: whoever holds its key can be any service."""

    def __init__(self, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
        self._certificate, self._key = certificate, key

    @classmethod
    def new(cls) -> "Authority":
        key = ec.generate_private_key(ec.SECP256R1())
        name = _name("Storyloom CA")
        signing = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
        builder = _builder(name, key, datetime.now(UTC), CA_LIFETIME).issuer_name(name)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        return cls(builder.add_extension(signing, critical=True).sign(key, hashes.SHA256()), key)

    @classmethod
    def of(cls, pem: Issued) -> "Authority":
        key = serialization.load_pem_private_key(pem.key, None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        return cls(x509.load_pem_x509_certificate(pem.certificate), key)

    @property
    def pem(self) -> Issued:
        return _issued(self._certificate, self._key)

    def issue(self, *names: str, begin: datetime | None = None, lifetime: timedelta = timedelta(days=DAYS)) -> Issued:
        """A certificate for the process, or what else has these DNS names, as client and as server."""
        key = ec.generate_private_key(ec.SECP256R1())
        uses = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        builder = _builder(_name(names[0]), key, begin or datetime.now(UTC), lifetime)
        builder = builder.issuer_name(self._certificate.subject)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(one) for one in names]), False)
        builder = builder.add_extension(x509.ExtendedKeyUsage(uses), False).add_extension(issuer, False)
        return _issued(builder.sign(self._key, hashes.SHA256()), key)


def make(folder: Path, lifetime: timedelta = timedelta(days=DAYS)) -> None:
    """Fills FOLDER/ca with the CA, unless it is there, and FOLDER/<process> with what that process is to be given."""
    kept = folder / "ca"
    if not (kept / "tls.key").exists():
        _write(kept, Authority.new().pem)
    pem = Issued((kept / "tls.crt").read_bytes(), (kept / "tls.key").read_bytes())
    authority = Authority.of(pem)
    for process in PROCESSES:
        _write(folder / process, authority.issue(process, lifetime=lifetime), ca=pem.certificate)


def _builder(
    name: x509.Name, key: ec.EllipticCurvePrivateKey, begin: datetime, lifetime: timedelta
) -> x509.CertificateBuilder:
    builder = x509.CertificateBuilder().subject_name(name).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(begin - EARLIER).not_valid_after(begin + lifetime)
    return builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _issued(certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> Issued:
    form, plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    return Issued(
        certificate.public_bytes(serialization.Encoding.PEM), key.private_bytes(serialization.Encoding.PEM, form, plain)
    )


def _write(folder: Path, issued: Issued, ca: bytes = b"") -> None:
    """Each file is put in place whole, and the certificate last: a running process takes the pair, or what it had."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name, content in (("tls.key", issued.key), ("ca.crt", ca), ("tls.crt", issued.certificate)):
        if content:
            write_private(folder / name, content)


def main() -> None:
    arguments = argparse.ArgumentParser(prog="python -m deploy.certificates", description=__doc__)
    arguments.add_argument("folder", type=Path)
    arguments.add_argument("--days", type=int, default=DAYS, help="how long the certificates are valid")
    chosen = arguments.parse_args()
    make(chosen.folder, timedelta(days=chosen.days))
    print(f"{chosen.folder}: {', '.join(PROCESSES)}; keep {chosen.folder}/ca/tls.key away from all of them")


if __name__ == "__main__":
    main()
