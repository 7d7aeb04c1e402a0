"""Latest-sample alignment, shared by the converter and the live policy node.

For a tick t every stream contributes its latest sample with stamp ≤ t, never a newer one, together with its age.
A sample older than its stream's ``max_age_s`` counts as missing. ``tests/unit/test_align.py`` pins both.
"""

from __future__ import annotations

import logging
import threading
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from corft_core.contract import CameraStream, Contract
from corft_core.data.commands import ArmCommands, GripperCommands
from corft_core.data.images import decode_image, prepare_image
from corft_core.data.messages import MessageError, gripper_opening, header_stamp_ns, joint_path, joint_vector
from corft_core.trajectory import JointPath

logger = logging.getLogger(__name__)


@dataclass
class AlignedObservation:
    """What was known at one tick.

    ``values``: "joint_state" → float64 (S,) state vector, camera name → uint8 (H, W, 3); present streams only.
    ``stamps_ns`` and ``ages_s`` (tick − stamp): for every stream with any sample ≤ tick, stale ones included.
    ``missing``: streams without a sample that is young enough, in the contract's order.
    """

    tick_ns: int
    values: dict[str, Any] = field(default_factory=dict)
    stamps_ns: dict[str, int] = field(default_factory=dict)
    ages_s: dict[str, float] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)


class SampleBuffer:
    """Samples of one stream in stamp order, bounded to ``history_ns`` before the newest.

    A stamp further back than the history means that the clock was reset (simulation restarted): the buffer then
    starts anew. A repeated stamp replaces its sample.
    """

    def __init__(self, history_ns: int) -> None:
        self._history_ns = history_ns
        self._stamps: list[int] = []
        self._values: list[Any] = []

    def __len__(self) -> int:
        return len(self._stamps)

    def push(self, stamp_ns: int, value: Any) -> None:
        """Add a sample; late ones are sorted in."""
        if self._stamps and stamp_ns < self._stamps[-1] - self._history_ns:
            logger.warning("time jumped back by %.1f s, earlier samples are dropped",
                           (self._stamps[-1] - stamp_ns) * 1e-9)
            self.clear()
        index = bisect_right(self._stamps, stamp_ns)
        if index and self._stamps[index - 1] == stamp_ns:
            self._values[index - 1] = value
        else:
            self._stamps.insert(index, stamp_ns)
            self._values.insert(index, value)
        keep = max(0, bisect_right(self._stamps, self._stamps[-1] - self._history_ns) - 1)
        del self._stamps[:keep], self._values[:keep]

    def latest(self, tick_ns: int) -> tuple[int, int] | None:
        """(index, stamp_ns) of the newest sample with stamp ≤ ``tick_ns``, or None."""
        index = bisect_right(self._stamps, tick_ns) - 1
        return None if index < 0 else (index, self._stamps[index])

    def value(self, index: int, convert: Callable[[Any], Any]) -> Any:
        """The sample's value; messages are converted on first use and the result kept."""
        value = self._values[index]
        if not isinstance(value, np.ndarray):
            value = self._values[index] = convert(value)
        return value

    def clear(self) -> None:
        """Forget all samples."""
        self._stamps.clear()
        self._values.clear()


