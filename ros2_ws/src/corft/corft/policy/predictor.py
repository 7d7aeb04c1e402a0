"""A loaded policy as policy_node uses it: one robot, chunk after chunk of a goal, and what that took. No ROS here."""

from __future__ import annotations

import time
import uuid
from collections import deque
from typing import Any

import numpy as np
from numpy.typing import NDArray

from corft.stream_health import percentile
from corft_core.contract import Contract
from corft_core.data.history import History, Spacing
from corft_core.prediction import ChunkPrediction
from corft_core.serving.interface import ChunkPolicy, Request, Seen, noise_seed, nothing_seen

Array = NDArray[np.float64]


def shifted(actions: Array, by_steps: int) -> Array:
    """A chunk (H, A) as one made ``by_steps`` later would continue it: its rest, the last action repeated."""
    rest = actions[min(max(by_steps, 0), len(actions) - 1):]
    return np.concatenate([rest, np.repeat(rest[-1:], len(actions) - len(rest), axis=0)])


class _Goal:
    """What is remembered of one goal. A chunk that was asked for in the goal before must not end up in the next."""

    def __init__(self, seed: int, spacing: Spacing) -> None:
        self.name, self.seed, self.chunks = uuid.uuid4().hex, seed, 0
        self.last: tuple[int, Array] | None = None
        self.known: History[None] = History(spacing)


class Predictor:
    """`policy`, here or on a server, with its noise, and the last chunk as first guess of the next: a token policy then
    needs fewer passes.

    `begin` at the start of a goal, `predict` for each chunk of it.
    """

    def __init__(self, policy: ChunkPolicy, contract: Contract) -> None:
        self.policy, self._contract = policy, contract
        self._goal = _Goal(0, policy.info.spacing)
        self._chunks = 0
        self._latencies_s: deque[float] = deque(maxlen=256)
        self._decoded: deque[tuple[int, float, float]] = deque(maxlen=256)

    def begin(self, seed: int) -> None:
        """A new goal: noise from the start, nothing to go on from."""
        self._goal = _Goal(seed, self.policy.info.spacing)

    def lacking(self, tick_ns: int) -> list[int]:
        """Earlier times that a policy with a memory would look back at from ``tick_ns`` and has seen nothing of."""
        return self._goal.known.lacking(tick_ns)

    def predict(self, now: Seen, instruction: str, committed: tuple[Array, int] | None = None,
                past: tuple[Seen, ...] = ()) -> tuple[ChunkPrediction, float]:
        """Prediction (B = 1) for an observation, and seconds it took.

        committed: what the arm follows already as a chunk of this tick (H, A), and how many of its first actions are
        settled (rtc). Without it the last chunk of the goal, shifted by the steps that have passed since, is the first
        guess. past: what was seen at times that were `lacking`.
        """
        goal = self._goal
        plan, frozen = committed or (self._continued(goal, now.stamp_ns), 0)
        began_s = time.perf_counter()
        prediction = self.policy.chunk(Request(
            now, instruction, noise_seed(goal.seed, goal.chunks), plan, frozen, goal.name, goal.chunks == 0, past))
        took_s = time.perf_counter() - began_s
        goal.chunks += 1
        goal.last = now.stamp_ns, prediction.actions[0]
        for seen in past:
            goal.known.add(seen.stamp_ns, instruction, None)
        goal.known.look_back(now.stamp_ns, instruction, None)
        if prediction.forwards:
            self._decoded.append((prediction.forwards, prediction.kept, prediction.fixed))
        return prediction, took_s

    def published(self, latency_s: float) -> None:
        """Count a chunk that left the node ``latency_s`` after its observation's stamp."""
        self._chunks += 1
        self._latencies_s.append(latency_s)

    def predict_nothing(self) -> float:
        """Wall seconds that one inference on black images takes."""
        request = nothing_seen(self.policy.info)
        began_s = time.perf_counter()
        self.policy.chunk(request)
        return time.perf_counter() - began_s

    def latency_s(self, share: float) -> float:
        """Percentile of the last chunks' latencies, observation stamp to publishing [s]."""
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

    def _continued(self, goal: _Goal, tick_ns: int) -> Array | None:
        if goal.last is None:
            return None
        stamp_ns, actions = goal.last
        return shifted(actions, (tick_ns - stamp_ns) // self._contract.step_ns)
