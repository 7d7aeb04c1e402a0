"""Break the live graph, feed the executor random chunks; write results/faults.json and docs/faults.md."""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from ros import control_msgs_package

from corft_core import files
from corft_core.cli import run_main

ROOT = Path(__file__).parents[2]
EPILOG = """\
examples:
  make faults
  make faults ARGS="--faults 40 --chunks 500 --out out/faults"
"""


def parser() -> argparse.ArgumentParser:
    """Command line of the campaign."""
    result = argparse.ArgumentParser(prog="make faults", description=__doc__, epilog=EPILOG,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    result.add_argument("--faults", type=int, default=320, help="faults in the live graph (default: %(default)s)")
    result.add_argument("--chunks", type=int, default=10_000, help="random chunks (default: %(default)s)")
    result.add_argument("--minutes", type=float, default=19.0, help="time for all of it (default: %(default)s)")
    result.add_argument("--only", default="", metavar="TEXT", help="kinds of faults whose name contains TEXT")
    result.add_argument("--seed", type=int, default=0)
    result.add_argument("--out", type=Path, metavar="FOLDER", help="write here; results/ and docs/ stay as they are")
    return result


def main() -> int:
    """Entry point; 0 when nothing was violated, 1 otherwise."""
    arguments = parser().parse_args()
    variables = control_msgs_package.environment()
    if variables:  # libraries are looked for where the process was told at its start
        os.execve(sys.executable, [sys.executable, "-m", "faults", *sys.argv[1:]], {**os.environ, **variables})
    return run_main(lambda: campaign(arguments))


def campaign(arguments: argparse.Namespace) -> int:
    """Both parts, the JSON and the page."""
    os.environ.setdefault("ROS_DOMAIN_ID", str(100 + os.getpid() % 100))
    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    from ros.graph import CONTRACT

    # A robot with room for its images: a camera_node that is killed leaves a default segment of shared memory full.
    os.environ.setdefault("FASTDDS_DEFAULT_PROFILES_FILE", str(CONTRACT.parents[1] / "fastdds_profile.xml"))
    from ros.tiny_policy import make_tiny_checkpoint

    from corft_core.contract import Contract
    from corft_core.planning import make_planner
    from faults import campaign as live
    from faults import chunks, page
    from faults.catalogue import catalogue
    from faults.rig import Rig

    began_s = time.monotonic()
    budget_s = 60.0 * arguments.minutes
    out = arguments.out or ROOT / "out" / "faults"
    out.mkdir(parents=True, exist_ok=True)
    contract = Contract.load(CONTRACT)
    planner = make_planner("embedded", contract, CONTRACT.parent / "scene.yaml")
    found: dict[str, Any] = chunks.random_chunks(contract, planner, arguments.chunks, arguments.seed, 0.3 * budget_s)
    kinds = [kind for kind in catalogue() if arguments.only in kind.name]
    rng = random.Random(arguments.seed)
    rows: list[live.Row] = []
    with tempfile.TemporaryDirectory() as folder, (out / "rows.jsonl").open("w") as log:
        def keep(row: live.Row) -> None:
            log.write(json.dumps(vars(row)) + "\n")
            log.flush()

        checkpoint = make_tiny_checkpoint(Path(folder) / "co_rft", contract)
        rig = Rig(CONTRACT, checkpoint, out, arguments.seed)
        try:
            rig.start()
            rows = live.run(rig, live.plan(kinds, arguments.faults, rng), rng, planner,
                            budget_s - (time.monotonic() - began_s), keep)
        finally:
            rig.close()
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=ROOT,
                            check=False)
    result = page.joined(live.summary(rows), found) | {
        "minutes": round((time.monotonic() - began_s) / 60, 1), "seed": arguments.seed, "commit": commit.stdout.strip(),
        "cores": os.cpu_count(), "python": platform.python_version(), "command": "make faults"}
    target = ROOT / "results" / "faults.json" if arguments.out is None else out / "faults.json"
    files.write_json(target, result)
    files.write_text(ROOT / "docs" / "faults.md" if arguments.out is None else out / "faults.md", page.text(result))
    print(json.dumps({key: value for key, value in result.items() if key not in ("rows", "largest_shares")}))
    return int(any(result[key] for key in ("limit_violations", "collisions", "unexplained_stops", "never_stopped",
                                          "not_as_expected")))


if __name__ == "__main__":
    sys.exit(main())
