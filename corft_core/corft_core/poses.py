"""Tool poses as action vectors: position, then the first two columns of the rotation matrix.

Nine numbers instead of seven because they are continuous: a quaternion or Euler angles jump somewhere, and a network
that averages over the jump turns the tool the wrong way round. Any nine numbers can be made a pose again.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
UNIT_TOLERANCE = 0.01


def pose_vector(position_m: Any, quaternion_xyzw: Any) -> Array:
    """Position (3,) and quaternion (4,) → (9,). Raises ValueError when not finite or no unit quaternion."""
    position, quaternion = np.asarray(position_m, np.float64), np.asarray(quaternion_xyzw, np.float64)
    length = float(np.linalg.norm(quaternion))
    if not np.all(np.isfinite(position)) or not np.isfinite(length):
        raise ValueError(f"pose is not finite: position {position.tolist()}, orientation {quaternion.tolist()}")
    if abs(length - 1.0) > UNIT_TOLERANCE:
        raise ValueError(f"orientation (x, y, z, w) {quaternion.tolist()} has length {length:.3f}, expected 1")
    x, y, z, w = quaternion / length
    first = [1 - 2 * (y * y + z * z), 2 * (x * y + z * w), 2 * (x * z - y * w)]
    second = [2 * (x * y - z * w), 1 - 2 * (x * x + z * z), 2 * (y * z + x * w)]
    return np.concatenate([position, first, second])


def pose_matrices(vectors: Any) -> Array:
    """(…, 9) → (…, 4, 4): the first column as it points, the second made perpendicular to it.

    Raises ValueError when a vector defines no rotation.
    """
    values = np.asarray(vectors, np.float64)
    first, second = values[..., 3:6], values[..., 6:9]
    first = _unit(first)
    second = _unit(second - (first * second).sum(-1, keepdims=True) * first)
    result = np.zeros((*values.shape[:-1], 4, 4))
    result[..., :3, 0], result[..., :3, 1], result[..., :3, 2] = first, second, np.cross(first, second)
    result[..., :3, 3], result[..., 3, 3] = values[..., :3], 1.0
    return result


def vectors_of(matrices: Any) -> Array:
    """Inverse of `pose_matrices`: (…, 4, 4) → (…, 9)."""
    values = np.asarray(matrices, np.float64)
    return np.concatenate([values[..., :3, 3], values[..., :3, 0], values[..., :3, 1]], -1)


def quaternion_of(matrix: Any) -> Array:
    """(x, y, z, w), w ≥ 0, of a rotation or pose matrix (3, 3) or (4, 4)."""
    m = np.asarray(matrix, np.float64)[:3, :3]
    # Squares of the components times four; starting from the largest is stable at every angle.
    squares = np.array([1 + m[0, 0] - m[1, 1] - m[2, 2], 1 - m[0, 0] + m[1, 1] - m[2, 2],
                        1 - m[0, 0] - m[1, 1] + m[2, 2], 1 + m[0, 0] + m[1, 1] + m[2, 2]])
    rows = np.array([
        [squares[0], m[0, 1] + m[1, 0], m[0, 2] + m[2, 0], m[2, 1] - m[1, 2]],
        [m[0, 1] + m[1, 0], squares[1], m[1, 2] + m[2, 1], m[0, 2] - m[2, 0]],
        [m[0, 2] + m[2, 0], m[1, 2] + m[2, 1], squares[2], m[1, 0] - m[0, 1]],
        [m[2, 1] - m[1, 2], m[0, 2] - m[2, 0], m[1, 0] - m[0, 1], squares[3]]])
    quaternion = rows[int(np.argmax(squares))]
    quaternion = quaternion / np.linalg.norm(quaternion)
    return -quaternion if quaternion[3] < 0 else quaternion


def _unit(vectors: Array) -> Array:
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    if not np.all(np.isfinite(vectors)) or np.any(length < 1e-6):
        raise ValueError("a pose vector defines no rotation: its columns vanish, are parallel or not finite")
    return vectors / length