class Aligner:
    """Buffers of all the contract's streams; ``push`` samples, ask for the observation or the action at a tick.

    ``push`` takes messages (rclpy's or rosbags') as the robot publishes them: joints are looked up by name at once,
    images decoded, cropped and resized on first use. Arrays count as already in final form: float (S,) for
    "joint_state" and uint8 (H, W, 3) at the contract's size for cameras; a JointPath for "arm_command", an opening
    0…1 for "gripper_command". Safe to push and ask from several threads.
    """

    def __init__(self, contract: Contract, history_s: float = 2.0) -> None:
        self.contract = contract
        self.observation_streams = ("joint_state", *(camera.name for camera in contract.cameras))
        history_ns = int(history_s * 1e9)
        self._buffers = {name: SampleBuffer(history_ns) for name in self.observation_streams}
        self._arm = ArmCommands(history_ns)
        self._gripper = GripperCommands(history_ns)
        self._lock = threading.Lock()

    def push(self, stream_name: str, stamp_ns: int, value: Any) -> None:
        """Add a sample. Raises MessageError or KeyError when it does not belong to the stream."""
        with self._lock:
            if stream_name == "arm_command":
                self._push_arm(stamp_ns, value)
            elif stream_name == "gripper_command":
                opening = gripper_opening(value, self.contract) if hasattr(value, "data") else float(value)
                self._gripper.push(stamp_ns, opening)
            else:
                if isinstance(value, np.ndarray):
                    self._check(stream_name, value)
                elif stream_name == "joint_state":
                    value = self._convert(stream_name, value)
                self._buffers[stream_name].push(stamp_ns, value)

    def observation(self, tick_ns: int) -> AlignedObservation:
        """The observation at ``tick_ns`` from samples with stamp ≤ ``tick_ns``. Raises CorftError on bad content."""
        result = AlignedObservation(tick_ns)
        with self._lock:
            for name in self.observation_streams:
                found = self._buffers[name].latest(tick_ns)
                if found is None:
                    result.missing.append(name)
                    continue
                index, stamp_ns = found
                result.stamps_ns[name] = stamp_ns
                result.ages_s[name] = (tick_ns - stamp_ns) * 1e-9
                if result.ages_s[name] > self.contract.stream(name).max_age_s:
                    result.missing.append(name)
                else:
                    result.values[name] = self._buffers[name].value(index, partial(self._convert, name))
        return result

    def action(self, tick_ns: int) -> np.ndarray[Any, np.dtype[np.float64]] | None:
        """The command in force at ``tick_ns``: float64 (A,) arm setpoint [rad] and gripper opening.

        The setpoint is the running trajectory's own at that time, not its goal; it holds after the trajectory's end,
        as the controller does. Before the first gripper command the measured opening stands in. None without an arm
        command.
        """
        with self._lock:
            arm = self._arm.setpoint(tick_ns)
            opening = self._gripper.latest(tick_ns)
            if opening is None:
                measured = self._measured(tick_ns, gripper=True)
                opening = None if measured is None else float(measured[-1])
            return None if arm is None or opening is None else np.append(arm, opening)

    def clear_commands(self, before_ns: int | None = None) -> None:
        """Forget all commands, or those before ``before_ns``: an episode never inherits those of the one before."""
        with self._lock:
            self._arm.clear(before_ns, None if before_ns is None else self._measured(before_ns))
            self._gripper.clear(before_ns)

    def reset(self) -> None:
        """Forget all samples and commands."""
        with self._lock:
            for buffer in self._buffers.values():
                buffer.clear()
            self._arm.clear()
            self._gripper.clear()

    def _push_arm(self, stamp_ns: int, value: Any) -> None:
        start_ns = None if isinstance(value, JointPath) else header_stamp_ns(value)
        path = value if isinstance(value, JointPath) else joint_path(value, self.contract)
        try:
            self._arm.push(stamp_ns, path, self._measured(stamp_ns), start_ns)
        except ValueError as error:
            raise MessageError(f"joint trajectory: {error}") from error

    def _measured(self, tick_ns: int, gripper: bool = False) -> np.ndarray[Any, np.dtype[np.float64]] | None:
        buffer = self._buffers["joint_state"]
        found = buffer.latest(tick_ns)
        if found is None:
            return None
        state = buffer.value(found[0], partial(self._convert, "joint_state"))
        return state if gripper else state[:-1]

    def _convert(self, name: str, message: Any) -> Any:
        if name == "joint_state":
            return joint_vector(message.name, message.position, self.contract)
        camera = self.contract.stream(name)
        assert isinstance(camera, CameraStream)
        return prepare_image(decode_image(message), camera)

    def _check(self, name: str, value: np.ndarray[Any, Any]) -> None:
        stream = self.contract.stream(name)
        shape = (*stream.size, 3) if isinstance(stream, CameraStream) else (len(self.contract.state_names),)
        if value.shape != shape or (isinstance(stream, CameraStream) and value.dtype != np.uint8):
            raise MessageError(f"{name}: an array must be in final form {shape}, got {value.dtype} {value.shape}")
