"""Reasons to stop that come from the robot or the clock, not from a chunk (step 8)."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from corft_core.contract import Contract
from corft_core.execution.reasons import Reason, Refusal
from corft_core.execution.spline import State

Array = NDArray[np.float64]
CLOCK_LEAP_NS = 20_000_000
READING_NS = 5_000_000
# A fast simulation on a busy machine stands for some tenths of a second and hurries after; its arm does the same.
SIMULATION_LEAP_NS, LEVEL_NS = 1_000_000_000, 75_000_000
SIMULATION_RATE = 5
FORGIVEN_NS = 2_000_000_000
GAPS_KEPT, USUAL_GAPS = 50, 3.0
# Stamps ahead of the clock: of a robot whose clock is another one; of a simulation whose clock comes late.
AHEAD_NS, SIMULATION_AHEAD_NS = 100_000_000, 5_000_000_000


@dataclass(frozen=True)
class Measured:
    """Measured arm joints (J,) in contract order, and when; of a setpoint also the speed scaling by which the
    controller says that it goes through its trajectory, 1 for as planned."""

    stamp_ns: int
    position: Array
    velocity: Array
    scaling: float = 1.0


class Watchdog:
    """Compares what the robot does with what it was told."""

    def __init__(self, contract: Contract) -> None:
        self._names = contract.robot.joints
        self._max_age_s = contract.limits.max_observation_age_s
        self._max_error_rad = contract.limits.max_tracking_error_rad
        self._velocity = np.array(contract.limits.velocity_rad_s)

    def stale(self, now_ns: int, measured: Measured | None) -> Refusal | None:
        """OBSERVATION_STALE or NO_JOINT_STATE when the joint state can't be trusted at ``now_ns``."""
        if measured is None:
            return Refusal(Reason.NO_JOINT_STATE, "no joint state has arrived; is the robot's joint_state_broadcaster "
                                                  "running, and on the same ROS_DOMAIN_ID?")
        age_s = (now_ns - measured.stamp_ns) * 1e-9
        if age_s > self._max_age_s:
            return Refusal(Reason.OBSERVATION_STALE, f"the last joint state is {age_s:.2f} s old, at most "
                                                     f"{self._max_age_s:.2f} s are allowed")
        return None

    def early(self, now_ns: int, measured: Measured, simulated: bool) -> Refusal | None:
        """FROM_THE_FUTURE when the stamp can't be right: the age of this state and of all after it would be wrong."""
        ahead_ns = measured.stamp_ns - now_ns
        if ahead_ns <= (SIMULATION_AHEAD_NS if simulated else AHEAD_NS):
            return None
        return Refusal(Reason.FROM_THE_FUTURE, f"the joint state's stamp is {ahead_ns * 1e-9:.2f} s ahead of the "
                                               "clock: are both machines' clocks synchronised?")

    def tracking_error(self, measured: Measured, commanded: Callable[[int], State | None]) -> float:
        """Largest joint difference [rad] between measured and commanded at the measurement's time."""
        state = commanded(measured.stamp_ns)
        return 0.0 if state is None else float(np.max(np.abs(measured.position - state.position)))

    def off_track(self, measured: Measured, commanded: Callable[[int], State | None]) -> Refusal | None:
        """TRACKING_ERROR when the arm is not where it was told to be."""
        state = commanded(measured.stamp_ns)
        if state is None:
            return None
        error = np.abs(measured.position - state.position)
        joint = int(np.argmax(error))
        if error[joint] > self._max_error_rad:
            return Refusal(Reason.TRACKING_ERROR, f"{self._names[joint]} is {error[joint]:.3f} rad from its command, "
                                                  f"at most {self._max_error_rad:.3f} rad are allowed: is the arm "
                                                  "blocked or its brake on?")
        return None

    def teleported(self, before: Measured | None, after: Measured) -> Refusal | None:
        """TELEPORTED when a joint moved faster than twice its limit: a simulator's reset, or a broken encoder."""
        if before is None:
            return None
        elapsed_s = max((after.stamp_ns - before.stamp_ns) * 1e-9, 0.0)
        jump = np.abs(after.position - before.position)
        excess = jump - (2 * self._velocity * elapsed_s + 0.05)
        joint = int(np.argmax(excess))
        if excess[joint] > 0:
            return Refusal(Reason.TELEPORTED,
                           f"{self._names[joint]} jumped {jump[joint]:.3f} rad within {elapsed_s:.3f} s")
        return None


class Hearing:
    """How long nothing was heard from the robot, by a clock that never jumps, and how long that usually lasts."""

    def __init__(self, steady_s: Callable[[], float]) -> None:
        self._steady_s = steady_s
        self._last_s = 0.0
        self._gaps_s: deque[float] = deque([0.0], maxlen=GAPS_KEPT)

    def heard(self) -> None:
        """A message came."""
        now_s = self._steady_s()
        self._gaps_s.append(now_s - self._last_s)
        self._last_s = now_s

    @property
    def silence_s(self) -> float:
        """Since the last message."""
        return self._steady_s() - self._last_s

    def deaf(self, longest_s: float) -> Refusal | None:
        """ROBOT_SILENT when nothing came for ``longest_s`` and several times as long as usual: the way to the robot may
        be as slow as the way from it, and a controller jumps to a motion that it gets after its hand-off."""
        usual_s, silence_s = float(np.median(self._gaps_s)), self.silence_s
        if silence_s <= max(longest_s, USUAL_GAPS * usual_s):
            return None
        return Refusal(Reason.ROBOT_SILENT, f"nothing was heard from the robot for {silence_s:.3f} s, usually every "
                                            f"{usual_s:.3f} s: a motion might reach it too late (does every process "
                                            "get a core?)")


class ClockWatch:
    """Sees the clock of stamps and commands go back or leap, by a clock that does neither.

    A robot's clock goes as fast as time. A simulation's may stand, hurry after, and run up to SIMULATION_RATE times as
    fast, so only a leap beyond where it was before counts; what it lost more than FORGIVEN_NS ago is not made up.
    """

    def __init__(self, simulated: bool, steady_ns: Callable[[], int] = time.monotonic_ns) -> None:
        self._simulated, self._steady_ns = simulated, steady_ns
        self._last: tuple[int, int] | None = None
        self._furthest_ns = self._level_ns = self._level_since_ns = 0

    def jump_ns(self, clock: Callable[[], int]) -> int:
        """By how much the clock jumped since the last call; 0 when it went on as it should."""
        steady_ns, now_ns = self._steady_ns(), clock()
        if self._steady_ns() - steady_ns > READING_NS:
            return 0  # interrupted between the two: says nothing
        last, self._last = self._last, (now_ns, steady_ns)
        ahead_ns = now_ns - steady_ns
        if last is None:
            self._furthest_ns = self._level_ns = ahead_ns
            self._level_since_ns = steady_ns
            return 0
        passed_ns, real_ns = now_ns - last[0], steady_ns - last[1]
        if self._simulated:
            leap_ns = ahead_ns - self._furthest_ns - (SIMULATION_RATE - 1) * real_ns
            jumped = passed_ns < 0 or leap_ns > SIMULATION_LEAP_NS
        else:
            jumped = abs(passed_ns - real_ns) > CLOCK_LEAP_NS
        if abs(ahead_ns - self._level_ns) > LEVEL_NS:
            self._level_ns, self._level_since_ns = ahead_ns, steady_ns
        settled = steady_ns - self._level_since_ns > FORGIVEN_NS
        self._furthest_ns = ahead_ns if jumped or settled else max(self._furthest_ns, ahead_ns)
        return passed_ns - real_ns if jumped else 0
