"""When the arm may move: enabling, stops, stale inputs, modes, moving home. No ROS, the real planner."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import pytest

from corft_core.contract import Contract
from corft_core.execution import (
    Activity,
    Chunk,
    ChunkExecutor,
    Command,
    ExecutorOptions,
    Measured,
    Reason,
    Refusal,
    Supervisor,
    check_command,
)
from corft_core.execution.limits import dense
from corft_core.execution.watchdog import ClockWatch
from corft_core.planning import make_planner

CONTRACT = Contract.load(Path(__file__).parents[2] / "ros2_ws/src/corft/config/panda_cell/contract.yaml")
NAMES = CONTRACT.robot.joints
HOME = np.array(CONTRACT.robot.home_rad)
TURN = np.array([1.0, 0, 0, 0, 0, 0, 0])
SCENE = Path(__file__).parents[2] / "ros2_ws/src/corft/config/panda_cell/scene.yaml"


@functools.cache
def planner():
    return make_planner("embedded", CONTRACT, SCENE)


class Robot:
    """An arm that follows its commands perfectly, and the clock."""

    def __init__(self, enabled: bool = True, simulated: bool = False, **options) -> None:
        self.now_ns, self.leap_ns = 50 * 10**9, 0
        self.sent: list[Command] = []
        self.reports: list[tuple[str, Refusal]] = []
        self.supervisor = Supervisor(CONTRACT, planner(), ExecutorOptions(**options), self.sent.append,
                                     lambda what, event: self.reports.append((what, event)), simulated,
                                     clock=lambda: self.now_ns,
                                     steady_s=lambda: (self.now_ns - self.leap_ns) * 1e-9)
        self.supervisor._clock_watch = ClockWatch(simulated, steady_ns=lambda: self.now_ns - self.leap_ns)
        self.offset = np.zeros(7)
        self.openings: list[float] = []
        self.step(0.02)
        if enabled:
            assert self.supervisor.enable(self.now_ns)[0]

    @property
    def position(self) -> np.ndarray:
        return (self.sent[-1].state(self.now_ns).position if self.sent else HOME) + self.offset

    @property
    def speed(self) -> float:
        return float(np.max(np.abs(self.sent[-1].state(self.now_ns).velocity))) if self.sent else 0.0

    def leap(self, seconds: float, tick_first: bool = False) -> None:
        """The clock jumps, the robot does not."""
        position = self.position
        self.now_ns += round(seconds * 1e9)
        self.leap_ns += round(seconds * 1e9)
        if tick_first:
            self.supervisor.tick(self.now_ns)
        self.supervisor.joint_state(Measured(self.now_ns, position, np.zeros(7)), self.now_ns)

    def leap_sent(self) -> None:
        """The robot goes on as if the clock had not jumped."""
        self.sent[-1] = self.sent[-1].later(self.leap_ns)

    def move(self, kind: str) -> tuple[bool, str]:
        """Ask for a move and plan it when it is due, as the node's worker does."""
        asked = self.supervisor.request_move(kind, self.now_ns)
        while asked[0] and not self.supervisor.move_due(self.now_ns):
            self.step(0.02)
        return self.supervisor.plan_pending(self.now_ns) if asked[0] else asked

    def step(self, duration_s: float, joint_states: bool = True) -> None:
        for _ in range(round(duration_s / 0.02)):
            self.now_ns += 20_000_000
            if joint_states:
                self.supervisor.joint_state(Measured(self.now_ns, self.position, np.zeros(7)), self.now_ns)
            opening = self.supervisor.gripper_due(self.now_ns)
            if opening is not None:
                self.openings.append(opening)
            self.supervisor.tick(self.now_ns)

    def chunk(self, rate_rad_s: float = 0.4, age_s: float = 0.05, steps: int = 10, gripper: float = 1.0) -> Chunk:
        ahead = TURN * rate_rad_s * 0.1 * np.arange(1, steps + 1)[:, None]
        return Chunk(self.now_ns - round(age_s * 1e9), NAMES, self.position + ahead, np.full(steps, gripper), 0.1)

    def send(self, chunk: Chunk | None = None) -> Command | Refusal:
        return self.supervisor.chunk(chunk or self.chunk(), self.now_ns)

    def reason(self, chunk: Chunk | None = None) -> Reason:
        answer = self.send(chunk)
        assert isinstance(answer, Refusal)
        return answer.reason

    @property
    def activity(self) -> Activity:
        return self.supervisor.activity(self.now_ns)


