"""Chunk table: for every recorded step the sample (s_t, A_t, r, s_{t+1..t+h}, valid, terminal, truncated, MC return).

Guarantees, each pinned by tests/unit/test_chunks.py: no sample crosses an episode; a chunk that reaches past the
end keeps its valid prefixes; success is terminal and truncation is not; the discount of a bootstrap is γ^i for a
prefix of length i; returns use the same γ and scale as the targets.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from corft_core.data.returns import discounted_return_to_go, prefix_returns, upsampled_rewards
from corft_core.errors import CorftError


@dataclass(frozen=True)
class ChunkTable:
    """N samples of H steps. Index i − 1 of an axis of length H belongs to the prefix of length i."""

    horizon: int
    gamma: float
    episode: NDArray[np.int64]
    """(N,) episode of the sample."""
    action: NDArray[np.float32]
    """(N, H, A) absolute actions; steps past the end repeat the last one."""
    valid: NDArray[np.bool_]
    """(N, H) the action at this step was recorded."""
    known_return: NDArray[np.float64]
    """(N, H) discounted reward of the prefix, and of the absorbing tail where the prefix reaches past a success."""
    bootstrap_index: NDArray[np.int64]
    """(N, H) sample whose observation follows the prefix (the sample itself where none does)."""
    bootstrap_discount: NDArray[np.float64]
    """(N, H) γ^i where a recorded observation follows, else 0."""
    target_valid: NDArray[np.bool_]
    """(N, H) the prefix has a target: it ends inside the episode or the episode ended terminally."""
    terminal: NDArray[np.bool_]
    """(N, H) the task ended within the prefix."""
    truncated: NDArray[np.bool_]
    """(N, H) the recording ended within the prefix without the task ending."""
    mc_return: NDArray[np.float64]
    """(N,) Monte-Carlo return-to-go V_mu of the demonstration; a truncated future counts as 0."""

    def __len__(self) -> int:
        return len(self.episode)

    @property
    def value_range(self) -> tuple[float, float]:
        """Smallest and largest feasible return, to clip targets and to raise the alarm on divergence."""
        return min(0.0, float(self.mc_return.min())), max(0.0, float(self.mc_return.max()))

    def targets(self, value: NDArray[np.floating]) -> NDArray[np.float64]:
        """Chunked TD targets per prefix from state values V (N,): G_i = known return + γ^i V(s_{t+i}), (N, H).

        CO-RFT's chunked TD target; 0 where `target_valid` is false.
        """
        following = value[self.bootstrap_index]
        return np.where(self.target_valid, self.known_return + self.bootstrap_discount * following, 0.0)


def episode_bounds(episode_index: NDArray[np.integer]) -> list[tuple[int, int]]:
    """[start, end) of each run of equal numbers. Raises CorftError when an episode's steps are not together."""
    cuts = np.flatnonzero(np.diff(episode_index)) + 1
    starts = [0, *cuts.tolist()]
    names = [int(episode_index[s]) for s in starts]
    if len(set(names)) != len(names):
        raise CorftError("the data set's rows are not sorted by episode; write it again with bag_to_dataset.")
    return list(zip(starts, [*cuts.tolist(), len(episode_index)], strict=True))


def build_chunks(
    episode_index: NDArray[np.integer],
    action: NDArray[np.floating],
    reward: NDArray[np.floating],
    done: NDArray[np.bool_],
    horizon: int,
    gamma: float,
    reward_copies: int = 1,
) -> ChunkTable:
    """Chunks of `horizon` steps of every episode.

    Args: episode_index (N,) sorted; action (N, A); reward (N,); done (N,) true on a step that ended the task
    (a last step without it is a truncation); reward_copies k ≥ 1 (1 = no reward upsampling).
    """
    if len(episode_index) == 0:
        raise CorftError("the data set holds no step; record at least one episode.")
    parts: list[dict[str, NDArray]] = []
    offset = np.arange(1, horizon + 1)
    tail = max(horizon, reward_copies)
    for start, end in episode_bounds(episode_index):
        steps = end - start
        terminal = bool(done[end - 1])
        if np.any(done[start : end - 1]):
            raise CorftError(f"episode {int(episode_index[start])}: done is set before the last step.")
        extended = upsampled_rewards(reward[start:end].astype(np.float64), terminal, gamma, reward_copies, tail)
        to_go = discounted_return_to_go(extended, gamma)
        t = np.arange(steps)[:, None]
        after = t + offset  # step that follows the prefix
        inside = after < steps
        past = ~inside
        tail_value = np.append(to_go, 0.0)[np.minimum(after, len(to_go))]
        known = prefix_returns(extended, horizon, gamma, steps)
        if terminal:
            known = known + np.where(past, gamma**offset * tail_value, 0.0)
        parts.append({
            "episode": np.full(steps, episode_index[start], np.int64),
            "action": action[start + np.minimum(t + offset - 1, steps - 1)].astype(np.float32),
            "valid": t + offset - 1 < steps,
            "known_return": known,
            "bootstrap_index": start + np.where(inside, after, t),
            "bootstrap_discount": np.where(inside, gamma**offset, 0.0),
            "target_valid": inside | terminal,
            "terminal": past & terminal,
            "truncated": past & (not terminal),
            "mc_return": to_go[:steps],
        })
    joined = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
    return ChunkTable(horizon=horizon, gamma=gamma, **joined)
