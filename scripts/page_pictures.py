"""Make the pictures of the local page in docs/, with the demo kit and a headless Chromium.

    python -m scripts.page_pictures         needs Playwright and what setup_browser.sh fetches

A server with the kit of the package reads the example page and a blurred copy of it.
"""

from __future__ import annotations

import io
import sys
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image, ImageFilter

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "support")]

from browsers import executable  # noqa: E402
from playwright.sync_api import sync_playwright  # noqa: E402
from web_server import PAGE, WebServer  # noqa: E402

COLOURS = 192
"""Colours of a picture: enough for a page, and a third of the bytes."""
BLUR = 4.0
"""Pixels of the blur: still an ECG, and far too blurred to be read."""
LAPTOP, PHONE = {"width": 1366, "height": 900}, {"width": 360, "height": 780}


def main() -> None:
    """Serve the demo kit, read both pages, and write the pictures."""
    with tempfile.TemporaryDirectory() as folder, WebServer(Path(folder), "--findings") as server:
        done = server.upload("ward 3, bed 12.png")
        server.wait(done, "done")
        refused = server.upload("blurred.jpg", blurred())
        server.wait(refused, "refused")
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=executable())
            cookies = browser.new_page()
            cookies.goto(server.link())
            state = cookies.context.storage_state()

            def shot(name: str, path: str, steps: Any = None, **options: Any) -> None:
                context = browser.new_context(
                    base_url=server.address, storage_state=state, **{"viewport": LAPTOP, **options}
                )
                page = context.new_page()
                page.goto(path, wait_until="load")
                page.wait_for_timeout(800)
                if steps is not None:
                    steps(page)
                    page.wait_for_timeout(300)
                save(ROOT / "docs" / f"web-{name}.png", page.screenshot())
                context.close()

            shot("start", "/")
            shot("reading", f"/r/{done}")
            shot("calipers-dark", f"/r/{done}", calipers, color_scheme="dark")
            shot("overread", f"/r/{done}", overread)
            shot("refused-arabic", f"/r/{refused}?lang=ar")
            shot("phone", f"/r/{done}", viewport=PHONE)
            shot("phone-swahili-dark", f"/r/{refused}?lang=sw", viewport=PHONE, color_scheme="dark")
            browser.close()


def blurred() -> bytes:
    """Return the example page out of focus, as a JPEG file."""
    file = io.BytesIO()
    with Image.open(PAGE) as page:
        page.convert("RGB").filter(ImageFilter.GaussianBlur(BLUR)).save(file, "JPEG", quality=80)
    return file.getvalue()


def calipers(page: Any) -> None:
    """Zoom in and show the calipers."""
    page.get_by_role("button", name="Zoom in").click()
    page.get_by_role("button", name="Calipers").click()
    page.locator(".viewer").evaluate("element => element.scrollIntoView()")


def overread(page: Any) -> None:
    """Show the form in which a reader decides."""
    page.locator("#confirm").evaluate("element => element.scrollIntoView()")


def save(path: Path, png: bytes) -> None:
    """Write a picture with few colours."""
    with Image.open(io.BytesIO(png)) as picture:
        few = picture.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
        few.save(path, optimize=True)
    print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
