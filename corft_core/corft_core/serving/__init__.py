"""A policy behind a socket: the network runs on one machine, the robot's graph on another."""
