"""Console script ``doctor``: looks at machine, contract and running robot, and says what to repair. Moves nothing."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from corft.contract_choice import chosen_contract_path
from corft_core.cli import run_main
from corft_core.devices import DEVICE_HELP

EPILOG = """\
examples:
  ros2 run corft doctor                                   # the Panda cell, as it runs
  ros2 run corft doctor --contract my_robot.yaml
  ros2 run corft doctor --contract my_robot.yaml --offline          # machine and contract only, no robot needed
  ros2 run corft doctor --contract my_robot.yaml --checkpoint run/checkpoints/co_rft --planner moveit
  ros2 run corft doctor --contract my_robot.yaml --server tcp://192.168.1.20:5555   # the policy runs elsewhere

exit codes: 0 nothing found, or warnings only; 1 errors found; 2 the contract can't be read
"""


def parser() -> argparse.ArgumentParser:
    """Command line of doctor."""
    result = argparse.ArgumentParser(
        prog="doctor", description="Check machine, contract and the running robot's topics, joints and controllers, "
        "and say what to repair. Nothing is moved.", epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    result.add_argument("--contract", metavar="FILE", help="the robot's contract (default: the Panda cell's)")
    result.add_argument("--scene", metavar="FILE", help="obstacles (default: scene.yaml beside the contract)")
    result.add_argument("--checkpoint", metavar="FOLDER", help="a checkpoint that is to drive the robot")
    result.add_argument("--server", default="", metavar="ADDRESS", help="the policy server that is to drive it, "
                        "tcp://host:port: is it there, does its policy fit, how long does a chunk take")
    result.add_argument("--server-key", metavar="FILE", help="the server's public key file, if it was started with one")
    result.add_argument("--namespace", default="", metavar="NS", help="namespace of the robot's topics")
    result.add_argument("--controller", default="", metavar="NAME",
                        help="the arm's joint trajectory controller (default: by the contract's arm_command topic)")
    result.add_argument("--planner", choices=("embedded", "moveit"), default="embedded",
                        help="the planner that is to be used (default: %(default)s)")
    result.add_argument("--device", default="auto",
                        help=f"of inference, {DEVICE_HELP} (default: %(default)s)")
    result.add_argument("--use-sim-time", action="store_true", help="the robot is a simulation with /clock")
    result.add_argument("--offline", action="store_true", help="leave the running robot out")
    result.add_argument("--json", action="store_true", help="print the findings as JSON")
    return result


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    arguments = parser().parse_args(argv)
    return run_main(lambda: _diagnose(arguments))


def _diagnose(arguments: argparse.Namespace) -> int:
    from corft.doctor_machine import Check, checkpoint_checks, contract_checks, machine, moveit_files
    from corft_core.contract import Contract

    path, doubt = chosen_contract_path(arguments.contract)
    contract = Contract.load(path)
    beside = path.parent / "scene.yaml"
    scene = Path(arguments.scene).expanduser() if arguments.scene else beside if beside.is_file() else None

    def all_checks() -> Iterator[tuple[str, Check]]:
        for found in machine(arguments.planner, arguments.device):
            yield "machine", found
        yield "contract", Check("contract", "ok", f"{path}: robot {contract.robot.name}")
        for found in contract_checks(contract, scene):
            yield "contract", found
        if arguments.planner == "moveit":
            yield "contract", moveit_files(contract, path.parent if scene is None else scene.parent)
        if arguments.checkpoint:
            for found in checkpoint_checks(arguments.checkpoint, contract):
                yield "contract", found
        if arguments.server:
            from corft.doctor_server import server_checks

            for found in server_checks(arguments.server, arguments.server_key, contract):
                yield "policy server", found
        if not arguments.offline:
            from corft.doctor_graph import graph_checks

            for found in graph_checks(contract, arguments.namespace, arguments.controller, arguments.use_sim_time):
                yield "robot", found

    checks: list[tuple[str, Check]] = []
    for group, found in all_checks():
        if not arguments.json:
            if not checks or checks[-1][0] != group:
                print(f"{group}:")
            print(_line(found), flush=True)
        checks.append((group, found))
    errors = sum(found.level == "ERROR" for _, found in checks)
    warnings = sum(found.level == "warning" for _, found in checks)
    if arguments.json:
        print(json.dumps({"errors": errors, "warnings": warnings,
                          "checks": [{"group": group, **asdict(found)} for group, found in checks]}, indent=2))
    else:
        print(f"{errors} errors, {warnings} warnings" + (doubt if errors else ""))
    return 1 if errors else 0


def _line(found: object) -> str:
    check = asdict(found)  # type: ignore[call-overload]
    text = f"  {check['level']:<8} {check['what']}: {check['seen']}"
    return text + (f"\n           → {check['fix']}" if check["fix"] and check["level"] != "ok" else "")


if __name__ == "__main__":
    sys.exit(main())
