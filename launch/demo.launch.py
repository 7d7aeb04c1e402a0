"""The simulated cell with the scripted operator at work: what `make demo` records. Ends when the operator is done."""

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, EmitEvent, RegisterEventHandler
from launch.event_handlers import OnProcessExit
from launch.events import Shutdown
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare

from corft.cell.teleop_parameters import TELEOP_PARAMETERS
from corft.cell_node import CellNode
from corft.launch_arguments import NAMESPACE, argument, chosen, value_type

EPISODES, REAL_TIME_FACTOR = 40, 4.0


def generate_launch_description() -> LaunchDescription:
    """cell_node and teleop_node; the launch shuts down when teleop_node exits."""
    (pace,) = chosen(CellNode.PARAMETERS, "real_time_factor")
    episodes, seed = chosen(TELEOP_PARAMETERS, "episodes", "seed")
    arguments = [
        DeclareLaunchArgument(episodes.name, **argument(episodes, EPISODES)),
        DeclareLaunchArgument(pace.name, **argument(pace, REAL_TIME_FACTOR)),
        DeclareLaunchArgument(seed.name, **argument(seed)),
        DeclareLaunchArgument(NAMESPACE.name, **argument(NAMESPACE)),
        DeclareLaunchArgument("contract", default_value=PathJoinSubstitution(
            [FindPackageShare("corft"), "config", "panda_cell", "contract.yaml"]),
            description="Robot contract (YAML)."),
    ]

    def values(*rows) -> dict[str, ParameterValue]:
        return {row.name: ParameterValue(LaunchConfiguration(row.name), value_type=value_type(row)) for row in rows}

    contract = {"contract": ParameterValue(LaunchConfiguration("contract"), value_type=str)}
    cell = Node(
        package="corft", executable="cell_node", name="cell_node", namespace=LaunchConfiguration("namespace"),
        output="screen", parameters=[{**contract, **values(pace)}])
    operator = Node(
        package="corft", executable="teleop_node", name="teleop_node", namespace=LaunchConfiguration("namespace"),
        output="screen", emulate_tty=True,
        parameters=[{**contract, **values(episodes, seed), "use_sim_time": True, "exit_when_done": True,
                     "wait_for_recorder": True}])
    finish = RegisterEventHandler(OnProcessExit(
        target_action=operator, on_exit=[EmitEvent(event=Shutdown(reason="the operator is done"))]))
    return LaunchDescription([*arguments, cell, operator, finish])
