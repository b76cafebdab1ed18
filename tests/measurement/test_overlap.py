"""Ink in which two rows have grown together is parted where their spikes meet."""

import numpy as np
import pytest

from pulse_edge.measurement.overlap import part


def meeting(waist: int) -> np.ndarray:
    """Ink (350, 120) of two traces at y = 100 and 250, whose spikes are `waist` columns wide where
    they meet at y = 180."""
    mask = np.zeros((350, 120), bool)
    mask[98:103], mask[248:253] = True, True
    for y in range(98, 253):
        half = waist / 2 + (180 - y if y < 180 else y - 180) * 8 / 80
        mask[y, int(np.ceil(60 - half)) : int(np.floor(60 + half)) + 1] = True
    return mask


@pytest.mark.parametrize(("waist", "parted"), [(4, True), (14, False)])
def test_spikes_are_parted_where_their_tips_touch_and_hidden_where_they_cross(
    waist: int, parted: bool
) -> None:
    mask = meeting(waist)
    shared = mask[100:251].all(axis=0)
    x = np.arange(mask.shape[1])
    upper = np.where(shared, 98, 98), np.where(shared, 252, 102)
    lower = np.where(shared, 98, 248), np.where(shared, 252, 252)
    paths = [np.full(x.size, 100), np.full(x.size, 250)]
    one, two = part(mask, [upper, lower], paths, (5.0, 5.0), (8.0, 8.0))
    if parted:
        assert one.bottom[60] == pytest.approx(180, abs=4)
        assert two.top[60] == pytest.approx(180, abs=4)
        assert not one.hidden[60]
    else:
        assert one.hidden[60]
        assert two.hidden[60]
