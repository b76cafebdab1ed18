"""Distortions of a page."""

from __future__ import annotations

import numpy as np
import pytest

from calibration.synthetic import distortions
from calibration.synthetic.distortions import DISTORTIONS

PAGE = np.full((60, 90, 3), 240, np.uint8)
PAGE[30, 10:80] = 20


@pytest.mark.parametrize("name", DISTORTIONS)
def test_the_same_generator_gives_the_same_picture(name: str) -> None:
    one, two = (DISTORTIONS[name](PAGE, 0.5, np.random.default_rng(3)) for _ in range(2))
    assert one.dtype == np.uint8
    assert one.ndim == 3
    assert np.array_equal(one, two)


def test_a_scan_is_grey_and_keeps_its_size() -> None:
    scan = distortions.scan(PAGE, 0.5, np.random.default_rng(1))
    assert scan.shape == PAGE.shape
    assert np.ptp(scan.astype(int), axis=2).max() == 0
    assert scan[28:33, 40].min() < 120 < scan[5, 40].min()


def test_a_fax_is_black_and_white() -> None:
    fax = distortions.fax(PAGE, 0.2, np.random.default_rng(1))
    assert set(np.unique(fax)) == {0, 255}
    assert (fax[28:33, 20:70] == 0).any(axis=0).all()
