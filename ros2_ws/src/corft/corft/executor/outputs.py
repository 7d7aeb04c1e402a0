"""The executor's outputs, by its parameters: controller's topic or action, gripper, or none of them (dry run)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Any

from corft.executor.arm_output import ArmAction, ArmOutput, ArmTopic
from corft.executor.gripper_output import GripperOutput
from corft_core.contract import Contract
from corft_core.errors import CorftError

TRAJECTORY = "trajectory_msgs/msg/JointTrajectory"


def controller_name(contract: Contract, given: str) -> str:
    """The arm's controller: as ``given``, else the first part of the contract's command topic. CorftError without."""
    stream = contract.arm_command
    if given:
        return given
    if stream.type == TRAJECTORY and stream.topic.endswith("/joint_trajectory"):
        return stream.topic.removesuffix("/joint_trajectory")
    raise CorftError(f"parameter 'controller' is empty, and the contract's arm_command ({stream.topic}, {stream.type}) "
                     "names no joint trajectory controller: give the one that moves the arm, for example "
                     "-p controller:=arm_controller")


def arm_output(node: Any, controller: str, interface: str, execute: bool, failed: Callable[[str], None]) -> ArmOutput:
    """Where trajectories go."""
    if not execute:
        return ArmTopic(node, "~/dry_run/joint_trajectory", dry=True)
    if interface == "action":
        return ArmAction(node, controller, failed)
    return ArmTopic(node, f"{controller}/joint_trajectory")


def gripper_output(node: Any, contract: Contract, interface: str, given: str, effort: float,
                   execute: bool) -> GripperOutput | None:
    """Where openings go; None when the robot has no gripper."""
    if contract.gripper is None or contract.gripper_command is None:
        return None
    controller = given or str(PurePosixPath(contract.gripper_command.topic).parent)
    return GripperOutput(node, contract, interface, controller, effort,
                         "" if execute else "~/dry_run/gripper")
