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


def generate_launch_description() -> LaunchDescription:
    """cell_node, and teleop_node when asked for."""
    share = FindPackageShare("corft")
    arguments = [
        DeclareLaunchArgument(
            "contract", default_value=PathJoinSubstitution([share, "config", "panda_cell", "contract.yaml"]),
            description="Robot contract (YAML)."),
        DeclareLaunchArgument("namespace", default_value="", description="Namespace of the nodes, one a cell."),
        DeclareLaunchArgument(
            "real_time_factor", default_value="1.0",
            description="Simulated seconds per real second; 0 runs as fast as the machine can."),
        DeclareLaunchArgument(
            "publish_clock", default_value="true", choices=["true", "false"],
            description="Publish /clock; false for the second of two cells, or to run on the system's clock."),
        DeclareLaunchArgument(
            "use_sim_time", default_value="true", choices=["true", "false"],
            description="Take the time from /clock; false only together with publish_clock:=false."),
        DeclareLaunchArgument(
            "task", default_value="cube_to_bin", description="What lies on the table and is to be done."),
        DeclareLaunchArgument("seed", default_value="0", description="Number of the scene that the cell starts with."),
        DeclareLaunchArgument(
            "teleop", default_value="false", choices=["true", "false"],
            description="Start the scripted operator, who demonstrates the task."),
        DeclareLaunchArgument(
            "episodes", default_value="1", description="Successful demonstrations after which the operator stops."),
        DeclareLaunchArgument(
            "split", default_value="demo", choices=["demo", "ind", "ood", "fixed_demo", "fixed_ind"],
            description="The operator's scenes."),
        DeclareLaunchArgument("log_level", default_value="info", description="debug, info, warn or error."),
    ]
    common = {
        "contract": ParameterValue(LaunchConfiguration("contract"), value_type=str),
        "use_sim_time": LaunchConfiguration("use_sim_time"),
        "task": LaunchConfiguration("task"),
        "seed": LaunchConfiguration("seed"),
    }
    cell = Node(
        package="corft", executable="cell_node", name="cell_node", namespace=LaunchConfiguration("namespace"),
        output="screen",
        parameters=[{**common, "real_time_factor": LaunchConfiguration("real_time_factor"),
                     "publish_clock": LaunchConfiguration("publish_clock")}],
        ros_arguments=["--log-level", LaunchConfiguration("log_level")])
    operator = Node(
        package="corft", executable="teleop_node", name="teleop_node", namespace=LaunchConfiguration("namespace"),
        output="screen", condition=IfCondition(LaunchConfiguration("teleop")),
        parameters=[{**common, "episodes": LaunchConfiguration("episodes"), "split": LaunchConfiguration("split")}],
        ros_arguments=["--log-level", LaunchConfiguration("log_level")])
    return LaunchDescription([
        *arguments,
        SetEnvironmentVariable(
            "FASTDDS_DEFAULT_PROFILES_FILE", PathJoinSubstitution([share, "config", "fastdds_profile.xml"]),
            condition=IfCondition(
                EqualsSubstitution(EnvironmentVariable("FASTDDS_DEFAULT_PROFILES_FILE", default_value=""), ""))),
        cell, operator])
