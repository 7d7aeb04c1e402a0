"""Console script ``dataset``: look after LeRobot v3 data sets. The work is in ``corft_core.data.dataset_*``."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from corft_core.cli import run_main
from corft_core.contract import Contract
from corft_core.errors import CorftError

if TYPE_CHECKING:
    from corft_core.data import EpisodeDataset

EXIT_FINDINGS = 1
EPILOG = """\
examples:
  ros2 run corft dataset info data
  ros2 run corft dataset check data --json > findings.json
  ros2 run corft dataset stats data --write
  ros2 run corft dataset merge monday tuesday all
  ros2 run corft dataset merge written_by_lerobot ours --contract my_robot.yaml --outcome success
  ros2 run corft dataset split data parts --fraction 0.9 --seed 1
  ros2 run corft dataset split data parts --by outcome
  ros2 run corft dataset delete data 3,7-9 cleaned
  ros2 run corft dataset delete data 3,7-9 --in-place
  ros2 run corft dataset export data plain --to lerobot

A new data set appears whole and checked, or not at all; the old one is changed only with --in-place or --write.

exit codes: 0 fine; 1 check or stats found something; 2 bad input, nothing written; 3 no space left, nothing written;
130 interrupted
"""


class UsageError(CorftError):
    """Arguments that do not go together."""


def parser() -> argparse.ArgumentParser:
    """Command line of dataset."""
    result = argparse.ArgumentParser(prog="dataset", description="Look after a LeRobot v3 data set.", epilog=EPILOG,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = result.add_subparsers(dest="verb", required=True, metavar="VERB")

    def verb(name: str, text: str, run: Callable[[argparse.Namespace], int]) -> argparse.ArgumentParser:
        found = verbs.add_parser(name, help=text, description=text, epilog=EPILOG,
                                 formatter_class=argparse.RawDescriptionHelpFormatter)
        found.set_defaults(run=run)
        found.add_argument("--contract", metavar="FILE", help="for a data set that carries no contract of its own")
        found.add_argument("--outcome", choices=("success", "failure"), default="failure", help="of the episodes of a "
                           "data set that does not say, as most recorders write it (default: %(default)s, reward 0)")
        found.add_argument("--quiet", action="store_true", help="no progress bar")
        return found

    info = verb("info", "One screen: robot, tasks, episodes, cameras, sizes, shares, provenance.", _info)
    check = verb("check", "Find damage and what would spoil training: where, how much, what to do.", _check)
    stats = verb("stats", "Compute exact statistics anew and compare them with the stored ones.", _stats)
    for each in (info, check, stats):
        each.add_argument("data", metavar="DATA", help="folder of the data set")
        each.add_argument("--json", action="store_true", help="print JSON")
    check.add_argument("--quick", action="store_true", help="decode three frames an episode and camera, not all")
    check.add_argument("--description", metavar="NAME", help="robot description for the joints' limits (default: the "
                       "contract's robot.description)")
    stats.add_argument("--write", action="store_true", help="write wrong or missing statistics anew")

    merge = verb("merge", "All episodes of several data sets as one; everything is made anew.", _merge)
    merge.add_argument("data", nargs="+", metavar="DATA", help="data sets whose states and actions mean the same")
    split = verb("split", "Parts of a data set as OUT/<part>.", _split)
    split.add_argument("data", metavar="DATA", help="folder of the data set")
    how = split.add_mutually_exclusive_group(required=True)
    how.add_argument("--fraction", type=float, metavar="F", help="train gets this share of each task's episodes, test "
                     "the others")
    how.add_argument("--episodes", metavar="LIST", help="selected gets these episodes, rest the others; such as 0,4-9")
    how.add_argument("--by", choices=("task", "outcome"), help="a part for each task, or success and failure")
    split.add_argument("--seed", type=int, default=0, help="of the draw with --fraction (default: %(default)s)")
    delete = verb("delete", "A data set without the given episodes.", _delete)
    delete.add_argument("data", metavar="DATA", help="folder of the data set")
    delete.add_argument("episodes", metavar="LIST", help="episodes to leave out, such as 3,7-9")
    delete.add_argument("--in-place", action="store_true", help="replace DATA in one step instead of writing OUT")
    export = verb("export", "The data set in another form.", _export)
    export.add_argument("data", metavar="DATA", help="folder of the data set")
    export.add_argument("--to", choices=("arrays", "lerobot"), required=True, help="arrays: a folder an episode with "
                        ".npz and pictures; lerobot: LeRobot v3 without corft's columns and side files")
    export.add_argument("--pictures", choices=("png", "jpg"), default="png", help="of arrays; png keeps every level "
                        "(default: %(default)s)")
    for each in (merge, split, delete, export):
        each.add_argument("out", metavar="OUT", nargs="?" if each is delete else None, help="folder to make")
        each.add_argument("--overwrite", action="store_true", help="replace OUT when it exists")
    return result


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    arguments = parser().parse_args(argv)
    if argv is None:  # as a program: SIGTERM ends it as Ctrl-C does, with nothing left behind
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    return run_main(lambda: arguments.run(arguments))


def _info(arguments: argparse.Namespace) -> int:
    from corft_core.data import dataset_info

    about = dataset_info.describe(_open(arguments, arguments.data))
    print(json.dumps(about, indent=2) if arguments.json else dataset_info.text(about))
    return 0


def _check(arguments: argparse.Namespace) -> int:
    from corft_core.data import dataset_findings, findings

    dataset = _open(arguments, arguments.data)
    limits, note = _joint_limits(dataset.contract, arguments.description)
    total = 0 if arguments.quick else dataset.num_frames * len(dataset.contract.cameras)
    with _progress(arguments, total, "frame", "checking") as step:
        found = dataset_findings.find(dataset, limits, not arguments.quick, step)
    counts = findings.count(found)
    if arguments.json:
        print(json.dumps({"counts": counts, "findings": [finding.to_dict() for finding in found], "note": note},
                         indent=2))
    else:
        print(findings.text(found) + "\n" * bool(found) + f"{dataset.num_episodes} episodes, {dataset.num_frames} "
              f"steps: {counts['error']} errors, {counts['warning']} warnings, {counts['note']} notes{note}")
    return EXIT_FINDINGS if counts["error"] or counts["warning"] else 0


def _stats(arguments: argparse.Namespace) -> int:
    from corft_core.data import dataset_stats

    dataset = _open(arguments, arguments.data)
    totals, episodes = dataset_stats.exact_statistics(dataset)
    wrong = dataset_stats.wrong_statistics(dataset, totals, episodes)
    if wrong and arguments.write:
        dataset_stats.repair(dataset, totals, episodes)
    if arguments.json:
        print(json.dumps({"statistics": totals, "wrong": wrong, "written": bool(wrong) and arguments.write}, indent=2))
    else:
        print(dataset_stats.table(totals, dataset_stats.feature_names(dataset)))
        shown = ", ".join(wrong[:10]) + (f" and {len(wrong) - 10} more" if len(wrong) > 10 else "")
        print("the stored statistics are exact" if not wrong else f"stored otherwise: {shown}. " + (
            "Written anew." if arguments.write else "Write them anew with --write."))
    return EXIT_FINDINGS if wrong and not arguments.write else 0


def _merge(arguments: argparse.Namespace) -> int:
    from corft_core.data import dataset_edit

    datasets = [_open(arguments, folder) for folder in arguments.data]
    with _progress(arguments, sum(dataset.num_episodes for dataset in datasets), "episode", "merging") as step:
        notes = dataset_edit.merge(datasets, dataset_edit.Target(Path(arguments.out), arguments.overwrite), step)
    for note in notes:
        print(f"note: {note}")
    return _written(arguments.out)


def _split(arguments: argparse.Namespace) -> int:
    from corft_core.data import dataset_edit

    dataset = _open(arguments, arguments.data)
    if arguments.fraction is not None:
        parts = dataset_edit.split_fraction(dataset, arguments.fraction, arguments.seed)
    elif arguments.episodes is not None:
        chosen = _numbers(arguments.episodes)
        parts = {"selected": chosen, "rest": sorted(set(range(dataset.num_episodes)) - set(chosen))}
    else:
        by = {"task": dataset_edit.split_tasks, "outcome": dataset_edit.split_outcome}
        parts = by[arguments.by](dataset)
    with _progress(arguments, dataset.num_episodes, "episode", "splitting") as step:
        dataset_edit.split(dataset, parts, Path(arguments.out), arguments.overwrite, step)
    for name, episodes in parts.items():
        print(f"{Path(arguments.out) / name}: {len(episodes)} episodes")
    return 0


def _delete(arguments: argparse.Namespace) -> int:
    from corft_core.data import dataset_edit

    if (arguments.out is None) != arguments.in_place:
        raise UsageError("give OUT or --in-place, and not both")
    dataset, episodes = _open(arguments, arguments.data), _numbers(arguments.episodes)
    target = dataset_edit.Target(Path(arguments.out or arguments.data), arguments.overwrite or arguments.in_place)
    with _progress(arguments, dataset.num_episodes - len(set(episodes)), "episode", "writing") as step:
        dataset_edit.delete(dataset, episodes, target, step)
    return _written(target.folder)


def _export(arguments: argparse.Namespace) -> int:
    from corft_core.data import dataset_export

    dataset, out = _open(arguments, arguments.data), Path(arguments.out)
    with _progress(arguments, dataset.num_episodes, "episode", "exporting") as step:
        if arguments.to == "arrays":
            dataset_export.export_arrays(dataset, out, arguments.pictures, arguments.overwrite, step)
        else:
            dataset_export.export_lerobot(dataset, out, arguments.overwrite)
    print(f"exported: {out}")
    return 0


def _open(arguments: argparse.Namespace, folder: str) -> EpisodeDataset:
    from corft_core.data import EpisodeDataset

    contract = Contract.load(arguments.contract) if arguments.contract else None
    return EpisodeDataset.open(folder, contract, arguments.outcome == "success")


def _joint_limits(contract: Contract, description: str | None) -> tuple[Any, str]:
    """Position limits (2, J) of the robot's description, or None and why there are none."""
    from corft_core.planning.description import resolve_description

    try:
        limits = resolve_description(description or contract.robot.description).position_limits(contract.robot.joints)
    except (CorftError, OSError) as error:
        return None, f"; joint limits were not checked: {error}"
    return limits, ""


def _numbers(text: str) -> list[int]:
    """Episode numbers of a list such as "3,7-9". Raises UsageError."""
    numbers: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise UsageError(f"episodes must be a list such as 3,7-9; got {text!r}")
        numbers += range(int(first), int(last or first) + 1)
    return numbers


@contextmanager
def _progress(arguments: argparse.Namespace, total: int, unit: str, text: str) -> Iterator[Callable[[int], None]]:
    from tqdm import tqdm

    with tqdm(total=total, unit=unit, desc=text, disable=arguments.quiet or not total or None) as bar:
        yield lambda count: bar.update(count) and None


def _written(folder: str | Path) -> int:
    from corft_core.data import EpisodeDataset

    dataset = EpisodeDataset.open(folder)
    print(f"data set: {folder}, {dataset.num_episodes} episodes, {dataset.num_frames} steps")
    return 0


if __name__ == "__main__":
    sys.exit(main())
