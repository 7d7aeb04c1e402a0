"""Images: from a ROS message of any encoding to what the policy sees, once and in one place.

Red stays red through every encoding (``tests/unit/test_data_images.py``). Depth images become grey by the contract's
``depth_range_m`` and are refused without it: their values are distances, not brightness.
"""

from __future__ import annotations

import struct
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from corft_core.contract import CameraStream
from corft_core.errors import CorftError

Image = NDArray[np.uint8]
Pixels = NDArray[Any]

# Encoding → type, channels, and the channels that are red, green and blue.
_PLAIN = {
    "rgb8": ("u1", 3, (0, 1, 2)), "bgr8": ("u1", 3, (2, 1, 0)), "rgba8": ("u1", 4, (0, 1, 2)),
    "bgra8": ("u1", 4, (2, 1, 0)), "mono8": ("u1", 1, (0, 0, 0)), "8UC1": ("u1", 1, (0, 0, 0)),
    "8UC3": ("u1", 3, (2, 1, 0)), "8UC4": ("u1", 4, (2, 1, 0)), "rgb16": ("u2", 3, (0, 1, 2)),
    "bgr16": ("u2", 3, (2, 1, 0)), "rgba16": ("u2", 4, (0, 1, 2)), "bgra16": ("u2", 4, (2, 1, 0)),
    "mono16": ("u2", 1, (0, 0, 0)),
}
# Distances in units of m; mono16 is brightness for cameras without depth_range_m.
_DEPTH = {"16UC1": ("u2", 1e-3), "mono16": ("u2", 1e-3), "32FC1": ("f4", 1.0)}
# OpenCV names a pattern by its second row, so its names differ from ROS'.
_BAYER = {"rggb": "COLOR_BayerBG2RGB", "bggr": "COLOR_BayerRG2RGB", "gbrg": "COLOR_BayerGR2RGB",
          "grbg": "COLOR_BayerGB2RGB"}
_YUV = {"yuv422": "COLOR_YUV2RGB_UYVY", "uyvy": "COLOR_YUV2RGB_UYVY", "yuv422_yuy2": "COLOR_YUV2RGB_YUY2",
        "yuyv": "COLOR_YUV2RGB_YUY2"}
_FRAME_HEADERS = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
_EXIF = 0xE1
_COMPRESSED_DEPTH_HEADER = struct.Struct("<iff")


class ImageDecodeError(CorftError):
    """An image message that cannot be read."""


@cache
def _cv2() -> Any:
    """OpenCV with its own thread pool off: callers already run one thread a camera."""
    import cv2

    cv2.setNumThreads(1)
    return cv2