def test_nothing_moves_before_it_is_enabled():
    robot = Robot(enabled=False)
    assert robot.activity is Activity.DISABLED
    assert robot.reason() is Reason.DISABLED
    assert robot.sent == []
    assert robot.supervisor.enable(robot.now_ns)[0]
    assert isinstance(robot.send(), Command)
    assert robot.activity is Activity.EXECUTING


def test_without_a_next_chunk_the_arm_comes_to_rest_by_itself():
    robot = Robot()
    robot.send()
    robot.step(0.5)
    assert robot.speed > 0.3
    robot.step(1.5)
    assert robot.speed == 0.0
    assert robot.activity is Activity.IDLE
    assert robot.position[0] == pytest.approx(HOME[0] + 0.4, abs=0.1)


def test_gripper_commands_come_at_their_time():
    robot = Robot()
    chunk = robot.chunk(gripper=0.0)
    chunk.gripper[:3] = 1.0
    robot.send(chunk)
    robot.step(0.2)
    assert robot.openings and set(robot.openings) == {1.0}
    robot.step(0.2)
    assert robot.openings[-1] == 0.0


def test_stop_brakes_and_lasts_until_enabled_again():
    robot = Robot()
    robot.send()
    robot.step(0.5)
    robot.supervisor.stop(Refusal(Reason.STOP_REQUESTED, "stop was called"), robot.now_ns)
    robot.step(0.3)
    assert robot.speed == 0.0
    assert robot.activity is Activity.STOPPED
    assert robot.reason() is Reason.STOP_REQUESTED
    assert not robot.supervisor.request_move("home", robot.now_ns)[0]
    assert robot.supervisor.enable(robot.now_ns)[0]
    assert isinstance(robot.send(), Command)


def test_stale_joint_states_brake_and_fresh_ones_let_it_go_on():
    robot = Robot()
    robot.send(robot.chunk(steps=20))
    robot.step(0.3)
    robot.step(0.9, joint_states=False)
    assert robot.speed == 0.0
    assert robot.activity is Activity.HOLDING
    assert robot.reason() is Reason.OBSERVATION_STALE
    robot.step(0.1)
    assert robot.activity is Activity.IDLE
    assert isinstance(robot.send(), Command)


def test_a_blocked_arm_is_stopped_and_starts_again_from_where_it_is():
    robot = Robot()
    robot.send(robot.chunk(rate_rad_s=0.8))
    robot.step(0.2)
    for push in np.arange(0.0, 0.42, 0.03):  # as slow as a real arm falls behind
        robot.offset = -push * TURN
        robot.step(0.02)
    assert robot.activity in (Activity.STOPPED, Activity.HOLDING)
    assert robot.supervisor.stopped.reason is Reason.TRACKING_ERROR
    robot.step(0.5)
    assert robot.supervisor.enable(robot.now_ns)[0]
    assert robot.reason() is Reason.STALE, "what was seen before the new start must not be executed"
    robot.step(0.1)
    before = robot.position.copy()
    command = robot.send()
    assert isinstance(command, Command)
    np.testing.assert_allclose(command.path.positions[0], before, atol=1e-9)


@pytest.mark.parametrize("simulated", [True, False])
def test_a_jump_is_a_reset_in_simulation_and_a_fault_on_a_robot(simulated):
    robot = Robot(simulated=simulated)
    robot.send()
    robot.step(0.3)
    old = robot.chunk()
    robot.offset = 0.6 * TURN
    robot.supervisor.joint_state(Measured(robot.now_ns, robot.position, np.zeros(7)), robot.now_ns)
    if not simulated:
        assert robot.supervisor.stopped.reason is Reason.TELEPORTED
        return
    assert robot.supervisor.executor.running is None
    assert robot.reason(old) is Reason.STALE, "what was seen before the reset must not be executed"


