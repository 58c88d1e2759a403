"""The average face on which every face is laid: scale, turn and place of windows cut around it, and its yaw."""

from __future__ import annotations

import math

import numpy as np

from omni_avsr.types import MOUTH_SIZE

TEMPLATE = "mediapipe-mesh-v1"  # name of the geometry below, stored in a model's preprocessing contract

# Pixels from the point between the eyes' outer corners, at the crop's scale, in the order of KEY_POINTS: a frontal
# face of average proportions. A mouth at rest is then about half as wide as the crop.
POINTS = np.array([(-43.0, 0.0), (-18.0, 0.0), (18.0, 0.0), (43.0, 0.0), (0.0, 36.0), (0.0, -4.0)])
NOSE = 0.97  # how far its tip stands out before the eyes' outer corners, over half their distance


def upright(stable: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """(2, 3) from crop pixels to picture pixels: the template's scale and turn, `centre` in the middle.

    The similarity that lays POINTS on `stable` with the least squares, in closed form (Umeyama, 1991).

    Args:
        stable: (6, 2) pixels, `landmarks.STABLE` of a face.
        centre: (2,) pixels.
    """
    template = POINTS - POINTS.mean(0)
    target = stable - stable.mean(0)
    energy = (template**2).sum()
    along = (template * target).sum() / energy
    across = (template[:, 0] * target[:, 1] - template[:, 1] * target[:, 0]).sum() / energy
    linear = np.array([[along, -across], [across, along]])
    middle = (MOUTH_SIZE - 1) / 2
    return np.column_stack([linear, centre - linear @ (middle, middle)])


def yaw(points: np.ndarray) -> float:
    """Degrees by which a face of (10, 2) key points is turned, positive to the right: its nose leaves the middle."""
    left, right, nose = points[0], points[3], points[4]
    across = right - left
    sideways = (nose - (left + right) / 2) @ across / (across @ across / 2)
    return math.degrees(math.atan(sideways / NOSE))
