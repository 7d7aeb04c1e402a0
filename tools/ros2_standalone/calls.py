"""`ros2 service`, `ros2 action`, `ros2 lifecycle` and `ros2 param`: requests to other nodes."""

from __future__ import annotations

import argparse
import sys
import textwrap
import time
from typing import TYPE_CHECKING, Any

from .graph import absolute, discover, hidden, ros_node
from .messages import fill, interface, to_yaml
from .packages import UsageError

if TYPE_CHECKING:
    from rclpy.node import Node

WAIT_S = 10.0


def complete(node: Node, future: Any) -> Any:
    """Result of a future; stays open for ctrl-c."""
    import rclpy

    while not future.done():
        rclpy.spin_until_future_complete(node, future, timeout_sec=0.1)
    return future.result()


def request(node: Node, kind: Any, name: str, content: Any, *, wait_s: float | None = WAIT_S) -> Any:
    """Call a service once. Raises UsageError where nobody offers it."""
    client: Any = node.create_client(kind, name)
    deadline = None if wait_s is None else time.monotonic() + wait_s
    while not client.wait_for_service(timeout_sec=0.2):
        if deadline is not None and time.monotonic() > deadline:
            raise UsageError(f"nobody offers the service '{name}' (waited {wait_s:.0f} s): is the node running?")
    return complete(node, client.call_async(content))


def service(argv: list[str]) -> int:
    """`ros2 service call NAME TYPE [VALUES]` and `ros2 service list`."""
    parser = argparse.ArgumentParser(prog="ros2 service")
    commands = parser.add_subparsers(dest="command", required=True)
    call = commands.add_parser("call", help="Call a service")
    call.add_argument("service_name")
    call.add_argument("service_type")
    call.add_argument("values", nargs="?", default="{}", help="Fields as YAML")
    listing = commands.add_parser("list", help="Output a list of available services")
    listing.add_argument("-t", "--show-types", action="store_true")
    args = parser.parse_args(argv)
    with ros_node("ros2cli_standalone") as node:
        if args.command == "list":
            discover(node)
            for name, types in sorted(node.get_service_names_and_types()):
                if not hidden(name) and not name.startswith("/ros2cli_standalone/"):
                    print(f"{name} [{', '.join(types)}]" if args.show_types else name)
            return 0
        kind = interface(args.service_type, "srv")
        content = fill(kind.Request(), args.values)
        print(f"requester: making request: {content}\n", flush=True)
        print(f"response:\n{request(node, kind, absolute(args.service_name), content, wait_s=None)}\n")
    return 0


def action(argv: list[str]) -> int:
    """`ros2 action send_goal NAME TYPE VALUES [--feedback]` and `ros2 action list`."""
    parser = argparse.ArgumentParser(prog="ros2 action")
    commands = parser.add_subparsers(dest="command", required=True)
    send = commands.add_parser("send_goal", help="Send an action goal")
    send.add_argument("action_name")
    send.add_argument("action_type")
    send.add_argument("goal", help="Fields as YAML")
    send.add_argument("-f", "--feedback", action="store_true", help="Echo feedback messages for the goal")
    listing = commands.add_parser("list", help="Output a list of action names")
    listing.add_argument("-t", "--show-types", action="store_true")
    args = parser.parse_args(argv)
    with ros_node("ros2cli_standalone") as node:
        if args.command == "send_goal":
            return _send_goal(node, args)
        from rclpy.action import get_action_names_and_types

        discover(node)
        for name, types in sorted(get_action_names_and_types(node)):
            print(f"{name} [{', '.join(types)}]" if args.show_types else name)
    return 0