@pytest.mark.parametrize("tick_first", [False, True])
@pytest.mark.parametrize(("simulated", "seconds"), [(True, -600.0), (True, -0.4), (True, 1.5), (True, 600.0),
                                                    (False, -600.0), (False, -0.4), (False, 0.4), (False, 600.0)])
def test_a_clock_that_jumps_stops_a_robot_and_lets_a_simulation_come_to_rest(simulated, seconds, tick_first):
    robot = Robot(simulated=simulated)
    robot.send(robot.chunk(rate_rad_s=0.8, steps=20))
    robot.step(0.5)
    before, chunk = robot.sent[-1].state(robot.now_ns), robot.chunk()
    robot.leap(seconds, tick_first)
    assert Reason.CLOCK_JUMP in [event.reason for _, event in robot.reports]
    if simulated:
        sent = len(robot.sent)
        assert robot.sent[-1].kind == "chunk"
        assert robot.reason(chunk) is Reason.CLOCK_JUMP
        robot.leap_sent()  # the controller goes on with what it has
        robot.step(2.5)
        assert len(robot.sent) == sent and robot.speed == 0.0
        assert robot.reason(chunk) in (Reason.STALE, Reason.FROM_THE_FUTURE)
        rest = robot.position
        command = robot.send(robot.chunk(rate_rad_s=-0.4))
        assert isinstance(command, Command)
        np.testing.assert_allclose(command.path.positions[0], rest, atol=1e-9)
        return
    assert robot.supervisor.stopped.reason is Reason.CLOCK_JUMP
    stop = robot.sent[-1]
    assert stop.kind == "hold"
    np.testing.assert_allclose(stop.state(robot.now_ns).position, before.position, atol=1e-6)
    np.testing.assert_allclose(stop.state(robot.now_ns).velocity, before.velocity, atol=1e-6)
    robot.step(0.6)
    assert robot.speed == 0.0
    assert robot.supervisor.enable(robot.now_ns)[0]
    assert isinstance(robot.send(), Command)


def test_a_simulation_that_was_started_anew_elsewhere_gets_no_command_before_its_arm_stands():
    robot = Robot(simulated=True)
    robot.send(robot.chunk(rate_rad_s=0.8, steps=20))
    robot.step(0.5)
    sent = len(robot.sent)
    robot.leap(-600.0)
    home = HOME + 0.6 * TURN
    for _ in range(100):  # the arm stands where the new simulation has put it
        robot.now_ns += 20_000_000
        robot.supervisor.joint_state(Measured(robot.now_ns, home, np.zeros(7)), robot.now_ns)
        robot.supervisor.tick(robot.now_ns)
    assert len(robot.sent) == sent and robot.supervisor.stopped is None
    command = robot.send(Chunk(robot.now_ns - 50_000_000, NAMES, home + TURN * 0.02 * np.arange(1, 11)[:, None],
                               np.ones(10), 0.1))
    assert isinstance(command, Command)
    np.testing.assert_allclose(command.path.positions[0], home, atol=1e-9)


def test_small_steps_of_the_clock_and_a_simulation_that_stalls_are_nothing():
    robot = Robot(simulated=False)
    robot.leap(0.01)
    robot.leap(-0.01)
    stalling = Robot(simulated=True)
    stalling.leap_ns -= 10**9  # the simulation stood for a second,
    stalling.step(0.1)
    stalling.leap(0.8)  # and hurries after
    assert not robot.reports and not stalling.reports


def test_home_brakes_first_then_moves_and_refuses_chunks_meanwhile():
    robot = Robot()
    robot.send(robot.chunk(rate_rad_s=0.6))
    robot.step(0.8)
    assert robot.supervisor.request_move("home", robot.now_ns) == (True, "braking, then home")
    assert robot.reason() is Reason.BUSY
    while not robot.supervisor.move_due(robot.now_ns):
        robot.step(0.02)
    before = robot.sent[-1]
    assert robot.supervisor.plan_pending(robot.now_ns)[0]
    assert check_command(robot.sent[-1], before, robot.supervisor.executor.limits, planner()) == []
    robot.step(0.4)
    assert robot.activity is Activity.MOVING
    assert robot.reason() is Reason.BUSY
    robot.step(6.0)
    np.testing.assert_allclose(robot.position, HOME, atol=1e-3)
    assert robot.move("home") == (True, "already there: home")


