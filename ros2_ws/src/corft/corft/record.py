"""Console script ``record``: a guided recorder of demonstrations around `ros2 bag record`."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from corft.contract_choice import chosen_contract_path, panda_contract_path
from corft.recording.command import PRESETS, command_text, recorded_topics, write_qos
from corft_core.cli import run_main
from corft_core.contract import Contract
from corft_core.errors import CorftError

EPILOG = """\
examples:
  ros2 run corft record bags/monday --prompt "pick up the red cube"
  ros2 run corft record bags/monday --contract my_robot.yaml --namespace left --compressed
  ros2 run corft record bags/monday --print-command      # the plain `ros2 bag record` lines, both spellings
  ros2 run corft record --write-qos qos_overrides.yaml
  printf 'start pick the cube\\nwait 10\\nsuccess\\n' | ros2 run corft record bags/one

keys: s start, y success, n failure, d discard, x stop without a verdict, p change the prompt text, q quit.
Only a key that comes alone counts; pasted text is ignored. Without a terminal one command a line is read: start
[PROMPT], success, failure, discard, stop, prompt TEXT, wait SECONDS, quit; the end of the input quits.

Ctrl-C, SIGTERM and a lost SSH connection end the recording cleanly and discard the episode under way. The bag is then
read once and compared with what was heard; OUT/record.json keeps the result, OUT/record.log the recorder's output,
OUT/contract.json the contract, with which bag_to_dataset then converts the bag.

exit codes: 0 recorded, the bag is sound; 1 recorded, but the audit found problems; 2 nothing recorded, or recording
failed; 130 the audit was interrupted, the bag is complete
"""


def parser() -> argparse.ArgumentParser:
    """Command line of record."""
    result = argparse.ArgumentParser(
        prog="record", description="Record demonstrations with `ros2 bag record`: checks the topics first, marks "
        "episodes by keyboard, shows rates and losses, and audits the bag.", epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    result.add_argument("out", metavar="OUT", nargs="?",
                        help="folder of the bag, made by the recorder; never overwritten")
    result.add_argument("--contract", metavar="FILE", help="the robot's contract (default: the Panda cell's)")
    result.add_argument("--namespace", default="", metavar="NS", help="namespace of the robot's topics")
    result.add_argument("--prompt", default="", metavar="TEXT", help="instruction of the episodes, until it is changed")
    result.add_argument("--operator", default="", metavar="ID", help="who demonstrates, kept with every episode")
    result.add_argument("--compressed", action="store_true",
                        help="record <topic>/compressed in the place of raw camera topics")
    result.add_argument("--extra", nargs="+", default=[], metavar="TOPIC", help="record these topics too, say /tf")
    result.add_argument("--use-sim-time", action="store_true", help="stamp messages and events with /clock")
    result.add_argument("--preset", choices=PRESETS, default="zstd_fast",
                        help="MCAP storage preset of rosbag2 (default: %(default)s)")
    result.add_argument("--qos", metavar="FILE", help="QoS overrides to record with (default: made from the contract)")
    result.add_argument("--wait", type=float, default=10.0, metavar="S",
                        help="seconds to wait for cameras and joints to appear (default: %(default)s)")
    result.add_argument("--force", action="store_true", help="record although the checks found errors")
    result.add_argument("--print-command", action="store_true", help="print the `ros2 bag record` lines and exit")
    result.add_argument("--write-qos", metavar="FILE", help="write the contract's QoS overrides to FILE and exit")
    return result


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    arguments = parser().parse_args(argv)
    return run_main(lambda: _main(arguments))


def _main(arguments: argparse.Namespace) -> int:
    path, doubt = chosen_contract_path(arguments.contract)
    contract = Contract.load(path)
    topics = recorded_topics(contract, arguments.namespace, compressed=arguments.compressed, extra=arguments.extra,
                             use_sim_time=arguments.use_sim_time)
    if arguments.write_qos:
        write_qos(Path(arguments.write_qos), contract, topics)
        print(f"written: {arguments.write_qos}")
    if arguments.print_command:
        print(command_text(topics, arguments.out or "OUT", arguments.preset, arguments.use_sim_time), end="")
    if arguments.write_qos or arguments.print_command:
        return 0
    if arguments.qos and not Path(arguments.qos).is_file():
        raise CorftError(f"--qos {arguments.qos}: there is no such file. Make one with --write-qos FILE")
    if not arguments.out:
        raise CorftError("expected the folder of the bag to record: ros2 run corft record OUT")
    out = Path(arguments.out)
    if out.exists():
        raise CorftError(f"{out} exists already and is not overwritten: choose another name")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CorftError(f"{out.parent} cannot be made: {error.strerror}. Choose another place for the bag") from error
    # Raw images need room in shared memory; the children inherit this.
    os.environ.setdefault("FASTDDS_DEFAULT_PROFILES_FILE",
                          str(panda_contract_path().parents[1] / "fastdds_profile.xml"))

    import rclpy
    from rclpy.signals import SignalHandlerOptions

    from corft.recording.run import Recorder

    signals: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda seen, _: signals.append(seen))
    rclpy.init(args=[], signal_handler_options=SignalHandlerOptions.NO)
    try:
        return Recorder(arguments, contract, topics, out, signals).run()
    except CorftError as error:
        raise CorftError(f"{error}{doubt}") from error
    finally:
        rclpy.try_shutdown()


if __name__ == "__main__":
    sys.exit(main())
