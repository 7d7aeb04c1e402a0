"""The simulated cell in the place of a robot, and on request the scripted operator.

ros2 launch corft cell.launch.py real_time_factor:=2.0 teleop:=true episodes:=10
"""

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, SetEnvironmentVariable
from launch.conditions import IfCondition
from launch.substitutions import EnvironmentVariable, EqualsSubstitution, LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare

from corft.cell.teleop_parameters import TELEOP_PARAMETERS
from corft.cell_node import CellNode
from corft.launch_arguments import LOG_LEVEL, NAMESPACE, USE_SIM_TIME, argument, chosen, value_type
from corft.node_parameters import Param

TELEOP = Param("teleop", False, "Start the scripted operator, who demonstrates the task.")


def generate_launch_description() -> LaunchDescription:
    """cell_node, and teleop_node when asked for."""
    share = FindPackageShare("corft")
    both = chosen(CellNode.PARAMETERS, "task", "seed")
    cell_rows = chosen(CellNode.PARAMETERS, "real_time_factor", "publish_clock")
    operator_rows = chosen(TELEOP_PARAMETERS, "episodes", "split")
    arguments = [
        DeclareLaunchArgument("contract", default_value=PathJoinSubstitution(
            [share, "config", "panda_cell", "contract.yaml"]), description="Robot contract (YAML)."),
        *(DeclareLaunchArgument(row.name, **argument(row)) for row in (*cell_rows, *both, TELEOP, *operator_rows)),
        DeclareLaunchArgument(USE_SIM_TIME.name, **argument(USE_SIM_TIME, True)),
        *(DeclareLaunchArgument(row.name, **argument(row)) for row in (NAMESPACE, LOG_LEVEL))]

    def values(rows) -> dict[str, ParameterValue]:
        return {row.name: ParameterValue(LaunchConfiguration(row.name), value_type=value_type(row)) for row in rows}

    common = {"contract": ParameterValue(LaunchConfiguration("contract"), value_type=str),
              **values([USE_SIM_TIME, *both])}
    options = {"package": "corft", "namespace": LaunchConfiguration("namespace"), "output": "screen",
               "ros_arguments": ["--log-level", LaunchConfiguration("log_level")]}
    cell = Node(executable="cell_node", name="cell_node", parameters=[{**common, **values(cell_rows)}], **options)
    operator = Node(executable="teleop_node", name="teleop_node", condition=IfCondition(LaunchConfiguration("teleop")),
                    parameters=[{**common, **values(operator_rows)}], **options)
    return LaunchDescription([
        *arguments,
        SetEnvironmentVariable(
            "FASTDDS_DEFAULT_PROFILES_FILE", PathJoinSubstitution([share, "config", "fastdds_profile.xml"]),
            condition=IfCondition(
                EqualsSubstitution(EnvironmentVariable("FASTDDS_DEFAULT_PROFILES_FILE", default_value=""), ""))),
        cell, operator])