def test_a_move_does_not_begin_when_joint_states_end_while_it_is_planned():
    robot = Robot()
    robot.send()
    robot.step(2.0)
    assert robot.supervisor.request_move("home", robot.now_ns)[0]
    sent = len(robot.sent)
    robot.step(1.0, joint_states=False)
    done, text = robot.supervisor.plan_pending(robot.now_ns)
    assert not done and "joint state" in text and len(robot.sent) == sent
    assert robot.reason() is Reason.OBSERVATION_STALE, "the move is off"


def test_a_move_brakes_when_joint_states_have_ended_before_it_began():
    robot = Robot()
    robot.send()
    robot.step(2.0)
    assert robot.move("home")[0]
    robot.step(0.1)
    robot.supervisor.stale = Refusal(Reason.OBSERVATION_STALE, "seen while the arm stood")
    robot.step(1.0, joint_states=False)
    assert robot.sent[-1].kind == "hold"


@pytest.mark.parametrize("ahead_s", [5.0, 1000.0])
def test_a_joint_state_from_the_future_blinds_nobody(ahead_s):
    robot = Robot()
    robot.send()
    robot.step(0.3)
    early = Measured(robot.now_ns + round(ahead_s * 1e9), robot.position, np.zeros(7))
    robot.supervisor.joint_state(early, robot.now_ns)
    assert robot.reports[-1][1].reason is Reason.FROM_THE_FUTURE and "clocks" in robot.reports[-1][1].message
    robot.offset = 0.5 * TURN
    robot.step(0.02)
    assert robot.supervisor.stopped is not None and robot.supervisor.stopped.reason in (
        Reason.TRACKING_ERROR, Reason.TELEPORTED)


def test_a_robot_whose_clock_is_ahead_is_as_good_as_silent():
    robot = Robot()
    robot.send()
    for _ in range(40):
        robot.step(0.02, joint_states=False)
        robot.supervisor.joint_state(Measured(robot.now_ns + 5_000_000_000, robot.position, np.zeros(7)), robot.now_ns)
    assert robot.sent[-1].kind == "hold" and robot.supervisor.stale.reason is Reason.OBSERVATION_STALE


def test_a_stop_while_a_move_is_planned_calls_it_off():
    robot = Robot()
    robot.send()
    robot.step(2.0)
    robot.supervisor.request_move("home", robot.now_ns)
    stop = Refusal(Reason.STOP_REQUESTED, "stop was called")
    robot.supervisor._planned = lambda *_: robot.supervisor.stop(stop, robot.now_ns) or robot.sent[-1].path
    assert robot.supervisor.plan_pending(robot.now_ns) == (False, "home: stop was called")
    assert {command.kind for command in robot.sent} == {"chunk"}


def test_a_stop_while_a_chunk_is_planned_wins():
    robot = Robot()
    robot.send()
    robot.step(0.3)
    prepared = robot.supervisor.executor.prepare(robot.chunk(), robot.now_ns,
                                                 Measured(robot.now_ns, robot.position, np.zeros(7)))
    robot.supervisor.brake(Refusal(Reason.STOP_REQUESTED, ""), robot.now_ns)
    refused = robot.supervisor.executor.commit(prepared, robot.now_ns)
    assert refused.reason is Reason.SUPERSEDED


def test_a_chunk_that_was_planned_too_long_is_refused():
    robot = Robot()
    robot.send()
    robot.step(0.3)
    prepared = robot.supervisor.executor.prepare(robot.chunk(), robot.now_ns,
                                                 Measured(robot.now_ns, robot.position, np.zeros(7)))
    late = robot.supervisor.executor.commit(prepared, prepared.command.handoff_ns - 5_000_000)
    assert late.reason is Reason.PLANNING_LATE and "0.005 s before the hand-off" in late.message


