"""The executor follows the controller's setpoint: lost commands, foreign ones, and no false alarms. No ROS."""

from __future__ import annotations

import functools
import heapq
import itertools
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from faults.setpoint import TOLERANCE, Setpoint
from hypothesis import given, settings
from hypothesis import strategies as st

from corft_core.contract import Contract
from corft_core.execution import Activity, Chunk, Command, ExecutorOptions, Measured, Reason, Refusal, Supervisor
from corft_core.execution.watchdog import ClockWatch
from corft_core.planning import make_planner
from corft_core.trajectory import JointPath

PANDA = Path(__file__).parents[2] / "ros2_ws/src/corft/config/panda_cell"
CONTRACT = Contract.load(PANDA / "contract.yaml")
HOME = np.array(CONTRACT.robot.home_rad)
SWING = np.array([0.35, 0.0, 0.0, 0.17, 0.0, 0.17, 0.0])
LIMITS = {"velocity_share": TOLERANCE, "acceleration_share": TOLERANCE, "jerk_share": TOLERANCE}


@functools.cache
def planner() -> Any:
    return make_planner("embedded", CONTRACT, None)


class World:
    """An executor, a controller and what lies between them: delays, losses, stamps that are off.

    Times in s. ``late``: delay of a command on its way, ``slow``: of a setpoint, ``stamp``: error of its stamp.
    ``heard`` false: the controller does not say what it follows. ``again``: how long after it a copy of a command
    arrives, None for none.
    """

    def __init__(self, late: Callable[[], float], slow: Callable[[], float] = lambda: 0.002,
                 stamp: Callable[[], float] = lambda: 0.0, lost: Callable[[Command], bool] = lambda command: False,
                 heard: bool = True, rate_hz: float = 50.0,
                 again: Callable[[Command], float | None] = lambda command: None, **options: Any) -> None:
        self.now_ns = 50 * 10**9
        self.supervisor = Supervisor(CONTRACT, planner(), ExecutorOptions(**options), self._send, self._report, False,
                                     lambda: self.now_ns)
        self.supervisor._clock_watch = ClockWatch(False, steady_ns=lambda: self.now_ns)
        self.supervisor._certain = self._certain  # type: ignore[method-assign]
        self.waits = 0
        self.setpoint = Setpoint(CONTRACT)
        self.reports: list[Refusal] = []
        self.outcomes: Counter[str] = Counter()
        self.late, self.slow, self.stamp, self.lost, self.heard = late, slow, stamp, lost, heard
        self.again = again
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
        if self.lost(command):
            return
        late_s, again_s = self.late(), self.again(command)
        for delay_s in (late_s,) if again_s is None else (late_s, late_s + again_s):
            self.after(delay_s, lambda: self.arrive(command.path, command.start_ns * 1e-9))

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
        state = self.state
        measured = Measured(self.now_ns, state.positions, state.velocities)
        self.after(0.001, lambda: self.supervisor.joint_state(measured, self.now_ns))
        if self.heard:
            said = Measured(self.now_ns + round(1e9 * self.stamp()), state.positions, state.velocities)
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


def test_after_a_lost_command_the_next_chunk_continues_what_really_runs():
    numbers = itertools.count()
    world = World(quick, lost=lambda command: next(numbers) == 3)
    world.drive(1.6, rng=np.random.default_rng(0))
    assert world.seen(Reason.COMMAND_LOST) and not world.seen(Reason.FOREIGN_COMMAND)
    assert world.supervisor.counts["lost"] == 1
    assert keeps_limits(world)
    assert "COMMAND_LOST" not in world.outcomes, "no chunk is refused because of it"


def test_without_the_setpoint_a_lost_command_can_not_be_seen():
    numbers = itertools.count()
    world = World(quick, lost=lambda command: next(numbers) % 3 == 2, heard=False)
    world.drive(1.8, rng=np.random.default_rng(0))
    assert not world.seen(Reason.COMMAND_LOST) and not keeps_limits(world)


@pytest.mark.parametrize("period_s", [0.2, 0.05])
def test_a_fifth_of_the_commands_lost_breaks_no_limit(period_s: float):
    rng = np.random.default_rng(3)
    world = World(lambda: rng.uniform(0.001, 0.01), lost=lambda command: rng.random() < 0.2)
    world.drive(8 * period_s + 0.8, period_s, rng)
    assert world.seen(Reason.COMMAND_LOST)
    assert keeps_limits(world)
    assert world.outcomes["chunk"] >= 6


def test_the_first_command_of_all_may_be_lost_too():
    numbers = itertools.count()
    world = World(quick, lost=lambda command: next(numbers) == 0)
    world.drive(0.8)
    assert world.seen(Reason.COMMAND_LOST)
    assert keeps_limits(world) and np.max(np.abs(world.state.positions - HOME)) > 0.1


def test_a_lost_stop_is_sent_again():
    lost: list[Command] = []

    def first_hold(command: Command) -> bool:
        hit = command.kind == "hold" and not lost
        lost.extend([command] if hit else [])
        return hit

    world = World(quick, lost=first_hold)
    world.drive(0.8)
    world.supervisor.stop(Refusal(Reason.STOP_REQUESTED, "a test"), world.now_ns)
    world.run(0.6)
    assert lost and world.seen(Reason.COMMAND_LOST)
    assert np.max(np.abs(world.state.velocities)) < 1e-6, "its chunk would have gone on for a second"
    assert keeps_limits(world)


