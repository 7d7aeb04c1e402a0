"""Faults of what a goal of the policy depends on besides joint states: its cameras, and the executor's word."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterator

import numpy as np
from sensor_msgs.msg import Image

from faults.channel import Fault, changed, delayed, dropped, duplicated, reordered
from faults.kinds import FaultKind, Inject
from faults.rig import Rig

GOES_ON = ""
STALE = "stale observations"
SILENT_S = 5.5  # a little longer than the policy waits for an executor


def goals() -> list[FaultKind]:
    """Every kind of them."""
    return [*_cameras(), *_statuses()]


def _camera(fault: Callable[[random.Random], Fault], duration_s: float = 1.5) -> Inject:
    """One of the cameras."""
    def inject(rig: Rig, rng: random.Random) -> None:
        with rig.faulty(rng.choice(rig.contract.cameras).name, fault(rng)):
            rig.run(duration_s)
    return inject


def _frozen(stamps_too: bool) -> Callable[[random.Random], Fault]:
    """The same picture again and again, with new stamps or with its old one."""
    def fault(rng: random.Random) -> Fault:
        first: list[Image] = []

        def freeze(image: Image) -> Image:
            if not first:
                first.append(copy.deepcopy(image))
            frozen = copy.deepcopy(first[0])
            if not stamps_too:
                frozen.header.stamp = image.header.stamp
            return frozen
        return changed(freeze)
    return fault


def _edited(edit: Callable[[Image], None]) -> Callable[[random.Random], Fault]:
    def change(image: Image) -> Image:
        edit(image)
        return image
    return lambda rng: changed(change)


def _half_the_size(image: Image) -> None:
    pixels = np.frombuffer(bytes(image.data), np.uint8).reshape(image.height, image.step)
    pixels = pixels[:, :3 * image.width].reshape(image.height, image.width, 3)[::2, ::2]
    image.height, image.width, _ = pixels.shape
    image.step, image.data = 3 * image.width, pixels.tobytes()


def _cut_off(image: Image) -> None:
    image.data = bytes(image.data)[:len(image.data) // 2]


def _empty(image: Image) -> None:
    image.height = image.width = image.step = 0
    image.data = b""


def _unknown_encoding(image: Image) -> None:
    image.encoding = "rgb7"


def _cameras() -> Iterator[FaultKind]:
    faults: dict[str, tuple[Callable[[random.Random], Fault], str]] = {
        "30 % lost": (lambda rng: dropped(0.3, rng), GOES_ON),
        "up to 0.1 s late, in any order": (lambda rng: delayed(0.0, 0.1, rng), GOES_ON),
        "three times each": (lambda rng: duplicated(3, 0.02), GOES_ON),
        "pairs swapped": (reordered, GOES_ON),
        "half the size": (_edited(_half_the_size), GOES_ON),
        "frozen, stamps go on": (_frozen(False), GOES_ON),  # this policy hardly moves the arm
        "frozen with their stamp": (_frozen(True), STALE),
        "a camera dies and returns": (lambda rng: dropped(1.0, rng), STALE),
        "0.8 s late": (lambda rng: delayed(0.8, 0.8, rng), STALE),
        "cut off": (_edited(_cut_off), STALE),
        "without pixels": (_edited(_empty), STALE),
        "in an unknown encoding": (_edited(_unknown_encoding), STALE),
    }
    for name, (fault, goal) in faults.items():
        yield FaultKind(f"images: {name}", "images", _camera(fault), cost_s=4.5, goal=goal)


def _status(fault: Callable[[random.Random], Fault], duration_s: float, stops: bool = False) -> Inject:
    """What the executor says; ``stops``: meanwhile it is stopped."""
    def inject(rig: Rig, rng: random.Random) -> None:
        with rig.faulty("execution_status", fault(rng)):
            if stops:
                rig.trigger("executor_node/stop")
            rig.run(duration_s)
    return inject


def _statuses() -> Iterator[FaultKind]:
    faults: dict[str, tuple[Inject, str]] = {
        "70 % lost": (_status(lambda rng: dropped(0.7, rng), 1.5), GOES_ON),
        "all lost for 2 s": (_status(lambda rng: dropped(1.0, rng), 2.0), GOES_ON),
        "all lost": (_status(lambda rng: dropped(1.0, rng), SILENT_S), "the executor has been silent"),
        "up to 0.5 s late, in any order": (_status(lambda rng: delayed(0.0, 0.5, rng), 1.5), GOES_ON),
        "three times each": (_status(lambda rng: duplicated(3, 0.05), 1.5), GOES_ON),
        "up to 0.5 s late, in any order, and stop is called": (
            _status(lambda rng: delayed(0.0, 0.5, rng), 1.5, stops=True), "the executor has stopped: STOP_REQUESTED"),
        "70 % lost, and stop is called": (
            _status(lambda rng: dropped(0.7, rng), 1.5, stops=True), "the executor has stopped: STOP_REQUESTED"),
    }
    for name, (inject, goal) in faults.items():
        yield FaultKind(f"execution_status: {name}", "the executor's word", inject, holds="stop is called" in name,
                        cost_s=4.5, goal=goal)
