"""Debian's Chromium, driven by Playwright, and the rules of axe-core."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from checkout import ROOT

AXE = ROOT / ".venv" / "axe" / "node_modules" / "axe-core" / "axe.min.js"
"""Where scripts/setup_browser.sh puts axe-core."""
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
NAMES = ("chromium", "chromium-browser", "google-chrome")
_SETUP = "scripts/setup_browser.sh fetches it"


def executable() -> str:
    """Return the path of Chromium; skip the test without it."""
    for name in NAMES:
        if path := shutil.which(name):
            return path
    pytest.skip(f"needs Chromium: {_SETUP}")


@contextlib.contextmanager
def chromium() -> Iterator[Any]:
    """Yield a browser; skip the test where Playwright or Chromium is absent."""
    pytest.importorskip("playwright", reason="needs Playwright, of the development tools")
    path = executable()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path)
        try:
            yield browser
        finally:
            browser.close()


def axe_source() -> Path:
    """Return the script of axe-core; skip the test without it."""
    if not AXE.exists():
        pytest.skip(f"needs axe-core: {_SETUP}")
    return AXE


def violations(page: Any) -> list[str]:
    """Return what axe-core finds on a page: rule, and the elements that break it.

    The script goes in through the debugger, which the page's own policy does not concern.
    """
    page.evaluate(axe_source().read_text("utf-8"))
    result = page.evaluate(
        "(rules) => axe.run(document, {runOnly: {type: 'tag', values: rules}})", RULES
    )
    return [
        f"{violation['id']}: {node['html'][:200]} ({node['failureSummary']})"
        for violation in result["violations"]
        for node in violation["nodes"]
    ]


class Complaints:
    """Errors of scripts and messages on the console of every page of a context."""

    def __init__(self, context: Any) -> None:
        self.lines: list[str] = []
        context.on("weberror", lambda error: self.lines.append(str(error.error)))
        context.on("console", self._message)

    def _message(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.lines.append(message.text)
