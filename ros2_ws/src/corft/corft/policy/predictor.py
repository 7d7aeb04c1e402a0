"""A loaded policy as policy_node uses it: one robot, chunk after chunk of a goal, and what that took. No ROS here."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from corft.stream_health import percentile
from corft_core.contract import Contract
from corft_core.prediction import ChunkPrediction
from corft_core.serving.interface import ChunkPolicy, Request, noise_seed, nothing_seen

Array = NDArray[np.float64]


def shifted(actions: Array, by_steps: int) -> Array:
    """A chunk (H, A) as one made ``by_steps`` later would continue it: its rest, the last action repeated."""
    rest = actions[min(max(by_steps, 0), len(actions) - 1):]
    return np.concatenate([rest, np.repeat(rest[-1:], len(actions) - len(rest), axis=0)])


class Predictor:
    """`policy`, here or on a server, with its noise, and the last chunk as first guess of the next: a token policy then
    needs fewer passes.

    `begin` at the start of a goal, `predict` for each chunk of it.
    """

    def __init__(self, policy: ChunkPolicy, contract: Contract) -> None:
        self.policy, self._contract = policy, contract
        self._seed = self._number = 0
        self._last: tuple[int, Array] | None = None
        self._chunks = 0
        self._latencies_s: deque[float] = deque(maxlen=256)
        self._decoded: deque[tuple[int, float, float]] = deque(maxlen=256)

    def begin(self, seed: int) -> None:
        """A new goal: noise from the start, nothing to go on from."""
        self._seed, self._number, self._last = seed, 0, None

    def predict(self, tick_ns: int, images: Mapping[str, NDArray[np.uint8]], state: Array, instruction: str,
                committed: tuple[Array, int] | None = None) -> tuple[ChunkPrediction, float]:
        """Prediction (B = 1) for the observation of ``tick_ns`` (ROS time), and seconds it took.

        images (H, W, 3) per camera; state (S,); committed: what the arm follows already as a chunk of this tick
        (H, A), and how many of its first actions are settled (rtc). Without it the last chunk of the goal, shifted by
        the steps that have passed since, is the first guess.
        """
        plan, frozen = committed or (self._continued(tick_ns), 0)
        began_s = time.perf_counter()
        prediction = self.policy.chunk(
            Request(tick_ns, images, state, instruction, noise_seed(self._seed, self._number), plan, frozen))
        took_s = time.perf_counter() - began_s
        self._number += 1
        self._last = tick_ns, prediction.actions[0]
        if prediction.forwards:
            self._decoded.append((prediction.forwards, prediction.kept, prediction.fixed))
        return prediction, took_s

    def published(self, latency_s: float) -> None:
        """Count a chunk that left the node ``latency_s`` after its observation was taken."""
        self._chunks += 1
        self._latencies_s.append(latency_s)

    def predict_nothing(self) -> float:
        """Wall seconds that one inference on black images takes."""
        request = nothing_seen(self.policy.info)
        began_s = time.perf_counter()
        self.policy.chunk(request)
        return time.perf_counter() - began_s

    def latency_s(self, share: float) -> float:
        """Percentile of the last chunks' latencies, observation to publishing."""
        return percentile(self._latencies_s, share)

    def statistics(self) -> dict[str, Any]:
        """For diagnostics. Of a token policy also the passes of its decoder, the share of the first guess's tokens that
        stayed, and the share of tokens that were right before all tokens in front of them were (fixed tokens)."""
        found = {"policy_id": self.policy.info.policy_id, "chunks": self._chunks, "latency_p50_s": self.latency_s(0.5),
                 "latency_p95_s": self.latency_s(0.95)}
        if self._decoded:
            passes, kept, fixed = np.array(self._decoded).T
            found |= {"forwards": int(passes[-1]), "forwards_mean": float(passes.mean()),
                      "kept_tokens_mean": float(kept.mean()), "fixed_tokens_mean": float(fixed.mean())}
        return found | self.policy.statistics()

    def _continued(self, tick_ns: int) -> Array | None:
        if self._last is None:
            return None
        stamp_ns, actions = self._last
        return shifted(actions, (tick_ns - stamp_ns) // self._contract.step_ns)
