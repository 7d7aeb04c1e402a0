"""Frames for the encoders: as true to the picture as swscale's, at every kind of edge."""

from __future__ import annotations

import av
import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from corft_core.data.yuv import Yuv420

Image = NDArray[np.uint8]


def picture(kind: str, height: int = 240, width: int = 320) -> Image:
    """Something with edges of colour at odd and at even places."""
    frame = np.full((height, width, 3), (60, 70, 80), np.uint8)
    if kind == "square":
        frame[51:151, 101:201] = 250, 20, 10
    elif kind == "noise":
        random = np.random.default_rng(0).integers(0, 256, frame.shape, np.uint8)
        frame = np.asarray(cv2.GaussianBlur(random, (0, 0), 1.5), np.uint8)
    elif kind == "ramp":
        frame[:] = np.linspace(0, 255, width).astype(np.uint8)[:, None]
        frame[: height // 2, :, 1] = 0
    return frame


def psnr(a: Image, b: Image) -> float:
    """Peak signal to noise [dB]."""
    return float(10 * np.log10(255**2 / np.mean((a.astype(float) - b) ** 2)))


def seen(planes: av.VideoFrame) -> Image:
    """What a reader of the data set makes of it."""
    return np.asarray(planes.to_ndarray(format="rgb24"), np.uint8)


@pytest.mark.parametrize("kind", ["square", "noise", "ramp"])
def test_pictures_survive_as_well_as_through_swscale(kind: str) -> None:
    frame = picture(kind)
    reference = av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(format="yuv420p")
    assert psnr(frame, seen(Yuv420(*frame.shape[:2])(frame))) >= psnr(frame, seen(reference)) - 0.1


@pytest.mark.parametrize("colour", [(0, 0, 0), (255, 255, 255), (255, 0, 0), (0, 255, 0), (0, 0, 255), (200, 10, 10)])
def test_plain_colours_stay_what_they_are(colour: tuple[int, int, int]) -> None:
    frame = np.full((48, 64, 3), colour, np.uint8)
    assert np.abs(seen(Yuv420(48, 64)(frame)).astype(int) - frame).max() <= 3


def test_one_converter_serves_frame_after_frame() -> None:
    convert = Yuv420(240, 320)
    first = seen(convert(picture("square")))
    convert(picture("noise"))
    assert np.array_equal(seen(convert(picture("square"))), first)
