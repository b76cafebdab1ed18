"""Decide whose signature makes a bundle trustworthy on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .bundle import BUNDLE_MANIFEST, PUBLIC_KEY, SIGNATURE, Bundle, read_small
from .minisign import PublicKey, read_public_key, read_signature
from .refusal import Refused


@dataclass(frozen=True)
class Trust:
    """Who vouches for a bundle."""

    key: PublicKey | None
    """The key that signed it; None if it is unsigned."""
    pinned: bool
    """Whether the key is trusted here, or will be from now on."""
    first: bool = False
    """Whether the key was not trusted here before, so that this installation pins it."""

    @property
    def warning(self) -> str | None:
        """The text that every answer must carry."""
        if self.key is None:
            return "UNSIGNED BUNDLE: NO ONE VOUCHES FOR THIS PROGRAM AND ITS KITS"
        if self.pinned:
            return None
        return f"BUNDLE SIGNED BY A KEY THAT IS NOT TRUSTED HERE ({self.key.id})"


def assess(
    bundle: Bundle,
    pinned: Sequence[PublicKey],
    *,
    key: PublicKey | None = None,
    accept: Sequence[str] = (),
) -> Trust:
    """Check the signature against `key` if it is given, else the pinned keys, else the bundle's own
    key.

    `accept` holds what the person has accepted in so many words: `unsigned`, or the id of a foreign
    key. Raises Refused.
    """
    trusted = [key] if key is not None else list(pinned)
    if not (bundle.path / SIGNATURE).exists():
        if "unsigned" not in accept:
            raise Refused(
                f"{bundle.path / SIGNATURE}: missing, so no one vouches for this bundle. Ask for a "
                "signed one; --accept unsigned installs it all the same, and every answer will say "
                "so."
            )
        return Trust(None, pinned=False)
    signature = read_signature(_text(bundle, SIGNATURE), str(bundle.path / SIGNATURE))
    own = read_public_key(_text(bundle, PUBLIC_KEY), str(bundle.path / PUBLIC_KEY))
    for candidate in [*trusted, own]:
        if candidate.number == signature.number:
            if not signature.verifies(candidate, bundle.data):
                raise Refused(
                    f"{bundle.path / BUNDLE_MANIFEST}: does not agree with its signature by key "
                    f"{candidate.id}. Do not use it; copy the bundle again."
                )
            if candidate in trusted or not trusted:
                first = not trusted or candidate not in pinned
                return Trust(candidate, pinned=True, first=first)
            return _foreign(bundle, candidate, trusted, accept)
    raise Refused(
        f"{bundle.path / PUBLIC_KEY}: not the key of the signature. Do not use it; copy the bundle "
        "again."
    )


def _text(bundle: Bundle, name: str) -> str:
    return read_small(bundle.path / name).decode("utf-8", "replace")


def _foreign(
    bundle: Bundle, key: PublicKey, trusted: list[PublicKey], accept: Sequence[str]
) -> Trust:
    """Trust for a key that is not trusted here. Raises Refused unless its id was accepted."""
    if key.id not in accept:
        raise Refused(
            f"{bundle.path / SIGNATURE}: by key {key.id}, and trusted here: "
            f"{', '.join(k.id for k in trusted)}. Ask who made it; --accept {key.id} installs it "
            "all the same, and every answer will say so."
        )
    return Trust(key, pinned=False)
