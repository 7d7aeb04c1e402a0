"""bringup.launch.py with what the executor says on its way through the campaign."""

from launch import LaunchDescription
from launch.actions import IncludeLaunchDescription
from launch.substitutions import PathJoinSubstitution
from launch_ros.actions import SetRemap
from launch_ros.substitutions import FindPackageShare


def generate_launch_description() -> LaunchDescription:
    """With bringup's arguments."""
    bringup = PathJoinSubstitution([FindPackageShare("corft"), "launch", "bringup.launch.py"])
    return LaunchDescription([SetRemap("executor_node:execution_status", "executor_node/execution_status"),
                              IncludeLaunchDescription(bringup)])
