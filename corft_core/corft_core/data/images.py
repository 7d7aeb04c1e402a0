"""Images: from a ROS message of any encoding to what the policy sees, once and in one place.

Red stays red through rgb8, bgr8, rgba8, JPEG and PNG (``tests/unit/test_data_images.py``).
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from corft_core.contract import CameraStream
from corft_core.errors import CorftError

Image = NDArray[np.uint8]

# Channel order of encodings that need no arithmetic; the rest goes through rosbags-image.
_PLAIN = {"rgb8": (3, (0, 1, 2)), "bgr8": (3, (2, 1, 0)), "rgba8": (4, (0, 1, 2)), "bgra8": (4, (2, 1, 0)),
          "mono8": (1, (0, 0, 0)), "8UC3": (3, (2, 1, 0))}


class ImageDecodeError(CorftError):
    """An image message that cannot be read."""


@cache
def _cv2() -> Any:
    """OpenCV with its own thread pool off: callers already run one thread a camera."""
    import cv2

    cv2.setNumThreads(1)
    return cv2


def decode_image(message: Any) -> Image:
    """Decode sensor_msgs Image or CompressedImage (rclpy's or rosbags') to rgb uint8 (h, w, 3).

    Row padding (``step``) is respected. Raises ImageDecodeError naming the encoding.
    """
    if hasattr(message, "format"):
        return _decode_compressed(message)
    height, width, encoding = int(message.height), int(message.width), str(message.encoding)
    if height <= 0 or width <= 0:
        raise ImageDecodeError(f"image is empty: {width}x{height}")
    plain = _PLAIN.get(encoding)
    if plain is None:
        return _decode_other(message)
    channels, order = plain
    step = int(message.step) or width * channels
    data = np.frombuffer(message.data, np.uint8)
    if step < width * channels or data.size < step * (height - 1) + width * channels:
        raise ImageDecodeError(f"image {width}x{height} {encoding} needs step >= {width * channels} and "
                               f"{step * height} bytes, got step {step} and {data.size} bytes")
    if data.size < step * height:
        data = np.pad(data, (0, step * height - data.size))
    rows = data[: step * height].reshape(height, step)[:, : width * channels].reshape(height, width, channels)
    return np.ascontiguousarray(rows[:, :, list(order)] if order != (0, 1, 2) else rows[:, :, :3])


def _decode_compressed(message: Any) -> Image:
    cv2 = _cv2()
    data = np.frombuffer(message.data, np.uint8)
    image = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
    if image is None:
        raise ImageDecodeError(f"compressed image with format {message.format!r} and {data.size} bytes "
                               "cannot be decoded; JPEG and PNG can")
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)


def _decode_other(message: Any) -> Image:
    """Bayer, YUV and 16-bit encodings."""
    from rosbags.image import message_to_cvimage
    from rosbags.image.image import ImageError

    try:
        image = np.asarray(message_to_cvimage(message, "rgb8"))
    except (ImageError, TypeError, ValueError) as error:
        raise ImageDecodeError(f"image encoding {message.encoding!r} cannot be turned into rgb8: {error}. "
                               "Record rgb8, bgr8 or a compressed transport.") from error
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ImageDecodeError(f"image encoding {message.encoding!r} is not a colour image")
    return np.ascontiguousarray(image)


def prepare_image(image: Image, camera: CameraStream) -> Image:
    """Crop and resize rgb uint8 (h, w, 3) to the contract's uint8 (H, W, 3).

    Raises ImageDecodeError when the crop leaves the image.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ImageDecodeError(f"camera {camera.name}: expected uint8 (h, w, 3), got {image.dtype} {image.shape}")
    if camera.crop is not None:
        top, left, height, width = camera.crop
        if top + height > image.shape[0] or left + width > image.shape[1]:
            raise ImageDecodeError(f"camera {camera.name}: crop (top, left, height, width) {camera.crop} leaves the "
                                   f"{image.shape[0]}x{image.shape[1]} (height x width) image")
        image = image[top : top + height, left : left + width]
    height, width = camera.size
    if image.shape[:2] == (height, width):
        return np.ascontiguousarray(image)
    cv2 = _cv2()
    shrinks = height <= image.shape[0] and width <= image.shape[1]
    resized = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    return np.asarray(resized, np.uint8)
