from __future__ import annotations

import pytest
from PIL import Image

from pulse_edge.common.paths import EXAMPLE_PAGE


@pytest.fixture(scope="session")
def page() -> Image.Image:
    """The example page in RGB."""
    return Image.open(EXAMPLE_PAGE).convert("RGB")
