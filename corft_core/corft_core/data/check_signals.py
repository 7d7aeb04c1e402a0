"""Findings in states, actions and stamps that would spoil training. Per episode: T steps; names as in the contract."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from corft_core.contract import Contract
from corft_core.data.commands import MOVING, MOVING_OPENING, MOVING_SPEED
from corft_core.data.findings import Finding
from corft_core.data.lerobot_reader import EpisodeDataset

Array = NDArray[np.float64]
FROZEN_STEPS = 5
FROZEN_ACTION_RAD = 0.1
"""A joint whose command travels this far while the measured value does not change at all."""
LAG_S = 0.35
"""A command this far ahead of the measured motion is more than a controller's lag."""
MAX_LAG_S = 1.0
CLEAR_FIT = 0.5
"""A shift or factor counts when it explains this share of what is left unexplained without it."""
STALE_SHARE = 0.02
MOVING_PER_STEP = 0.2
"""Share of a resting command's largest change that a step of a moving one exceeds."""
IDLE_SHARE = 0.3


def not_finite(dataset: EpisodeDataset) -> Iterator[Finding]:
    """NaN and infinity, in every float column."""
    for name, feature in dataset.info["features"].items():
        if feature["dtype"] not in ("float32", "float64"):
            continue
        bad = ~np.isfinite(dataset.column(name))
        steps = bad.reshape(len(bad), -1).any(axis=1)
        for episode in np.unique(dataset.episode_index[steps]):
            rows = slice(*dataset.episode_starts[episode : episode + 2])
            frame = int(np.flatnonzero(steps[rows])[0])
            parts = feature.get("names") or [name]
            broken = [parts[k] for k in np.flatnonzero(bad[rows].reshape(rows.stop - rows.start, -1).any(axis=0))]
            yield Finding("error", "not_finite", f"{int(steps[rows].sum())} steps hold NaN or infinity in "
                          f"{', '.join(broken)}", "delete the episode: ros2 run corft dataset delete",
                          int(episode), frame, name, float(steps[rows].sum()))


def motion(dataset: EpisodeDataset) -> Iterator[Finding]:
    """Joints that stand still under a moving command, commands that stand still, jumps, idle time."""
    contract = dataset.contract
    for episode, state, action in _episodes(dataset):
        yield from _frozen(contract, episode, state, action)
        moved = _moved(contract, action)
        if len(action) > 1 and not moved.any():
            yield Finding("error", "constant_action", "the action never changes: nothing was demonstrated, or the "
                          "command topic was not recorded", "check the command's topic in the contract, or delete it",
                          episode, name="action")
            continue
        idle = 1.0 - float(moved.mean()) if len(moved) else 0.0
        if idle > IDLE_SHARE:
            yield Finding("warning", "idle", f"the command stands still on {100 * idle:.0f} % of the steps; a policy "
                          "learns to wait there", "record without pauses; SFT's filter leaves still steps out",
                          episode, name="action", amount=idle)
        yield from _jumps(contract, episode, action)


def _frozen(contract: Contract, episode: int, state: Array, action: Array) -> Iterator[Finding]:
    for name, column, command in _shared(contract):
        if name == "gripper":
            continue  # holds still on an object while its command goes on
        measured, commanded = state[:, column], action[:, command]
        for start, end in _runs(np.diff(measured) == 0.0, FROZEN_STEPS):
            travel = float(np.ptp(commanded[start : end + 1]))
            if travel > FROZEN_ACTION_RAD:
                yield Finding("error", "frozen_joint", f"{name} reports {measured[start]:.4f} rad for {end - start} "
                              f"steps while its command travels {travel:.3f} rad", "joint_states stood still: check "
                              "the driver and its rate, then delete or record again", episode, start, name, travel)
                break


def _jumps(contract: Contract, episode: int, action: Array) -> Iterator[Finding]:
    if contract.action_space != "joint":
        return
    speed = np.abs(np.diff(action[:, : len(contract.robot.joints)], axis=0)) * contract.rate_hz
    limit = np.array(contract.limits.velocity_rad_s)
    over = speed / limit
    if over.size and over.max() > 1.5:
        frame, joint = np.unravel_index(int(over.argmax()), over.shape)
        yield Finding("warning", "action_jump", f"the command of {contract.robot.joints[joint]} moves at "
                      f"{speed[frame, joint]:.2f} rad/s, {over[frame, joint]:.1f} times its limit",
                      "a dropped or late command looks like this; the executor will slow it down",
                      episode, int(frame), contract.robot.joints[joint], float(over[frame, joint]))


