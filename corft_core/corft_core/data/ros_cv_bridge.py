"""Encodings that only ROS's own cv_bridge knows, where it is installed and can be loaded.

All common encodings are decoded without it (:mod:`images`), the same in a ROS environment and outside: converter and
live node must see equal pixels. A cv_bridge built for another NumPy may crash its process (vision_opencv#535), so it
is tried in a process of its own first.
"""

from __future__ import annotations

import importlib.util
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from corft_core.errors import CorftError
from corft_core.imports import import_trouble

PROBE = "from cv_bridge import CvBridge; from cv_bridge.boost.cv_bridge_boost import cvtColor2"


class CvBridgeMissing(CorftError):
    """cv_bridge is not installed, or cannot be loaded here."""


def decode_with_cv_bridge(message: Any) -> NDArray[np.uint8]:
    """A sensor_msgs Image of any encoding that cv_bridge converts, as rgb uint8 (h, w, 3).

    Raises CvBridgeMissing where there is no usable cv_bridge, CorftError when it refuses the message.
    """
    bridge = _bridge()
    try:
        return np.ascontiguousarray(bridge.imgmsg_to_cv2(message, "rgb8"), np.uint8)
    except Exception as error:  # CvBridgeError, KeyError and others, by version
        raise CorftError(f"cv_bridge cannot turn {message.encoding!r} into rgb8: {error}") from error


@cache
def cv_bridge_trouble() -> str:
    """Why cv_bridge cannot be used here, in words; empty when it can."""
    if importlib.util.find_spec("cv_bridge") is None:
        return "not installed (sudo apt install ros-$ROS_DISTRO-cv-bridge)"
    return import_trouble(PROBE)


@cache
def _bridge() -> Any:
    if trouble := cv_bridge_trouble():
        raise CvBridgeMissing(f"cv_bridge: {trouble}")
    from cv_bridge import CvBridge

    return CvBridge()
