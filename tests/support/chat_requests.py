"""Bodies of chat completions."""

from __future__ import annotations

import base64
from typing import Any

from fake_service import KIT


def data_url(data: bytes = b"a page", media: str = "image/png") -> str:
    """The data URL of a file."""
    return f"data:{media};base64,{base64.b64encode(data).decode()}"


def user(text: str = "What is the rhythm?", page: bytes | None = b"a page") -> dict[str, Any]:
    """A message of the user, with a page unless it is None."""
    parts: list[dict[str, Any]] = [{"type": "text", "text": text}] if text else []
    if page is not None:
        parts.append({"type": "image_url", "image_url": {"url": data_url(page)}})
    return {"role": "user", "content": parts}


def assistant(text: str) -> dict[str, Any]:
    """A message of the assistant."""
    return {"role": "assistant", "content": text}


def body(*messages: dict[str, Any], **parameters: Any) -> dict[str, Any]:
    """A whole body."""
    return {"model": KIT, "messages": list(messages) or [user()], **parameters}
