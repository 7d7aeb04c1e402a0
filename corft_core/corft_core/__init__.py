"""Chunked offline RL fine-tuning of vision-language-action policies: the ROS-free library."""

__version__ = "0.4.0"
