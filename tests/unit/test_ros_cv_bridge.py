"""Encodings outside our own tables go to ROS's cv_bridge, which may be missing or built for another NumPy."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from recordings import Messages

from corft_core.data import ros_cv_bridge
from corft_core.data.images import ImageDecodeError, decode_image

HAS_CV_BRIDGE = not ros_cv_bridge.cv_bridge_trouble()
WORKING = """
import numpy as np
class CvBridge:
    def imgmsg_to_cv2(self, message, desired_encoding):
        assert desired_encoding == "rgb8"
        if message.encoding != "nv21":
            raise TypeError(f"{message.encoding} is not a colour format")
        return np.full((message.height, message.width, 3), (200, 10, 20), np.uint8)
"""
CRASHING = "import os\nos.abort()\n"


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Puts a package cv_bridge with this source in the place of whatever is there."""
    def install(source: str) -> None:
        (tmp_path / "cv_bridge/boost").mkdir(parents=True)
        (tmp_path / "cv_bridge/__init__.py").write_text(source)
        (tmp_path / "cv_bridge/boost/__init__.py").touch()
        (tmp_path / "cv_bridge/boost/cv_bridge_boost.py").write_text("def cvtColor2(*_): pass\n")
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    def forget() -> None:
        ros_cv_bridge.cv_bridge_trouble.cache_clear()
        ros_cv_bridge._bridge.cache_clear()
        for name in [name for name in sys.modules if name.split(".")[0] == "cv_bridge"]:
            del sys.modules[name]

    forget()
    yield install
    forget()


def message(encoding: str) -> Any:
    image = Messages().image(0, np.zeros((4, 6, 3), np.uint8))
    image.encoding = encoding
    return image


def test_an_encoding_that_only_cv_bridge_knows_is_decoded_by_it(installed: Callable[[str], None]) -> None:
    installed(WORKING)
    assert decode_image(message("nv21"))[0, 0].tolist() == [200, 10, 20]


def test_what_cv_bridge_refuses_is_refused_with_its_reason(installed: Callable[[str], None]) -> None:
    installed(WORKING)
    with pytest.raises(ImageDecodeError, match=r"'nv99' is not known.*nv99 is not a colour format"):
        decode_image(message("nv99"))


def test_a_cv_bridge_that_crashes_takes_nothing_with_it(installed: Callable[[str], None]) -> None:
    installed(CRASHING)
    with pytest.raises(ImageDecodeError, match=r"'nv21' is not known.*cannot be loaded with NumPy"):
        decode_image(message("nv21"))


@pytest.mark.skipif(HAS_CV_BRIDGE, reason="cv_bridge is installed here")
def test_without_cv_bridge_the_message_says_how_to_get_it() -> None:
    with pytest.raises(ImageDecodeError, match=r"'nv21' is not known.*install ros-.*-cv-bridge"):
        decode_image(message("nv21"))


@pytest.mark.skipif(not HAS_CV_BRIDGE, reason="cv_bridge is not installed or does not load here")
@pytest.mark.parametrize("encoding", ["rgb8", "bgr8", "rgba8", "bgra8", "mono8", "bayer_rggb8", "bayer_bggr8",
                                      "bayer_gbrg8", "bayer_grbg8", "yuv422", "yuv422_yuy2"])
def test_our_decoder_gives_the_pixels_of_cv_bridge(encoding: str) -> None:
    channels = {"mono8": 1, "rgba8": 4, "bgra8": 4}.get(encoding, 2 if "yuv" in encoding else
                                                        1 if "bayer" in encoding else 3)
    image = message(encoding)
    image.height, image.width, image.step = 8, 12, 12 * channels
    image.data = np.random.default_rng(0).integers(0, 256, 8 * image.step, np.uint8)
    np.testing.assert_array_equal(decode_image(image), ros_cv_bridge.decode_with_cv_bridge(image))
