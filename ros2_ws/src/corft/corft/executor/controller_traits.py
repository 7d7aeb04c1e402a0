"""What a joint trajectory controller's parameters mean for what is sent to it. No ROS in here.

Facts of ros2_controllers' joint_trajectory_controller (JTC): a trajectory is joined to the *measured* state unless
`interpolate_from_desired_state` is on, which at every chunk would feed the tracking error back into the motion; with
`interpolation_method: none` it steps from point to point; `allow_trajectory_replacement` and `positions_upsampling`
(from 6.9 on) change what future stamps and bare positions do. Trajectories from here start at the present, repeat the
running motion up to the hand-off and carry velocities and accelerations, so the last two make no difference to them.
One that arrives after its hand-off makes the setpoint jump; a state tolerance (`constraints.<joint>.trajectory`, 0 is
none) keeps the jump from the hardware: JTC writes no command then and holds. Pinned by
tests/unit/test_controller_traits.py.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

STEP_S = 0.01  # between points for a controller that does not interpolate
ASKED = ("joints", "command_joints", "command_interfaces", "interpolation_method", "interpolate_from_desired_state",
         "allow_trajectory_replacement", "positions_upsampling.enable", "positions_upsampling.policy_frequency",
         "allow_nonzero_velocity_at_trajectory_end", "constraints.goal_time", "use_sim_time")


@dataclass(frozen=True)
class Sending:
    """How a motion is written as a JointTrajectory.

    ``stamped``: with the motion's start in the header, else 0, from receipt on. ``lead_in``: the point just after the
    start is included, so that the controller never joins the motion to the measured state. ``step_s``: points at this
    distance instead of the spline's knots.
    """

    stamped: bool = True
    lead_in: bool = False
    step_s: float | None = None

    @property
    def exact(self) -> bool:
        """Whether the controller's setpoint is the motion itself, at the same time: else the two can't be compared."""
        return self.stamped and self.step_s is None

    def __str__(self) -> str:
        return ", ".join(("positions, velocities and accelerations", "whole horizon with braking tail",
                          "stamped" if self.stamped else "unstamped (from receipt on)",
                          *(["with a point at the present"] if self.lead_in else []),
                          *([f"a point every {self.step_s * 1e3:.0f} ms"] if self.step_s else [])))


@dataclass(frozen=True)
class Traits:
    """What was learned: how to send, what to tell a person, and why the controller can't be used, if so."""

    sending: Sending
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    problem: str = ""


def traits(parameters: Mapping[str, Any], read_only: Collection[str], controller: str, joints: Sequence[str],
           use_sim_time: bool) -> Traits:
    """From a controller's ``parameters`` (only those it has) and which of them are ``read_only``.

    ``joints``: names as the controller should know them. ``use_sim_time``: of this node.
    """
    sending, notes, warnings = Sending(), [], []

    def repair(name: str, value: str) -> str:
        if name in read_only:
            return (f"set {name}: {value} under {controller}/ros__parameters in the controllers' YAML and load the "
                    "controller anew (it is read-only at run time)")
        return f"ros2 param set {controller} {name} {value}"

    if not parameters.get("interpolate_from_desired_state", True):
        sending = replace(sending, lead_in=True)
        warnings.append(f"{controller} joins trajectories to the measured state, which adds its tracking error to "
                        f"every chunk; better: {repair('interpolate_from_desired_state', 'true')}")
    if parameters.get("interpolation_method") == "none":
        sending = replace(sending, step_s=STEP_S)
        notes.append(f"{controller} does not interpolate")
    if parameters.get("use_sim_time", use_sim_time) != use_sim_time:
        sending = replace(sending, stamped=False)
        warnings.append(f"{controller} has use_sim_time {str(not use_sim_time).lower()}, this node "
                        f"{str(use_sim_time).lower()}: stamps can't be compared; "
                        f"{repair('use_sim_time', str(use_sim_time).lower())}")
    if parameters.get("allow_trajectory_replacement"):
        notes.append("it blends trajectories that start in the future, these start at the present")
    if parameters.get("positions_upsampling.enable"):
        notes.append("its positions_upsampling is for bare positions, these carry velocities")
    tolerances = {name.split(".")[1]: value for name, value in parameters.items()
                  if name.startswith("constraints.") and name.endswith(".trajectory") and value}
    if tolerances:
        notes.append("it gives up beyond " + ", ".join(f"{name} {value:g} rad" for name, value in tolerances.items()))
    open_joints = [joint for joint in joints if parameters.get(f"constraints.{joint}.trajectory") == 0]
    if open_joints:
        warnings.append(f"{controller} has no state tolerance for {', '.join(open_joints)}: it would pass on the jump "
                        "of a motion that reaches it too late; above the arm's tracking error, for example "
                        f"{repair(f'constraints.{open_joints[0]}.trajectory', '0.2')}")
    return Traits(sending, tuple(notes), tuple(warnings), _problem(parameters, controller, joints))


def _problem(parameters: Mapping[str, Any], controller: str, joints: Sequence[str]) -> str:
    known = parameters.get("command_joints") or parameters.get("joints")
    if known and set(known) != set(joints):
        return (f"{controller} moves the joints {', '.join(known)}, the contract's are {', '.join(joints)}: name the "
                "right controller (parameter 'controller') or correct robot.joints")
    interfaces = parameters.get("command_interfaces")
    if interfaces and not {"position", "velocity", "effort"} & set(interfaces):
        return (f"{controller} commands only {', '.join(interfaces)}; a trajectory needs position, velocity or effort "
                "in its command_interfaces")
    return ""
