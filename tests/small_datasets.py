"""Small data sets for tests: an arm reaches, closes its gripper and returns before a fixed, textured background."""

from __future__ import annotations

import dataclasses
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from recordings import CONTRACT_FILE

from corft_core.contract import Contract
from corft_core.data import Episode, write_dataset

_FULL = Contract.load(CONTRACT_FILE)
SIZE = (96, 128)
CONTRACT = dataclasses.replace(_FULL, cameras=tuple(dataclasses.replace(c, size=SIZE) for c in _FULL.cameras))


@cache
def background(seed: int = 0) -> np.ndarray:
    """A table with things on it, uint8 (H, W, 3), larger than the picture by 16 pixels on each side."""
    random = np.random.default_rng(seed)
    height, width = SIZE[0] + 32, SIZE[1] + 32
    image = np.full((height, width, 3), 140, np.uint8)
    for _ in range(60):
        x, y = int(random.integers(width)), int(random.integers(height))
        colour = tuple(int(v) for v in random.integers(40, 220, 3))
        cv2.rectangle(image, (x, y), (x + int(random.integers(4, 14)), y + int(random.integers(4, 14))), colour, -1)
    return cv2.GaussianBlur(image, (0, 0), 0.8)


def demonstration(number: int, steps: int = 30, success: bool = True, instruction: str = "pick the red cube",
                  shift: tuple[int, int] = (0, 0)) -> Episode:
    """Episode ``number``; ``shift``: the front camera sees the background moved by (right, down) pixels."""
    random = np.random.default_rng(number)
    joints = len(CONTRACT.robot.joints)
    reach = random.uniform(0.3, 0.6, joints)
    start = np.where(np.arange(joints) < 2, 0.0, CONTRACT.robot.home_rad) + random.normal(0, 0.05, joints)
    way = np.sin(np.pi * np.arange(steps + 1) / steps)[:, None]
    arm = start + reach * way
    opening = np.where(np.abs(np.arange(steps) - steps / 2) < steps / 4, 0.0, 1.0)[:, None]
    state = np.concatenate([arm[:-1] + random.normal(0, 1e-3, (steps, joints)), np.roll(opening, 1, axis=0)], axis=1)
    action = np.concatenate([arm[1:], opening], axis=1)
    images = {"front": _fixed(arm, shift, random), "wrist": _riding(arm, random)}
    ticks = (1_000_000_000 * (100 * number + 1) + CONTRACT.step_ns * np.arange(steps)).astype(np.int64)
    columns: dict[str, Any] = {"source.tick_ns": ticks}
    for stream in ("joint_state", "front", "wrist"):
        columns |= {f"source.{stream}.stamp_ns": ticks - 10_000_000,
                    f"source.{stream}.age_s": np.full(steps, 0.01, np.float32)}
    return Episode(images, state.astype(np.float32), action.astype(np.float32), instruction, success,
                   f"demo/{number}", columns, {"bag": f"bag_{number}"})


def _fixed(arm: np.ndarray, shift: tuple[int, int], random: np.random.Generator) -> np.ndarray:
    left, top = 16 - shift[0], 16 - shift[1]
    scene = background()[top : top + SIZE[0], left : left + SIZE[1]]
    frames = np.repeat(scene[None], len(arm) - 1, axis=0)
    for frame, pose in zip(frames, arm[:-1], strict=True):
        cv2.circle(frame, (int(40 + 60 * pose[0]), int(30 + 60 * pose[1])), 9, (200, 30, 30), -1)
    return _noisy(frames, random)


def _riding(arm: np.ndarray, random: np.random.Generator) -> np.ndarray:
    wide = background(1)
    places = [(int(np.clip(16 + 20 * p[0], 0, 32)), int(np.clip(16 + 20 * p[1], 0, 32))) for p in arm[:-1]]
    return _noisy(np.stack([wide[y : y + SIZE[0], x : x + SIZE[1]] for x, y in places]), random)


def _noisy(frames: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Frames with a camera's noise, another in each."""
    noise = random.integers(-7, 8, frames.shape, np.int8)
    return np.clip(frames.astype(np.int16) + noise, 0, 255).astype(np.uint8)


def write(folder: Path, episodes: list[Episode], **options: Any) -> Path:
    """Write a data set and return its folder."""
    write_dataset(folder, episodes, CONTRACT, source={"bags": [str(folder)]}, **options)
    return folder
