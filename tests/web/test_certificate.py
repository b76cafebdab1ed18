"""The certificate of the phones' port."""

from __future__ import annotations

import datetime
import hashlib
import socket
import ssl
import stat
from pathlib import Path

import pytest
from cryptography import x509

from pulse_edge.errors import ServeError
from pulse_edge.web import certificate
from pulse_edge.web.certificate import certificate_for
from pulse_edge.web.local_network import own_address

ADDRESS = "192.0.2.20"


def test_the_fingerprint_is_the_one_that_a_browser_shows(tmp_path: Path) -> None:
    certificate_files = certificate_for(ADDRESS, tmp_path)
    der = ssl.PEM_cert_to_DER_cert(certificate_files.certificate.read_text())
    assert certificate_files.fingerprint.replace(":", "").lower() == hashlib.sha256(der).hexdigest()


def test_key_and_certificate_belong_together_and_the_key_is_private(tmp_path: Path) -> None:
    certificate_files = certificate_for(ADDRESS, tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate_files.certificate, certificate_files.key)
    assert stat.S_IMODE(certificate_files.key.stat().st_mode) == 0o600


def test_a_certificate_stays_until_address_or_time_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = certificate_for(ADDRESS, tmp_path).fingerprint
    assert certificate_for(ADDRESS, tmp_path).fingerprint == first
    second = certificate_for("192.0.2.21", tmp_path).fingerprint
    assert second != first
    monkeypatch.setattr(certificate, "SPARE_DAYS", certificate.DAYS)
    assert certificate_for("192.0.2.21", tmp_path).fingerprint != second


def test_a_broken_file_is_replaced(tmp_path: Path) -> None:
    certificate_files = certificate_for(ADDRESS, tmp_path)
    certificate_files.key.write_text("no key")
    again = certificate_for(ADDRESS, tmp_path)
    assert again.fingerprint != certificate_files.fingerprint
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(again.certificate, again.key)


def test_the_certificate_signs_no_others_and_ends(tmp_path: Path) -> None:
    pem = certificate_for(ADDRESS, tmp_path).certificate.read_bytes()
    loaded = x509.load_pem_x509_certificate(pem)
    constraints = loaded.extensions.get_extension_for_class(x509.BasicConstraints).value
    assert constraints.ca is False
    now = datetime.datetime.now(datetime.timezone.utc)
    assert loaded.not_valid_before_utc < now < loaded.not_valid_after_utc
    assert loaded.not_valid_after_utc - now < datetime.timedelta(days=certificate.DAYS + 1)


@pytest.mark.parametrize("named", ["ward", "0.0.0.0", "224.0.0.1", "::"])
def test_an_address_of_no_machine_is_an_error(named: str) -> None:
    with pytest.raises(ServeError, match="Name this laptop's"):
        own_address(named)


def test_a_named_address_is_taken(tmp_path: Path) -> None:
    assert own_address(ADDRESS) == ADDRESS


@pytest.mark.parametrize(("address", "taken"), [("192.168.1.20", True), ("8.8.8.8", False)])
def test_an_address_of_the_internet_is_taken_only_where_it_is_named(
    monkeypatch: pytest.MonkeyPatch, address: str, taken: bool
) -> None:
    class Asking(socket.socket):
        def connect(self, _target: object) -> None:
            pass

        def getsockname(self) -> tuple[str, int]:
            return address, 9

    monkeypatch.setattr(socket, "socket", Asking)
    if taken:
        assert own_address() == address
    else:
        with pytest.raises(ServeError, match="--phone-address"):
            own_address()