def test_a_slow_machine_gets_a_later_hand_off_after_one_refusal():
    robot = Robot()
    robot.send()
    robot.step(0.3)
    executor, slow_ns = robot.supervisor.executor, 90_000_000
    for reason in (Reason.PLANNING_LATE, None, None):
        prepared = executor.prepare(robot.chunk(), robot.now_ns, Measured(robot.now_ns, robot.position, np.zeros(7)))
        before = executor.running
        outcome = executor.commit(prepared, robot.now_ns + slow_ns)
        if reason is not None:
            assert outcome.reason is reason
        else:
            assert check_command(outcome, before, executor.limits, planner()) == []
            assert outcome.handoff_ns >= robot.now_ns + slow_ns + 10_000_000
            robot.sent.append(outcome)
        robot.step(0.2)


def test_the_emergency_stop_lasts_until_it_is_released_and_enabled():
    robot = Robot()
    robot.send()
    robot.step(0.3)
    robot.supervisor.emergency_stop(robot.now_ns)
    stops = robot.supervisor.counts["stops"]
    robot.supervisor.emergency_stop(robot.now_ns)
    assert robot.supervisor.counts["stops"] == stops, "pressed twice brakes once"
    robot.step(0.4)
    assert robot.activity is Activity.STOPPED
    assert robot.supervisor.enable(robot.now_ns) == (False, "the emergency stop is pressed")
    assert robot.supervisor.clear_emergency_stop()[0]
    assert robot.reason() is Reason.EMERGENCY_STOP, "released, but nobody enabled the arm"
    assert robot.supervisor.enable(robot.now_ns)[0]
    assert isinstance(robot.send(), Command)


def test_a_fault_brakes_once_and_refuses_until_it_is_gone():
    robot = Robot()
    robot.send()
    robot.step(0.3)
    inactive = Refusal(Reason.CONTROLLER_INACTIVE, "arm_controller is inactive")
    for _ in range(3):
        robot.supervisor.fault("controller", inactive, robot.now_ns)
        robot.step(0.1)
    assert robot.supervisor.counts["stops"] == 1
    assert robot.speed == 0.0
    assert robot.activity is Activity.HOLDING
    assert robot.reason() is Reason.CONTROLLER_INACTIVE
    assert robot.supervisor.enable(robot.now_ns) == (False, "arm_controller is inactive")
    robot.supervisor.fault("controller", None, robot.now_ns)
    assert isinstance(robot.send(), Command)


def test_a_chunk_without_a_successor_is_named_as_the_reason_to_stop():
    robot = Robot()
    robot.send()
    robot.step(2.0)
    assert [event.reason for _, event in robot.reports] == [Reason.NO_NEW_CHUNK]
    assert robot.supervisor.event.reason is Reason.NO_NEW_CHUNK


def test_the_speed_changes_while_the_arm_moves():
    robot = Robot()
    robot.send(robot.chunk(rate_rad_s=0.6))
    robot.step(0.4)
    robot.supervisor.set_speed_scale(0.4)
    for _ in range(4):
        before, position = robot.sent[-1], robot.position[0]
        command = robot.send(robot.chunk(rate_rad_s=0.6, age_s=0.0))
        assert isinstance(command, Command)
        assert check_command(command, before, robot.supervisor.executor.limits, planner()) == []
        robot.step(0.26)
    assert (robot.position[0] - position) / 0.26 == pytest.approx(0.6 * 0.4, rel=0.25)


def test_a_stop_in_the_middle_of_a_chunk_stays_on_its_path():
    robot = Robot()
    command = robot.send(robot.chunk(rate_rad_s=0.8, steps=20))
    robot.step(0.7)
    robot.supervisor.stop(Refusal(Reason.STOP_REQUESTED, ""), robot.now_ns)
    stop = robot.sent[-1]
    assert check_command(stop, command, robot.supervisor.executor.limits, planner()) == []
    curve = command.path.sample(np.linspace(0, command.path.duration_s, 4000))[0]
    for position in stop.path.positions:
        assert np.abs(curve - position).max(axis=1).min() < 1e-3