def lag_and_unit(dataset: EpisodeDataset) -> Iterator[Finding]:
    """Whether measured joints follow their commands: in the same unit and sign, and not too late."""
    pairs = [(name, s, a) for name, s, a in _shared(dataset.contract) if name != "gripper"]
    reach = int(np.ceil(MAX_LAG_S * dataset.fps))
    for name, column, command in pairs:
        parts = [(state[:, column], action[:, command]) for _, state, action in _episodes(dataset)
                 if len(state) > 2 * reach + 2]
        if not parts or max(np.ptp(a) for _, a in parts) < FROZEN_ACTION_RAD or \
                not any(np.any(np.diff(s)) for s, _ in parts):
            continue
        factor, fit = _factor(parts)
        if fit > 1.0 - CLEAR_FIT and not 0.5 < factor < 2.0:
            guess = "degrees and radians mixed" if 0.5 < abs(np.log(abs(factor)) / np.log(180 / np.pi)) < 1.5 else \
                "the sign is turned" if factor < 0 else "another unit or gear"
            yield Finding("error", "unit_mismatch", f"{name} moves {factor:.3g} rad for each rad commanded: {guess}",
                          "set unit, scale or name of this joint in the contract and convert again",
                          name=name, amount=factor)
            continue
        errors = {lag: _error(parts, lag, reach) for lag in range(-reach, reach + 1)}
        best = min(errors, key=lambda lag: (errors[lag], abs(lag)))
        if errors[best] > (1.0 - CLEAR_FIT) * errors[1] or -2 < best <= LAG_S * dataset.fps + 1:
            continue
        lead = "behind" if best > 0 else "ahead of"
        yield Finding("warning", "action_lag", f"{name} runs {abs(best) / dataset.fps:.2f} s {lead} its command",
                      "stamps of the two streams disagree, or the controller is slow: compare `stamp:` in the "
                      "contract", name=name, amount=best / dataset.fps)


def _factor(parts: list[tuple[Array, Array]]) -> tuple[float, float]:
    """Slope of measured over commanded motion, and the share of the measured variance that it explains."""
    state = np.concatenate([s - s.mean() for s, _ in parts])
    action = np.concatenate([a - a.mean() for _, a in parts])
    factor = float(state @ action / max(action @ action, 1e-12))
    return factor, 1.0 - float(((state - factor * action) ** 2).sum() / max((state**2).sum(), 1e-12))


def _error(parts: list[tuple[Array, Array]], lag: int, reach: int) -> float:
    """Mean squared distance of the measured value ``lag`` steps later to the command, offsets left out."""
    total, steps = 0.0, 0
    for state, action in parts:
        error = state[reach + lag : len(state) - reach + lag] - action[reach : len(action) - reach]
        total, steps = total + float(((error - error.mean()) ** 2).sum()), steps + len(error)
    return total / max(steps, 1)


def joint_limits(dataset: EpisodeDataset, limits: Array) -> Iterator[Finding]:
    """Measured and commanded joints outside ``limits`` (2, J) of the robot's description."""
    joints = dataset.contract.robot.joints
    for episode, state, action in _episodes(dataset):
        for kind, values in (("state", state), ("action", action)):
            if kind == "action" and dataset.contract.action_space != "joint":
                continue
            arm = values[:, : len(joints)]
            over = np.maximum(limits[0] - arm, arm - limits[1])
            if over.max() > MOVING["joint"]:
                frame, joint = np.unravel_index(int(over.argmax()), over.shape)
                yield Finding("warning", "joint_limit", f"{kind} of {joints[joint]} is {over[frame, joint]:.3f} rad "
                              "outside its limits", "check unit and offset in the contract, or the robot description",
                              episode, int(frame), joints[joint], float(over[frame, joint]))


