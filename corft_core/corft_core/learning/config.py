"""Settings of a training run, one YAML file or `--set key=value` each; saved as RUN/config.json.

Sources in brackets as in policy/config.py: [paper], [study], [ours].
"""

from __future__ import annotations

from dataclasses import dataclass

from corft_core.policy.config import PolicyConfig
from corft_core.policy.options import ConfigError, option, section

DETERMINISTIC = ("paper", "anchored", "weighted_anchor")
EXTRACTIONS = ("best_of_n", "awr", "imitation", *DETERMINISTIC)


@dataclass(frozen=True)
class SFTConfig:
    """Stage 1: imitation of the demonstrations."""

    steps: int = option(3000, "optimiser steps [study]", 0, 10_000_000)
    batch: int = option(64, "samples per step [ours]", 1, 100_000)
    lr: float = option(2e-3, "peak learning rate of the experts, cosine to 0 [study]", 0.0, 1.0)
    accumulate: int = option(1, "parts in which a batch passes the networks, for less memory [ours]", 1, 100_000)
    shard: bool = option(
        False, "torchrun: divide a trained hf: backbone and its optimiser state among the processes (FSDP2) [ours]")
    backbone_lr: float = option(1e-4, "peak learning rate of a trained backbone [paper's neighbours]", 0.0, 1.0)
    vision_lr: float = option(0.0, "the same of its vision part, 0 = backbone_lr [ours]", 0.0, 1.0)
    weight_decay: float = option(1e-3, "AdamW weight decay [ours]", 0.0, 10.0)
    warmup: int = option(100, "steps of linear learning-rate warm-up [ours]", 0, 1_000_000)
    ema: float = option(0.995, "decay of the averaged weights that are kept, 0 = the last ones [ours]", 0.0, 0.99999)
    clip_norm: float = option(1.0, "largest gradient norm [ours]", 0.0, 1e6)
    successes_only: bool = option(True, "imitate successful episodes only; stage 2: co_rft.successes_only [ours]")
    filter: str = option(
        "none", "leave out steps that command nothing, or all but the fastest episodes; stage 2 uses all [study]",
        choices=("none", "no_ops", "fastest"),
    )
    no_op_motion: float = option(
        0.005, "a step that moves no joint's command further does nothing; rad [ours]", 0.0, 10.0
    )
    no_op_opening: float = option(0.01, "the same for the gripper, commanded and measured; 0…1 [ours]", 0.0, 1.0)
    keep_share: float = option(0.33, "share of the episodes that filter = fastest keeps [study]", 0.0, 1.0)
    keyframe_weight: float = option(1.0, "weight of the auxiliary keyframe error, 0 = off [ours]", 0.0, 1000.0)
    token_noise: float = option(0.5, "noise on standardised vision tokens [ours]", 0.0, 10.0)
    state_noise: float = option(0.05, "noise on the normalised state [ours]", 0.0, 10.0)
    shift_px: int = option(4, "random image shift where the backbone is trained end to end [DrQ]", 0, 64)

    def __post_init__(self) -> None:
        if self.batch % self.accumulate:
            raise ConfigError(
                f"sft.accumulate = {self.accumulate}: a batch of sft.batch = {self.batch} samples cannot be divided "
                "into so many equal parts."
            )