def test_disabling_brakes():
    robot = Robot()
    robot.send()
    robot.step(0.5)
    robot.supervisor.disable(robot.now_ns, Refusal(Reason.SHUTDOWN, "deactivated"))
    robot.step(0.3)
    assert robot.speed == 0.0
    assert robot.activity is Activity.DISABLED


def test_old_future_and_out_of_order_chunks_are_refused():
    robot = Robot()
    assert robot.reason(robot.chunk(age_s=1.2)) is Reason.STALE
    assert robot.reason(robot.chunk(age_s=-0.3)) is Reason.FROM_THE_FUTURE
    assert robot.reason(robot.chunk(age_s=0.95)) is Reason.TOO_FEW_LEFT
    newest = robot.chunk()
    assert isinstance(robot.send(newest), Command)
    assert robot.reason(newest) is Reason.STALE


def test_a_chunk_far_from_the_running_motion_is_refused_and_the_arm_stops_softly():
    robot = Robot()
    robot.send()
    robot.step(0.3)
    running = robot.supervisor.executor.running
    chunk = robot.chunk()
    assert robot.reason(Chunk(chunk.stamp_ns, NAMES, chunk.positions - 0.4 * TURN, chunk.gripper, 0.1)) \
        is Reason.SPLICE_TOO_LARGE
    assert robot.supervisor.executor.running is running


@pytest.mark.parametrize(("mode", "accepted"), [("splice", 10), ("rtc", 10), ("temporal_ensemble", 10),
                                                ("receding_horizon", 2), ("open_loop", 2)])
def test_modes_differ_in_how_many_chunks_they_take(mode, accepted):
    robot = Robot(mode=mode, execute_steps=5)
    for _ in range(10):
        answer = robot.send()
        assert isinstance(answer, Command) or answer.reason is Reason.BUSY
        robot.step(0.1)
    assert robot.supervisor.counts["accepted"] == accepted


def test_speed_scale_takes_longer_to_the_same_place():
    full, half = Robot(), Robot(speed_scale=0.5)
    first, second = full.send(), half.send()
    # Action j is due (j + 1) steps after the observation, and a step is twice as long.
    for command, step_s in ((first, 0.1), (second, 0.2)):
        stamp_ns = command.handoff_ns - 110_000_000
        assert command.content_end_ns - stamp_ns == pytest.approx(10 * step_s * 1e9, rel=0.01)
    np.testing.assert_allclose(second.state(second.content_end_ns).position,
                               first.state(first.content_end_ns).position, atol=0.02)


def test_a_chunk_into_the_table_is_cut_before_it_and_then_refused():
    executor = ChunkExecutor(CONTRACT, planner())
    target = planner().forward_kinematics(HOME)
    target[:3, 3] = (0.5, 0.0, -0.1)
    into_table = make_planner("embedded", CONTRACT).inverse_kinematics(target, HOME)
    position, now_ns, cut = HOME, 10**12, False
    for number in range(20):
        away = into_table - position
        part = np.minimum(0.05 * np.arange(1, 11) / np.max(np.abs(away)), 1.0)
        chunk = Chunk(now_ns - 50_000_000, NAMES, position + part[:, None] * away, np.ones(10), 0.1, number)
        answer = executor.accept(chunk, now_ns, Measured(now_ns, position, np.zeros(7)))
        if isinstance(answer, Refusal):
            assert answer.reason in (Reason.COLLISION, Reason.WORKSPACE)
            break
        assert planner().first_collision(answer.path.positions) is None
        cut |= answer.truncated is not None
        now_ns += 300_000_000
        position = executor.commanded_state(now_ns).position
    else:
        pytest.fail("the table was never seen")
    assert cut
    # A grasp aimed a little into the table: the arm waits above it, the gripper goes on.
    now_ns += 3 * 10**9
    position = executor.commanded_state(now_ns).position
    away = (into_table - position) / np.max(np.abs(into_table - position))
    shallow = np.repeat((position + 0.04 * away)[None], 10, axis=0)
    answer = executor.accept(Chunk(now_ns, NAMES, shallow, np.linspace(0.9, 0.0, 10), 0.1), now_ns,
                             Measured(now_ns, position, np.zeros(7)))
    assert isinstance(answer, Command), answer
    assert answer.truncated is None or len(answer.gripper) == 9
    assert planner().first_collision(answer.path.positions) is None
    rest = executor.running.path.positions[-1]
    assert planner().in_collision(rest) == []


