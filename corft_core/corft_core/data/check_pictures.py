"""Findings in camera pictures: black, overexposed, repeated while the arm moves, a camera that was moved.

One pass decodes every frame once and keeps two small grey pictures an episode. Whether a camera moved is asked of its
first pictures: blocks of the static background, matched between episodes by phase correlation, must not shift. A
camera whose background shifts within episodes rides on the arm and is not judged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice, pairwise

import cv2
import numpy as np
from numpy.typing import NDArray

from corft_core.data.findings import Finding
from corft_core.data.lerobot_reader import EpisodeDataset

Grey = NDArray[np.float32]
DARK, BRIGHT = 10.0, 245.0
"""Mean grey level of a picture that shows nothing."""
FLAT = 3.0
"""Deviation of the grey levels below which there is nothing to see."""
SAME_LEVELS = 6
"""Pixels of two encoded pictures that differ by more are different."""
REPEAT_S = 0.5
REPEAT_MOTION_RAD, REPEAT_MOTION_CLEAN_RAD = 0.1, 1.0
"""A camera that repeats one picture this long while a joint moves this far stands still itself. The second holds for a
camera without noise, whose pictures of a resting scene are equal anyway while the arm moves out of sight (in the cell
up to 0.5 rad); it is policy_node's ``frozen_image_rad`` too."""
CLEAN_SHARE = 0.02
SHIFT_PX = 1.5
BLOCKS = 6
TEXTURE = 4.0
"""A block with less deviation of its grey levels cannot be matched."""
SMOOTH_PX2 = 40.0
"""Low pass of the match: fine patterns that stay where they are on the sensor (noise, JPEG blocks) count little."""
MIN_VOTES = 3


def pictures(dataset: EpisodeDataset, camera: str, progress: Callable[[int], None] = lambda frames: None
             ) -> Iterator[Finding]:
    """Findings of one camera; ``progress`` is told of frames looked at. Raises VideoError on unreadable video."""
    frames = dataset.frames(camera)
    firsts, lasts = [], []
    repeats: list[_Repeat] = []
    unchanged: list[float] = []
    for episode, row in enumerate(dataset.episodes):
        levels = np.empty((row["length"], 2))
        changed = np.zeros(row["length"], np.bool_)
        grey: NDArray[np.uint8] | None = None
        for k, picture in enumerate(islice(frames, row["length"])):
            before, grey = grey, np.asarray(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), np.uint8)
            levels[k] = grey.mean(), grey.std()
            changed[k] = before is None or bool(np.any(cv2.absdiff(grey, before) > SAME_LEVELS))
            if before is None:
                firsts.append(grey.astype(np.float32))
        assert grey is not None, "an episode has at least one step"
        lasts.append(grey.astype(np.float32))
        progress(row["length"])
        yield from _exposure(camera, episode, levels)
        unchanged.append(1.0 - float(changed.mean()))
        repeats += _repeats(dataset, episode, changed)
    enough = REPEAT_MOTION_CLEAN_RAD if np.median(unchanged) > CLEAN_SHARE else REPEAT_MOTION_RAD
    for repeat in repeats:
        if repeat.motion_rad > enough:
            yield Finding("error", "repeated_pictures", f"the same picture for {repeat.steps} steps "
                          f"({repeat.steps / dataset.fps:.1f} s) while a joint moves {repeat.motion_rad:.2f} rad",
                          "the camera stood still: delete the episode, check the camera's rate while recording",
                          repeat.episode, repeat.frame, camera, repeat.steps / dataset.fps)
    yield from moved(camera, firsts, lasts)


def _exposure(camera: str, episode: int, levels: NDArray[np.float64]) -> Iterator[Finding]:
    mean, deviation = levels.T
    kinds = (("dark_picture", mean < DARK, "black"), ("bright_picture", mean > BRIGHT, "overexposed"),
             ("flat_picture", (deviation < FLAT) & (mean >= DARK) & (mean <= BRIGHT), "one grey without contrast"))
    for code, bad, said in kinds:
        if bad.any():
            frame = int(np.flatnonzero(bad)[0])
            yield Finding("error" if bad.mean() > 0.1 else "warning", code,
                          f"{int(bad.sum())} of {len(bad)} pictures are {said} (level {mean[frame]:.0f} of 255)",
                          "check lens, light and exposure, then delete the episode", episode, frame, camera,
                          float(bad.mean()))


@dataclass(frozen=True)
class _Repeat:
    episode: int
    frame: int
    steps: int
    motion_rad: float


def _repeats(dataset: EpisodeDataset, episode: int, changed: NDArray[np.bool_]) -> Iterator[_Repeat]:
    """Runs of equal pictures, long enough to matter."""
    rows = slice(*dataset.episode_starts[episode : episode + 2])
    joints = np.nan_to_num(dataset.state[rows, :len(dataset.contract.robot.joints)])
    starts = np.flatnonzero(changed)
    for start, end in pairwise([*starts.tolist(), len(changed)]):
        if end - start > max(2, REPEAT_S * dataset.fps):
            motion = float(np.ptp(joints[start:end], axis=0).max())
            yield _Repeat(episode, start, end - start, motion)


