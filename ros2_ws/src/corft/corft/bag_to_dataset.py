"""Console script ``bag_to_dataset``: recordings → LeRobot v3 data set. The work is in ``corft_core.data``."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from corft.contract_choice import chosen_contract_path
from corft_core.cli import EXIT_INTERRUPTED, EXIT_OK, run_main
from corft_core.contract import Contract

EXIT_LOSSES = 1
EPILOG = """\
examples:
  ros2 run corft bag_to_dataset demos/ dataset/
  ros2 run corft bag_to_dataset monday/ tuesday/ dataset/ --contract my_robot.yaml
  ros2 run corft bag_to_dataset demos/* dataset/ --contract one_bag_one_episode.yaml --task "pick the cube"
  ros2 run corft bag_to_dataset demos/ dataset/ --include-failures --max-gap-s 0.5 --overwrite

Without --contract: the one that `ros2 run corft record` put beside the bags, else the Panda cell's, which is said.
BAG is a rosbag2 folder (MCAP or sqlite3) or a single .mcap or .db3 file. Episodes are cut by corft_msgs/EpisodeEvent
(START, SUCCESS or FAILURE, STOP), by --episodes, or are whole bags when the contract says `episodes: bag`.
OUT appears only when everything is written and checked. Its report is printed and kept in OUT/meta/corft/report.json
and report.html. After an interruption, even a kill, the finished bags lie in OUT.partial and the same command goes on
with them. The same bags, contract and options give the same bytes, whatever --jobs.

exit codes:
  0    converted
  1    converted with losses: a bag or episode is missing because of damage, gaps or old samples; the report names them
  2    bad input, nothing written
  3    no disk space, nothing written; finished bags are kept in OUT.partial
  130  interrupted; finished bags are kept in OUT.partial
"""


def parser() -> argparse.ArgumentParser:
    """Command line of bag_to_dataset."""
    from corft_core.data.bag_converter import ConvertOptions
    from corft_core.data.video import CODECS

    defaults = ConvertOptions()
    result = argparse.ArgumentParser(
        prog="bag_to_dataset", description="Convert recorded demonstrations into a LeRobot v3 data set.",
        epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter)
    result.add_argument("bags", nargs="+", metavar="BAG", help="recording(s) made with `ros2 bag record`")
    result.add_argument("out", metavar="OUT", help="folder of the data set, made by this command")
    result.add_argument("--contract", metavar="FILE",
                        help="the robot's contract (default: recorded with the bags, else the Panda cell's)")
    result.add_argument("--namespace", default="", metavar="NS", help="namespace of the robot's topics in the bag")
    episodes = result.add_argument_group("which episodes and steps")
    episodes.add_argument("--episodes", metavar="FILE",
                          help="YAML that cuts bags by time, excludes and relabels episodes")
    episodes.add_argument("--exclude", action="append", default=[], metavar="WHAT",
                          help="leave out an episode or time: BAG:NUMBER (episodes count from 0) or BAG:FROM-TO in s "
                               "since the bag's start; repeatable")
    episodes.add_argument("--include-failures", action="store_true", help="keep failed episodes too, with zero reward")
    episodes.add_argument("--task", default="", metavar="TEXT", help="instruction of episodes recorded without one")
    episodes.add_argument("--outcome", choices=("success", "failure"), default="success",
                          help="label of bags that are one episode each (default: %(default)s)")
    episodes.add_argument("--keep-idle", action="store_true", help="keep leading steps with a resting command")
    episodes.add_argument("--max-stale-share", type=float, default=defaults.max_stale_share, metavar="S",
                          help="leave out episodes with a larger share of steps on which a sample is older than the "
                               "contract's max_age_s (default: %(default)s)")
    episodes.add_argument("--max-gap-s", type=float, metavar="S",
                          help="leave out episodes in which an observed stream pauses for longer (default: no limit)")
    run = result.add_argument_group("how to run")
    run.add_argument("--jobs", type=int, metavar="N",
                     help="processes that share the bags, and the cameras of a big bag (default: the number of cores)")
    run.add_argument("--codec", choices=tuple(CODECS), help="video encoder (default: the first that PyAV has)")
    run.add_argument("--overwrite", action="store_true", help="replace OUT when it exists")
    run.add_argument("--fresh", action="store_true", help="start anew instead of going on with OUT.partial")
    run.add_argument("--quiet", action="store_true", help="no progress bar")
    return result


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    arguments = parser().parse_args(argv)
    if argv is None:  # as a program: SIGTERM ends it as Ctrl-C does
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    code = run_main(lambda: _convert(arguments))
    if code == EXIT_INTERRUPTED:
        from corft_core.data.convert import partial_folder

        if partial_folder(arguments.out).exists():
            print(f"the finished bags are kept in {partial_folder(arguments.out)}: run the same command again to go "
                  "on, add --fresh to start anew, or delete the folder", file=sys.stderr)
    return code


def _convert(arguments: argparse.Namespace) -> int:
    from tqdm import tqdm

    from corft_core.data.bag import BagError
    from corft_core.data.bag_converter import ConvertOptions
    from corft_core.data.convert import convert
    from corft_core.data.report import losses, text

    contract, doubt = _contract(arguments)
    options = ConvertOptions(
        include_failures=arguments.include_failures, namespace=arguments.namespace, keep_idle=arguments.keep_idle,
        max_stale_share=arguments.max_stale_share, max_gap_s=arguments.max_gap_s, codec=arguments.codec,
        task=arguments.task, outcome=arguments.outcome, episodes_file=arguments.episodes,
        exclude=tuple(arguments.exclude), joint_limits_rad=_joint_limits(contract))
    with tqdm(unit="B", unit_scale=True, disable=arguments.quiet or None, desc="converting") as bar:
        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        try:
            report = convert(arguments.bags, arguments.out, contract, options,
                             jobs=arguments.jobs or os.cpu_count() or 1, overwrite=arguments.overwrite,
                             fresh=arguments.fresh, progress=progress)
        except BagError as error:
            raise BagError(f"{error}{doubt}") from error
    print(text(report))
    print(f"data set: {Path(arguments.out)}")
    return EXIT_LOSSES if losses(report) else EXIT_OK


def _contract(arguments: argparse.Namespace) -> tuple[Contract, str]:
    """The contract to convert with, and what to add to an error when nobody chose it."""
    from corft_core.data.bag_contract import recorded_contract

    if arguments.contract:
        return Contract.load(arguments.contract), ""
    recorded = recorded_contract([Path(bag) for bag in arguments.bags])
    if recorded is not None:
        print(f"contract: recorded with the bags (robot {recorded.robot.name})", file=sys.stderr)
        return recorded, ""
    path, doubt = chosen_contract_path(None, "no --contract is given and none lies beside the bags")
    return Contract.load(path), doubt


def _joint_limits(contract: Contract) -> tuple[tuple[float, ...], ...] | None:
    """Lower and upper limits [rad] of the description's joints; None where it is not installed or has none."""
    from corft_core.planning.description import resolve_description
    from corft_core.planning.interface import PlanningError

    try:
        limits = resolve_description(contract.robot.description).position_limits(contract.robot.joints)
    except PlanningError:
        return None
    return tuple(tuple(float(value) for value in row) for row in limits)


if __name__ == "__main__":
    sys.exit(main())
