"""The simulated cell with the scripted operator at work: what `make demo` records. Ends when the operator is done."""

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, EmitEvent, RegisterEventHandler
from launch.event_handlers import OnProcessExit
from launch.events import Shutdown
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.substitutions import FindPackageShare


def generate_launch_description() -> LaunchDescription:
    """cell_node and teleop_node; the launch shuts down when teleop_node exits."""
    arguments = [
        DeclareLaunchArgument("episodes", default_value="40",
                              description="Number of successful demonstrations after which the operator stops."),
        DeclareLaunchArgument("real_time_factor", default_value="4.0",
                              description="Simulated seconds per real second; 0 runs as fast as the machine can."),
        DeclareLaunchArgument("seed", default_value="0", description="Seed of the operator's imperfections."),
        DeclareLaunchArgument("namespace", default_value="", description="Namespace of both nodes."),
        DeclareLaunchArgument("contract", default_value=PathJoinSubstitution(
            [FindPackageShare("corft"), "config", "panda_cell", "contract.yaml"]),
            description="Robot contract (YAML)."),
    ]
    cell = Node(
        package="corft", executable="cell_node", name="cell_node", namespace=LaunchConfiguration("namespace"),
        output="screen",
        parameters=[{"contract": LaunchConfiguration("contract"),
                     "real_time_factor": LaunchConfiguration("real_time_factor")}])
    operator = Node(
        package="corft", executable="teleop_node", name="teleop_node", namespace=LaunchConfiguration("namespace"),
        output="screen", emulate_tty=True,
        parameters=[{"contract": LaunchConfiguration("contract"), "use_sim_time": True,
                     "episodes": LaunchConfiguration("episodes"), "seed": LaunchConfiguration("seed"),
                     "exit_when_done": True, "wait_for_recorder": True}])
    finish = RegisterEventHandler(OnProcessExit(
        target_action=operator, on_exit=[EmitEvent(event=Shutdown(reason="the operator is done"))]))
    return LaunchDescription([*arguments, cell, operator, finish])
