"""An executor and a controller in simulated time, and what lies between them: for tests without ROS."""

from __future__ import annotations

import functools
import heapq
import itertools
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from faults.setpoint import SAMPLE_S, TOLERANCE, Setpoint

from corft_core.contract import Contract
from corft_core.execution import Chunk, Command, ExecutorOptions, Measured, Reason, Refusal, Supervisor
from corft_core.execution.watchdog import ClockWatch
from corft_core.planning import make_planner
from corft_core.trajectory import JointPath

PANDA = Path(__file__).parents[1] / "ros2_ws/src/corft/config/panda_cell"
CONTRACT = Contract.load(PANDA / "contract.yaml")
HOME = np.array(CONTRACT.robot.home_rad)
SWING = np.array([0.35, 0.0, 0.0, 0.17, 0.0, 0.17, 0.0])
LIMITS = {"velocity_share": TOLERANCE, "acceleration_share": TOLERANCE, "jerk_share": TOLERANCE}


@functools.cache
def planner() -> Any:
    return make_planner("embedded", CONTRACT, None)


class ScaledSetpoint(Setpoint):
    """Of a controller that scales its speed by ``factor``: within a trajectory its time lags behind more and more, a
    new one starts at the present."""

    def __init__(self, factor: Callable[[float], float]) -> None:
        super().__init__(CONTRACT)
        self.factor, self._passed_s = factor, 0.0

    def advance(self, now_s: float) -> None:
        self._passed_s = self._passed_s or now_s
        while self._passed_s + SAMPLE_S <= now_s + 1e-9:
            self._sample(self._passed_s)
            self._controller._start_s += (1.0 - self.factor(self._passed_s)) * SAMPLE_S
            self._passed_s += SAMPLE_S
        self._sample(now_s)

    def _sample(self, time_s: float) -> None:
        count, factor = len(self._parts), self.factor(time_s)
        super().advance(time_s)
        self._parts[count:] = [replace(part, velocities=part.velocities * factor,
                                       accelerations=part.accelerations * factor**2) for part in self._parts[count:]]


