"""Asks a controller for its parameters, by the services every ROS 2 node has, whenever it appears."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from rcl_interfaces.srv import DescribeParameters, GetParameters, ListParameters
from rclpy.client import Client
from rclpy.node import Node
from rclpy.parameter import parameter_value_to_python

from corft.executor.controller_traits import ASKED

Answer = Callable[[dict[str, Any] | None, set[str]], None]


class ControllerProbe:
    """Calls ``answer(parameters, read_only)`` once for every appearance of the controller, None after ``timeout_s``.

    Names are listed before values are asked for: a node that lacks one of the asked names answers with none at all.
    Everything happens in the node's executor thread; nothing waits.
    """

    def __init__(self, node: Node, controller: str, joints: Sequence[str], timeout_s: float, answer: Answer) -> None:
        self._node, self._timeout_s, self._answer = node, timeout_s, answer
        self._wanted = {*ASKED, *(f"constraints.{joint}.trajectory" for joint in joints)}
        self._list: Client[Any, Any] = node.create_client(ListParameters, f"{controller}/list_parameters")
        self._get: Client[Any, Any] = node.create_client(GetParameters, f"{controller}/get_parameters")
        self._describe: Client[Any, Any] = node.create_client(DescribeParameters, f"{controller}/describe_parameters")
        self._asked, self._answered, self._since_s = False, False, time.monotonic()
        self._round = 0

    def poll(self) -> None:
        """To be called regularly; asks when the controller has appeared, gives up after the time-out."""
        there = all(client.service_is_ready() for client in (self._list, self._get, self._describe))
        if self._asked and not there:  # gone: what comes back may be configured differently
            self._asked = self._answered = False
            self._since_s = time.monotonic()
        elif there and not self._asked:
            self._asked, self._answered = True, False
            self._since_s = time.monotonic()
            self._ask()
        if not self._answered and time.monotonic() - self._since_s > self._timeout_s:
            self._finish(None, set())

    def destroy(self) -> None:
        """Give the clients back."""
        self._round += 1
        for client in (self._list, self._get, self._describe):
            self._node.destroy_client(client)

    def _ask(self) -> None:
        self._round += 1
        this = self._round

        def listed(future: Any) -> None:
            names = sorted(self._wanted & set(future.result().result.names))
            if this == self._round:
                self._get.call_async(GetParameters.Request(names=names)).add_done_callback(
                    lambda values: got(names, values))

        def got(names: list[str], future: Any) -> None:
            values = [parameter_value_to_python(value) for value in future.result().values]
            parameters = {name: value for name, value in zip(names, values, strict=False) if value is not None}
            if this == self._round:
                self._describe.call_async(DescribeParameters.Request(names=names)).add_done_callback(
                    lambda described: finished(parameters, described))

        def finished(parameters: dict[str, Any], future: Any) -> None:
            if this == self._round:
                self._finish(parameters, {d.name for d in future.result().descriptors if d.read_only})

        self._list.call_async(ListParameters.Request()).add_done_callback(listed)

    def _finish(self, parameters: dict[str, Any] | None, read_only: set[str]) -> None:
        self._answered = True
        self._answer(parameters, read_only)
