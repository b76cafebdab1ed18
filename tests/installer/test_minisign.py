"""Ed25519 as RFC 8032 has it, and the files of minisign."""

from __future__ import annotations

import hashlib
import random
import shutil
import subprocess
from pathlib import Path

import pytest

from pulse_edge.deploy import signing
from pulse_edge.errors import KitError
from pulse_edge.installer.ed25519 import verifies
from pulse_edge.installer.minisign import read_public_key, read_signature

pytest.importorskip("cryptography", reason="signing needs the package cryptography")


VECTORS = {
    "TEST 1": (
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        b"",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
    ),
    "TEST 2": (
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        b"\x72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
    ),
    "TEST 3": (
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        b"\xaf\x82",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
    ),
    "TEST SHA(abc)": (
        "ec172b93ad5e563bf4932c70e1245034c35467ef2efd4d64ebf819683467e2bf",
        hashlib.sha512(b"abc").digest(),
        "dc2a4459e7369633a52b1bf277839a00201009a3efbf3ecb69bea2186c26b58909351fc9ac90b3ecfdfbc7c66431e0303dca179c138ac17ad9bef1177331a704",
    ),
}
"""RFC 8032, section 7.1: public key, message, signature."""


ORDER = 2**252 + 27742317777372353535851937790883648493


@pytest.fixture
def key() -> signing.SecretKey:
    return signing.SecretKey(b"12345678", bytes(range(32)))


@pytest.mark.parametrize("name", VECTORS)
def test_the_vectors_of_the_rfc_verify(name: str) -> None:
    public, message, signature = VECTORS[name]
    assert verifies(bytes.fromhex(public), message, bytes.fromhex(signature))


@pytest.mark.parametrize("part", ["public", "message", "signature"])
def test_one_changed_bit_does_not_verify(part: str) -> None:
    public, message, signature = VECTORS["TEST 3"]
    parts = {
        "public": bytes.fromhex(public),
        "message": message,
        "signature": bytes.fromhex(signature),
    }
    for bit in range(0, 8 * len(parts[part]), 37):
        changed = bytearray(parts[part])
        changed[bit // 8] ^= 1 << bit % 8
        assert not verifies(**(parts | {part: bytes(changed)}))


def test_a_signature_with_the_order_added_is_refused() -> None:
    public, message, signature = VECTORS["TEST 2"]
    raw = bytes.fromhex(signature)
    more = (int.from_bytes(raw[32:], "little") + ORDER).to_bytes(32, "little")
    assert not verifies(bytes.fromhex(public), message, raw[:32] + more)


def test_ed25519_agrees_with_the_package_cryptography() -> None:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    chance = random.Random(1)
    for _ in range(20):
        private = Ed25519PrivateKey.from_private_bytes(chance.randbytes(32))
        message = chance.randbytes(chance.randrange(200))
        assert verifies(private.public_key().public_bytes_raw(), message, private.sign(message))


def test_a_signature_reads_back_and_verifies(key: signing.SecretKey) -> None:
    signature = read_signature(key.sign(b"data", "made today"), "x")
    assert signature.verifies(key.public(), b"data")
    assert not signature.verifies(key.public(), b"Data")


def test_a_changed_trusted_comment_does_not_verify(key: signing.SecretKey) -> None:
    text = key.sign(b"data", "made today").replace("made today", "made later")
    assert not read_signature(text, "x").verifies(key.public(), b"data")


def test_a_signature_is_the_same_every_time(key: signing.SecretKey) -> None:
    assert key.sign(b"data", "c") == key.sign(b"data", "c")


def test_a_new_key_reads_back_and_only_its_owner_can(tmp_path: Path) -> None:
    public = signing.keygen(tmp_path / "key")
    assert signing.read_secret_key(tmp_path / "key").public() == public
    assert read_public_key((tmp_path / "key.pub").read_text(), "x") == public
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600


def test_a_key_is_never_overwritten(tmp_path: Path) -> None:
    signing.keygen(tmp_path / "key")
    with pytest.raises(KitError, match="never overwritten"):
        signing.keygen(tmp_path / "key")


def test_a_damaged_secret_key_is_refused(tmp_path: Path, key: signing.SecretKey) -> None:
    lines = key.text().splitlines()
    other = "A" if lines[1][100] != "A" else "B"
    (tmp_path / "key").write_text(f"{lines[0]}\n{lines[1][:100]}{other}{lines[1][101:]}\n")
    with pytest.raises(KitError, match="not a complete minisign secret key"):
        signing.read_secret_key(tmp_path / "key")


@pytest.fixture
def minisign() -> str:
    path = shutil.which("minisign")
    if path is None:
        pytest.skip("minisign is not installed")
    return path


def test_minisign_verifies_what_we_sign(
    tmp_path: Path, key: signing.SecretKey, minisign: str
) -> None:
    (tmp_path / "data").write_bytes(b"data")
    (tmp_path / "data.minisig").write_text(key.sign(b"data", "made today"))
    (tmp_path / "key.pub").write_text(key.public().text())
    command = [minisign, "-Vm", str(tmp_path / "data"), "-p", str(tmp_path / "key.pub")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "Trusted comment: made today" in done.stdout


@pytest.mark.parametrize("way", ["prehashed", "legacy"])
def test_we_verify_what_minisign_signs(tmp_path: Path, minisign: str, way: str) -> None:
    paths = ["-p", str(tmp_path / "key.pub"), "-s", str(tmp_path / "key")]
    subprocess.run([minisign, "-GW", *paths], check=True, capture_output=True)
    (tmp_path / "data").write_bytes(b"data")
    legacy = ["-l"] if way == "legacy" else []
    command = [minisign, "-S", *legacy, "-m", str(tmp_path / "data"), "-s", str(tmp_path / "key")]
    subprocess.run(command, check=True, capture_output=True)
    public = signing.read_secret_key(tmp_path / "key").public()
    assert read_public_key((tmp_path / "key.pub").read_text(), "x") == public
    assert read_signature((tmp_path / "data.minisig").read_text(), "x").verifies(public, b"data")