@pytest.mark.parametrize("moving", [True, False])
def test_another_nodes_command_is_waited_for_and_nothing_is_sent_meanwhile(moving: bool):
    world = World(quick)
    if moving:
        world.drive(0.8)
    else:
        world.chunk()
        world.run(3.0)
    sent: list[Command] = []
    send, world.supervisor._send = world.supervisor._send, lambda command: (sent.append(command), send(command))[1]
    goal = HOME + np.array([0.1, 0.2, 0, 0, 0, 0, 0])
    world.arrive(JointPath(CONTRACT.robot.joints, np.array([0.0, 1.2]), np.stack([goal, goal]), np.zeros((2, 7)),
                           np.zeros((2, 7))), world.now_ns * 1e-9)
    world.run(0.3)
    assert world.seen(Reason.FOREIGN_COMMAND)
    assert world.supervisor.activity(world.now_ns) is Activity.HOLDING
    world.chunk()
    assert world.outcomes["FOREIGN_COMMAND"] == 1
    world.supervisor.brake(Refusal(Reason.STOP_REQUESTED, "a test"), world.now_ns)
    world.run(0.6)
    assert sent == [], "nothing could continue that motion"
    world.run(0.8)
    assert np.allclose(world.state.positions, goal)
    world.drive(0.6)
    assert np.max(np.abs(world.state.positions - goal)) > 0.05, "it goes on from where the other left the arm"
    assert keeps_limits(world)


def test_the_first_chunk_starts_where_the_controller_holds_the_arm():
    world = World(quick)
    sagging = HOME + 0.004
    world.supervisor.joint_state(Measured(world.now_ns + 1_000_000, sagging, np.zeros(7)), world.now_ns)
    assert np.allclose(world.supervisor.executor.rest(world.now_ns, Measured(0, sagging, np.zeros(7))), HOME)


def test_a_command_that_is_late_is_followed_again_when_it_comes():
    delays = iter([0.004] * 3 + [0.2])
    world = World(lambda: next(delays, 0.004))
    world.drive(0.8, 0.2, np.random.default_rng(0))
    world.run(0.1)
    running = world.supervisor.executor.running
    assert running is not None and world.supervisor.counts["lost"] == 2, "lost, then there"
    assert np.allclose(running.state(world.now_ns).position, world.state.positions, atol=1e-3)
    assert not world.seen(Reason.FOREIGN_COMMAND)


@pytest.mark.parametrize("again_s", [0.005, 0.15])
def test_commands_that_arrive_twice_in_order_change_nothing(again_s: float):
    once, twice = (World(quick, again=lambda command, copy=copy: copy) for copy in (None, again_s))
    for world in (once, twice):
        world.drive(1.6, rng=np.random.default_rng(0))
        world.run(1.5)
    assert twice.outcomes == once.outcomes and twice.shares() == once.shares()
    assert twice.supervisor.counts["lost"] == 0


def numbered(wanted: int, again_s: float) -> Callable[[Command], float | None]:
    """Only one command comes again."""
    numbers = itertools.count()
    return lambda command: again_s if next(numbers) == wanted else None


def test_a_copy_that_comes_after_a_newer_command_but_before_its_hand_off_takes_its_place():
    world = World(quick, again=numbered(4, 0.22))
    world.drive(1.6, rng=np.random.default_rng(0))
    assert world.supervisor.counts["lost"] == 1, "the controller has the older one again"
    assert "COMMAND_LOST" not in world.outcomes and keeps_limits(world)


def test_a_copy_that_comes_long_after_a_newer_command_is_waited_for_like_another_nodes():
    world = World(quick, again=numbered(3, 0.3))
    world.drive(1.0, rng=np.random.default_rng(0))
    world.run(0.3)
    assert world.seen(Reason.FOREIGN_COMMAND)
    world.run(2.0)
    assert np.max(np.abs(world.state.velocities)) == 0.0, "it ends by itself"
    before = world.outcomes["chunk"]
    world.drive(0.6)
    assert world.outcomes["chunk"] > before, "and chunks are taken again"


@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 2**31), late_s=st.sampled_from([0.002, 0.02, 0.045]), slow_s=st.sampled_from([0.002, 0.03]),
       stamp_s=st.sampled_from([0.0, 0.0005, 0.002]), rate_hz=st.sampled_from([20.0, 50.0, 200.0]),
       scale=st.sampled_from([0.3, 1.0]), period_s=st.sampled_from([0.07, 0.2]))
def test_delays_and_inexact_stamps_raise_no_alarm(seed: int, late_s: float, slow_s: float, stamp_s: float,
                                                  rate_hz: float, scale: float, period_s: float):
    rng = np.random.default_rng(seed)
    world = World(lambda: rng.uniform(0.001, late_s), lambda: rng.uniform(0.001, slow_s),
                  lambda: rng.uniform(-stamp_s, stamp_s), rate_hz=rate_hz, speed_scale=scale)
    world.drive(1.4, period_s, rng)
    world.run(1.5)
    assert world.supervisor.counts["lost"] == 0 and not world.seen(Reason.FOREIGN_COMMAND)
    assert keeps_limits(world)
