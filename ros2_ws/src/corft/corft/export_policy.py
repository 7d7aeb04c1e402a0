"""Console script ``export_policy``: a trained policy as one plain folder, by ``corft_core.learning.export``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from corft.trainer import require_torch
from corft_core.cli import run_main

EPILOG = """\
examples:
  ros2 run corft export_policy out/pick policies/pick
  ros2 run corft export_policy out/pick/checkpoints/sft policies/pick_imitation
  ros2 launch corft bringup.launch.py checkpoint:=policies/pick

OUT appears whole or not at all. It needs neither the run nor the folder or hub that the backbone came from.

exit codes: 0 fine; 2 bad input or no space left, nothing written; 130 interrupted
"""


def _arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="export_policy", description="Write a trained policy as one plain folder: weights (safetensors), "
        "configuration, tokenizer and image processor, contract, model card.", epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", metavar="SOURCE", type=Path, help="a run of the trainer (its last stage), or one of "
                        "its checkpoints")
    parser.add_argument("out", metavar="OUT", type=Path, help="folder to make")
    parser.add_argument("--overwrite", action="store_true", help="replace OUT when it exists")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Console entry point."""
    arguments = _arguments(argv)

    def body() -> None:
        require_torch()
        from corft_core.learning.export import export_policy

        print(f"written: {export_policy(arguments.source, arguments.out, arguments.overwrite)}")

    return run_main(body)


if __name__ == "__main__":
    sys.exit(main())
