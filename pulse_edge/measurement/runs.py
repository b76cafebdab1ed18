"""The runs of ink in the columns of a picture: where they begin and end, to a fraction of a pixel."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

Float = npt.NDArray[np.float32]
Index = npt.NDArray[np.int64]

RUN = 0.5
"""Cover from which on a pixel belongs to a run of ink."""
EDGE = 0.5
"""Cover at which the edge of a stroke lies."""


class Runs:
    """The runs of ink in the columns of a page, `fine` columns for each of its pixels."""

    def __init__(self, cover: Float, fine: int) -> None:
        height, width = cover.shape
        self.fine = fine
        # The centres of the fine columns lie at (n - (fine - 1) / 2) / fine pixels, as in
        # cv2.resize.
        size = width * fine, height
        self.cover = np.asarray(cv2.resize(cover, size, interpolation=cv2.INTER_LINEAR), np.float32)
        mask = self.cover > RUN
        y = np.arange(height, dtype=np.int32)[:, None]
        self.mask = mask
        self.first = np.maximum.accumulate(np.where(mask, np.int32(-1), y), axis=0) + 1
        self.last = (
            np.minimum.accumulate(np.where(mask, np.int32(height), y)[::-1], axis=0)[::-1] - 1
        )

    def spread(self, values: Index) -> Index:
        """Values (W, ...) of the page's columns for each of the fine ones."""
        return np.repeat(values, self.fine, axis=0)

    def along(self, path: Index, move: Index) -> tuple[Index, Index]:
        """First and last pixel of the ink in each fine column that a path passes; -1 where there is
        none."""
        height = len(self.mask)
        path, move = self.spread(path), self.spread(move)
        x = np.arange(len(path))
        first = np.full(len(path), -1, np.int64)
        last = np.full(len(path), -1, np.int64)
        for where in (path, move[:, 0], move[:, 1], path - 1, path + 1):
            y = np.clip(where, 0, height - 1)
            ink = self.mask[y, x]
            a, b = self.first[y, x], self.last[y, x]
            first = np.where(ink & ((first < 0) | (a < first)), a, first)
            last = np.where(ink & (b > last), b, last)
        return first, last

    def edges(self, first: Index, last: Index, columns: Index | None = None) -> tuple[Float, Float]:
        """Upper and lower edge of runs in fractions of a pixel, where half is covered; NaN where
        there is no ink.

        The runs lie in `columns`, by default one in each.
        """
        height = len(self.mask)
        x = np.arange(len(first)) if columns is None else columns

        def at(y: Index) -> Float:
            inside = (y >= 0) & (y < height)
            return np.asarray(
                np.where(inside, self.cover[np.clip(y, 0, height - 1), x], 0), np.float32
            )

        out = []
        for end, outward in ((first, -1), (last, 1)):
            pale = at(end) < EDGE
            end = np.where(pale, end - outward, end)
            beyond = end + outward
            inner, outer = at(end), at(beyond)
            share = np.clip((inner - EDGE) / np.maximum(inner - outer, 1e-3), 0, 1)
            edge = end + (beyond - end) * share
            out.append(np.where(first < 0, np.nan, edge).astype(np.float32))
        return out[0], out[1]
