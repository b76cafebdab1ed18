"""Make keys and signatures in minisign's file formats, so that `minisign -Vm bundle.json -p
bundle.pub` verifies them too.

Signing needs the package cryptography; the installer verifies with its own few lines of Ed25519.
"""

from __future__ import annotations

import base64
import hashlib
import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pulse_edge.errors import KitError, UsageError
from pulse_edge.installer.bundle import BUNDLE_MANIFEST, PUBLIC_KEY
from pulse_edge.installer.files import write_atomically
from pulse_edge.installer.minisign import PublicKey


@dataclass(frozen=True)
class SecretKey:
    """An Ed25519 key that signs bundles."""

    number: bytes
    seed: bytes
    """32 bytes (RFC 8032's private key)."""

    def public(self) -> PublicKey:
        """Its public half."""
        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

        return PublicKey(
            self.number,
            _private(self.seed).public_key().public_bytes(Encoding.Raw, PublicFormat.Raw),
        )

    def sign(self, data: bytes, comment: str) -> str:
        """A minisign signature file of `data`, prehashed, with a trusted comment."""
        private = _private(self.seed)
        signature = private.sign(hashlib.blake2b(data).digest())
        comment_signature = private.sign(signature + comment.encode())
        lines = (
            "untrusted comment: signature of a pulse-edge bundle",
            base64.b64encode(b"ED" + self.number + signature).decode(),
            f"trusted comment: {comment}",
            base64.b64encode(comment_signature).decode(),
        )
        return "\n".join(lines) + "\n"

    def text(self) -> str:
        """Return the text of its file, without a password, as `minisign -G -W` writes it."""
        public = self.public()
        key = self.number + self.seed + public.key
        raw = b"Ed" + b"\0\0" + b"B2" + bytes(48) + key + bytes(32)
        line = base64.b64encode(raw).decode()
        return f"untrusted comment: minisign secret key {public.id}\n{line}\n"


def _private(seed: bytes) -> Any:
    try:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    except ImportError:
        raise UsageError(
            'signing needs the package cryptography: python -m pip install "pulse-edge[pack]".'
        ) from None
    return Ed25519PrivateKey.from_private_bytes(seed)


def keygen(path: Path) -> PublicKey:
    """Make a key pair: `path` for the secret half, which only its owner may read, and `path`.pub
    for the public half.

    Raises KitError if one of them exists.
    """
    public_path = path.with_name(path.name + ".pub")
    for each in (path, public_path):
        if os.path.lexists(each):
            raise KitError(f"{each}: exists. Keys are never overwritten; choose another name.")
    secret = SecretKey(secrets.token_bytes(8), secrets.token_bytes(32))
    text, public = secret.text(), secret.public()
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, text.encode(), mode=0o600)
    write_atomically(public_path, public.text().encode())
    return public


def read_secret_key(path: Path) -> SecretKey:
    """Read a secret key file that has no password. Raises KitError."""
    try:
        raw = base64.b64decode(path.read_text("utf-8").splitlines()[1], validate=True)
    except (OSError, IndexError, ValueError):
        raise KitError(
            f"{path}: not a minisign secret key. Make one with `pulse-edge bundle keygen`."
        ) from None
    if len(raw) == 158 and raw[2:4] != b"\0\0":
        raise KitError(
            f"{path}: has a password. Pack without --sign, then sign with `minisign -Sm "
            f"BUNDLE/{BUNDLE_MANIFEST} -s {path}`, and copy its public key to BUNDLE/{PUBLIC_KEY}."
        )
    key = SecretKey(raw[54:62], raw[62:94])
    if len(raw) != 158 or raw[:6] != b"Ed\0\0B2" or raw[94:126] != key.public().key:
        raise KitError(f"{path}: not a complete minisign secret key. Copy it again.")
    return key
