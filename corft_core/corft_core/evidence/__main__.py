"""Command line of the evidence: make evidence ARGS=…"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import yaml

from corft_core.cli import EXIT_INTERRUPTED, run_main
from corft_core.errors import CorftError
from corft_core.evidence import protocol as fixed
from corft_core.evidence.arms import chosen
from corft_core.evidence.runner import make_plan, run_plan

RESULTS = Path("results/evidence")


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Arguments of the program."""
    parser = argparse.ArgumentParser(
        prog="python -m corft_core.evidence", formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Train and try every arm on every task, and write results/evidence and, unless only a part was "
        "asked for, docs/evidence.md and the README's table. Finished runs are kept: the same command continues where "
        "it stopped.",
        epilog="examples:\n  make evidence\n  make evidence ARGS=--quick\n  make evidence ARGS=--summary-only\n"
        "  make evidence ARGS='--suite metaworld --arm sft --arm co_rft --seed 0'\n"
        "  make evidence ARGS='--tune warm --set co_rft.temperature=1 --arm sft --arm co_rft'",
    )
    parser.add_argument("--quick", action="store_true", help="a small part in under 20 minutes, in results/evidence/"
                        "quick; no evidence")
    parser.add_argument("--suite", action="append", default=[], help="cell or metaworld (default: both)")
    parser.add_argument("--task", action="append", default=[], help="task to work on (default: all)")
    parser.add_argument("--arm", action="append", default=[], help="arm to make (default: all); see --list")
    parser.add_argument("--seed", action="append", type=int, default=[], help="seed to make (default: all)")
    parser.add_argument("--main", action="store_true", help="main arms only")
    parser.add_argument("--tune", metavar="NAME", help="try a recipe on the tuning tasks, seeds and scenes, in "
                        "results/evidence/tuning/NAME")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="setting for --tune")
    parser.add_argument("--processes", type=int, default=2, help="worker processes (default: %(default)s)")
    parser.add_argument("--results", type=Path, default=RESULTS, help="default: %(default)s")
    parser.add_argument("--work", type=Path, default=Path("out/evidence"), help="run folders, may be deleted "
                        "(default: %(default)s)")
    parser.add_argument("--list", action="store_true", help="show the arms and how many of their runs are finished")
    parser.add_argument("--summary-only", action="store_true", help="make no run: write what is written at the end, of "
                        "the runs that there are")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Console entry point."""
    arguments = parse(argv)
    return run_main(lambda: _body(arguments))


def _body(arguments: argparse.Namespace) -> int:
    if arguments.set and not arguments.tune:
        raise CorftError("--set belongs to --tune: the recipe of the evidence stands in corft_core/evidence/arms.py.")
    base = fixed.QUICK if arguments.quick else fixed.EVIDENCE
    base = fixed.tuning(arguments.tune) if arguments.tune else base
    protocol = base
    if arguments.seed:
        protocol = replace(base, seeds=tuple(arguments.seed))
    arms = [arm for arm in chosen(arguments.arm or protocol.arms) if arm.main or not arguments.main]
    plan = make_plan(protocol, arguments.results, arguments.work, suites=arguments.suite or list(fixed.SUITES),
                     tasks=arguments.task, arms=arms, overrides=_pairs(arguments.set))
    if arguments.list:
        runs, left = plan.runs(), plan.left()
        for arm in arms:
            mine, missing = (sum(run[3].name == arm.name for run in part) for part in (runs, left))
            print(f"{arm.name:18} {mine - missing:3} of {mine:3} runs  {'main ' if arm.main else '     '} {arm.title}")
        return 0
    status = 0
    if not arguments.summary_only:
        status = run_plan(plan, arguments.processes, lambda line: print(line, flush=True))
        if status == EXIT_INTERRUPTED:
            print("interrupted; the same command goes on with what is left", file=sys.stderr)
            return status
    from corft_core.evidence.summary import write_summary

    # A tuned recipe is known by this command only; else a part that was asked for joins the whole.
    whole = plan if arguments.tune else make_plan(base, arguments.results, arguments.work, suites=list(fixed.SUITES),
                                                  tasks=[], arms=chosen(base.arms))
    summary = write_summary(whole)
    if _everything(arguments):
        from corft_core.evidence.page import write_documents

        write_documents(summary, whole, Path())
    elif not (arguments.quick or arguments.tune):
        print("a part was asked for: the documents stay as they are; make evidence ARGS=--summary-only writes them")
    return status


def _everything(arguments: argparse.Namespace) -> bool:
    """Whether nothing was chosen: what is written then is what the documents show."""
    return not (arguments.quick or arguments.tune or arguments.suite or arguments.task or arguments.arm
                or arguments.seed or arguments.main) and arguments.results == RESULTS


def _pairs(words: list[str]) -> dict[str, object]:
    pairs = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not key or not equals:
            raise CorftError(f"--set {word}: expected key=value, for example --set co_rft.temperature=1.")
        pairs[key] = yaml.safe_load(value)
    return pairs


if __name__ == "__main__":
    sys.exit(main())
