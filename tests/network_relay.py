"""A bad network between robots and a policy server: messages are lost, late, doubled and overtake each other."""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from types import TracebackType
from typing import Any

import zmq
from faults.channel import Fault, faithful

Frames = list[bytes]


class Relay:
    """Passes messages between robots, who connect to `address`, and the server, through a fault each way."""

    def __init__(self, server: str) -> None:
        self.to_server: Fault = faithful
        self.to_robot: Fault = faithful
        self._server = server
        self._context = zmq.Context()
        self._front = self._context.socket(zmq.ROUTER)
        self._front.bind("tcp://127.0.0.1:*")
        self.address: str = self._front.last_endpoint.decode()
        self._back: dict[bytes, zmq.Socket[bytes]] = {}
        self._later: list[tuple[float, int, zmq.Socket[bytes], Frames]] = []
        self._count = itertools.count()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def __enter__(self) -> Relay:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join()
        self._context.destroy(linger=0)

    def _run(self) -> None:
        poller = zmq.Poller()
        poller.register(self._front, zmq.POLLIN)
        while not self._stop.is_set():
            wait_s = min(0.05, self._later[0][0] - time.monotonic() if self._later else 0.05)
            for socket, _ in poller.poll(max(0.0, wait_s) * 1e3):
                frames = socket.recv_multipart()
                if socket is self._front:
                    robot, *frames = frames
                    if robot not in self._back:
                        self._back[robot] = self._context.socket(zmq.DEALER)
                        self._back[robot].connect(self._server)
                        poller.register(self._back[robot], zmq.POLLIN)
                    self._pass(self.to_server, self._back[robot], [], frames)
                else:
                    robot = next(name for name, back in self._back.items() if back is socket)
                    self._pass(self.to_robot, self._front, [robot], frames)
            while self._later and self._later[0][0] <= time.monotonic():
                _, _, target, frames = heapq.heappop(self._later)
                target.send_multipart(frames)

    def _pass(self, fault: Fault, target: Any, head: Frames, frames: Frames) -> None:
        for delay_s, arrival in fault(frames):
            heapq.heappush(self._later, (time.monotonic() + delay_s, next(self._count), target, [*head, *arrival]))