def _send_goal(node: Node, args: argparse.Namespace) -> int:
    from action_msgs.msg import GoalStatus
    from rclpy.action import ActionClient

    def show(title: str, message: Any) -> None:
        print(f"{title}:\n{textwrap.indent(to_yaml(message), '    ')}", flush=True)

    kind = interface(args.action_type, "action")
    goal = fill(kind.Goal(), args.goal)
    client: Any = ActionClient(node, kind, args.action_name)
    print("Waiting for an action server to become available...", flush=True)
    while not client.wait_for_server(timeout_sec=0.2):
        pass
    show("Sending goal", goal)
    on_feedback = (lambda message: show("Feedback", message.feedback)) if args.feedback else None
    handle = complete(node, client.send_goal_async(goal, feedback_callback=on_feedback))
    if not handle.accepted:
        print("Goal was rejected.")
        return 1
    print(f"Goal accepted with ID: {bytes(handle.goal_id.uuid).hex()}\n", flush=True)
    try:
        answer = complete(node, handle.get_result_async())
    except KeyboardInterrupt:
        print("Canceling goal...", flush=True)
        complete(node, handle.cancel_goal_async())
        raise
    show("Result", answer.result)
    names = {getattr(GoalStatus, name): name for name in dir(GoalStatus) if name.startswith("STATUS_")}
    print(f"Goal finished with status: {names.get(answer.status, str(answer.status)).removeprefix('STATUS_')}")
    return 0


def lifecycle(argv: list[str]) -> int:
    """`ros2 lifecycle get NODE` and `ros2 lifecycle set NODE TRANSITION`."""
    parser = argparse.ArgumentParser(prog="ros2 lifecycle")
    commands = parser.add_subparsers(dest="command", required=True)
    get = commands.add_parser("get", help="Get lifecycle state for a node")
    get.add_argument("node_name")
    change = commands.add_parser("set", help="Trigger lifecycle state transition")
    change.add_argument("node_name")
    change.add_argument("transition", help="Label or id")
    args = parser.parse_args(argv)
    from lifecycle_msgs.srv import ChangeState, GetAvailableTransitions, GetState

    name = absolute(args.node_name)
    with ros_node("ros2cli_standalone") as node:
        if args.command == "get":
            state = request(node, GetState, f"{name}/get_state", GetState.Request()).current_state
            print(f"{state.label} [{state.id}]")
            return 0
        kind = GetAvailableTransitions
        offered = request(node, kind, f"{name}/get_available_transitions", kind.Request()).available_transitions
        known = [item.transition for item in offered]
        wanted = [t for t in known if args.transition in (t.label, str(t.id))]
        if not wanted:
            labels = "".join(f"\n- {t.label} [{t.id}]" for t in known)
            print(f"Unknown transition requested, available ones are:{labels}", file=sys.stderr)
            return 1
        done = request(node, ChangeState, f"{name}/change_state", ChangeState.Request(transition=wanted[0])).success
    print("Transitioning successful" if done else "Transitioning failed", file=None if done else sys.stderr)
    return 0 if done else 1


def param(argv: list[str]) -> int:
    """`ros2 param get NODE NAME` and `ros2 param set NODE NAME VALUE`."""
    parser = argparse.ArgumentParser(prog="ros2 param")
    commands = parser.add_subparsers(dest="command", required=True)
    get = commands.add_parser("get", help="Get parameter")
    change = commands.add_parser("set", help="Set parameter")
    for command in (get, change):
        command.add_argument("node_name")
        command.add_argument("parameter_name")
    change.add_argument("value", help="Value as YAML")
    args = parser.parse_args(argv)
    from rcl_interfaces.msg import Parameter
    from rcl_interfaces.srv import GetParameters, SetParameters
    from rclpy.parameter import get_parameter_value, parameter_value_to_python

    name = absolute(args.node_name)
    with ros_node("ros2cli_standalone") as node:
        if args.command == "get":
            content = GetParameters.Request(names=[args.parameter_name])
            values = request(node, GetParameters, f"{name}/get_parameters", content).values
            if not values or values[0].type == 0:
                print("Parameter not set", file=sys.stderr)
                return 1
            value = parameter_value_to_python(values[0])
            kinds = {bool: "Boolean", int: "Integer", float: "Double", str: "String"}
            print(f"{kinds.get(type(value), 'Array')} value is: {value}")
            return 0
        parameter = Parameter(name=args.parameter_name, value=get_parameter_value(args.value))
        content = SetParameters.Request(parameters=[parameter])
        result = request(node, SetParameters, f"{name}/set_parameters", content).results[0]
    if not result.successful:
        print(f"Setting parameter failed: {result.reason}", file=sys.stderr)
        return 1
    print("Set parameter successful")
    return 0
