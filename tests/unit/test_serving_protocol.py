"""Messages between robot and policy server: what goes in comes out, and garbage is refused."""

from __future__ import annotations

import contextlib
import json
import math
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image
from safetensors.numpy import save

from corft_core.contract import Contract
from corft_core.data.history import Spacing
from corft_core.errors import CorftError
from corft_core.prediction import ChunkPrediction
from corft_core.serving.interface import PolicyInfo, Request, Seen, noise_seed, nothing_seen
from corft_core.serving.protocol import (
    Message,
    ProtocolError,
    pack,
    pack_info,
    pack_prediction,
    pack_request,
    unpack,
    unpack_info,
    unpack_prediction,
    unpack_request,
)

CONTRACT = Path(__file__).parents[2] / "ros2_ws/src/corft/config/panda_cell/contract.yaml"
INFO = PolicyInfo("policy", "0123", Contract.load(CONTRACT), horizon=10, inpaints=True, instructions=("go", "stop"),
                  spacing=Spacing(3, 10**8))
NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
VECTORS = hnp.arrays(np.float64, st.integers(0, 20), elements=NUMBERS)
TABLES = hnp.arrays(np.float64, st.tuples(st.integers(0, 8), st.integers(0, 8)), elements=NUMBERS)
PICTURES = hnp.arrays(np.uint8, st.tuples(st.integers(1, 5), st.integers(1, 5), st.just(3)))
SEEN = st.builds(Seen, st.integers(0, 2**63 - 1), st.dictionaries(st.text(max_size=9), PICTURES, max_size=3), VECTORS)
REQUESTS = st.builds(
    Request, SEEN, instruction=st.text(max_size=50), seed=st.integers(0, 2**63 - 1), plan=st.none() | TABLES,
    frozen=st.integers(0, 50), run=st.text(max_size=9), begins=st.booleans(),
    past=st.lists(SEEN, max_size=2).map(tuple))
patient = settings(deadline=None, max_examples=60)
JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
                    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4))


def sent(kind: str, header: dict, arrays: dict) -> Message:
    return unpack(pack(Message(kind, "robot", 7, header, arrays)))


@patient
@given(REQUESTS)
def test_a_request_arrives_bit_for_bit(request: Request) -> None:
    message = sent("chunk", *pack_request(request, "raw"))
    assert (message.kind, message.session, message.number) == ("chunk", "robot", 7)
    arrived = unpack_request(message)
    for name in ("instruction", "seed", "frozen", "run", "begins"):
        assert getattr(arrived, name) == getattr(request, name)
    for there, here in zip((arrived.now, *arrived.past), (request.now, *request.past), strict=True):
        assert there.stamp_ns == here.stamp_ns and there.state.tobytes() == here.state.tobytes()
        assert there.images.keys() == here.images.keys()
        assert all(np.array_equal(there.images[name], here.images[name]) for name in here.images)
    assert (arrived.plan is None) == (request.plan is None)
    if request.plan is not None and arrived.plan is not None:
        assert arrived.plan.shape == request.plan.shape and arrived.plan.tobytes() == request.plan.tobytes()


@patient
@given(hnp.arrays(np.float64, (1, 4, 3)), hnp.arrays(np.float64, 1), st.none() | hnp.arrays(np.float64, 1),
       st.integers(0, 99), st.floats())
def test_a_prediction_arrives_with_every_field(actions, value, steps, forwards, kept) -> None:
    arrived = unpack_prediction(sent("chunk", {}, pack_prediction(
        ChunkPrediction(actions, value, steps, forwards, kept))))
    assert arrived.actions.tobytes() == actions.tobytes() and arrived.value.tobytes() == value.tobytes()
    assert (arrived.steps is None and steps is None) or arrived.steps.tobytes() == steps.tobytes()
    assert arrived.forwards == forwards and isinstance(arrived.forwards, int)
    assert arrived.kept == kept or (math.isnan(arrived.kept) and math.isnan(kept))


def test_what_a_robot_must_know_of_the_policy_arrives() -> None:
    assert unpack_info(sent("info", pack_info(INFO), {})) == INFO
    with pytest.raises(ProtocolError, match="reads its contract as rate_hz 20, this corft as 10"):
        unpack_info(sent("info", pack_info(INFO) | {"rate_hz": 20}, {}))
    with pytest.raises(CorftError):
        unpack_info(sent("info", pack_info(INFO) | {"contract": {"rate_hz": 10}}, {}))


