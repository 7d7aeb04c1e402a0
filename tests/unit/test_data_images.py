"""Red stays red through every encoding; crop and resize do what the contract says."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from recordings import CONTRACT_FILE, RED, Messages, square

from corft_core.contract import CameraStream, Contract
from corft_core.data.images import ImageDecodeError, decode_image, prepare_image


@pytest.fixture(scope="module")
def build() -> Messages:
    return Messages()


@pytest.fixture(scope="module")
def camera() -> CameraStream:
    return Contract.load(CONTRACT_FILE).cameras[0]


@pytest.mark.parametrize("encoding", ["rgb8", "bgr8", "rgba8", "bgra8", "png", "jpeg"])
def test_a_red_square_stays_red_where_it_is(build: Messages, encoding: str) -> None:
    picture = square((48, 64))
    decoded = decode_image(build.image(0, picture, encoding))
    assert decoded.dtype == np.uint8 and decoded.shape == (48, 64, 3)
    tolerance = 12 if encoding == "jpeg" else 0
    assert np.abs(decoded[12, 16].astype(int) - RED).max() <= tolerance
    assert np.abs(decoded[40, 60].astype(int) - 90).max() <= tolerance


def test_row_padding_is_respected(build: Messages) -> None:
    picture = square((30, 21))
    assert np.array_equal(decode_image(build.image(0, picture, "bgr8", padding=7)), picture)


def test_yuv422_and_bayer_decode_to_colour(build: Messages) -> None:
    message = build.image(0, np.zeros((4, 4, 3), np.uint8))
    message.encoding, message.step, message.data = "yuv422", 8, np.full(32, 128, np.uint8)
    assert np.abs(decode_image(message).astype(int) - 130).max() < 4  # grey: both chroma at the middle
    message.encoding, message.step, message.data = "bayer_rggb8", 4, np.full(16, 77, np.uint8)
    assert np.all(decode_image(message) == 77)


def test_mono8_becomes_grey(build: Messages) -> None:
    message = build.image(0, np.zeros((2, 3, 3), np.uint8))
    message.encoding, message.step, message.data = "mono8", 3, np.arange(6, dtype=np.uint8)
    assert decode_image(message)[1, 2].tolist() == [5, 5, 5]


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
    with pytest.raises(ImageDecodeError, match="leaves the 100x200"):
        prepare_image(image, dataclasses.replace(camera, crop=(80, 0, 40, 40)))


def test_an_image_of_the_right_size_is_left_as_it_is(camera: CameraStream) -> None:
    image = np.random.default_rng(0).integers(0, 255, (*camera.size, 3), np.uint8)
    assert np.array_equal(prepare_image(image, camera), image)
