"""Cutting a scaled and turned window out of a picture, cheaply from large ones and safely at the border."""

from __future__ import annotations

import math

import cv2
import numpy as np

MARGIN = 2  # pixels around the window that interpolation needs


def cut(picture: np.ndarray, matrix: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The window of `picture` that `matrix` describes, (height, width[, 3]) uint8; the border is repeated outwards.

    Args:
        picture: (H, W) or (H, W, 3) uint8.
        matrix: (2, 3); maps window pixels (x, y, 1) to picture pixels.
        size: width and height of the window.
    """
    part, matrix = patch(picture, matrix, size)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(part, matrix, size, flags=flags, borderMode=cv2.BORDER_REPLICATE)


def patch(
    picture: np.ndarray, matrix: np.ndarray, size: tuple[int, int], margin: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """The part of `picture` that the window needs, shrunk by a whole factor where the window is much coarser.

    Shrinking averages, so that large faces do not alias; only the part is touched, so that large frames cost no more.

    Args:
        margin: of the window's size, to be kept around it.

    Returns:
        The part, a view where nothing was shrunk, and the matrix from window pixels to pixels of the part.
    """
    low, high = _bounds(matrix, size, margin)
    low = np.clip(low, 0, np.array(picture.shape[1::-1]) - 1)
    high = np.clip(high, low + 1, picture.shape[1::-1])
    part = picture[low[1] : high[1], low[0] : high[0]]
    matrix = matrix.astype(np.float64).copy()
    matrix[:, 2] -= low
    factor = math.floor(math.sqrt(abs(np.linalg.det(matrix[:, :2]))))
    if factor >= 2:
        width, height = (max(1, length // factor) for length in part.shape[1::-1])
        scale = np.array([width / part.shape[1], height / part.shape[0]])
        part = cv2.resize(part, (width, height), interpolation=cv2.INTER_AREA)
        # Pixel centres lie at half-integers of the pixel grid: p' = (p + 0.5) * scale - 0.5
        matrix = np.column_stack([matrix[:, :2] * scale[:, None], (matrix[:, 2] + 0.5) * scale - 0.5])
    return part, matrix


def _bounds(matrix: np.ndarray, size: tuple[int, int], margin: float) -> tuple[np.ndarray, np.ndarray]:
    """Integer corners (x, y), low and high, of the upright box around the window."""
    width, height = size
    x, y = width * margin, height * margin
    corners = np.array([(-x, -y, 1), (width + x, -y, 1), (-x, height + y, 1), (width + x, height + y, 1)])
    spread = corners @ matrix.T
    return np.floor(spread.min(0)).astype(int) - MARGIN, np.ceil(spread.max(0)).astype(int) + MARGIN