@dataclass(frozen=True)
class CoRFTConfig:
    """Stage 2: offline reinforcement learning with action chunks (CO-RFT) on the same data."""

    steps: int = option(1000, "critic steps; 0 = no stage 2 [study: 1000 + 1000]", 0, 10_000_000)
    warmup: int = option(500, "of these, steps before the actor moves [study]", 0, 10_000_000)
    batch: int = option(128, "samples per step [study]", 1, 100_000)
    lr: float = option(2e-3, "critic learning rate; a scalar critic wants 5e-4 [ours; study: 5e-4]", 0.0, 1.0)
    weight_decay: float = option(1e-3, "AdamW weight decay of the critic [ours]", 0.0, 10.0)
    gamma: float = option(0.98, "discount per step [study]", 0.0, 0.99999)
    reward_copies: int = option(5, "k: how often the success step's reward counts, 1 = off [paper: about 5]", 1, 100)
    targets: str = option(
        "per_prefix", "G_i per prefix, or the paper's note: one G_h for all [paper]", choices=("per_prefix", "shared")
    )
    target_source: str = option(
        "table", "state values in a table of all recorded states, or by EMA networks in every step [study; paper]",
        choices=("table", "network"),
    )
    refresh: int = option(50, "critic steps between refreshes of the tabulated values [study: 25]", 1, 1_000_000)
    tau: float = option(0.005, "step of the EMA target networks [paper's neighbours: .005]", 0.0, 1.0)
    clip_targets: bool = option(
        True, "clip state values in targets to the feasible range; hl_gauss and c51 know no others [study]")
    target_noise: float = option(0.0, "noise on the policy's chunk in targets, normalised units [TD3: .2]", 0.0, 10.0)
    target_noise_clip: float = option(0.5, "largest such noise [TD3]", 0.0, 10.0)
    value: str = option(
        "td", "state value: the policy's Q; an expectile of the data's Q (IQL); or returns alone [paper: td]",
        choices=("td", "iql", "mc"),
    )
    expectile: float = option(0.7, "expectile of value = iql [IQL: .7, .9]", 0.5, 0.999)
    policy_samples: int = option(4, "policy chunks per state in targets and conservative term [study: 1]", 1, 64)
    bootstrap: str = option(
        "mean", "the policy's Q: mean over its chunks, or the best of them as in Q-chunking [study: mean]",
        choices=("mean", "max"),
    )
    alpha: float = option(0.1, "weight of the conservative term, values in [0, 1] [study]", 0.0, 1e6)
    calibrated: bool = option(True, "bound policy values below by the demonstration's return (Cal-QL) [paper]")
    conservative: str = option(
        "mean", "mean over policy chunks, or log-sum-exp with random chunks as in Cal-QL's code [paper]",
        choices=("mean", "logsumexp"),
    )
    bound: str = option(
        "policy", "the calibrated bound holds for policy chunks, or for random ones too [Cal-QL: policy]",
        choices=("policy", "all"),
    )
    random_samples: int = option(4, "random chunks in the log-sum-exp form [Cal-QL: as many as policy's]", 0, 64)
    policy_noise: float = option(0.2, "noise on a deterministic chunk in the conservative term [study]", 0.0, 10.0)
    train_encoder: bool = option(
        False, "train the critic's observation encoder (else it stays the stage-1 encoder) [ours]")
    extraction: str = option(
        "awr", "how the policy improves (imitation: it does not, the equal-steps control); best-of-N ranking follows "
        "whenever the head is stochastic [study]", choices=EXTRACTIONS,
    )
    successes_only: bool = option(
        True, "move the policy on successful episodes only; the critic learns from all of them [ours]")
    actor_steps: int = option(1000, "actor updates [study]", 0, 10_000_000)
    policy_delay: int = option(
        0, "critic steps per actor update after the warm-up, in place of actor_steps; 0 = actor_steps spread evenly "
        "[TD3: 2]", 0, 1000,
    )
    actor_lr: float = option(3e-4, "actor learning rate, cosine to 0 [study]", 0.0, 1.0)
    advantage: str = option(
        "critic", "weights of awr: prefix critic against the policy (value = iql: against V), or return minus V "
        "without an action critic: G_h where value = td or iql, the Monte-Carlo return where mc [study]",
        choices=("critic", "value"),
    )
    temperature: float = option(3.0, "advantage weights exp(clip(T · A / std A, −6, 3)) [study: 3]", 0.0, 100.0)
    q_weight: float = option(
        0.1, "weight of −Q / mean |Q| beside the imitation anchor [study; TD3+BC: 2.5]", 0.0, 1000.0
    )

    def __post_init__(self) -> None:
        if self.advantage == "value" and self.extraction != "awr":
            raise ConfigError(
                f"co_rft.advantage = value trains no action critic, which co_rft.extraction = {self.extraction} needs: "
                "choose awr."
            )


@dataclass(frozen=True)
class TrainConfig:
    """A whole run."""

    seed: int = option(0, "seed of everything", 0, 2**31 - 1)
    threads: int = option(0, "torch threads; 0 = all cores for a trained backbone, half for a frozen one", 0, 1024)
    log_every: int = option(50, "steps between lines of metrics.jsonl", 1, 1_000_000)
    save_every: int = option(1000, "steps between saves for --resume", 1, 1_000_000)
    tensorboard: bool = option(True, "write RUN/tensorboard beside metrics.jsonl")
    held_out: int = option(0, "last episodes kept out of training, to log their action error", 0, 100_000)
    check_frames: int = option(256, "frames of the offline check of each checkpoint, 0 = no check", 0, 1_000_000)
    policy: PolicyConfig = section(PolicyConfig, "networks")  # noqa: RUF009
    sft: SFTConfig = section(SFTConfig, "stage 1")  # noqa: RUF009
    co_rft: CoRFTConfig = section(CoRFTConfig, "stage 2")  # noqa: RUF009

    def __post_init__(self) -> None:
        head, extraction = self.policy.head.kind, self.co_rft.extraction
        if extraction in DETERMINISTIC and head != "chunk":
            raise ConfigError(
                f"co_rft.extraction = {extraction} needs a deterministic head: add --set policy.head.kind=chunk, or "
                "choose best_of_n or awr."
            )
        if extraction == "best_of_n" and head != "flow":
            raise ConfigError("co_rft.extraction = best_of_n needs policy.head.kind = flow, or choose weighted_anchor.")
        if not self.co_rft.clip_targets and self.policy.critic.head != "scalar":
            raise ConfigError(
                f"co_rft.clip_targets = false: the atoms of policy.critic.head = {self.policy.critic.head} cover the "
                "feasible range only, so its targets are always clipped. Choose --set policy.critic.head=scalar, or "
                "leave co_rft.clip_targets at true."
            )
        if 0 < self.co_rft.steps < self.co_rft.warmup:
            raise ConfigError(
                f"co_rft.warmup = {self.co_rft.warmup} is longer than co_rft.steps = {self.co_rft.steps}."
            )
