"""Stand-in for the ROS 2 package `launch_ros`, on the path only inside `ros2 launch` of tools/ros2_standalone."""

from launch._core import module_getattr

from . import actions, parameter_descriptions, substitutions

__all__ = ["actions", "parameter_descriptions", "substitutions"]
__getattr__ = module_getattr(__name__)
