"""Latest-sample alignment, shared by the converter and the live policy node.

For a tick t every stream contributes its latest sample with stamp ≤ t, never a newer one, together with its age.
A sample older than its stream's ``max_age_s`` counts as missing, unless the contract says ``on_stale: hold``.
``tests/unit/test_align.py`` pins both.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from corft_core.contract import CameraStream, Contract
from corft_core.data.buffers import JointBuffer, SampleBuffer
from corft_core.data.commands import ArmCommands, HeldCommands
from corft_core.data.images import camera_image
from corft_core.data.messages import MessageError, header_stamp_ns, make_reader
from corft_core.errors import CorftError
from corft_core.trajectory import JointPath

Vector = NDArray[np.float64]


@dataclass
class AlignedObservation:
    """What was known at one tick.

    ``values``: "joint_state" → float64 (J [+ 1],) arm joints [rad] and gripper opening, camera name → uint8 (H, W, 3),
    extra observation → float64 (k,); usable streams only. `Aligner.state` makes the state vector of them.
    ``stamps_ns`` and ``ages_s`` (tick − stamp): for every stream with any sample ≤ tick, stale ones included; those of
    "joint_state" are its oldest joint's, once every joint was seen. ``joint_ages_s``: each joint's own.
    ``missing``: streams without a sample that may be used, in the contract's order.
    """

    tick_ns: int
    values: dict[str, Any] = field(default_factory=dict)
    stamps_ns: dict[str, int] = field(default_factory=dict)
    ages_s: dict[str, float] = field(default_factory=dict)
    joint_ages_s: dict[str, float] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)


class Aligner:
    """Buffers of all the contract's streams; ``push`` samples, ask for the observation or the action at a tick.

    ``push`` takes messages (rclpy's or rosbags') as the robot publishes them: numbers are read at once, by name or by
    field path; images are decoded, cropped and resized on first use, or by `prefetch` before. Arrays count as already
    in the final form of `messages.make_reader`, for cameras uint8 (H, W, 3) at the contract's size; so do a JointPath
    for "arm_command" and a float for "gripper_command". Safe to push and ask from several threads.
    ``undecodable`` counts the images that could not be decoded, by camera; the one before them stands in.
    """

    def __init__(self, contract: Contract, history_s: float = 2.0) -> None:
        self.contract = contract
        self.observation_streams = contract.observation_streams
        self.undecodable: Counter[str] = Counter()
        self.undecodable_reason: dict[str, str] = {}
        history_ns = int(history_s * 1e9)
        self._cameras = {camera.name: camera for camera in contract.cameras}
        self._joints = JointBuffer(history_ns, len(contract.joint_names))
        self._convert: dict[str, Callable[[Any], Any]] = {extra.name: np.asarray for extra in contract.observations}
        self._convert |= {camera.name: partial(camera_image, camera=camera) for camera in contract.cameras}
        self._buffers = {name: SampleBuffer(history_ns) for name in self.observation_streams[1:]}
        self._trajectories, self._setpoints = ArmCommands(history_ns), HeldCommands(history_ns)
        self._gripper = HeldCommands(history_ns)
        self._readers = {name: make_reader(contract, name) for name in contract.streams
                         if name != "episode_event" and name not in self._cameras}
        arm = len(contract.action_names) - (contract.action_gripper is not None)
        self._sizes = ({"joint_state": len(contract.joint_names), "arm_command": arm}
                       | {extra.name: len(extra.fields) for extra in contract.observations})
        self._lock = threading.Lock()

    def push(self, name: str, stamp_ns: int, sample: Any) -> None:
        """Add a sample. Raises MessageError or KeyError when it does not belong to the stream."""
        final = isinstance(sample, (np.ndarray, JointPath, float))
        if name in self._cameras:
            value = self._checked(name, sample) if final else sample
        else:
            value = (self._checked(name, sample) if final else self._readers[name](sample))
        with self._lock:
            if name == "joint_state":
                self._joints.push(stamp_ns, value)
            elif name == "gripper_command":
                self._gripper.push(stamp_ns, float(value))
            elif name != "arm_command":
                self._buffers[name].push(stamp_ns, value)
            elif isinstance(value, JointPath):
                self._push_path(stamp_ns, value, None if final else header_stamp_ns(sample))
            else:
                self._setpoints.push(stamp_ns, value)

    def prefetch(self, tick_ns: int, pool: Executor) -> None:
        """Let ``pool`` decode the images that the observation at ``tick_ns`` needs as far as samples are known."""
        with self._lock:
            for name in self._cameras:
                found = self._buffers[name].latest(tick_ns)
                if found is not None:
                    self._buffers[name].prepare(found[0], self._convert[name], pool)

    def observation(self, tick_ns: int) -> AlignedObservation:
        """The observation at ``tick_ns`` from samples with stamp ≤ ``tick_ns``."""
        result = AlignedObservation(tick_ns)
        with self._lock:
            self._observe_joints(result)
            for name in self.observation_streams[1:]:
                found = self._latest(name, tick_ns)
                if found is None:
                    result.missing.append(name)
                else:
                    self._add(result, name, *found)
        return result

    def state(self, values: Mapping[str, Any]) -> Vector:
        """State vector (S,) of an observation's values: joints, gripper opening, extra observations."""
        return np.concatenate([values["joint_state"], *(values[extra.name] for extra in self.contract.observations)])

    def action(self, tick_ns: int) -> Vector | None:
        """The command in force at ``tick_ns``: float64 (A,) as ``contract.action_names`` says.

        Of a joint trajectory it is the running trajectory's own setpoint at that time, not its goal; it holds after the
        trajectory's end, as the controller does. Other commands hold until the next, but a twist older than
        ``max_age_s`` counts as standing still unless ``on_stale: hold``. Before the first gripper command the measured
        opening stands in. None without an arm command.
        """
        with self._lock:
            arm = self._arm_command(tick_ns)
            if arm is None or self.contract.gripper is None:
                return arm
            found = self._gripper.latest(tick_ns)
            opening = found[1] if found is not None else self._joints.latest(tick_ns)[0][-1]
            return None if np.isnan(opening) else np.append(arm, opening)

    def clear_commands(self, before_ns: int | None = None) -> None:
        """Forget all commands, or those before ``before_ns``: an episode never inherits those of the one before."""
        with self._lock:
            self._trajectories.clear(before_ns, None if before_ns is None else self._measured_arm(before_ns))
            self._setpoints.clear(before_ns)
            self._gripper.clear(before_ns)

    def reset(self) -> None:
        """Forget all samples and commands."""
        self.clear_commands()
        with self._lock:
            self._joints.clear()
            for buffer in self._buffers.values():
                buffer.clear()

    def _observe_joints(self, result: AlignedObservation) -> None:
        values, stamps = self._joints.latest(result.tick_ns)
        known = stamps.tolist()
        result.joint_ages_s = {joint: (result.tick_ns - stamp_ns) * 1e-9 for joint, stamp_ns
                               in zip(self.contract.joint_names, known, strict=True) if stamp_ns >= 0}
        if len(result.joint_ages_s) < len(values):
            result.missing.append("joint_state")
        else:
            self._add(result, "joint_state", min(known), values)

    def _add(self, result: AlignedObservation, name: str, stamp_ns: int, value: Any) -> None:
        stream = self.contract.stream(name)
        result.stamps_ns[name] = stamp_ns
        result.ages_s[name] = (result.tick_ns - stamp_ns) * 1e-9
        if result.ages_s[name] > stream.max_age_s and stream.on_stale == "drop":
            result.missing.append(name)
        else:
            result.values[name] = value

    def _latest(self, name: str, tick_ns: int) -> tuple[int, Any] | None:
        """Stamp and value of the newest sample ≤ ``tick_ns`` that can be decoded; those that cannot are dropped."""
        buffer = self._buffers[name]
        while (found := buffer.latest(tick_ns)) is not None:
            index, stamp_ns = found
            try:
                return stamp_ns, buffer.value(index, self._convert[name])
            except CorftError as error:
                self.undecodable[name] += 1
                self.undecodable_reason[name] = str(error)
                buffer.drop(index)
        return None

    def _arm_command(self, tick_ns: int) -> Vector | None:
        stream = self.contract.arm_command
        found = self._setpoints.latest(tick_ns)
        if found is None:
            return self._trajectories.setpoint(tick_ns)
        stamp_ns, value = found
        ran_out = (tick_ns - stamp_ns) * 1e-9 > stream.max_age_s and stream.on_stale == "drop"
        return np.zeros_like(value) if ran_out and self.contract.action_space == "tool_twist" else value

    def _push_path(self, stamp_ns: int, path: JointPath, start_ns: int | None) -> None:
        try:
            self._trajectories.push(stamp_ns, path, self._measured_arm(stamp_ns), start_ns)
        except ValueError as error:
            raise MessageError(f"joint trajectory: {error}") from error

    def _measured_arm(self, tick_ns: int) -> Vector | None:
        arm = self._joints.latest(tick_ns)[0][: len(self.contract.robot.joints)]
        return None if np.any(np.isnan(arm)) else arm

    def _checked(self, name: str, value: Any) -> Any:
        """``value``, which counts as final, if it has the stream's form."""
        if isinstance(value, np.ndarray) and name != "gripper_command":
            camera = self._cameras.get(name)
            shape = (*camera.size, 3) if isinstance(camera, CameraStream) else (self._sizes[name],)
            if value.shape != shape or (camera is not None and value.dtype != np.uint8):
                raise MessageError(f"{name}: an array must be in final form {shape}, got {value.dtype} {value.shape}")
        elif name not in self.contract.streams:
            raise KeyError(name)
        return value
