"""The executor follows the controller's setpoint: lost commands, foreign ones, and no false alarms. No ROS."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest
from controller_world import CONTRACT, HOME, World, keeps_limits, quick
from hypothesis import given, settings
from hypothesis import strategies as st

from corft_core.execution import Activity, Command, Measured, Reason, Refusal
from corft_core.trajectory import JointPath


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


@pytest.mark.parametrize("then", ["stop", "chunk"])
@pytest.mark.parametrize("cut_s", [0.1, 0.2, 0.27, 0.35, 0.45, 0.7, 1.0, 1.5])
def test_after_a_link_that_was_cut_nothing_begins_where_the_arm_is_not(cut_s: float, then: str):
    world = World(quick, slow=lambda: 0.015)
    world.drive(0.8, 0.1)
    world.cut = True
    world.drive(min(cut_s, 0.5), 0.05)
    gone = Refusal(Reason.CONTROLLER_INACTIVE, "the controller has not published its state")
    world.supervisor.fault("controller", gone if cut_s > 0.5 else None, world.now_ns)
    world.run(max(cut_s - 0.5, 0.0))
    world.cut = False
    world.supervisor.fault("controller", None, world.now_ns)
    heard_ns = world.supervisor._measured.stamp_ns
    while world.supervisor._measured.stamp_ns == heard_ns:  # joint states come before the controller's setpoint
        world.run(0.001)
    if then == "stop":
        world.supervisor.stop(Refusal(Reason.TRACKING_ERROR, "the arm is not where its command is"), world.now_ns)
        world.run(1.5)
    else:
        world.drive(1.0, 0.1)
        assert np.max(np.abs(world.state.velocities)) > 0.05, "it goes on"
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


@pytest.mark.parametrize("after_s", [0.03, 0.07, 0.1, 0.14, 0.17])
def test_a_chunk_just_after_another_nodes_command_is_not_joined_to_a_setpoint_that_is_only_near(after_s: float):
    world = World(quick, slow=lambda: 0.03)
    world.drive(0.8)
    goal = HOME - np.array([0.3, 0, 0, 0, 0, 0, 0])
    world.arrive(JointPath(CONTRACT.robot.joints, np.array([0.0, 1.5]), np.stack([goal, goal]), np.zeros((2, 7)),
                           np.zeros((2, 7))), world.now_ns * 1e-9)
    world.run(after_s)
    world.chunk()
    world.run(1.0)
    assert keeps_limits(world)


def test_a_setpoint_that_rests_near_the_last_motion_keeps_nobody_waiting():
    world = World(quick)
    world.chunk()
    world.run(3.0)
    rest = world.state.positions + 1e-4
    world.arrive(JointPath(CONTRACT.robot.joints, np.array([0.0, 0.3]), np.stack([rest, rest]), np.zeros((2, 7)),
                           np.zeros((2, 7))), world.now_ns * 1e-9)
    world.run(0.6)
    before = world.outcomes["chunk"]
    world.chunk()
    assert world.outcomes["chunk"] == before + 1


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
