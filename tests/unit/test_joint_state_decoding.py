"""Joint states decoded by the last one's layout are those that the general decoder gives."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from recordings import typestore

from corft_core.data.bag.joint_states import JOINT_STATE, JointStateDecoder

STORE = typestore()
NAMES = st.lists(st.text(max_size=5), max_size=4)
NUMBERS = st.lists(st.floats(width=64), max_size=4)
STATES = st.tuples(st.integers(0, 2**31 - 1), st.text(max_size=5), NAMES, NUMBERS, NUMBERS, NUMBERS)


def serialised(state: tuple, little_endian: bool = True) -> memoryview:
    stamp, frame, names, *numbers = state
    time, header = (STORE.types[f"builtin_interfaces/msg/{'Time'}"], STORE.types["std_msgs/msg/Header"])
    message = STORE.types[JOINT_STATE](header(time(stamp, 7), frame), names, *map(np.array, numbers))
    return memoryview(bytes(STORE.serialize_cdr(message, JOINT_STATE, little_endian=little_endian)))


def general(data: memoryview) -> object:
    return STORE.deserialize_cdr(data, JOINT_STATE)


def same(ours: object, theirs: object) -> None:
    assert ours.header == theirs.header and ours.name == theirs.name
    for field in ("position", "velocity", "effort"):
        assert getattr(ours, field).dtype == np.float64
        np.testing.assert_array_equal(getattr(ours, field), getattr(theirs, field))


@given(st.lists(st.tuples(STATES, st.integers(1, 3), st.booleans()), min_size=1, max_size=5))
def test_any_sequence_of_joint_states_is_decoded_as_by_the_general_decoder(sequence: list) -> None:
    decoder = JointStateDecoder(general)
    for state, repeats, little_endian in sequence:
        for k in range(repeats):
            data = serialised((state[0] // (k + 1), *state[1:3], *([n + k for n in part] for part in state[3:])),
                              little_endian)
            same(decoder(data), general(data))


@given(STATES, st.data())
def test_changed_bytes_give_what_the_general_decoder_gives(state: tuple, data: st.DataObject) -> None:
    """Also its errors: names, counts and sizes that do not fit are never taken for the last message's."""
    decoder, good = JointStateDecoder(general), serialised(state)
    decoder(good)
    changed = bytearray(good)
    changed[data.draw(st.integers(0, len(good) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        expected = general(memoryview(changed))
    except Exception as error:  # the general decoder raises nearly anything
        with pytest.raises(type(error)):
            decoder(memoryview(changed))
    else:
        same(decoder(memoryview(changed)), expected)


def test_repeated_joint_states_do_without_the_general_decoder() -> None:
    calls = []
    decoder = JointStateDecoder(lambda data: calls.append(data) or general(data))
    states = [(k, "base", ["a", "b"], [k, 1.0], [], [2.0, k]) for k in range(5)]
    assert [decoder(serialised(state)).position[0] for state in states] == [0, 1, 2, 3, 4]
    assert len(calls) == 1
    assert list(decoder(serialised((9, "base", ["b", "a"], [1.0, 2.0], [], [0.0, 0.0]))).name) == ["b", "a"]
    assert len(calls) == 2
