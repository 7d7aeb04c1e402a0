"""What is known of the arm's controller: whether it is there, how it wants its trajectories, whether it runs."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from rclpy.node import Node

from corft.executor.arm_output import ArmOutput
from corft.executor.control_interfaces import optional_control_type
from corft.executor.controller_probe import ControllerProbe
from corft.executor.controller_traits import Sending, Traits, traits
from corft.node_base import qos_profile
from corft_core.execution import Reason, Refusal

SILENT_S = 0.5


class ControllerWatch:
    """``poll()`` regularly; then ``refusal`` says why nothing may be sent (None: all is well), ``sending`` how.

    `<controller>/controller_state` is followed where control_msgs is installed: an inactive controller still listens,
    but no longer says where it is. Elsewhere an inactive controller shows as a tracking error. ``on_state`` gets every
    one of these messages while what is sent can be compared with them; None: they are not asked for.
    """

    def __init__(self, node: Node, controller: str, joints: tuple[str, ...], arm: ArmOutput, timeout_s: float,
                 on_state: Callable[[Any], None] | None = None) -> None:
        self.refusal: Refusal | None = None
        self.sending = Sending()
        self._node, self._controller, self._joints, self._arm = node, controller, joints, arm
        self._traits = Traits(Sending())
        self._failure, self._failed_s = "", 0.0
        self._state_s: float | None = None
        self._forward = on_state
        self._probe = ControllerProbe(node, controller, joints, timeout_s, self._learned)
        kind = optional_control_type("msg", "JointTrajectoryControllerState")
        self._state = None if kind is None else node.create_subscription(
            kind, f"{controller}/controller_state", self._on_state, qos_profile("sensor_data"))

    def poll(self) -> None:
        """Look at the graph; cheap, never waits."""
        self._probe.poll()
        missing = self._arm.missing()
        if missing:
            self._state_s = None  # it may come back as another, without this topic
            self.refusal = Refusal(Reason.NO_CONTROLLER, missing)
        elif self._traits.problem:
            self.refusal = Refusal(Reason.CONTROLLER_INACTIVE, self._traits.problem)
        elif self._state_s is not None and time.monotonic() - self._state_s > SILENT_S:
            self.refusal = Refusal(Reason.CONTROLLER_INACTIVE,
                                   f"{self._controller} has not published its state for "
                                   f"{time.monotonic() - self._state_s:.1f} s: is it active? (ros2 control "
                                   "list_controllers)")
        elif self._failure and time.monotonic() - self._failed_s < SILENT_S:
            self.refusal = Refusal(Reason.CONTROLLER_INACTIVE, self._failure)
        else:
            self.refusal = None

    def failed(self, message: str) -> None:
        """The controller rejected or gave up what was sent."""
        self._failure, self._failed_s = message, time.monotonic()
        self._node.get_logger().error(message)

    def destroy(self) -> None:
        """Give back what was created in the node."""
        self._probe.destroy()
        if self._state is not None:
            self._node.destroy_subscription(self._state)

    def _on_state(self, message: Any) -> None:
        self._state_s = time.monotonic()
        if self._forward is not None and self.sending.exact:
            self._forward(message)

    def _learned(self, parameters: dict[str, Any] | None, read_only: set[str]) -> None:
        log = self._node.get_logger()
        if parameters is None:
            self._traits = Traits(Sending())
            log.warning(f"{self._controller} does not answer for its parameters; sending {self._traits.sending}, and "
                        "trusting that interpolate_from_desired_state is on")
        else:
            use_sim_time = bool(self._node.get_parameter("use_sim_time").value)
            self._traits = traits(parameters, read_only, self._controller, self._joints, use_sim_time)
            notes = f" ({'; '.join(self._traits.notes)})" if self._traits.notes else ""
            log.info(f"{self._controller}: sending {self._traits.sending}{notes}")
        for warning in self._traits.warnings:
            log.warning(warning)
        if self._traits.problem:
            log.error(self._traits.problem)
        self.sending = self._traits.sending
        unseen = ("" if self._forward is None else "control_msgs is not installed" if self._state is None else
                  "its setpoint can't be compared with what is sent this way" if not self.sending.exact else
                  f"{self._state.topic_name} has no publisher" if not self._node.count_publishers(
                      self._state.topic_name) else "")
        if unseen:
            log.info(f"{unseen}: a command lost on its way to {self._controller}, or another node's, shows only "
                     "when the arm departs from its command")
