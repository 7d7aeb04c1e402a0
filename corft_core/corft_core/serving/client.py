"""A policy on another machine, asked over the network as one in this process."""

from __future__ import annotations

import math
import time
import uuid
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
import zmq

from corft_core.errors import CorftError
from corft_core.prediction import ChunkPrediction
from corft_core.serving.interface import NoAnswerError, PolicyInfo, Request, ServerError
from corft_core.serving.keys import secure_client
from corft_core.serving.protocol import (
    MAX_MESSAGE_BYTES,
    ImageFormat,
    Message,
    ProtocolError,
    finite,
    pack,
    pack_request,
    unpack,
    unpack_info,
    unpack_prediction,
)

GREETING_S = 10.0


class RemotePolicy:
    """See :class:`corft_core.serving.interface.ChunkPolicy`.

    Every question has a number and at most ``timeout_s`` to be answered; answers to earlier ones and doubled ones are
    dropped and counted. Raises NoAnswerError when nobody answers at ``address`` within ``greeting_s``, ServerError when
    the server speaks another protocol, CorftError for an address or a key that can't be used.
    """

    def __init__(self, address: str, *, robot: str = "", timeout_s: float = 1.0, images: ImageFormat = "raw",
                 server_key: Path | None = None, greeting_s: float = GREETING_S) -> None:
        self.address, self.timeout_s = address, timeout_s
        self.answered = self.unanswered = self.late = self.malformed = 0
        self._images, self._robot_name, self._server_key = images, robot, server_key
        self._session, self._number = uuid.uuid4().hex, 0
        self._transport_s: deque[float] = deque(maxlen=256)
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        try:
            self._connect()
            self.info, self._max_bytes = self._greet(greeting_s)
        except BaseException:
            self.close()
            raise

    def chunk(self, request: Request) -> ChunkPrediction:
        """Ask for the chunk of an observation. Raises NoAnswerError, or ServerError with the server's reason."""
        began_s = time.monotonic()
        header, arrays = pack_request(request, self._images)
        answer = self._ask("chunk", {**header, "checkpoint": self.info.checkpoint}, arrays, self.timeout_s)
        prediction = unpack_prediction(answer)
        expected = (1, self.info.horizon, len(self.info.contract.action_names))
        if prediction.actions.shape != expected:
            raise ServerError(f"the policy server sent a chunk of shape {prediction.actions.shape}, not {expected}")
        self._transport_s.append(time.monotonic() - began_s - finite(answer.header.get("inference_s")))
        return prediction

    def check(self) -> None:
        """See whether the server is there with the same checkpoint; raises NoAnswerError or ServerError."""
        info, _ = self._greet(self.timeout_s)
        if info.checkpoint != self.info.checkpoint:
            raise ServerError(f"the policy server now runs another checkpoint ({info.policy_id}, {info.checkpoint}) "
                              f"than was accepted ({self.info.policy_id}, {self.info.checkpoint}); configure "
                              "policy_node anew to accept it")

    def statistics(self) -> dict[str, Any]:
        """For diagnostics. `transport`: an answer's time without the inference; the wait for other robots counts."""
        p50_s, p95_s = np.percentile(self._transport_s, (50, 95)) if self._transport_s else (math.nan, math.nan)
        return {"server": self.address, "answered": self.answered, "unanswered": self.unanswered,
                "late_answers": self.late, "malformed_answers": self.malformed, "transport_p50_s": float(p50_s),
                "transport_p95_s": float(p95_s)}

    def close(self) -> None:
        """Drop the connection; may be called twice."""
        self._socket.close(linger=0)
        self._context.term()

    def _connect(self) -> None:
        socket = self._socket
        socket.immediate = True  # questions are for now: none waits for a connection
        socket.sndhwm = socket.rcvhwm = 8
        socket.maxmsgsize = MAX_MESSAGE_BYTES
        socket.reconnect_ivl, socket.reconnect_ivl_max = 100, 2000
        socket.heartbeat_ivl, socket.heartbeat_timeout = 500, 2000  # notices a machine that lost its power
        if self._server_key is not None:
            secure_client(socket, self._server_key)
        try:
            socket.connect(self.address)
        except zmq.ZMQError as error:
            raise CorftError(f"{self.address!r} is no address of a policy server ({error}): expected tcp://host:port, "
                             "for example tcp://192.168.1.20:5555") from error

    def _greet(self, timeout_s: float) -> tuple[PolicyInfo, int]:
        answer = self._ask("hello", {"robot": self._robot_name}, {}, timeout_s)
        limit = answer.get("max_message_bytes", int)
        return unpack_info(answer), limit

    def _ask(self, kind: str, header: dict[str, Any], arrays: dict[str, Any], timeout_s: float) -> Message:
        """Send a question and wait for its answer."""
        deadline_s = time.monotonic() + timeout_s
        self._number += 1
        frames = pack(Message(kind, self._session, self._number, header, arrays))
        if kind != "hello" and max(map(len, frames)) > self._max_bytes:
            raise ServerError(f"an observation has {max(map(len, frames)) / 2**20:.1f} MiB, the policy server takes "
                              f"{self._max_bytes / 2**20:.1f}: send JPEG or start it with a larger --max-message-mb")
        while self._socket.poll(0, zmq.POLLIN):
            self._read()  # what came after its time
        if not self._socket.poll(_left_ms(deadline_s), zmq.POLLOUT):
            self._missed(f"no connection to the policy server at {self.address} for {timeout_s:g} s: is it running, is "
                         "the address right, do both sides use the same key file (or none)?")
        self._socket.send_multipart(frames)
        while self._socket.poll(_left_ms(deadline_s), zmq.POLLIN):
            answer = self._read()
            if answer is not None:
                return answer
        return self._missed(f"the policy server at {self.address} has not answered within {timeout_s:g} s")

    def _missed(self, reason: str) -> Any:
        self.unanswered += 1
        raise NoAnswerError(reason)

    def _read(self) -> Message | None:
        """The answer to the last question, None for anything else. ServerError for a refusal."""
        try:
            message = unpack(self._socket.recv_multipart())
        except ProtocolError as error:
            self.malformed += 1
            if error.version is not None:
                raise ServerError(f"the policy server at {self.address} sent {error}") from error
            return None
        if message.session != self._session or message.number != self._number:
            self.late += 1
            return None
        self.answered += 1
        if message.kind == "error":
            raise ServerError(f"the policy server refuses: {message.get('reason', str)}")
        return message


def _left_ms(deadline_s: float) -> int:
    return max(0, math.ceil((deadline_s - time.monotonic()) * 1e3))