def test_nothing_is_sent_to_a_robot_that_is_not_heard_as_often_as_usual():
    robot = Robot(handoff_s=0.06)
    robot.step(0.5)
    chunk = robot.chunk()
    robot.now_ns += 70_000_000
    answer = robot.supervisor.chunk(chunk, robot.now_ns)
    assert isinstance(answer, Refusal) and answer.reason == Reason.ROBOT_SILENT and "0.070 s" in answer.message
    robot.step(0.02)
    assert isinstance(robot.supervisor.chunk(robot.chunk(), robot.now_ns), Command)


def test_a_robot_that_is_heard_rarely_is_not_silent():
    robot = Robot(handoff_s=0.06)
    for _ in range(60):
        robot.now_ns += 50_000_000  # joint states at 20 Hz
        robot.supervisor.joint_state(Measured(robot.now_ns, robot.position, np.zeros(7)), robot.now_ns)
    robot.now_ns += 70_000_000
    assert isinstance(robot.supervisor.chunk(robot.chunk(), robot.now_ns), Command)


def test_a_process_that_hung_takes_no_chunk_by_the_simulated_time_it_remembers():
    robot = Robot(simulated=True)
    robot.leap_ns -= 1_500_000_000  # it hung so long, and what the clock said meanwhile waits in its queue
    answer = robot.supervisor.chunk(robot.chunk(), robot.now_ns)
    assert isinstance(answer, Refusal) and answer.reason == Reason.OBSERVATION_STALE and "heard" in answer.message
    later = Measured(robot.now_ns + 1_500_000_000, robot.position, np.zeros(7))
    robot.supervisor.joint_state(later, robot.now_ns)
    answer = robot.supervisor.chunk(robot.chunk(), robot.now_ns)
    assert isinstance(answer, Refusal), "the joint states were served before the clock"


def test_a_simulation_may_stand_and_hurry_after_but_not_leap_much_later():
    steady_ns, clock_ns = [0], [10**12]
    watch = ClockWatch(simulated=True, steady_ns=lambda: steady_ns[0])

    def run(seconds: float, rate: float) -> list[int]:
        jumps = []
        for _ in range(round(seconds / 0.02)):
            steady_ns[0] += 20_000_000
            clock_ns[0] += round(rate * 20_000_000)
            jumps.append(watch.jump_ns(lambda: clock_ns[0]))
        return [jump for jump in jumps if jump]

    assert run(1.0, 1.0) == run(1.5, 0.0) == run(0.4, 4.0) == [], "it stands, and makes up for it"
    assert run(1.5, 0.0) == run(3.0, 1.0) == [], "it stands, and goes on later than before"
    clock_ns[0] += 1_200_000_000
    assert len(run(1.0, 1.0)) == 1, "what it lost is forgiven, not owed"
    assert run(2.0, 2.0) == run(0.4, 0.0) == run(0.1, 8.0) == [], "a fast one hurries after as well"


@pytest.mark.parametrize("age_s", [0.05, 0.3, 0.5])
def test_a_late_chunk_is_caught_up_with_no_faster_than_the_speed_scale_allows(age_s):
    robot = Robot()
    robot.supervisor.set_speed_scale(0.25)
    command = robot.send(robot.chunk(rate_rad_s=0.9, age_s=age_s))
    assert isinstance(command, Command)
    _, (_, velocities, _, _) = dense(command.path)
    assert np.max(np.abs(velocities)) < 0.25 * CONTRACT.limits.velocity_rad_s[0]
