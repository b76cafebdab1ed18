"""`python -m calibration.synthetic.example [FILE]`: draw the example page of the package; the same
pixels every time.
"""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np
import PIL
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from calibration.synthetic.pages import Page, draw
from calibration.synthetic.signals import synthesize
from calibration.synthetic.style import PageStyle

PATH = Path(__file__).resolve().parents[2] / "pulse_edge" / "assets" / "example_page.png"
SEED = 361
FINDINGS = ("LBBB",)
STYLE = PageStyle(
    layout="3x4+1",
    px_per_mm=150 / 25.4,  # US letter, landscape, at 150 dpi
    row_mm=38.0,
    left_mm=10.0,
    right_mm=10.4,
    top_mm=42.0,
    bottom_mm=21.9,
    paper=(255, 252, 251),
    minor=(251, 214, 212),
    major=(238, 156, 156),
    minor_mm=0.14,
    major_mm=0.26,
    grid_everywhere=False,
    ink=(22, 22, 28),
    ink_px=1.7,
    label_mm=3.4,
    text_mm=3.2,
    join="ticks",
    header=(
        "SYNTHETIC ECG - DEMONSTRATION, NOT A PATIENT\nID: DEMO-0001",
        "12-lead ECG, 10 s at rest",
    ),
    footer=("Speed: 25 mm/s", "Limb: 10 mm/mV   Chest: 10 mm/mV", "0.05-150 Hz"),
)


def example() -> Page:
    """Sinus rhythm with complete left bundle branch block, as a letter-size print."""
    return draw(synthesize(SEED, FINDINGS, noise=0.6), STYLE)


def versions() -> str:
    """Versions of the drawing libraries; others may place an antialiased pixel differently."""
    return f"numpy {np.__version__}, opencv {cv2.__version__}, Pillow {PIL.__version__}"


def main(path: Path = PATH) -> None:
    """Write the page as PNG; its text chunk `Software` names the versions."""
    note = PngInfo()
    note.add_text("Software", versions())
    Image.fromarray(example().image).save(path, optimize=True, pnginfo=note)
    print(path)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:2]))