def clocks(dataset: EpisodeDataset) -> Iterator[Finding]:
    """Ticks off the grid, stamps that go back or lie in the future, samples that are too old."""
    columns = [name for name in dataset.info["features"] if name.startswith("source.")]
    step_ns = dataset.contract.step_ns
    for name in columns:
        values = dataset.column(name)
        for episode in range(dataset.num_episodes):
            part = values[slice(*dataset.episode_starts[episode : episode + 2])]
            steps = np.diff(part)
            if name == "source.tick_ns" and np.any(off := np.abs(steps - step_ns) > step_ns // 100):
                frame = int(np.flatnonzero(off)[0]) + 1
                yield Finding("error", "clock_jump", f"the grid jumps by {steps[frame - 1] * 1e-9:.3f} s instead of "
                              f"{step_ns * 1e-9:.3f} s", "cut or delete the episode; was the clock set while "
                              "recording?", episode, frame, name, float(np.abs(steps - step_ns).max()) * 1e-9)
            if name.endswith(".stamp_ns") and np.any(steps < 0):
                frame = int(steps.argmin()) + 1
                yield Finding("error", "clock_jump", f"its stamps go back by {-steps.min() * 1e-9:.3f} s",
                              "two sources on one topic, or a clock that was set: see `stamp:` in the contract",
                              episode, frame, name, float(-steps.min()) * 1e-9)
            if name.endswith(".age_s"):
                yield from _ages(dataset, name, episode, part)


def _ages(dataset: EpisodeDataset, column: str, episode: int, ages_s: NDArray[np.floating]) -> Iterator[Finding]:
    if ages_s.min() < -1e-6:
        yield Finding("error", "future_sample", f"a sample is {-ages_s.min():.3f} s newer than its step",
                      "the policy would see the future; convert the bag again", episode, int(ages_s.argmin()), column,
                      float(-ages_s.min()))
    name = column.removeprefix("source.").removesuffix(".age_s")
    try:
        limit = dataset.contract.stream(name).max_age_s
    except KeyError:
        return
    share = float(np.mean(ages_s > limit))
    if share > STALE_SHARE:
        yield Finding("warning", "stale", f"{name} is older than {limit} s on {100 * share:.0f} % of the steps, up to "
                      f"{ages_s.max():.2f} s", "drops while recording: see the converter's report", episode,
                      int(ages_s.argmax()), name, share)


def idle_share(dataset: EpisodeDataset) -> float:
    """Share of all steps on which the command stands still."""
    moved = [_moved(dataset.contract, action) for _, _, action in _episodes(dataset)]
    return 1.0 - float(np.concatenate(moved).mean()) if sum(map(len, moved)) else 0.0


def _moved(contract: Contract, action: Array) -> NDArray[np.bool_]:
    """(T − 1,) whether the command moves between a step and the next."""
    change = np.abs(np.diff(action, axis=0))
    limits = np.full(action.shape[1], MOVING_PER_STEP * MOVING.get(contract.action_space, 0.0))
    if contract.action_space == "tool_twist":
        change, limits[:] = np.abs(action[1:]), MOVING_SPEED
    if contract.action_gripper is not None:
        column = contract.action_gripper
        change[:, column] = np.abs(np.diff(action[:, column]))
        limits[column] = MOVING_PER_STEP * MOVING_OPENING
    return np.asarray((change > limits).any(axis=1))


def _episodes(dataset: EpisodeDataset) -> Iterator[tuple[int, Array, Array]]:
    """(episode, state (T, S), action (T, A)); values that are not finite count as 0 and are reported elsewhere."""
    for episode in range(dataset.num_episodes):
        rows = slice(*dataset.episode_starts[episode : episode + 2])
        yield (episode, np.nan_to_num(dataset.state[rows].astype(np.float64), posinf=0, neginf=0),
               np.nan_to_num(dataset.action[rows].astype(np.float64), posinf=0, neginf=0))


def _shared(contract: Contract) -> list[tuple[str, int, int]]:
    """(name, column in state, column in action) of what is both measured and commanded."""
    return [(name, contract.state_names.index(name), column) for column, name in enumerate(contract.action_names)
            if name in contract.state_names]


def _runs(flags: NDArray[np.bool_], length: int) -> list[tuple[int, int]]:
    """[start, end) of the runs of at least ``length`` true flags."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flags.astype(np.int8), [0]])))
    return [(int(s), int(e)) for s, e in edges.reshape(-1, 2) if e - s >= length]