def camera_image(message: Any, camera: CameraStream) -> Image:
    """What the policy sees of a camera's message: decoded, cropped and resized uint8 (H, W, 3).

    A JPEG that is at least twice too large is decoded at a half, quarter or eighth of its size, in two thirds of the
    time. Raises ImageDecodeError naming the camera.
    """
    try:
        part = _jpeg_part(message, camera)
        if part > 1:
            smaller = camera
            if camera.crop is not None:
                top, left, height, width = camera.crop
                smaller = replace(camera, crop=(top // part, left // part, height // part, width // part))
            return prepare_image(_decode_compressed(message, None, part), smaller)
        return prepare_image(decode_image(message, camera.depth_range_m), camera)
    except ImageDecodeError as error:
        raise ImageDecodeError(f"camera {camera.name}: {error}") from error


def decode_image(message: Any, depth_range_m: tuple[float, float] | None = None) -> Image:
    """Decode sensor_msgs Image or CompressedImage (rclpy's or rosbags') to rgb uint8 (h, w, 3).

    ``depth_range_m`` (near, far) says that it is a depth image and how it becomes grey. Row padding (``step``) and
    ``is_bigendian`` are respected. Raises ImageDecodeError naming the encoding.
    """
    if hasattr(message, "format"):
        return _decode_compressed(message, depth_range_m)
    height, width, encoding = int(message.height), int(message.width), str(message.encoding)
    if height <= 0 or width <= 0:
        raise ImageDecodeError(f"image is empty: {width}x{height}")
    if depth_range_m is not None:
        if encoding not in _DEPTH:
            raise ImageDecodeError(f"{encoding} is no depth image but depth_range_m is given; depth is "
                                   f"{', '.join(_DEPTH)}")
        kind, unit_m = _DEPTH[encoding]
        return _grey(_rows(message, kind, 1)[:, :, 0] * np.float32(unit_m), depth_range_m)
    if encoding in _PLAIN:
        kind, channels, order = _PLAIN[encoding]
        pixels = _eight_bits(_rows(message, kind, channels))
        return np.ascontiguousarray(pixels[:, :, list(order)] if order != (0, 1, 2) else pixels[:, :, :3])
    if encoding in _YUV:
        if width % 2:
            raise ImageDecodeError(f"{encoding} needs an even width, got {width}")
        return _converted(_rows(message, "u1", 2), _YUV[encoding])
    if encoding.startswith("bayer_") and encoding[6:10] in _BAYER and encoding[10:] in ("8", "16"):
        pixels = _rows(message, "u1" if encoding[10:] == "8" else "u2", 1)[:, :, 0]
        return _converted(_eight_bits(pixels), _BAYER[encoding[6:10]])
    if encoding in _DEPTH:
        raise ImageDecodeError(_unknown(encoding))
    return _bridged(message)


def prepare_image(image: Image, camera: CameraStream) -> Image:
    """Crop and resize rgb uint8 (h, w, 3) to the contract's uint8 (H, W, 3).

    Raises ImageDecodeError when the crop leaves the image.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ImageDecodeError(f"expected uint8 (h, w, 3), got {image.dtype} {image.shape}")
    if camera.crop is not None:
        top, left, height, width = camera.crop
        if top + height > image.shape[0] or left + width > image.shape[1]:
            raise ImageDecodeError(f"crop (top, left, height, width) {camera.crop} leaves the "
                                   f"{image.shape[0]}x{image.shape[1]} (height x width) image")
        image = image[top : top + height, left : left + width]
    height, width = camera.size
    if image.shape[:2] == (height, width):
        return np.ascontiguousarray(image)
    return _resized(image, height, width)


def _resized(image: Image, height: int, width: int) -> Image:
    """Averages over whole pixels as far as that goes, then interpolates: several times faster than averaging over
    parts of pixels, and hardly to be told from it. Below half the size, where interpolation would skip pixels, parts
    are averaged all the same."""
    cv2 = _cv2()
    down, across = _factor(image.shape[0], height), _factor(image.shape[1], width)
    if down * across > 1:
        shape = (image.shape[1] // across, image.shape[0] // down)
        image = cv2.resize(image, shape, interpolation=cv2.INTER_AREA)
    if image.shape[:2] != (height, width):
        skips = image.shape[0] >= 2 * height or image.shape[1] >= 2 * width
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if skips else cv2.INTER_LINEAR)
    return np.asarray(image, np.uint8)


def _factor(size: int, wanted: int) -> int:
    """The largest whole factor that ``size`` can be divided by without falling below ``wanted``."""
    return max((k for k in range(1, size // wanted + 1) if size % k == 0), default=1)


def _rows(message: Any, kind: str, channels: int) -> Pixels:
    """Pixels (h, w, channels) of ``kind`` in this machine's byte order, without the rows' padding."""
    height, width, encoding = int(message.height), int(message.width), str(message.encoding)
    data = np.frombuffer(message.data, np.uint8)
    row = width * channels * int(kind[1])
    step = int(message.step) or row
    if step < row or data.size < step * (height - 1) + row:
        raise ImageDecodeError(f"image {width}x{height} {encoding} needs step >= {row} and {step * height} bytes, "
                               f"got step {step} and {data.size} bytes")
    if data.size < step * height:
        data = np.pad(data, (0, step * height - data.size))
    pixels = data[: step * height].reshape(height, step)[:, :row]
    if kind != "u1":
        order = ">" if message.is_bigendian else "<"
        pixels = np.ascontiguousarray(pixels).view(f"{order}{kind}").astype(kind)
    return pixels.reshape(height, width, channels)


def _jpeg_part(message: Any, camera: CameraStream) -> int:
    """8, 4, 2 or 1: the smallest part of a JPEG's size that still covers what the contract wants, pixel for pixel."""
    size = None if camera.depth_range_m is not None or not hasattr(message, "format") else _jpeg_size(message.data)
    if size is None:
        return 1
    crop = camera.crop or (0, 0, *size)
    for part in (8, 4, 2):
        covers = crop[2] >= part * camera.size[0] and crop[3] >= part * camera.size[1]
        if covers and not any(value % part for value in (*size, *crop)):
            return part
    return 1


def _jpeg_size(data: Any) -> tuple[int, int] | None:
    """(height, width) from a JPEG's frame header; None for anything else, and for one that may ask to be turned."""
    head = bytes(data[:1024])
    at = 2 if head[:2] == b"\xff\xd8" else len(head)
    while at + 9 <= len(head) and head[at] == 0xFF and head[at + 1] != _EXIF:
        if head[at + 1] in _FRAME_HEADERS:
            height, width = struct.unpack_from(">HH", head, at + 5)
            return height, width
        at += 2 + int.from_bytes(head[at + 2 : at + 4], "big")
    return None


def _decode_compressed(message: Any, depth_range_m: tuple[float, float] | None, part: int = 1) -> Image:
    """JPEG and PNG, 16-bit ones too, and depth as the compressedDepth transport sends it; a JPEG's ``part``-th size."""
    cv2 = _cv2()
    data, kind = np.frombuffer(message.data, np.uint8), str(message.format)
    packed_depth = "compressedDepth" in kind
    quantised = packed_depth and kind.startswith("32FC1")
    parameters = (0, 0.0, 0.0)
    if packed_depth and data.size > _COMPRESSED_DEPTH_HEADER.size:
        parameters = _COMPRESSED_DEPTH_HEADER.unpack(data[: _COMPRESSED_DEPTH_HEADER.size].tobytes())
        data = data[_COMPRESSED_DEPTH_HEADER.size :]
    depth = depth_range_m is not None
    as_rgb = getattr(cv2, "IMREAD_COLOR_RGB", None) if part == 1 else None  # newer than OpenCV 4.10
    if depth:
        mode = cv2.IMREAD_UNCHANGED
    elif part > 1:
        mode = getattr(cv2, f"IMREAD_REDUCED_COLOR_{part}")
    else:
        mode = cv2.IMREAD_COLOR if as_rgb is None else as_rgb
    try:
        image = cv2.imdecode(data, mode) if data.size else None
    except cv2.error:
        image = None
    if image is None:
        raise ImageDecodeError(f"compressed image with format {kind!r} and {data.size} bytes cannot be decoded; "
                               "JPEG and PNG can")
    if not depth:
        if packed_depth or kind.startswith(("16UC1", "32FC1")):
            raise ImageDecodeError(_unknown(kind.split(";")[0]))
        return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB) if as_rgb is None else image, np.uint8)
    if image.ndim != 2 or image.dtype != np.uint16:
        raise ImageDecodeError(f"format {kind!r} holds {image.dtype} {image.shape}, but depth_range_m says that it is "
                               "a 16-bit depth image")
    if not quantised:
        return _grey(image * np.float32(1e-3), depth_range_m)
    _, a, b = parameters  # 32FC1 travels as 1 / depth in 16 bits, 0 for no reading
    with np.errstate(divide="ignore"):
        metres = np.where(image > 0, np.float32(a) / (image.astype(np.float32) - np.float32(b)), 0)
    return _grey(metres, depth_range_m)