@patient
@given(st.lists(st.binary(max_size=200), max_size=4))
def test_garbage_is_refused(frames: list[bytes]) -> None:
    with pytest.raises(ProtocolError):
        unpack(frames)


@patient
@given(st.data())
def test_a_damaged_message_is_refused_or_a_message_still(data: st.DataObject) -> None:
    frames = pack(Message("chunk", "robot", 7, *pack_request(nothing_seen(INFO), "raw")))
    place = data.draw(st.integers(0, 1))
    frame = bytearray(frames[place])
    for _ in range(data.draw(st.integers(1, 5))):
        frame[data.draw(st.integers(0, min(len(frame), 1000) - 1))] = data.draw(st.integers(0, 255))
    frames[place] = bytes(frame[:data.draw(st.integers(0, len(frame)))])
    with contextlib.suppress(ProtocolError):
        unpack_request(unpack(frames))


@patient
@given(st.dictionaries(st.sampled_from(["stamps_ns", "seed", "frozen", "instruction", "images", "run", "begins"]), JSON,
                       min_size=1),
       st.dictionaries(st.sampled_from(["0.state", "plan", "0.image.front", "1.state"]),
                       hnp.arrays(st.sampled_from([np.uint8, np.float64, np.float32, np.int64]),
                                  hnp.array_shapes(min_dims=0, max_dims=4, max_side=3))))
def test_fields_of_another_type_are_refused(header: dict, arrays: dict) -> None:
    good, pictures = pack_request(nothing_seen(INFO), "raw")
    message = Message("chunk", "robot", 7, good | header, pictures | arrays)
    try:
        arrived = unpack_request(message)
    except ProtocolError:
        return
    assert arrived.now.state.dtype == np.float64
    assert all(pixels.dtype == np.uint8 for pixels in arrived.now.images.values())


def test_a_deep_header_a_huge_one_and_strange_arrays_are_refused() -> None:
    plain = save({})
    for header in (b"[" * 100_000, b"{" + b" " * 2**20 + b"}", b'{"corft_policy": 1}',
                   b'{"corft_policy":1,"kind":"chunk","session":"a","number":-1}',
                   b'{"corft_policy":1,"kind":"chunk","session":"' + b"a" * 65 + b'","number":1}'):
        with pytest.raises(ProtocolError):
            unpack([header, plain])
    with pytest.raises(ProtocolError, match="float16"):
        sent("chunk", {}, {"state": np.zeros(3, np.float16)})


def test_another_version_is_named() -> None:
    header = json.dumps({"corft_policy": 2, "anything": "else"}).encode()
    with pytest.raises(ProtocolError, match="protocol 2, this corft speaks 1: install the same corft") as refused:
        unpack([header, save({})])
    assert refused.value.version == 2


def test_red_stays_red_in_a_jpeg() -> None:
    red = np.zeros((32, 48, 3), np.uint8)
    red[8:24, 16:32] = (250, 10, 10)
    request = Request(Seen(0, {"front": red}, np.zeros(3)), "go", 0)
    header, arrays = pack_request(request, "jpeg")
    assert arrays["0.image.front"].ndim == 1 and len(arrays["0.image.front"]) < red.size / 2
    arrived = unpack_request(sent("chunk", header, arrays)).now.images["front"]
    assert arrived.shape == red.shape and np.abs(arrived[16, 24].astype(int) - (250, 10, 10)).max() < 12


def test_a_picture_that_is_none_or_would_fill_the_memory_is_refused() -> None:
    header, arrays = pack_request(nothing_seen(INFO), "jpeg")
    file = BytesIO()
    Image.new("L", (8192, 8192)).save(file, "JPEG")
    png = BytesIO()
    Image.new("RGB", (8, 8)).save(png, "PNG")
    for data in (file.getvalue(), png.getvalue(), b"\xff\xd8\xff", b""):
        with pytest.raises(ProtocolError, match=r"0\.image\.front (is no JPEG|has 8192 x 8192 pixels)"):
            unpack_request(sent("chunk", header, arrays | {"0.image.front": np.frombuffer(data, np.uint8)}))


def test_noise_differs_between_chunks_and_not_between_runs() -> None:
    seeds = [noise_seed(3, number) for number in range(1000)]
    assert len(set(seeds)) == 1000 and seeds == [noise_seed(3, number) for number in range(1000)]
    assert all(0 <= seed < 2**63 for seed in seeds) and noise_seed(4, 0) != noise_seed(3, 0)
