"""The policy server: one network for any number of robots, one observation at a time."""

from __future__ import annotations

import threading
import time
import traceback
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import zmq

from corft_core.errors import CorftError
from corft_core.serving.interface import ChunkPolicy
from corft_core.serving.keys import secure_server
from corft_core.serving.protocol import (
    MAX_MESSAGE_BYTES,
    Message,
    ProtocolError,
    pack,
    pack_info,
    pack_prediction,
    unpack,
    unpack_request,
)

_IDLE_MS, _LINGER_MS, _MAX_ROBOTS, _BURST = 100, 500, 256, 256


@dataclass
class _Robot:
    """One client. `newest`: its last question's number; `served`: when it last had its turn, counted in answers."""

    address: bytes
    greeted: bool = False
    newest: int = -1
    served: int = 0
    waiting: Message | None = None
    since_s: float = 0.0


@dataclass
class Counts:
    """What the server did. `superseded`: questions that gave way to a newer one of the same robot, or came after it."""

    answered: int = 0
    refused: int = 0
    superseded: int = 0
    malformed: int = 0


class PolicyServer:
    """Answers on ``bind`` ("tcp://host:port", port * for any) from construction of :meth:`serve` on.

    Of each robot only the newest observation waits; robots take turns, the one that was served longest ago first. No
    message ends the server: what can't be read is counted, what can't be answered is refused with the reason.
    Raises CorftError when the address or the key can't be used.
    """

    def __init__(self, policy: ChunkPolicy, bind: str, secret_key: Path | None = None,
                 max_message_bytes: int = MAX_MESSAGE_BYTES, log: Callable[[str], None] = print) -> None:
        self.counts = Counts()
        self._policy, self._max_bytes, self._log = policy, max_message_bytes, log
        self._robots: OrderedDict[str, _Robot] = OrderedDict()
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.ROUTER)
        self._socket.linger = _LINGER_MS
        self._socket.maxmsgsize = max_message_bytes
        self._socket.rcvhwm = self._socket.sndhwm = 8  # a robot: a slow one must not pile up old answers
        self._socket.heartbeat_ivl, self._socket.heartbeat_timeout = 1000, 5000
        try:
            if secret_key is not None:
                secure_server(self._socket, secret_key)
            self._socket.bind(bind)
        except zmq.ZMQError as error:
            self.close()
            raise CorftError(f"can't serve at {bind!r}: {error}. Expected tcp://address:port of this machine with a "
                             "free port, for example tcp://0.0.0.0:5555.") from error
        except CorftError:
            self.close()
            raise

    @property
    def address(self) -> str:
        """Where it listens, with the port that was taken."""
        endpoint = self._socket.last_endpoint
        assert isinstance(endpoint, bytes)
        return endpoint.decode()

    def serve(self, stop: threading.Event) -> None:
        """Answer until ``stop``; a chunk that is being made is still sent."""
        while not stop.is_set():
            waiting = [robot for robot in self._robots.values() if robot.waiting is not None]
            self._receive(0 if waiting else _IDLE_MS)
            if waiting:
                self._serve(min(waiting, key=lambda robot: robot.served))

    def close(self) -> None:
        """Close the socket; may be called twice."""
        self._socket.close()
        self._context.term()

    def _receive(self, timeout_ms: int) -> None:
        """Read what has arrived; waits for the first message."""
        for _ in range(_BURST):
            if not self._socket.poll(timeout_ms):
                return
            address, *frames = self._socket.recv_multipart()
            timeout_ms = 0
            try:
                self._sort(address, unpack(frames))
            except ProtocolError as error:
                self.counts.malformed += 1
                if self.counts.malformed & (self.counts.malformed - 1) == 0:  # 1, 2, 4, 8 …: never a flood
                    self._log(f"malformed messages: {self.counts.malformed}, the last: {error}")
                if error.version is not None:
                    self._refuse(address, Message("", "", 0), str(error))

    def _sort(self, address: bytes, message: Message) -> None:
        """Answer a greeting, put a question in the robot's place."""
        robot = self._robot(message.session, address)
        if message.kind == "hello":
            if not robot.greeted:
                self._log(f"robot {message.header.get('robot')!s:.80} has connected")
            robot.greeted = True
            self._send(address, Message("info", message.session, message.number,
                                        {**pack_info(self._policy.info), "max_message_bytes": self._max_bytes}))
        elif message.kind == "chunk":
            self.counts.superseded += message.number <= robot.newest or robot.waiting is not None
            if message.number > robot.newest:
                robot.newest, robot.waiting, robot.since_s = message.number, message, time.monotonic()
        else:
            raise ProtocolError(f"a message of unknown kind {message.kind!r:.80}")

    def _robot(self, session: str, address: bytes) -> _Robot:
        robot = self._robots.setdefault(session, _Robot(address))
        robot.address = address  # another one after each reconnect
        self._robots.move_to_end(session)
        while len(self._robots) > _MAX_ROBOTS:
            self._robots.popitem(last=False)
        return robot

    def _serve(self, robot: _Robot) -> None:
        """Answer a robot's question."""
        message, robot.waiting = robot.waiting, None
        assert message is not None
        robot.served = self.counts.answered + self.counts.refused + 1
        began_s = time.monotonic()
        try:
            mine, theirs = self._policy.info.checkpoint, message.get("checkpoint", str)
            if theirs != mine:
                raise CorftError(f"the server now runs another checkpoint ({self._policy.info.policy_id}, {mine}) than "
                                 f"this robot has accepted ({theirs}); configure policy_node anew to accept it")
            prediction = self._policy.chunk(unpack_request(message))
        except CorftError as error:
            return self._refuse(robot.address, message, str(error))
        except Exception as error:  # out of memory on the GPU, say: the next observation may still be answered
            self._log(f"inference raised:\n{traceback.format_exc()}")
            return self._refuse(robot.address, message, f"inference raised {type(error).__name__}: {error}")
        times = {"inference_s": time.monotonic() - began_s, "waited_s": began_s - robot.since_s}
        self.counts.answered += 1
        return self._send(robot.address, Message("chunk", message.session, message.number, times,
                                                 pack_prediction(prediction)))

    def _refuse(self, address: bytes, message: Message, reason: str) -> None:
        self.counts.refused += 1
        self._send(address, Message("error", message.session, message.number, {"reason": reason[:2000]}))

    def _send(self, address: bytes, message: Message) -> None:
        frames: Sequence[bytes] = [address, *pack(message)]
        try:
            self._socket.send_multipart(frames, zmq.NOBLOCK)
        except zmq.ZMQError as error:  # the robot has gone, or reads nothing
            self._log(f"an answer could not be sent: {error}")
