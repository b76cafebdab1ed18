"""Training of the page networks: the pages that they see, and the files that they become."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch

from calibration.page_networks import layouts, orientation, other_pictures
from pulse_edge.page.orientation import LAYOUT_SIZE, LAYOUTS


def test_a_seed_gives_the_same_page_and_layout() -> None:
    (page, layout), (again, same) = layouts.sample(41), layouts.sample(41)
    assert page.shape == (2, LAYOUT_SIZE, LAYOUT_SIZE)
    assert np.array_equal(page, again)
    assert layout == same
    assert 0 <= layout < len(LAYOUTS)


def test_other_pictures_are_of_several_kinds() -> None:
    pictures = [other_pictures.draw(np.random.default_rng(seed)) for seed in range(8)]
    assert all(picture.dtype == np.uint8 and picture.ndim == 3 for picture in pictures)
    assert len({picture.tobytes() for picture in pictures}) == len(pictures)


def test_training_writes_a_network_that_opencv_runs(tmp_path: Path) -> None:
    lines: list[str] = []
    layouts.train(page_count=10, seed=3, say=lines.append, out=tmp_path / "layouts.onnx")
    network = cv2.dnn.readNetFromONNX(str(tmp_path / "layouts.onnx"))
    network.setInput(layouts.sample(1)[0][None])
    assert np.asarray(network.forward()).shape == (1, len(LAYOUTS) + 1)


def test_the_sum_of_a_mirrored_page_is_that_of_its_mirror_image() -> None:
    torch.manual_seed(0)
    net = orientation.Net().eval()
    pieces = torch.rand(2, 1, 64, 64)
    with torch.no_grad():
        upright, mirrored, _ = orientation.mirrored(net, pieces).T
        other_upright, other_mirrored, _ = orientation.mirrored(net, pieces.flip(3)).T
    assert torch.allclose(upright, other_mirrored, atol=1e-4)
    assert torch.allclose(mirrored, other_upright, atol=1e-4)