def _grey(metres: Pixels, depth_range_m: tuple[float, float] | None) -> Image:
    """Depth (h, w) [m] → white at near, black at far and where there is no reading (0, NaN, infinite)."""
    assert depth_range_m is not None
    near, far = depth_range_m
    seen = np.isfinite(metres) & (metres > 0)
    level = np.where(seen, np.clip((far - np.where(seen, metres, far)) / (far - near), 0.0, 1.0), 0.0)
    return np.repeat(np.round(255 * level).astype(np.uint8)[:, :, None], 3, axis=2)


def _eight_bits(pixels: Pixels) -> Image:
    return (pixels >> 8).astype(np.uint8) if pixels.dtype == np.uint16 else pixels


def _converted(pixels: Pixels, code: str) -> Image:
    cv2 = _cv2()
    try:
        return np.asarray(cv2.cvtColor(np.ascontiguousarray(pixels), getattr(cv2, code)), np.uint8)
    except cv2.error as error:
        raise ImageDecodeError(f"image of {pixels.shape} cannot be turned into rgb: {error}") from error


def _bridged(message: Any) -> Image:
    """An encoding of none of the tables: cv_bridge may know it."""
    from corft_core.data.ros_cv_bridge import decode_with_cv_bridge

    try:
        return decode_with_cv_bridge(message)
    except CorftError as error:
        raise ImageDecodeError(f"{_unknown(str(message.encoding))}. {error}") from error


def _unknown(encoding: str) -> str:
    if encoding in _DEPTH:
        return (f"{encoding} is a depth image: say how it becomes grey with the camera's depth_range_m: [near, far], "
                "for example [0.2, 1.5]")
    known = ", ".join((*_PLAIN, *_DEPTH, *_YUV, *(f"bayer_{name}8" for name in _BAYER)))
    return f"image encoding {encoding!r} is not known, record a compressed transport or one of: {known}"
