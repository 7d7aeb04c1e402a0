"""Console script ``bag_to_dataset``: recordings → LeRobot v3 data set. The work is in ``corft_core.data``."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from corft_core.cli import run_main
from corft_core.contract import Contract

EPILOG = """\
examples:
  ros2 run corft bag_to_dataset demos/ dataset/
  ros2 run corft bag_to_dataset monday/ tuesday/ dataset/ --contract my_robot.yaml
  ros2 run corft bag_to_dataset demos/ dataset/ --include-failures --overwrite

BAG is a rosbag2 folder (MCAP or sqlite3) or a single .mcap or .db3 file. Episodes are cut by corft_msgs/EpisodeEvent
(START, SUCCESS or FAILURE, STOP). OUT appears only when everything is written and checked; the report is printed and
kept in OUT/meta/corft/report.json.

exit codes: 0 converted; 2 bad input or no disk space, nothing written; 130 interrupted
"""


def parser() -> argparse.ArgumentParser:
    """Command line of bag_to_dataset."""
    result = argparse.ArgumentParser(
        prog="bag_to_dataset", description="Convert recorded demonstrations into a LeRobot v3 data set.",
        epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter)
    result.add_argument("bags", nargs="+", metavar="BAG", help="recording(s) made with `ros2 bag record`")
    result.add_argument("out", metavar="OUT", help="folder of the data set, made by this command")
    result.add_argument("--contract", metavar="FILE", help="the robot's contract (default: the Panda cell's)")
    result.add_argument("--namespace", default="", metavar="NS", help="namespace of the robot's topics in the bag")
    result.add_argument("--include-failures", action="store_true", help="keep failed episodes too, with zero reward")
    result.add_argument("--overwrite", action="store_true", help="replace OUT when it exists")
    result.add_argument("--max-stale-share", type=float, default=0.05, metavar="S",
                        help="leave out episodes with a larger share of steps on which a sample is older than the "
                             "contract's max_age_s (default: %(default)s)")
    result.add_argument("--quiet", action="store_true", help="no progress bar")
    return result


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    arguments = parser().parse_args(argv)
    if argv is None:  # as a program: SIGTERM ends it as Ctrl-C does, with nothing left behind
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    return run_main(lambda: _convert(arguments))


def _convert(arguments: argparse.Namespace) -> int:
    from tqdm import tqdm

    from corft_core.data.convert import ConvertOptions, convert

    contract = Contract.load(arguments.contract or default_contract())
    options = ConvertOptions(include_failures=arguments.include_failures, overwrite=arguments.overwrite,
                             namespace=arguments.namespace, max_stale_share=arguments.max_stale_share)
    with tqdm(unit="message", disable=arguments.quiet or None, desc="converting") as bar:
        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        report = convert(arguments.bags, arguments.out, contract, options, progress)
    print(report.text())
    print(f"data set: {Path(arguments.out)}")
    return 0


def default_contract() -> Path:
    """The Panda cell's contract in the installed package."""
    from ament_index_python.packages import get_package_share_directory

    return Path(get_package_share_directory("corft")) / "config" / "panda_cell" / "contract.yaml"


if __name__ == "__main__":
    sys.exit(main())
