"""Recordings → LeRobot v3 data set: bags become parts, in parallel; the parts become the data set, in one step.

Beside ``OUT`` lies ``OUT.partial`` while a conversion runs or after it was interrupted: the parts of the finished bags,
named after all that decides their bytes (bag, options, contract, versions). Running again goes on with them. ``OUT``
appears, checked, by one rename; its bytes depend neither on the number of processes nor on interruptions.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from corft_core import files
from corft_core.contract import Contract
from corft_core.data import lerobot_format as fmt
from corft_core.data import report as reports
from corft_core.data.bag import BagError
from corft_core.data.bag_converter import ConvertOptions
from corft_core.data.episodes_file import EpisodesFile
from corft_core.data.lerobot_writer import software_versions
from corft_core.data.part_workers import BagTask, convert_bags
from corft_core.data.parts import PART_VERSION, part_exists, part_report
from corft_core.data.report_page import page
from corft_core.data.store import WriteError, check_target, join_parts, new_dataset

Progress = Callable[[int, int], None]


def convert(bags: Sequence[str | Path], out: str | Path, contract: Contract, options: ConvertOptions | None = None, *,
            jobs: int = 1, overwrite: bool = False, fresh: bool = False,
            progress: Progress | None = None) -> dict[str, Any]:
    """Convert ``bags`` into one data set at ``out`` in ``jobs`` processes; returns its report.

    ``progress(done, total)`` counts bytes of the bags. ``fresh``: forget what an interrupted run left.
    Bags that cannot be read are left out and listed in the report's ``lost_bags``. Raises BagError when no episode is
    left, NoSpaceError, WriteError or another CorftError; ``out`` is then as it was.
    """
    options, out, paths = options or ConvertOptions(), Path(out), [Path(bag) for bag in bags]
    check_target(out, overwrite)
    sizes = [_size(path) for path in paths]
    twice = {str(path) for path in paths if [p.resolve() for p in paths].count(path.resolve()) > 1}
    if twice:
        raise BagError(f"{', '.join(sorted(twice))} is given more than once; its episodes would count twice")
    plan = EpisodesFile.load(options.episodes_file, options.exclude)
    plan.check(paths)
    with _partial_folder(out, fresh) as partial:
        tasks = [BagTask(path, partial / _fingerprint(path, contract, options), size)
                 for path, size in zip(paths, sizes, strict=True)]
        _remove_others(partial, tasks)
        missing = [task for task in tasks if not part_exists(task.part)]
        done = {task.bag: 0.0 if task in missing else 1.0 for task in tasks}

        def on_progress(number: int, messages: int, total: int) -> None:
            done[missing[number].bag] = messages / max(1, total)
            if progress is not None:
                progress(int(sum(size * done[path] for size, path in zip(sizes, paths, strict=True))), sum(sizes))

        failed = {missing[number].bag: error
                  for number, error in convert_bags(missing, contract, options, jobs, on_progress).items()}
        if len(failed) == len(paths):
            shutil.rmtree(partial)
            raise failed[paths[0]]
        kept = [task.part for task in tasks if task.bag not in failed]
        lost = [{"path": str(path), "reason": str(error)} for path, error in failed.items()]
        seen = [part_report(part) for part in kept]
        report = reports.summary(seen, sorted(lost, key=lambda bag: bag["path"]))
        report["notes"] += plan.unused({name for bag in seen for name in bag["plan_used"]})
        if report["episodes_kept"] == 0:
            shutil.rmtree(partial)
            raise BagError(_no_episode(report, options, contract))
        source = {"bags": [str(path) for path in paths], "options": asdict(options)}
        with new_dataset(out, overwrite, within=partial) as temporary:
            join_parts(temporary, kept, contract, source, report)
            files.write_text(temporary / fmt.REPORT_PAGE_PATH, page(report))
        shutil.rmtree(partial)
    return report


def partial_folder(out: str | Path) -> Path:
    """Where an unfinished conversion to ``out`` keeps its finished bags."""
    out = Path(out)
    return out.with_name(out.name + ".partial")


@contextmanager
def _partial_folder(out: Path, fresh: bool) -> Iterator[Path]:
    """The partial folder, ours alone until the block ends; it is removed again when nothing worth keeping is in it."""
    partial = partial_folder(out)
    new = [folder for folder in (partial, *partial.parents) if not folder.exists()]
    partial.mkdir(parents=True, exist_ok=True)
    with (partial / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise WriteError(f"another conversion to {out} is running. Wait for it, or choose another folder."
                             ) from error
        try:
            _clear(partial, parts=fresh)
            yield partial
        finally:
            if partial.exists():
                _clear(partial, parts=False)
                if not any(entry.is_dir() for entry in partial.iterdir()):
                    shutil.rmtree(partial)
                    for folder in new[1:]:
                        if folder.exists() and not any(folder.iterdir()):
                            folder.rmdir()


def _clear(partial: Path, parts: bool) -> None:
    """Remove what killed runs left half done, and the ``parts`` too if asked."""
    for entry in partial.iterdir():
        if entry.is_dir() and (parts or entry.name.startswith(".")):
            shutil.rmtree(entry, ignore_errors=True)


def _remove_others(partial: Path, tasks: Sequence[BagTask]) -> None:
    """Remove parts of other bags, options, contracts or versions: nobody will ask for them again."""
    names = {task.part.name for task in tasks}
    for entry in partial.iterdir():
        if entry.is_dir() and entry.name not in names:
            shutil.rmtree(entry, ignore_errors=True)


def _size(bag: Path) -> int:
    if not bag.exists():
        raise BagError(f"there is no bag at {bag}. Record one with: ros2 bag record --storage mcap -o BAG --topics …")
    return sum(path.stat().st_size for path in _files(bag))


def _files(bag: Path) -> list[Path]:
    try:
        return sorted(path for path in bag.iterdir() if path.is_file())
    except OSError:
        return [bag]  # a file, or something that opening it will complain about


def _fingerprint(bag: Path, contract: Contract, options: ConvertOptions) -> str:
    """Names the part of a bag by all that decides its content; a bag's files by name, size and time of change."""
    listed = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in _files(bag)]
    chosen = Path(options.episodes_file).read_text() if options.episodes_file else None
    text = json.dumps([PART_VERSION, str(bag), listed, asdict(options), chosen, contract.to_dict(),
                       software_versions()], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def _no_episode(report: dict[str, Any], options: ConvertOptions, contract: Contract) -> str:
    left_out: dict[str, int] = report["left_out"]
    if not report["episodes"] and contract.episodes == "events":
        why = ("the bags hold no episode START event. Mark episodes while recording: START, SUCCESS or FAILURE, STOP "
               "on the episode_event topic; or write `episodes: bag` into the contract when every bag is one episode; "
               "or list time ranges with --episodes FILE.")
    else:
        reasons = "; ".join(f"{count} x {reason}" for reason, count in left_out.items())
        why = f"of {report['episodes_seen']} episodes none succeeded and could be used ({reasons})."
        if not options.include_failures and {"failure", "unlabelled"} & left_out.keys():
            why += " --include-failures keeps failed episodes too."
    lines = [f"rejected {count} messages: {reason}" for reason, count in report["rejected_messages"].items()]
    lines += [*report["notes"], *report["damage"], *(f"{bag['path']}: {bag['reason']}" for bag in report["lost_bags"])]
    return "".join([f"no episode to convert: {why}", *(f"\n  {line}" for line in lines)])
