"""ROS 2 nodes of corft."""
