"""Read minisign's public keys and signatures, so that `minisign` itself can check a bundle too.

Formats: https://jedisct1.github.io/minisign/
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from dataclasses import dataclass

from . import ed25519
from .refusal import Refused


@dataclass(frozen=True)
class PublicKey:
    """The public half of a key that signs bundles."""

    number: bytes
    """8 bytes that name the key; minisign prints them as a little-endian number."""
    key: bytes
    """32 bytes, Ed25519."""

    @property
    def id(self) -> str:
        """The key's number as minisign prints it: 16 hexadecimal digits."""
        return f"{int.from_bytes(self.number, 'little'):016X}"

    def text(self) -> str:
        """Return the text of the key's file."""
        line = base64.b64encode(b"Ed" + self.number + self.key).decode()
        return f"untrusted comment: minisign public key {self.id}\n{line}\n"


def read_public_key(text: str, where: str) -> PublicKey:
    """Parse the text of a public key file; `where` is its name for messages. Raises Refused."""
    raw = _decode(text.strip().splitlines()[-1] if text.strip() else "")
    if len(raw) != 42 or raw[:2] != b"Ed":
        raise Refused(
            f"{where}: not a minisign public key. Ask the maker of the bundle for it again."
        )
    return PublicKey(raw[2:10], raw[10:])


@dataclass(frozen=True)
class Signature:
    """A minisign signature."""

    algorithm: bytes
    """`ED`: the BLAKE2b-512 hash of the data is signed; `Ed`: the data itself."""
    number: bytes
    """Number of the key, 8 bytes."""
    signature: bytes
    """64 bytes."""
    comment: bytes
    """The trusted comment."""
    comment_signature: bytes
    """64 bytes, over `signature` and `comment`."""

    def verifies(self, key: PublicKey, data: bytes) -> bool:
        """Return whether this is the key's signature of `data`, and the trusted comment is
        unchanged.
        """
        signed = hashlib.blake2b(data).digest() if self.algorithm == b"ED" else data
        commented = self.signature + self.comment
        return (
            key.number == self.number
            and ed25519.verifies(key.key, signed, self.signature)
            and ed25519.verifies(key.key, commented, self.comment_signature)
        )


def read_signature(text: str, where: str) -> Signature:
    """Parse the text of a signature file; `where` is its name for messages. Raises Refused."""
    lines = text.splitlines()
    if len(lines) == 4 and lines[2].startswith("trusted comment: "):
        raw, comment_signature = _decode(lines[1]), _decode(lines[3])
        if len(raw) == 74 and raw[:2] in (b"ED", b"Ed") and len(comment_signature) == 64:
            comment = lines[2].removeprefix("trusted comment: ").encode()
            return Signature(raw[:2], raw[2:10], raw[10:], comment, comment_signature)
    raise Refused(f"{where}: not a minisign signature. Copy the bundle again.")


def _decode(text: str) -> bytes:
    """Decode base64; empty for text that is not."""
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return b""
