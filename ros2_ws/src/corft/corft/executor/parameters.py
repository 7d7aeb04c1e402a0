"""The executor's parameters: what each means, its default and range. Defaults of the motion are ExecutorOptions'.

Light to import: launch files read them too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from corft.node_parameters import CONTRACT, Param
from corft_core.execution import CHUNK_MODES, ON_COLLISION, ExecutorOptions

_DEFAULTS = ExecutorOptions()
# What policy_node must know as well.
SHARED_OPTIONS = (
    Param("chunk_mode", _DEFAULTS.mode, "How chunks follow each other.", choices=CHUNK_MODES),
    Param("handoff_s", _DEFAULTS.handoff_s, "From receiving a chunk to following it: computing and transport.",
          range=(0.0, 0.5)),
)
_OPTIONS = (
    Param("speed_scale", _DEFAULTS.speed_scale, "Part of the predicted speed; may be set while running.",
          range=(0.05, 1.0)),
    Param("blend_s", _DEFAULTS.blend_s, "Over how long the running motion fades into a new chunk.", range=(0.0, 2.0)),
    Param("max_splice_rad", _DEFAULTS.max_splice_rad, "A chunk farther from the running motion is refused.",
          range=(0.0, 3.0)),
    Param("smoothing_s", _DEFAULTS.smoothing_s, "Details of a chunk shorter than this are smoothed.",
          range=(0.005, 0.5)),
    Param("execute_steps", _DEFAULTS.execute_steps, "Actions taken from a chunk in receding_horizon and rtc.",
          range=(1, 1000)),
    Param("ensemble_decay", _DEFAULTS.ensemble_decay, "Weights exp(-decay i) of temporal_ensemble.",
          range=(0.0, 10.0)),
    Param("on_collision", _DEFAULTS.on_collision, "What is done about a chunk that would collide: stop before, or plan "
                                                  "around it.", choices=ON_COLLISION),
)
EXECUTOR_PARAMETERS = (
    CONTRACT,
    Param("planner", "embedded", "Collision checks and planning.", choices=("embedded", "moveit")),
    Param("scene", "", "Scene file (YAML) with the obstacles; empty: scene.yaml beside the contract, if there is one; "
                       "none: only the robot itself. May be set while running: the running motion is then looked at "
                       "again."),
    *SHARED_OPTIONS,
    *_OPTIONS,
    Param("auto_enable", False, "Move as soon as the node is active, without a call of ~/enable, unless a stop "
                                "from before its start waits for one."),
    Param("execute", True, "false: a dry run; what would be sent goes to ~/dry_run/joint_trajectory and the log."),
    Param("controller", "", "The arm's joint trajectory controller; empty: by the contract's arm_command topic."),
    Param("controller_interface", "topic", "How the controller is spoken to; action (FollowJointTrajectory) needs "
                                           "control_msgs.", choices=("topic", "action")),
    Param("follow_setpoint", True, "Compare the setpoint that the controller publishes with what was sent, to see "
                                   "commands that were lost or are another node's; needs control_msgs."),
    Param("controller_timeout", 3.0, "Seconds to wait for the controller's parameters.", range=(0.1, 60.0)),
    Param("gripper_interface", "topic", "How the gripper is spoken to; the two actions need control_msgs.",
          choices=("topic", "gripper_command", "parallel_gripper_command")),
    Param("gripper_controller", "", "The gripper's controller, for the actions; empty: by the contract's "
                                    "gripper_command topic."),
    Param("gripper_effort", 0.0, "Greatest effort of the gripper actions in N or Nm; 0: the controller's default.",
          range=(0.0, 1000.0)),
    Param("estop_required", False, "Stop also when the topic estop has no publisher."),
    Param("markers", False, "Publish every chunk's tool path for RViz on ~/markers."),
)


def executor_options(param: Callable[[str], Any]) -> ExecutorOptions:
    """The options as the node's parameters say."""
    return ExecutorOptions(mode=param("chunk_mode"), handoff_s=param("handoff_s"),
                           **{row.name: param(row.name) for row in _OPTIONS})
