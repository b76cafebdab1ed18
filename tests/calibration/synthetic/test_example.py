from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

import pulse_edge
from calibration.synthetic.example import example


def test_the_example_page_is_what_its_command_draws() -> None:
    drawn = example().image
    carried = np.asarray(
        Image.open(Path(pulse_edge.__file__).parent / "assets" / "example_page.png")
    )
    assert np.array_equal(drawn, carried)
