"""Names for the NumPy arrays that several packages exchange. The shape stands where an array is
used."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]
"""Grey or colour levels, 0 to 255."""
Float = npt.NDArray[np.float32]
Double = npt.NDArray[np.float64]
Points = npt.NDArray[np.float64]
"""Coordinates in pixels, x before y."""
Mask = npt.NDArray[np.bool_]
Positions = npt.NDArray[np.int64]
"""Positions of tokens, or indices into an array."""
