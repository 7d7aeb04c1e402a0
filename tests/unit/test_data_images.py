"""Red stays red through every encoding; crop and resize do what the contract says."""

from __future__ import annotations

import contextlib
import dataclasses
import struct
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from recordings import CONTRACT_FILE, RED, Messages, square

from corft_core.contract import CameraStream, Contract
from corft_core.data import images
from corft_core.data.images import ImageDecodeError, camera_image, decode_image, prepare_image


@pytest.fixture(scope="module")
def build() -> Messages:
    return Messages()


@pytest.fixture(scope="module")
def camera() -> CameraStream:
    return Contract.load(CONTRACT_FILE).cameras[0]


def encoded(build: Messages, rgb: np.ndarray, encoding: str, big_endian: bool = False) -> Any:
    """``rgb`` (h, w, 3) as a message of any encoding that carries colour."""
    if encoding in ("jpeg", "png", "rgb8", "bgr8", "rgba8", "bgra8"):
        return build.image(0, rgb, encoding)
    height, width = rgb.shape[:2]
    message = build.image(0, rgb)
    message.encoding = encoding
    if encoding == "png16":
        _, data = cv2.imencode(".png", rgb[:, :, ::-1].astype(np.uint16) << 8)
        packed = build.image(0, rgb, "png")
        packed.data = np.asarray(data).reshape(-1)
        return packed
    if encoding.startswith("bayer"):
        colour = {"r": 0, "g": 1, "b": 2}
        pattern = [colour[letter] for letter in encoding[6:10]]
        pixels = np.empty((height, width), np.uint8)
        for place, channel in enumerate(pattern):
            pixels[place // 2 :: 2, place % 2 :: 2] = rgb[place // 2 :: 2, place % 2 :: 2, channel]
        pixels = pixels[:, :, None]
    elif encoding in ("yuv422", "uyvy", "yuv422_yuy2", "yuyv"):
        y, cr, cb = np.moveaxis(cv2.cvtColor(rgb, cv2.COLOR_RGB2YCrCb), -1, 0).astype(float)
        y = 16 + y * 219 / 255
        chroma = np.where(np.arange(width) % 2 == 0, cb, cr)
        chroma = 128 + (chroma - 128) * 224 / 255
        order = (y, chroma) if encoding in ("yuv422_yuy2", "yuyv") else (chroma, y)
        pixels = np.stack(order, -1).round().astype(np.uint8)
    else:
        pixels = rgb if encoding == "rgb16" else rgb[:, :, ::-1]
    if encoding.endswith("16"):
        pixels = (pixels.astype(np.uint16) << 8).astype(">u2" if big_endian else "<u2")
    rows = np.ascontiguousarray(pixels).view(np.uint8).reshape(height, -1)
    message.is_bigendian, message.step, message.data = int(big_endian), rows.shape[1], rows.reshape(-1)
    return message


@pytest.mark.parametrize("big_endian", [False, True])
@pytest.mark.parametrize("encoding", [
    "rgb8", "bgr8", "rgba8", "bgra8", "8UC3", "rgb16", "bgr16", "png", "png16", "jpeg", "yuv422", "uyvy", "yuv422_yuy2",
    "yuyv", "bayer_rggb8", "bayer_bggr8", "bayer_gbrg8", "bayer_grbg8", "bayer_rggb16"])
def test_a_red_square_stays_red_where_it_is(build: Messages, encoding: str, big_endian: bool) -> None:
    picture = square((48, 64))
    decoded = decode_image(encoded(build, picture, encoding, big_endian))
    assert decoded.dtype == np.uint8 and decoded.shape == (48, 64, 3)
    tolerance = 12 if encoding == "jpeg" else 4 if "yu" in encoding or "yv" in encoding else 0
    assert np.abs(decoded[12, 16].astype(int) - RED).max() <= tolerance
    assert np.abs(decoded[40, 60].astype(int) - 90).max() <= tolerance


def test_row_padding_is_respected(build: Messages) -> None:
    picture = square((30, 21))
    assert np.array_equal(decode_image(build.image(0, picture, "bgr8", padding=7)), picture)


def test_mono8_becomes_grey(build: Messages) -> None:
    message = build.image(0, np.zeros((2, 3, 3), np.uint8))
    message.encoding, message.step, message.data = "mono8", 3, np.arange(6, dtype=np.uint8)
    assert decode_image(message)[1, 2].tolist() == [5, 5, 5]


@pytest.mark.parametrize("big_endian", [False, True])
def test_mono16_becomes_grey_in_either_byte_order(build: Messages, big_endian: bool) -> None:
    values = np.array([[0, 255, 256, 65535]], np.uint16)
    message = raw(build, values, "mono16", big_endian)
    assert decode_image(message)[0, :, 1].tolist() == [0, 0, 1, 255]


def raw(build: Messages, values: np.ndarray, encoding: str, big_endian: bool = False) -> Any:
    """A one-channel message with ``values`` (h, w)."""
    message = build.image(0, np.zeros((*values.shape, 3), np.uint8))
    data = values.astype(values.dtype.newbyteorder(">" if big_endian else "<"))
    message.encoding, message.is_bigendian = encoding, int(big_endian)
    message.step, message.data = values.shape[1] * values.itemsize, np.frombuffer(data.tobytes(), np.uint8)
    return message


DEPTH_M = np.array([[0.5, 1.0, 1.5, 0.1, 9.0, 0.0]])  # near, middle, far, nearer, farther, no reading
GREY = [255, 128, 0, 255, 0, 0]


@pytest.mark.parametrize("big_endian", [False, True])
@pytest.mark.parametrize("encoding,values", [
    ("16UC1", (DEPTH_M * 1000).astype(np.uint16)), ("mono16", (DEPTH_M * 1000).astype(np.uint16)),
    ("32FC1", np.where(DEPTH_M == 0, np.nan, DEPTH_M).astype(np.float32)),
    ("32FC1", np.where(DEPTH_M == 0, np.inf, DEPTH_M).astype(np.float32))])
def test_depth_becomes_grey_by_the_contracts_range(build: Messages, encoding: str, values: np.ndarray,
                                                   big_endian: bool) -> None:
    decoded = decode_image(raw(build, values, encoding, big_endian), (0.5, 1.5))
    assert decoded.shape == (1, 6, 3) and decoded[0, :, 0].tolist() == GREY
    assert np.all(decoded == decoded[:, :, :1])


@pytest.mark.parametrize("kind", ["16UC1; png compressed", "16UC1; compressedDepth png", "32FC1; compressedDepth"])
def test_compressed_depth_becomes_grey_by_the_contracts_range(build: Messages, kind: str) -> None:
    message = build.image(0, square((8, 8)), "png")
    levels, header = (DEPTH_M * 1000).astype(np.uint16), b""
    if "compressedDepth" in kind:
        a, b = 10100.0, -1009.0  # the transport's own: precision 100, farthest 10 m; level = a / depth + b, 0 unknown
        header = struct.pack("<iff", 0, a, b)
        if kind.startswith("32FC1"):
            seen = np.where(DEPTH_M > 0, DEPTH_M, np.inf)
            levels = np.where(DEPTH_M > 0, np.clip(np.round(a / seen + b), 1, 65535), 0).astype(np.uint16)
    data = np.asarray(cv2.imencode(".png", levels)[1]).reshape(-1)
    message.format, message.data = kind, np.concatenate([np.frombuffer(header, np.uint8), data])
    decoded = decode_image(message, (0.5, 1.5))[0, :, 0].astype(int)
    assert np.abs(decoded - GREY).max() <= (1 if kind.startswith("32FC1") else 0)


@pytest.mark.parametrize("encoding", ["16UC1", "32FC1"])
def test_depth_without_a_range_is_refused_with_the_key_to_add(build: Messages, encoding: str) -> None:
    kind = np.uint16 if encoding == "16UC1" else np.float32
    with pytest.raises(ImageDecodeError, match="depth_range_m: \\[near, far\\]"):
        decode_image(raw(build, np.ones((2, 2), kind), encoding))
    with pytest.raises(ImageDecodeError, match="rgb8 is no depth image"):
        decode_image(build.image(0, square((8, 8))), (0.5, 1.5))
    with pytest.raises(ImageDecodeError, match="16-bit depth"):
        decode_image(build.image(0, square((8, 8)), "png"), (0.5, 1.5))


@given(height=st.integers(0, 5), width=st.integers(0, 5), step=st.integers(0, 40), size=st.integers(0, 120),
       encoding=st.sampled_from(["rgb8", "mono16", "32FC1", "yuv422", "bayer_rggb8", "bayer_grbg16", "nv21", ""]),
       depth=st.booleans())
@settings(max_examples=200, deadline=None)
def test_any_image_message_is_decoded_or_refused_by_an_image_error(height: int, width: int, step: int, size: int,
                                                                   encoding: str, depth: bool) -> None:
    message = Messages().image(0, square((8, 8)))
    message.height, message.width, message.step, message.encoding = height, width, step, encoding
    message.data = np.arange(size, dtype=np.uint8)
    try:
        decoded = decode_image(message, (0.1, 1.0) if depth else None)
    except ImageDecodeError:
        return
    assert decoded.shape == (height, width, 3) and decoded.dtype == np.uint8


def test_unreadable_images_are_named(build: Messages) -> None:
    message = build.image(0, square((8, 8)))
    message.encoding = "rgb23"
    with pytest.raises(ImageDecodeError, match="rgb23"):
        decode_image(message)
    short = build.image(0, square((8, 8)))
    short.data = short.data[:-30]
    with pytest.raises(ImageDecodeError, match="192 bytes, got step 24 and 162"):
        decode_image(short)
    broken = build.image(0, square((8, 8)), "png")
    broken.data = broken.data[:20]
    with pytest.raises(ImageDecodeError, match="cannot be decoded"):
        decode_image(broken)


def test_crop_then_resize(camera: CameraStream) -> None:
    image = np.zeros((100, 200, 3), np.uint8)
    image[20:60, 50:90] = RED
    cropped = dataclasses.replace(camera, crop=(20, 50, 40, 40), size=(16, 16))
    assert np.all(prepare_image(image, cropped) == RED)
    assert prepare_image(image, dataclasses.replace(camera, size=(50, 100))).shape == (50, 100, 3)
    assert camera_image(Messages().image(0, image, "bgr8"), cropped).shape == (16, 16, 3)
    with pytest.raises(ImageDecodeError, match="leaves the 100x200"):
        prepare_image(image, dataclasses.replace(camera, crop=(80, 0, 40, 40)))


def test_an_image_of_the_right_size_is_left_as_it_is(camera: CameraStream) -> None:
    image = np.random.default_rng(0).integers(0, 255, (*camera.size, 3), np.uint8)
    assert np.array_equal(prepare_image(image, camera), image)


@given(height=st.integers(1, 60), width=st.integers(1, 60), wanted=st.tuples(st.integers(1, 40), st.integers(1, 40)))
@settings(max_examples=60, deadline=None)
def test_resizing_keeps_a_flat_colour_and_gives_the_contracts_size(height: int, width: int,
                                                                   wanted: tuple[int, int]) -> None:
    camera = dataclasses.replace(Contract.load(CONTRACT_FILE).cameras[0], size=wanted)
    resized = prepare_image(np.full((height, width, 3), RED, np.uint8), camera)
    assert resized.shape == (*wanted, 3) and np.all(resized == RED)


def test_shrinking_in_two_passes_is_close_to_averaging_over_areas(camera: CameraStream) -> None:
    image = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 255, (480, 640, 3)).astype(np.uint8), (9, 9), 0)
    resized = prepare_image(image, dataclasses.replace(camera, size=(224, 224)))
    reference = cv2.resize(image, (224, 224), interpolation=cv2.INTER_AREA)
    assert np.abs(resized.astype(int) - reference).mean() < 2.0


