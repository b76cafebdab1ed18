"""A certificate for the phone's port, made on this machine: no authority, no network.

The phone's browser cannot verify it and says so; the laptop shows its fingerprint, which the
browser shows too. RFC 5280; SHA-256 fingerprints as in RFC 4514's customary form with colons.
"""

from __future__ import annotations

import datetime
import ipaddress
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from pulse_edge.common.files import write_text
from pulse_edge.errors import ServeError

KEY_FILE, CERTIFICATE_FILE = "phone-key.pem", "phone-certificate.pem"
DAYS = 90
"""Days that a certificate is valid; browsers that accepted it then ask once more."""
SPARE_DAYS = 2
"""Days before the end at which a new one is made."""
SKEW = datetime.timedelta(days=1)
"""A phone's clock may be behind."""


@dataclass(frozen=True)
class Certificate:
    """Key and certificate on the disk."""

    key: Path
    certificate: Path
    fingerprint: str
    """SHA-256 of the certificate, in pairs of hexadecimal digits with colons."""


def certificate_for(address: str, folder: Path) -> Certificate:
    """Return the folder's certificate for an IP address; make one where none is valid.

    Raises ServeError where the folder cannot be written.
    """
    key, path = folder / KEY_FILE, folder / CERTIFICATE_FILE
    now = datetime.datetime.now(datetime.timezone.utc)
    certificate = _stored(key, path, address, now)
    if certificate is None:
        certificate = _make(key, path, address, now)
    digest = certificate.fingerprint(hashes.SHA256()).hex().upper()
    pairs = ":".join(digest[i : i + 2] for i in range(0, len(digest), 2))
    return Certificate(key, path, pairs)


def _stored(key: Path, path: Path, address: str, now: datetime.datetime) -> x509.Certificate | None:
    """Return the stored certificate if it fits its key and the address, and is valid for a while."""
    try:
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
        private = serialization.load_pem_private_key(key.read_bytes(), None)
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (OSError, ValueError, TypeError, x509.ExtensionNotFound):
        return None
    fits = (
        private.public_key() == certificate.public_key()
        and ipaddress.ip_address(address) in names.get_values_for_type(x509.IPAddress)
        and certificate.not_valid_before_utc <= now
        and now + datetime.timedelta(days=SPARE_DAYS) < certificate.not_valid_after_utc
    )
    return certificate if fits else None


def _make(key: Path, path: Path, address: str, now: datetime.datetime) -> x509.Certificate:
    private = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "pulse-edge on this laptop")])
    extensions: list[tuple[x509.ExtensionType, bool]] = [
        (x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))]), False),
        (x509.BasicConstraints(ca=False, path_length=None), True),
        (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False),
    ]
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - SKEW)
        .not_valid_after(now + datetime.timedelta(days=DAYS))
    )
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical)
    certificate = builder.sign(private, hashes.SHA256())
    try:
        write_text(
            key,
            private.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            ).decode("ascii"),
        )
        write_text(path, certificate.public_bytes(serialization.Encoding.PEM).decode("ascii"))
    except OSError as e:
        raise ServeError(
            f"{path.parent}: the phone's certificate cannot be written ({e.strerror}). Free space, "
            "or choose another folder with --folder."
        ) from None
    return certificate
