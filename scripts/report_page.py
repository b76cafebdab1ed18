"""Draw docs/report-page.png: the demo kit's PDF report on the example page.

    python -m scripts.report_page        in the root of the checkout

The picture is a palette PNG of at most 200 kB. Its time and processor are those of the machine that
made it.
"""

from __future__ import annotations

import io
from pathlib import Path

import pypdfium2

from pulse_edge import PulseModel
from pulse_edge.common import paths
from pulse_edge.kit.prompt import REPORT_QUESTION
from pulse_edge.report import pdf

TARGET = Path(__file__).resolve().parent.parent / "docs" / "report-page.png"
MAX_BYTES = 200_000
SCALE = 100 / 72
"""Pixels of a PDF point: 100 dpi."""


def main() -> None:
    """Write the picture. Raises ValueError where it is too large."""
    with PulseModel.load(paths.ASSETS / "kits" / "miniature", device="cpu") as model:
        encoded = model.encode(paths.EXAMPLE_PAGE.relative_to(Path.cwd()))
        answering = model.ask(encoded, REPORT_QUESTION)
        answering.answer()
        report = model.report(encoded, [answering])
        document = pypdfium2.PdfDocument(pdf.to_pdf(report, encoded.checked.flat.image))  # type: ignore[union-attr]
    picture = document[0].render(scale=SCALE).to_pil().convert("P", colors=32)
    content = io.BytesIO()
    picture.save(content, "PNG", optimize=True)
    if content.tell() > MAX_BYTES:
        raise ValueError(f"{TARGET}: {content.tell():,} bytes, and {MAX_BYTES:,} are the limit")
    TARGET.write_bytes(content.getvalue())
    print(TARGET)


if __name__ == "__main__":
    main()
