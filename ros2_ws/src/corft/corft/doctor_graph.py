"""What is wrong with the robot that is running: topics, joint names, controllers. Looks and listens, sends nothing."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import rclpy
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import JointState
from std_msgs.msg import String

from corft.doctor_machine import Check, Level, faster
from corft.executor.arm_output import ONLOOKERS, listeners
from corft.executor.control_interfaces import optional_control_type
from corft.executor.controller_probe import ControllerProbe
from corft.executor.controller_traits import traits
from corft.executor.outputs import controller_name
from corft.node_base import qos_profile
from corft.recording.checks import check
from corft.recording.command import full_name, recorded_topics
from corft.recording.monitor import Monitors, RecorderClock
from corft_core.contract import Contract
from corft_core.errors import CorftError
from corft_core.planning.description import RobotDescription, resolve_description

DISCOVERY_S, LISTEN_S, PROBE_S = 3.0, 2.0, 3.0


def graph_checks(contract: Contract, namespace: str, controller: str, use_sim_time: bool) -> Iterator[Check]:
    """Every check of the running robot."""
    rclpy.init()
    node = Node("corft_doctor", namespace=namespace or None)
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    try:
        yield from _topics(node, contract, namespace, use_sim_time)
        spinning = threading.Thread(target=_spin, args=(executor,), daemon=True)
        spinning.start()
        yield from _joints(node, contract)
        yield from _description(node, contract)
        yield from _controller(node, contract, controller, use_sim_time)
        yield from _gripper(node, contract, namespace)
    finally:
        executor.shutdown()
        node.destroy_node()
        rclpy.try_shutdown()


def _spin(executor: SingleThreadedExecutor) -> None:
    with contextlib.suppress(ExternalShutdownException):
        executor.spin()


def _topics(node: Node, contract: Contract, namespace: str, use_sim_time: bool) -> Iterator[Check]:
    """Every observed topic: type, QoS, rate, stamps."""
    clock = RecorderClock(node, use_sim_time)
    # Commands and events come later; what is observed must be there.
    topics = [topic for topic in recorded_topics(contract, namespace) if topic.role == "observation"]
    try:
        monitors = Monitors(node, topics, clock)
    except CorftError as error:
        yield Check("message types", "ERROR", str(error), "source the workspace that has them")
        return
    end_s = time.monotonic() + DISCOVERY_S
    while time.monotonic() < end_s and (monitors.unpublished() or not clock.poll()):
        time.sleep(0.1)
    if use_sim_time and not clock.poll():
        yield Check("clock", "ERROR", "no /clock, although the time is to be simulated",
                    "start the simulation, or leave out --use-sim-time")
        return
    monitors.match()
    _listen(monitors, 0.5)
    start_ns = clock.now_ns()
    _listen(monitors, LISTEN_S)
    for monitor in monitors.all:
        finding = monitor.finding(start_ns, clock.now_ns(), LISTEN_S)
        verdict = check([finding], monitors.published(), contract.rate_hz, use_sim_time)
        heard = f"{finding.heard.rate_hz:.1f} Hz, longest gap {finding.heard.gap_s:.3f} s"
        if not verdict.errors and not verdict.warnings:
            yield Check(monitor.topic.stream, "ok", f"{monitor.topic.topic}: {heard}")
        for level, lines in (("ERROR", verdict.errors), ("warning", verdict.warnings)):
            for line in lines:
                text = line.removeprefix(f"{monitor.topic.stream} ")
                yield Check(monitor.topic.stream, level, text)  # type: ignore[arg-type]


def _listen(monitors: Monitors, seconds: float) -> None:
    end_s = time.monotonic() + seconds
    while time.monotonic() < end_s:
        monitors.drain()
        time.sleep(0.02)


def _joints(node: Node, contract: Contract) -> Iterator[Check]:
    """Whether the joint states carry the contract's joints, and where the arm is."""
    if contract.joint_state.type != "sensor_msgs/msg/JointState":
        return
    calibration = contract.calibration("joint_state")
    seen: dict[str, float] = {}
    node.create_subscription(JointState, contract.joint_state.topic, lambda message: seen.update(
        zip(message.name, message.position, strict=False)), qos_profile(contract.joint_state.qos, 10))
    _until(lambda: set(calibration.names) <= seen.keys(), LISTEN_S)
    missing = [name for name in calibration.names if name not in seen]
    if not seen:
        yield Check("joint names", "ERROR", f"nothing came on {contract.joint_state.topic}",
                    "see joint_state above, and run this again")
        return
    if missing:
        yield Check("joint names", "ERROR", f"{', '.join(missing)} never came; the messages carry "
                    f"{', '.join(sorted(seen))}", "correct robot.joints, gripper.joint or the stream's `joints:` names")
        return
    source = np.array([seen[name] for name in calibration.names])
    position = calibration.from_source(source)[: len(contract.robot.joints)]
    yield Check("joint names", "ok", ", ".join(calibration.names))
    from corft_core.planning import make_planner

    try:
        planner = make_planner("embedded", contract, None)
    except CorftError:
        return  # said already
    low, high = planner.hard_limits
    outside = [f"{name} {q:.3f} rad not in [{lo:.3f}, {hi:.3f}]" for name, q, lo, hi in zip(
        contract.robot.joints, position, low, high, strict=True) if not lo - 1e-3 <= q <= hi + 1e-3]
    touching = planner.in_collision(position)
    planner.close()
    if outside:
        yield Check("arm's pose", "ERROR", "; ".join(outside),
                    "are the units right (degrees: `unit: deg`)? the joints' names and signs?")
    elif touching:
        pairs = ", ".join(f"{a} touches {b}" for a, b in touching)
        yield Check("arm's pose", "warning", f"the model says that {pairs}",
                    "if it does not: correct description, units or signs; if it does: ~/recover of the executor")
    else:
        away = float(np.max(np.abs(position - np.array(contract.robot.home_rad))))
        yield Check("arm's pose", "ok", f"within limits, free, {away:.2f} rad from home")


