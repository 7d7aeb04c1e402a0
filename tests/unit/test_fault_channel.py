"""The fault campaign's relayed topics: what an ordered one never does, however the threads take turns. No ROS."""

from __future__ import annotations

import threading

import pytest
from faults.channel import Channel, Post, delayed, duplicated, faithful

PATIENCE_S = 30.0


class Receiver:
    """Keeps what arrives; what comes by the thread of the post waits at ``gate``."""

    def __init__(self) -> None:
        self.got: list[str] = []
        self.gate, self.waiting = threading.Event(), threading.Event()
        self._changed = threading.Condition()

    def publish(self, message: str) -> None:
        if threading.current_thread() is not threading.main_thread():
            self.waiting.set()
            assert self.gate.wait(PATIENCE_S)
        with self._changed:
            self.got.append(message)
            self._changed.notify()

    def wait_for(self, count: int) -> list[str]:
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.got) >= count, PATIENCE_S), self.got
            return list(self.got)


@pytest.mark.parametrize("ordered", [True, False])
def test_a_copy_that_is_held_up_is_not_overtaken_on_an_ordered_channel(ordered: bool) -> None:
    post, receiver = Post(), Receiver()
    channel = Channel(receiver.publish, post, ordered)
    channel.fault = duplicated(2, 0.001)
    channel.feed("old")
    assert receiver.waiting.wait(PATIENCE_S), "the copy is about to be published"
    channel.fault = faithful
    channel.feed("new")
    assert receiver.got == (["old"] if ordered else ["old", "new"])
    receiver.gate.set()
    assert receiver.wait_for(3) == (["old", "old", "new"] if ordered else ["old", "new", "old"])
    post.close()


def test_delays_of_their_own_do_not_change_the_order_of_an_ordered_channel() -> None:
    class Falling:
        """Delays that become shorter."""

        def __init__(self) -> None:
            self.delays_s = iter([0.2, 0.05, 0.0])

        def uniform(self, *_: float) -> float:
            return next(self.delays_s)

    post, receiver = Post(), Receiver()
    receiver.gate.set()
    channel = Channel(receiver.publish, post, ordered=True)
    channel.fault = delayed(0.0, 0.2, Falling())  # type: ignore[arg-type]
    for name in ("first", "second", "third"):
        channel.feed(name)
    assert receiver.wait_for(3) == ["first", "second", "third"]
    post.close()


@pytest.mark.parametrize("ordered", [False, True])
def test_a_receiver_that_hangs_finds_its_messages_in_their_order(ordered: bool) -> None:
    receiver, post = Receiver(), Post()
    receiver.gate.set()
    channel = Channel(receiver.publish, post, ordered=ordered)
    with channel.keeping():
        for message in "abc":
            channel.feed(message)
        assert receiver.got == []
    channel.feed("d")
    assert receiver.got == ["a", "b", "c", "d"]
    post.close()
