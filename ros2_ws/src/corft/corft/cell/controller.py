"""The parameters of the cell's arm controller, in a node of its own, as ros2_control's controllers have them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rcl_interfaces.msg import ParameterDescriptor
from rclpy.node import Node
from rclpy.parameter import Parameter


def controller_node(name: str, namespace: str, joints: Sequence[str], use_sim_time: bool) -> Node:
    """A node whose parameters say what corft_core.cell.controller does: read-only, since it does nothing else."""
    # The process's own remappings (its node name above all) must not reach this node.
    node = Node(name, namespace=namespace, use_global_arguments=False,
                parameter_overrides=[Parameter("use_sim_time", value=use_sim_time)])
    values: dict[str, Any] = {
        "joints": list(joints), "command_interfaces": ["position"], "state_interfaces": ["position", "velocity"],
        "interpolation_method": "splines", "interpolate_from_desired_state": True,
        "allow_nonzero_velocity_at_trajectory_end": False}
    for key, value in values.items():
        node.declare_parameter(key, value, ParameterDescriptor(read_only=True))
    return node
