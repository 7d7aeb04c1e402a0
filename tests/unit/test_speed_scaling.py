"""The executor keeps step with a controller that scales its speed, as by a pendant's slider. No ROS."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from controller_world import CONTRACT, HOME, World, keeps_limits, quick

from corft_core.execution import Reason, Refusal
from corft_core.trajectory import JointPath


def calm(world: World) -> bool:
    """Neither lost nor foreign commands were found."""
    return not world.seen(Reason.FOREIGN_COMMAND) and world.supervisor.counts["lost"] == 0


@pytest.mark.parametrize("factor", [0.9, 0.5, 0.3])
def test_a_controller_that_scales_its_speed_is_followed_and_stopped_within_limits(factor: float):
    rng = np.random.default_rng(1)
    world = World(lambda: rng.uniform(0.001, 0.008), factor=lambda time_s: factor)
    world.drive(2.0, rng=rng)
    assert calm(world) and world.outcomes["chunk"] >= 6
    running = world.supervisor.executor.running
    heard_ns = world.now_ns - world.supervisor.executor.follower.behind_ns(world.now_ns)
    assert running is not None and np.allclose(running.state(heard_ns).position, world.state.positions, atol=5e-3)
    world.supervisor.stop(Refusal(Reason.STOP_REQUESTED, "a test"), world.now_ns)
    world.run(0.6 / factor)
    assert np.max(np.abs(world.state.velocities)) < 1e-6
    assert calm(world) and keeps_limits(world)


def test_a_slider_that_is_moved_in_motion_changes_nothing_but_the_time():
    def factor(time_s: float) -> float:
        return float(np.interp(time_s, (50.8, 51.4, 51.9, 52.2), (1.0, 0.3, 0.3, 1.0)))

    rng = np.random.default_rng(2)
    world = World(lambda: rng.uniform(0.001, 0.008), factor=factor)
    world.drive(2.6, rng=rng)
    world.run(2.5)
    assert calm(world) and keeps_limits(world) and world.outcomes["chunk"] >= 8
    assert world.supervisor.executor.at_rest(world.now_ns) and np.max(np.abs(world.state.velocities)) < 1e-6


def test_a_pause_in_motion_is_waited_for():
    world = World(quick, factor=lambda time_s: 0.0 if 50.7 < time_s < 52.0 else 0.8)
    world.drive(0.6)
    world.run(1.0)
    paused = world.state.positions
    assert not world.supervisor.executor.at_rest(world.now_ns), "it has not come to its end"
    world.run(3.0)
    assert np.max(np.abs(world.state.positions - paused)) > 0.05 and calm(world)
    assert np.max(np.abs(world.state.velocities)) < 1e-6


def test_the_gripper_keeps_step_with_a_scaled_arm():
    world = World(quick, factor=lambda time_s: 0.5)
    world.chunk()
    due_s = [due_ns * 1e-9 for due_ns, _ in world.supervisor._gripper._entries]
    world.run(0.4)
    late_s = [due_ns * 1e-9 for due_ns, _ in world.supervisor._gripper._entries][-1] - due_s[-1]
    assert 0.15 < late_s < 0.21, "half of the time since then is lost"


@pytest.mark.parametrize("what", ["lost", "foreign"])
def test_a_scaled_controller_hides_neither_lost_nor_foreign_commands(what: str):
    numbers = itertools.count()
    world = World(quick, lost=lambda command: what == "lost" and next(numbers) == 3, factor=lambda time_s: 0.6)
    world.drive(0.8, rng=np.random.default_rng(0))
    if what == "foreign":
        goal = HOME + np.array([0.1, 0.2, 0, 0, 0, 0, 0])
        world.arrive(JointPath(CONTRACT.robot.joints, np.array([0.6]), goal[None], np.zeros((1, 7)),
                               np.zeros((1, 7))), world.now_ns * 1e-9)
    world.run(0.4)
    assert world.seen(Reason.COMMAND_LOST if what == "lost" else Reason.FOREIGN_COMMAND)
    assert keeps_limits(world)


def test_a_controller_that_scales_its_speed_and_does_not_tell_is_waited_for():
    world = World(quick, factor=lambda time_s: 0.5, tells=False)
    world.drive(1.0)
    world.run(1.0)
    assert world.seen(Reason.FOREIGN_COMMAND)
    assert any("does it scale the speed" in report.message for report in world.reports)