def _description(node: Node, contract: Contract) -> Iterator[Check]:
    """Whether the robot's own description, where robot_state_publisher shows it, allows what the contract's does."""
    texts: list[str] = []
    node.create_subscription(String, "robot_description", lambda message: texts.append(message.data),
                             QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL))
    topic = node.resolve_topic_name("robot_description")
    if not node.count_publishers(topic):
        return
    _until(lambda: texts, LISTEN_S)
    joints = contract.robot.joints
    try:
        ours = resolve_description(contract.robot.description).position_limits(joints)
        shown = RobotDescription(texts[-1] if texts else "", "<robot/>")
        theirs = shown.position_limits(joints)
    except CorftError as error:
        yield Check("running description", "warning", f"{topic}: {error}",
                    f"compare robot.joints with ros2 topic echo --once --full-length {topic}")
        return
    narrower = [f"{name} [{lowest:.3f}, {highest:.3f}], not [{low:.3f}, {high:.3f}] rad"
                for name, (low, high), (lowest, highest) in zip(joints, ours.T, theirs.T, strict=True)
                if lowest > low + 1e-3 or highest < high - 1e-3]
    found = narrower + [f"velocity of {line}" for line in faster(contract, shown)]
    yield Check("running description", "warning" if found else "ok",
                f"{topic} allows less: {'; '.join(found)}" if found else f"{topic} allows what the contract's does",
                "name the robot's own URDF in robot.description: ros2 param get --hide-type robot_state_publisher "
                "robot_description > robot.urdf; lower limits.velocity_rad_s" if found else "")


def _controller(node: Node, contract: Contract, given: str, use_sim_time: bool) -> Iterator[Check]:
    """The controller's parameters, and whether it listens."""
    try:
        name = controller_name(contract, given)
    except CorftError as error:
        yield Check("controller", "ERROR", str(error), "name it with --controller")
        return
    joints = contract.calibration("arm_command").names
    answers: list[tuple[dict[str, Any] | None, set[str]]] = []
    probe = ControllerProbe(node, name, joints, PROBE_S, lambda parameters, fixed: answers.append((parameters, fixed)))

    def answered() -> bool:
        probe.poll()
        return bool(answers)

    _until(answered, PROBE_S + 1.0)
    probe.destroy()
    yield _commanded(node, "arm command", f"{name}/joint_trajectory", "ERROR",
                     "load and activate the controller: ros2 control list_controllers")
    if not answers or answers[0][0] is None:
        yield Check("controller", "warning", f"{name} tells no parameters",
                    "is that its name? a joint trajectory controller of ros2_control does; --controller names another")
    else:
        found = traits(answers[0][0], answers[0][1], name, joints, use_sim_time)
        if found.problem:
            yield Check("controller", "ERROR", found.problem)
        for line in found.warnings:
            yield Check("controller", "warning", line)
        if not found.problem and not found.warnings:
            yield Check("controller", "ok", "; ".join((f"{name}: sent are {found.sending}", *found.notes)))
    if optional_control_type("action", "FollowJointTrajectory") is None:
        yield Check("control_msgs", "ok", "not installed: controllers are spoken to by topic, and a command that is "
                                          "lost on its way is not noticed")
    elif not node.count_publishers(f"{name}/controller_state"):
        yield Check("controller", "warning", f"nobody publishes {name}/controller_state",
                    "is it active? by that topic the executor sees commands that were lost, or another node's")


def _gripper(node: Node, contract: Contract, namespace: str) -> Iterator[Check]:
    if contract.gripper is None or contract.gripper_command is None:
        return
    yield _commanded(node, "gripper command", full_name(contract.gripper_command.topic, namespace), "warning",
                     "start the gripper's controller, or use gripper_interface:=gripper_command")


def _commanded(node: Node, what: str, topic: str, serious: Level, fix: str) -> Check:
    """Whether somebody hears the executor's commands, which are reliable and not latched."""
    heard = listeners(node, topic)
    deaf = [info.node_name for info in node.get_subscriptions_info_by_topic(topic)
            if info.qos_profile.durability == DurabilityPolicy.TRANSIENT_LOCAL
            and not info.node_name.startswith(ONLOOKERS)]
    if deaf:
        return Check(what, serious, f"QoS mismatch on {topic}: commands are VOLATILE, which {', '.join(deaf)} does not "
                     "hear with its TRANSIENT_LOCAL subscription", "let it subscribe with durability VOLATILE")
    return Check(what, "ok" if heard else serious, f"{heard} subscribers of {topic}", "" if heard else fix)


def _until(condition: Any, patience_s: float) -> None:
    end_s = time.monotonic() + patience_s
    while not condition() and time.monotonic() < end_s:
        time.sleep(0.05)
