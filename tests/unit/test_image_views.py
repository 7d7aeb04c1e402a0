"""Views of serialised images hold what the messages hold; damaged ones are refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rosbags.typesys import Stores, get_typestore

from corft.image_views import read_image
from corft_core.data.images import ImageDecodeError, decode_image

STORE = get_typestore(Stores.ROS2_JAZZY)
IMAGE, COMPRESSED = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"
texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)


def header(sec: int, frame_id: str):
    stamp = STORE.types["builtin_interfaces/msg/Time"](sec=sec, nanosec=7)
    return STORE.types["std_msgs/msg/Header"](stamp=stamp, frame_id=frame_id)


def image(sec: int, frame_id: str, encoding: str, data: np.ndarray):
    return STORE.types[IMAGE](header(sec, frame_id), height=2, width=2, encoding=encoding, is_bigendian=0, step=6,
                              data=data)


@given(st.integers(-(2**31), 2**31 - 1), texts, texts, st.binary(max_size=40), st.booleans())
def test_a_view_equals_the_message(sec, frame_id, encoding, data, little):
    pixels = np.frombuffer(data, np.uint8)
    for message, kind in ((image(sec, frame_id, encoding, pixels), IMAGE),
                          (STORE.types[COMPRESSED](header(sec, frame_id), format=encoding, data=pixels), COMPRESSED)):
        view = read_image(bytes(STORE.serialize_cdr(message, kind, little_endian=little)), kind)
        assert (view.stamp_ns, view.frame_id) == (sec * 10**9 + 7, frame_id)
        assert bytes(view.data) == data
        if kind == IMAGE:
            assert (view.height, view.width, view.encoding, view.step) == (2, 2, encoding, 6)
        else:
            assert view.format == encoding


def test_the_decoder_takes_a_view_for_a_message():
    message = image(1, "camera", "bgr8", np.arange(12, dtype=np.uint8))
    view = read_image(bytes(STORE.serialize_cdr(message, IMAGE)), IMAGE)
    assert np.array_equal(decode_image(view), decode_image(message))


@given(st.integers(0, 59))
def test_a_message_cut_anywhere_is_refused(length):
    whole = bytes(STORE.serialize_cdr(image(1, "c", "rgb8", np.zeros(12, np.uint8)), IMAGE))
    assert len(whole) > 59
    with pytest.raises(ImageDecodeError):
        read_image(whole[:length], IMAGE)


@given(st.binary(max_size=80))
def test_junk_is_refused_or_read_but_never_raises_anything_else(junk):
    for kind in (IMAGE, COMPRESSED):
        try:
            read_image(junk, kind)
        except ImageDecodeError:
            continue