def moved(camera: str, firsts: list[Grey], lasts: list[Grey]) -> Iterator[Finding]:
    """Compare each episode's first picture with the usual one."""
    within = [block_shift(first, last) for first, last in zip(firsts, lasts, strict=True)]
    still = [shift is not None and float(np.hypot(*shift)) < SHIFT_PX / 2 for shift in within]
    if len(firsts) < 2 or np.mean(still) < 0.5:
        return  # rides on the arm, or shows too little to say
    shifts = [block_shift(firsts[0], picture) for picture in firsts]
    known = np.array([shift for shift in shifts if shift is not None])
    if len(known) < 0.7 * len(shifts):
        return
    usual = np.median(known, axis=0)
    remedy = ("a few pixels ruin a policy: fix the camera, compare with the first picture, record these or the others "
              "again")
    for episode, shift in enumerate(shifts):
        if shift is None:
            yield Finding("warning", "camera_moved", "the background does not match that of most other episodes: moved "
                          "far, covered, or another scene", remedy, episode, 0, camera)
            continue
        off = shift - usual
        if (size := float(np.hypot(*off))) >= SHIFT_PX:
            yield Finding("warning", "camera_moved", f"the background is shifted by ({off[0]:+.1f}, {off[1]:+.1f}) "
                          "pixels (right, down) against most other episodes", remedy, episode, 0, camera, size)


def block_shift(one: Grey, other: Grey) -> NDArray[np.float64] | None:
    """(right, down) in pixels by which the background of grey ``other`` (H, W) lies off ``one``; None when unclear.

    Blocks vote with the weight of their match, which is high where the same thing is seen in both: objects that were
    moved lose. None without a majority. The vote is repeated with the second picture moved back by its first result.
    """
    shift = _vote(one, other)
    if shift is None or np.hypot(*shift) < SHIFT_PX:
        return shift
    right, down = shift.round().astype(int)
    again = _vote(one, np.roll(other, (-down, -right), axis=(0, 1)), int(max(abs(right), abs(down))))
    return shift if again is None else again + np.array([right, down])


def _vote(one: Grey, other: Grey, margin: int = 0) -> NDArray[np.float64] | None:
    """The shift that the blocks agree on; ``margin`` pixels at the borders are left out."""
    height, width = one.shape
    rows, columns = height // BLOCKS * 2, width // BLOCKS * 2  # blocks overlap by half
    votes, weights = [], []
    for top in range(margin, height - rows - margin + 1, rows // 2):
        for left in range(margin, width - columns - margin + 1, columns // 2):
            a, b = (p[top : top + rows, left : left + columns] for p in (one, other))
            if min(a.std(), b.std()) >= TEXTURE:
                shift, match = _correlate(a, b)
                votes.append(shift)
                weights.append(match**4)
    if len(votes) < MIN_VOTES:
        return None
    cast, weight = np.array(votes), np.array(weights)
    near = np.hypot(*(cast[:, None] - cast[None]).transpose(2, 0, 1)) < 1.0
    chosen = near[int((near @ weight).argmax())]
    if chosen.sum() < MIN_VOTES or weight[chosen].sum() < 0.5 * weight.sum():
        return None
    return np.asarray(weight[chosen] @ cast[chosen] / weight[chosen].sum())


def _correlate(one: Grey, other: Grey) -> tuple[NDArray[np.float64], float]:
    """Phase correlation: (right, down) that turns ``one`` into ``other``, and the peak's height, 1 for a pure shift."""
    rows, columns = one.shape
    window = np.outer(np.hanning(rows), np.hanning(columns))
    cross = np.conj(np.fft.rfft2((one - one.mean()) * window)) * np.fft.rfft2((other - other.mean()) * window)
    smooth = np.exp(-SMOOTH_PX2 * (np.fft.fftfreq(rows)[:, None] ** 2 + np.fft.rfftfreq(columns)[None] ** 2))
    surface = np.fft.irfft2(cross / (np.abs(cross) + 1e-9) * smooth, s=(rows, columns))
    peak = np.unravel_index(int(surface.argmax()), surface.shape)
    shift = []
    for axis, size in ((1, columns), (0, rows)):
        before, at, after = (surface[tuple(np.add(peak, np.eye(2, dtype=int)[axis] * k) % (rows, columns))]
                             for k in (-1, 0, 1))
        bend = before - 2 * at + after
        place = peak[axis] + (0.0 if bend >= 0 else 0.5 * (before - after) / bend)
        shift.append((place + size / 2) % size - size / 2)
    alone = np.fft.irfft2(np.broadcast_to(smooth, cross.shape), s=(rows, columns))[0, 0]
    return np.array(shift), float(surface.max() / alone)
