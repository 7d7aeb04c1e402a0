"""`python -m corft_core.serving`: a checkpoint for robots without a GPU. Needs no ROS."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from corft_core.cli import run_main
from corft_core.devices import DEVICE_HELP
from corft_core.errors import CorftError

EPILOG = """\
examples:
  ros2 run corft policy_server --checkpoint run/checkpoints/co_rft --bind tcp://0.0.0.0:5555
  python -m corft_core.serving --checkpoint run/checkpoints/co_rft     where there is no ROS
  ros2 run corft policy_server --make-key lab                          writes lab.key and lab.key_secret
  ros2 run corft policy_server --checkpoint run/checkpoints/co_rft --bind tcp://0.0.0.0:5555 --key lab.key_secret

On the robot: ros2 launch corft bringup.launch.py server:=tcp://HOST:5555 (and server_key:=lab.key)

exit codes: 0 stopped by Ctrl-C or SIGTERM; 2 bad input
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns an exit code."""
    return run_main(lambda: _main(argv))


def parser() -> argparse.ArgumentParser:
    """The program's arguments."""
    result = argparse.ArgumentParser(
        prog="policy_server", description="Serve a checkpoint to robots over the network.", epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    result.add_argument("--checkpoint", metavar="FOLDER", type=Path, help="checkpoint folder written by the trainer")
    result.add_argument("--device", default="auto", help=f"{DEVICE_HELP} (default: %(default)s)")
    result.add_argument("--bind", metavar="ADDRESS", default="tcp://127.0.0.1:5555",
                        help="where to listen; tcp://0.0.0.0:5555 is every network of this machine (default: "
                             "%(default)s)")
    result.add_argument("--key", metavar="FILE", type=Path,
                        help="take only encrypted connections of robots that have the public part of this "
                             ".key_secret file")
    result.add_argument("--make-key", metavar="NAME", type=Path,
                        help="write NAME.key (for the robots) and NAME.key_secret (for here) and end")
    result.add_argument("--max-message-mb", type=float, default=64.0,
                        help="largest message that is read [MiB] (default: %(default)g)")
    result.add_argument("--torch-threads", type=int, default=0, help="threads for inference; 0: torch's default")
    return result


def _main(argv: Sequence[str] | None) -> int:
    arguments = parser().parse_args(argv)
    if arguments.make_key is not None:
        from corft_core.serving.keys import make_keys

        public, secret = make_keys(arguments.make_key)
        print(f"written: {public} for the robots, {secret} for the server")
        return 0
    if arguments.checkpoint is None:
        raise CorftError("--checkpoint is missing: expected a folder like run/checkpoints/co_rft")
    if not 0 < arguments.max_message_mb < 2048:
        raise CorftError(f"--max-message-mb must be above 0 and below 2048, got {arguments.max_message_mb:g}")
    _serve(arguments)
    return 0


def _serve(arguments: argparse.Namespace) -> None:
    import torch

    from corft_core.serving.interface import nothing_seen
    from corft_core.serving.local import LocalPolicy
    from corft_core.serving.server import PolicyServer

    if arguments.torch_threads > 0:
        torch.set_num_threads(arguments.torch_threads)
    policy = LocalPolicy(arguments.checkpoint, arguments.device)
    for _ in range(2):  # robots shall not wait for what only the first inference takes
        began_s = time.perf_counter()
        policy.chunk(nothing_seen(policy.info))
    warm_s = time.perf_counter() - began_s
    server = PolicyServer(policy, arguments.bind, arguments.key, round(arguments.max_message_mb * 2**20), _log)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    try:
        info = policy.info
        _log(f"policy {info.policy_id} ({info.checkpoint}) of {info.contract.robot.name} on {policy.device}: "
             f"{info.horizon} steps at {info.rate_hz} Hz, {warm_s * 1e3:.0f} ms a chunk")
        if arguments.key is None and "127.0.0.1" not in arguments.bind:
            _log("not encrypted: everybody who reaches this address can ask and listen. Use --key outside a trusted "
                 "network.")
        _log(f"serving at {server.address}")
        server.serve(stop)
    finally:
        server.close()
    counts = server.counts
    _log(f"stopped: {counts.answered} chunks, {counts.refused} refused, {counts.superseded} superseded, "
         f"{counts.malformed} malformed")


def _log(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