class World:
    """An executor, a controller and what lies between them: delays, losses, stamps that are off.

    Times in s. ``late``: delay of a command on its way, ``slow``: of a setpoint, ``stamp``: error of its stamp.
    ``heard`` false: the controller does not say what it follows. ``again``: how long after it a copy of a command
    arrives, None for none. ``factor``: by which the controller scales its speed, by time, which it ``tells``. While
    ``cut`` is true nothing passes in either direction.
    """

    def __init__(self, late: Callable[[], float], slow: Callable[[], float] = lambda: 0.002,
                 stamp: Callable[[], float] = lambda: 0.0, lost: Callable[[Command], bool] = lambda command: False,
                 heard: bool = True, rate_hz: float = 50.0,
                 again: Callable[[Command], float | None] = lambda command: None,
                 factor: Callable[[float], float] | None = None, tells: bool = True, **options: Any) -> None:
        self.now_ns = 50 * 10**9
        self.supervisor = Supervisor(CONTRACT, planner(), ExecutorOptions(**options), self._send, self._report, False,
                                     lambda: self.now_ns, lambda: self.now_ns * 1e-9)
        self.supervisor._clock_watch = ClockWatch(False, steady_ns=lambda: self.now_ns)
        self.supervisor._certain = self._certain  # type: ignore[method-assign]
        self.waits = 0
        self.factor, self.tells = factor or (lambda time_s: 1.0), tells
        self.setpoint = Setpoint(CONTRACT) if factor is None else ScaledSetpoint(factor)
        self.reports: list[Refusal] = []
        self.outcomes: Counter[str] = Counter()
        self.late, self.slow, self.stamp, self.lost, self.heard = late, slow, stamp, lost, heard
        self.again = again
        self.cut = False
        self._away = False
        self._events: list[tuple[int, int, Callable[[], None]]] = []
        self._count = itertools.count()
        self._every(1.0 / rate_hz, self._publish)
        self._every(0.05, lambda: self.supervisor.tick(self.now_ns))
        self.run(0.3)
        assert self.supervisor.enable(self.now_ns)[0]

    def _report(self, _: str, event: Refusal) -> None:
        self.reports.append(event)

    def _certain(self, now_ns: int) -> int:
        """Time goes on only here."""
        for _ in range(12):
            if self.supervisor.executor.doubt(self.now_ns) is None:
                break
            self.waits += 1
            self.run(0.005)
        return self.now_ns

    def after(self, delay_s: float, call: Callable[[], None]) -> None:
        heapq.heappush(self._events, (self.now_ns + round(1e9 * delay_s), next(self._count), call))

    def _every(self, period_s: float, call: Callable[[], None]) -> None:
        def again() -> None:
            call()
            self.after(period_s, again)
        self.after(period_s, again)

    def run(self, duration_s: float) -> None:
        until_ns = self.now_ns + round(1e9 * duration_s)
        while self._events and self._events[0][0] <= until_ns:
            self.now_ns, _, call = heapq.heappop(self._events)
            call()
        self.now_ns = until_ns

    def _send(self, command: Command) -> None:
        if self.cut or self.lost(command):
            return
        late_s, again_s = self.late(), self.again(command)
        for delay_s in (late_s,) if again_s is None else (late_s, late_s + again_s):
            self.after(delay_s, lambda: self.arrive(command.sent, command.start_ns * 1e-9))

    def arrive(self, path: JointPath, start_s: float) -> None:
        later = path.times_s > 0
        self.setpoint.command(JointPath(path.names, path.times_s[later], *(
            values[later] for values in (path.positions, path.velocities, path.accelerations))), start_s,
            self.now_ns * 1e-9)

    @property
    def state(self) -> Any:
        return self.setpoint._controller.desired(self.now_ns * 1e-9)

    def _publish(self) -> None:
        self.setpoint.advance(self.now_ns * 1e-9)
        if self.cut:
            return
        state = self.state
        measured = Measured(self.now_ns, state.positions, state.velocities)
        self.after(0.001, lambda: self.supervisor.joint_state(measured, self.now_ns))
        if self.heard:
            said = Measured(self.now_ns + round(1e9 * self.stamp()), state.positions, state.velocities,
                            self.factor(self.now_ns * 1e-9) if self.tells else 0.0)
            self.after(self.slow(), lambda: self.supervisor.setpoint(said, self.now_ns))

    def chunk(self, step_rad: float = 0.07, noise: np.ndarray | float = 0.0) -> None:
        """To and fro, as a policy would, from the present state."""
        position = self.state.positions
        goal = HOME + (SWING if self._away else -SWING)
        way = goal - position
        length = max(float(np.max(np.abs(way))), 1e-9)
        if length < 0.1:
            self._away = not self._away
        part = np.minimum(step_rad * np.arange(1, 11) / length, 1.0)[:, None]
        chunk = Chunk(self.now_ns - 20_000_000, CONTRACT.robot.joints, position + part * way + noise, np.ones(10), 0.1)
        outcome = self.supervisor.chunk(chunk, self.now_ns)
        self.outcomes["chunk" if isinstance(outcome, Command) else outcome.reason.value] += 1

    def drive(self, duration_s: float, period_s: float = 0.2, rng: np.random.Generator | None = None) -> None:
        """Chunks every ``period_s``, with ``rng`` each with a mind of its own."""
        for _ in range(round(duration_s / period_s)):
            self.chunk(noise=0.0 if rng is None else rng.normal(scale=0.02, size=7))
            self.run(period_s)

    def shares(self) -> dict[str, float]:
        self.setpoint.advance(self.now_ns * 1e-9)
        return self.setpoint.take().shares(CONTRACT)

    def seen(self, reason: Reason) -> bool:
        return any(report.reason is reason for report in self.reports)


def keeps_limits(world: World) -> bool:
    return all(value <= LIMITS[name] for name, value in world.shares().items())


def quick() -> float:
    return 0.004
