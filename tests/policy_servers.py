"""Policy servers for tests: in a thread of the test, or as a process."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import zmq

from corft_core.serving.server import PolicyServer

ROOT = Path(__file__).parents[1]
ANY_PORT = "tcp://127.0.0.1:*"


@contextlib.contextmanager
def serving(policy: Any, bind: str = ANY_PORT, **options: Any) -> Iterator[PolicyServer]:
    server, stop = PolicyServer(policy, bind, log=lambda _: None, **options), threading.Event()
    thread = threading.Thread(target=server.serve, args=(stop,))
    thread.start()
    try:
        yield server
    finally:
        stop.set()
        thread.join()
        server.close()


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT / "corft_core"), "OMP_NUM_THREADS": "1"}


def free_port() -> int:
    with zmq.Context() as context, context.socket(zmq.ROUTER) as socket:
        return socket.bind_to_random_port("tcp://127.0.0.1")


@contextlib.contextmanager
def server_process(checkpoint: Path, address: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "corft_core.serving", "--checkpoint", str(checkpoint), "--bind", address,
         "--torch-threads", "1"], stdout=subprocess.PIPE, text=True, env=environment())
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        process.stdout.close()
