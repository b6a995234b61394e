"""Certificates of the gateway: the one that clients see, and the one it shows to services. Both are taken anew when
their files change."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from gateway.settings import PublicTls, Settings

TLS = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3"


def secrets(settings: Settings) -> dict[str, dict[str, Any]]:
    """Files by name that tell Envoy where certificates and CAs are. It reads those again that come by such a file, but
    never those that its configuration names itself."""
    found = {}
    if settings.tls is not None:
        found["certificate"] = _certificate(settings.tls.certificate, settings.tls.key)
        found["ca"] = {"validation_context": {"trusted_ca": {"filename": str(settings.tls.ca)}}}
    if settings.public_tls is not None:
        found["public"] = _certificate(settings.public_tls.certificate, settings.public_tls.key)
    return {
        f"{name}.yaml": {"resources": [{"@type": f"{TLS}.Secret", "name": name, **secret}]}
        for name, secret in found.items()
    }


def with_clients(files: Path) -> dict[str, Any]:
    """TLS of the listener. TLS 1.3 needs no word on ciphers; those of 1.2 are Envoy's, all with forward secrecy."""
    context = {
        "tls_params": {"tls_minimum_protocol_version": "TLSv1_2", "tls_maximum_protocol_version": "TLSv1_3"},
        "alpn_protocols": ["h2", "http/1.1"],
        "tls_certificate_sds_secret_configs": [_secret("public", files)],
    }
    return _socket("DownstreamTlsContext", common_tls_context=context)


def with_service(service: str, files: Path) -> dict[str, Any]:
    """The gateway shows its certificate, and takes no other than the service's own at the other end."""
    name = {"san_type": "DNS", "matcher": {"exact": service}}
    context = {
        "tls_params": {"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3"},
        "alpn_protocols": ["h2"],
        "tls_certificate_sds_secret_configs": [_secret("certificate", files)],
        "combined_validation_context": {
            "default_validation_context": {"match_typed_subject_alt_names": [name]},
            "validation_context_sds_secret_config": _secret("ca", files),
        },
    }
    return _socket("UpstreamTlsContext", sni=service, common_tls_context=context)


def refuse_unusable(files: PublicTls) -> None:
    """ValueError says what is wrong with the certificate for clients, before Envoy starts without one."""
    try:
        certificate = x509.load_pem_x509_certificates(files.certificate.read_bytes())[0]
        key = load_pem_private_key(files.key.read_bytes(), None)
    except OSError as error:
        raise ValueError(f"{_variable(files, error.filename)} cannot be read: {error.strerror}") from error
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ValueError(
            f"GATEWAY_TLS_CERTIFICATE and GATEWAY_TLS_KEY are no certificate and plain key in PEM: {error}"
        ) from error
    if key.public_key() != certificate.public_key():
        raise ValueError(f"GATEWAY_TLS_KEY is not the key of GATEWAY_TLS_CERTIFICATE: {files.key}")
    if certificate.not_valid_after_utc <= datetime.now(UTC):
        raise ValueError(f"GATEWAY_TLS_CERTIFICATE ended at {certificate.not_valid_after_utc:%F %T} UTC")


def _variable(files: PublicTls, name: object) -> str:
    return f"GATEWAY_TLS_KEY ({name})" if str(name) == str(files.key) else f"GATEWAY_TLS_CERTIFICATE ({name})"


def _certificate(certificate: Path, key: Path) -> dict[str, Any]:
    return {
        "tls_certificate": {
            "certificate_chain": {"filename": str(certificate)},
            "private_key": {"filename": str(key)},
        }
    }


def _secret(name: str, files: Path) -> dict[str, Any]:
    source = {"path_config_source": {"path": str(files / f"{name}.yaml")}, "resource_api_version": "V3"}
    return {"name": name, "sds_config": source}


def _socket(kind: str, **settings: Any) -> dict[str, Any]:
    return {"name": "envoy.transport_sockets.tls", "typed_config": {"@type": f"{TLS}.{kind}", **settings}}
