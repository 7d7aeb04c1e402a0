"""A `ros2` command for machines without a ROS installation: the subset that this project's documents use."""
