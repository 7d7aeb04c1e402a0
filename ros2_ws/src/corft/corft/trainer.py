"""`ros2 run corft trainer`: a data set becomes a policy, by imitation and then CO-RFT."""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from corft_core.cli import run_main
from corft_core.devices import DEVICE_HELP
from corft_core.errors import CorftError

EXAMPLES = """\
examples:
  ros2 run corft trainer data/pick out/pick
  ros2 run corft trainer data/pick out/pick --set sft.steps=6000 --set co_rft.extraction=best_of_n
  ros2 run corft trainer data/pick out/pick --backbone tiny --device cuda:1
  ros2 run corft trainer --resume out/pick
  ros2 run corft trainer data/pick out/pick_alpha1 --from out/pick --set co_rft.alpha=1
  ros2 run corft trainer --check out/pick
  ros2 run corft trainer data/other_day --check out/pick
  ros2 run corft trainer --settings

The run folder receives config.json, metrics.jsonl, tensorboard/, curves.png, q_vs_return.json, offline_check.json,
checkpoints/sft and checkpoints/co_rft. Start the policy with:
  ros2 launch corft bringup.launch.py checkpoint:=out/pick/checkpoints/co_rft
"""


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="ros2 run corft trainer", description=__doc__, epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("dataset", nargs="?", type=Path, metavar="DATASET", help="LeRobot v3 folder of bag_to_dataset")
    parser.add_argument("run", nargs="?", type=Path, metavar="RUN", help="new folder for the results")
    parser.add_argument("--config", type=Path, metavar="FILE", help="YAML with settings (see --settings)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="one setting, for example "
                        "co_rft.alpha=0.1; wins over --config; may be repeated")
    parser.add_argument("--backbone", metavar="NAME", help="effnet (default), tiny, or hf:<folder or hub id>")
    parser.add_argument("--device", default="auto", help=f"{DEVICE_HELP} (default auto)")
    parser.add_argument("--resume", type=Path, metavar="RUN", help="continue this run, with its own settings")
    parser.add_argument("--from", dest="init", type=Path, metavar="RUN", help="take stage 1 from this finished run on "
                        "the same data, and its critic where all critic settings agree; train only the rest")
    parser.add_argument("--check", type=Path, metavar="RUN", help="compare the checkpoints of this run with recorded "
                        "actions, of its own data set or of DATASET; writes RUN/offline_check.json (no success rate)")
    parser.add_argument("--settings", action="store_true", help="print every setting with default and meaning")
    parser.add_argument("--quiet", action="store_true", help="no progress bars")
    return parser.parse_args(argv)


def require_torch() -> None:
    """Say which interpreter runs and how to give it torch when it has none."""
    missing = [name for name in ("torch", "safetensors", "tqdm") if importlib.util.find_spec(name) is None]
    if missing:
        raise CorftError(
            f"this interpreter, {sys.executable}, has no {', '.join(missing)}. `ros2 run` uses the Python that built "
            "the workspace: run `make setup build` in the repository (it makes .venv and builds with it), then "
            "`. tools/env.sh`, and try again."
        )


def run(argv: Sequence[str] | None = None) -> int:
    """Parse, train, say where the result is."""
    arguments = _arguments(argv)
    require_torch()
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads that wait leave their core to others
    from corft_core.learning.cli import check_run_offline, print_settings, resume_run, start_run

    if arguments.settings:
        print_settings()
        return 0
    main_process = os.environ.get("RANK", "0") == "0"  # under torchrun one of several talks
    if main_process:
        print(f"python: {sys.executable}", flush=True)
    if arguments.check is not None:
        print(f"written: {check_run_offline(arguments.check, arguments.dataset, arguments.device)}")
        return 0
    if arguments.resume is not None:
        if arguments.dataset is not None or arguments.config or arguments.set or arguments.backbone \
                or arguments.init:
            raise CorftError("--resume takes its data set and settings from the run folder; give nothing beside it but "
                             "--device.")
        folder = resume_run(arguments.resume, arguments.device, arguments.quiet)
    else:
        if arguments.run is None:
            raise CorftError("expected DATASET and RUN, for example: ros2 run corft trainer data/pick out/pick "
                             "(--help shows more).")
        folder = start_run(arguments.dataset, arguments.run, arguments.config, arguments.set, arguments.backbone,
                           arguments.device, arguments.quiet, arguments.init)
    if main_process:
        print(f"done: {folder}\n" + "\n".join(f"  {path}" for path in sorted((folder / "checkpoints").iterdir())
                                             if not path.name.startswith(".")))
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Console entry point."""
    return run_main(lambda: run(argv))


if __name__ == "__main__":
    sys.exit(main())