@pytest.mark.parametrize("crop,size,decoded", [
    (None, (224, 224), (240, 320)), (None, (60, 80), (60, 80)), (None, (61, 80), (120, 160)), (None, (241, 320), None),
    ((0, 80, 480, 480), (224, 224), (240, 320)), ((1, 80, 448, 448), (224, 224), None)])
def test_a_large_jpeg_is_decoded_smaller_and_looks_the_same(camera: CameraStream, monkeypatch: pytest.MonkeyPatch,
                                                            crop: Any, size: Any, decoded: Any) -> None:
    small = np.random.default_rng(0).integers(0, 255, (24, 32, 3)).astype(np.uint8)
    message = Messages().image(0, cv2.resize(small, (640, 480), interpolation=cv2.INTER_CUBIC), "jpeg")
    wanted = dataclasses.replace(camera, crop=crop, size=size)
    reference = prepare_image(decode_image(message), wanted)
    sizes = []
    monkeypatch.setattr(images, "prepare_image",
                        lambda image, camera: sizes.append(image.shape[:2]) or prepare_image(image, camera))
    found = camera_image(message, wanted)
    assert np.abs(found.astype(int) - reference).mean() < 1.5
    assert sizes == [decoded or (480, 640)]


@given(st.binary(max_size=80), st.booleans())
@settings(max_examples=150, deadline=None)
def test_any_bytes_as_a_compressed_image_are_refused_or_decoded(data: bytes, jpeg: bool) -> None:
    message = Messages().image(0, square((8, 8)), "jpeg")
    head = bytes(message.data)[:60] if jpeg else b""
    message.data = np.frombuffer(head + data, np.uint8)
    with contextlib.suppress(ImageDecodeError):
        assert camera_image(message, Contract.load(CONTRACT_FILE).cameras[0]).shape == (128, 128, 3)
