"""A chain of states with known values, and stage 2 on data of a random operator walking along it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from corft_core.data.chunks import ChunkTable, build_chunks
from corft_core.learning.co_rft_stage import CoRFTStage
from corft_core.learning.config import TrainConfig
from corft_core.learning.frames import CachedFrames, Samples
from corft_core.policy.actor import Actor, Critic, Shapes
from corft_core.policy.options import override

LENGTH, HORIZON, GAMMA = 5, 3, 0.8


@dataclass
class Chain:
    """States 0 … 4; action +1 advances, −1 stays; reaching 5 ends the task with reward 1."""

    table: ChunkTable
    frames: CachedFrames
    state: np.ndarray
    """(N,)."""

    @property
    def advancing_values(self) -> np.ndarray:
        """V of the policy that always advances, by dynamic programming, (N,)."""
        value = np.zeros(LENGTH + 1)
        for state in range(LENGTH - 1, -1, -1):
            value[state] = 1.0 if state == LENGTH - 1 else GAMMA * value[state + 1]
        return value[self.state]

    @property
    def behaviour_values(self) -> np.ndarray:
        """V of the operator, who advances with probability 0.6, by dynamic programming, (N,)."""
        value = np.zeros(LENGTH + 1)
        for _ in range(500):
            for state in range(LENGTH):
                reached = 1.0 if state == LENGTH - 1 else GAMMA * value[state + 1]
                value[state] = 0.6 * reached + 0.4 * GAMMA * value[state]
        return value[self.state]

    @property
    def distinct(self) -> np.ndarray:
        """One row of every (state, recorded chunk) that occurs: an operator who chooses among them evenly."""
        key = np.concatenate([self.state[:, None], self.table.action.reshape(len(self.state), -1)], 1)
        return np.sort(np.unique(key, axis=0, return_index=True)[1])

    def shared_values(self, rows: np.ndarray) -> np.ndarray:
        """Q of the paper's shared target, (N, H): G_h of the policy that advances after the chunk, averaged over the
        rows whose chunks begin alike, since a prefix does not know the rest of its chunk."""
        whole, steps = self.table.targets(self.advancing_values)[:, -1], self.table.action[:, :, 0]
        columns = []
        for length in range(1, HORIZON + 1):
            key = np.concatenate([self.state[:, None], steps[:, :length]], 1)
            place = np.unique(key, axis=0, return_inverse=True)[1].ravel()
            mean = np.bincount(place[rows], whole[rows]) / np.bincount(place[rows])
            columns.append(mean[place])
        return np.stack(columns, 1)

    def expectile_values(self, rows: np.ndarray, expectile: float) -> np.ndarray:
        """V of implicit Q-learning on these rows by value iteration, (N,): the expectile of Q_h(s, recorded chunk)."""
        value = np.zeros(LENGTH)
        for _ in range(100):
            whole = self.table.targets(value[self.state])[:, -1]
            value = np.array([_expectile(whole[rows[self.state[rows] == state]], expectile) for state in range(LENGTH)])
        return value[self.state]


def _expectile(values: np.ndarray, expectile: float) -> float:
    found = values.mean()
    for _ in range(50):
        weight = np.where(values < found, 1.0 - expectile, expectile)
        found = (weight * values).sum() / weight.sum()
    return float(found)


def make_chain(episodes: int = 60, failures: int = 0, seed: int = 0) -> Chain:
    """Episodes of an operator who advances with probability 0.6; the last `failures` are cut off before the end."""
    rng = np.random.default_rng(seed)
    states, actions, owner, done = [], [], [], []
    for number in range(episodes):
        state = int(rng.integers(LENGTH))
        failed = number >= episodes - failures
        for _ in range(4 if failed else 1000):
            advance = bool(rng.random() < 0.6) and not (failed and state == LENGTH - 1)
            states.append(state)
            actions.append([1.0 if advance else -1.0, 1.0])
            owner.append(number)
            state += advance
            done.append(state == LENGTH)
            if state == LENGTH:
                break
    ends, position = np.array(done), np.array(states)
    table = build_chunks(np.array(owner), np.array(actions), ends.astype(float), ends, HORIZON, GAMMA)
    count = len(table)
    chunk, valid = torch.from_numpy(table.action), torch.from_numpy(table.valid)
    samples = Samples(
        state=torch.eye(LENGTH)[position], actions=chunk, valid=valid, imitation_actions=chunk, imitation_valid=valid,
        keyframe=torch.zeros(count, LENGTH - 1), text_index=torch.zeros(count, dtype=torch.long), instructions=("go",),
    )
    frames = CachedFrames(samples, torch.zeros(count, 0, 0, 0), torch.zeros(1, 0), samples.text_index)
    return Chain(table, frames, position)


def chain_config(**pairs: object) -> TrainConfig:
    """Defaults but for the chain's horizon and discount and a scalar critic, which is exact after fewer steps; `pairs`
    use __ for the dot."""
    base: dict[str, object] = {
        "policy.horizon": HORIZON, "policy.backbone": "none", "policy.encoder.embedding": 32, "policy.head.width": 32,
        "policy.head.kind": "chunk", "policy.critic.head": "scalar", "co_rft.lr": 5e-4,
        "co_rft.gamma": GAMMA, "co_rft.warmup": 0, "sft.token_noise": 0.0, "sft.ema": 0.0,
    }
    return override(TrainConfig, {}, base | {key.replace("__", "."): value for key, value in pairs.items()})


def chain_stage(
    chain: Chain, config: TrainConfig, advancing: bool = True, imitator: Actor | None = None,
    rows: np.ndarray | None = None,
) -> CoRFTStage:
    """Stage 2 behind a stage 1 that learned to advance always (a deterministic head), or nothing, or `imitator`;
    `rows`: those it trains on."""
    torch.manual_seed(0)
    shapes = Shapes(cameras=0, vision_shape=(0, 0), text_dim=0, state_dim=LENGTH, action_dim=2)
    actor, critic = Actor(shapes, config.policy), Critic(shapes, config.policy)
    if imitator is not None:
        actor.load_state_dict(imitator.state_dict())
    elif advancing:
        last = actor.head.trunk.last[-1]
        torch.nn.init.zeros_(last.weight)
        torch.nn.init.ones_(last.bias)
    critic.encoder.load_state_dict(actor.encoder.state_dict())
    everything = torch.arange(len(chain.table))
    trained = everything if rows is None else torch.from_numpy(rows)
    return CoRFTStage(actor, critic, chain.frames, chain.table, trained, config, torch.device("cpu"), everything)


def run(stage: CoRFTStage, settle: float = 0.0) -> dict[str, float]:
    """All steps of the stage; returns the last step's log. The critic's last share `settle` has a tenth of its rate."""
    info: dict[str, float] = {}
    for step in range(stage.steps):
        if settle and step == int((1.0 - settle) * stage.steps):
            stage.critic.optimizer.param_groups[0]["lr"] /= 10.0
        info = stage.step(step)
    return info
