"""Settings of the policy network, saved inside every checkpoint.

Sources in brackets: [paper] CO-RFT, arXiv 2508.02219; [study] our own state-based study of which settings matter;
[ours] a choice nobody published.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from corft_core.policy.options import ConfigError, option, section


@dataclass(frozen=True)
class EncoderConfig:
    """Backbone tokens, proprioception and text → one observation embedding."""

    keypoints: int = option(32, "spatial attention maps per camera [ours]", 1, 512)
    value_width: int = option(0, "features read out at the keypoints, 0 = positions only [ours]", 0, 4096)
    embedding: int = option(256, "width of the observation embedding [ours]", 8, 4096)


@dataclass(frozen=True)
class HistoryConfig:
    """Memory: the last observations, combined into one embedding that both experts read (RoboVLMs' policy heads)."""

    steps: int = option(1, "observations combined, the current one included; 1 = no memory [ours]", 1, 64)
    stride: int = option(1, "steps of the data's rate from one of them to the next [ours]", 1, 1000)
    kind: str = option("window", "side by side, LSTM, or transformer [RoboVLMs]",
                       choices=("window", "lstm", "transformer"))
    layers: int = option(2, "layers of the transformer [ours]", 1, 12)
    heads: int = option(4, "attention heads of the transformer [ours]", 1, 32)


@dataclass(frozen=True)
class TokenConfig:
    """Actions as tokens (PD-VLA, arXiv 2503.02310): for the head `tokens` only; width and layers are the head's."""

    tokenizer: str = option("bins", "bins per dimension, or FAST (DCT and byte pairs) [paper: bins]",
                            choices=("bins", "fast"))
    vocabulary: int = option(256, "bins per dimension; FAST: all tokens, for example 1024 [paper: 256]", 8, 65536)
    heads: int = option(4, "attention heads [ours]", 1, 64)
    decoder: str = option(
        "jacobi", "Jacobi (equals autoregressive), PD-VLA's bidirectional mode, or one token a pass [paper]",
        choices=("jacobi", "bidirectional", "autoregressive"))
    window: int = option(0, "tokens decoded together, 0 = all [paper: 7, 16, 37]", 0, 4096)
    steps: int = option(0, "bins: steps of the chunk to decode, 0 = all; the rest repeats the last [ours]", 0, 200)
    most_forwards: int = option(0, "passes after which decoding is cut off, 0 = never [paper: a cap]", 0, 4096)
    temperature: float = option(1.0, "of the draws that the critic ranks [ours]", 0.0, 10.0)
    smoothing: float = option(
        0.0, "bins: deviation, in bins, of the Gaussian that a token is taught as; 0 = one bin alone [HL-Gauss]", 0.0,
        100.0)
    consistency: float = option(0.0, "weight of the consistency term, for fewer passes [CEED-VLA's idea]", 0.0, 100.0)
    consistency_share: float = option(0.3, "the last share of stage 1 has it, as fine-tuning [CEED-VLA]", 0.0, 1.0)


@dataclass(frozen=True)
class HeadConfig:
    """The action expert."""

    kind: str = option("flow", "stochastic (flow matching), deterministic chunk, or tokens [study, paper]",
                       choices=("flow", "chunk", "tokens"))
    width: int = option(384, "hidden width [ours]", 8, 8192)
    layers: int = option(3, "hidden layers [study]", 1, 16)
    flow_steps: int = option(8, "Euler steps from noise to a chunk [study]", 1, 100)
    flow_draws: int = option(4, "(time, noise) draws per sample in a training step [ours]", 1, 64)
    tokens: TokenConfig = section(TokenConfig, "action tokens")  # noqa: RUF009


@dataclass(frozen=True)
class CriticConfig:
    """The critic expert: one value for every prefix of a chunk, Q_i = Q(s, a_1 … a_i)."""

    kind: str = option(
        "masked_mlp", "prefix-masked MLP, or causal transformer [study, paper]", choices=("masked_mlp", "transformer")
    )
    ensemble: int = option(2, "critics; the smallest value counts [paper: twin]", 1, 10)
    width: int = option(48, "units per prefix (masked_mlp) or token width (transformer) [study: 32]", 4, 1024)
    layers: int = option(2, "hidden layers [study, paper]", 1, 12)
    heads: int = option(4, "attention heads of the transformer [study]", 1, 32)
    horizon: int = option(
        0, "actions the critic reads: 0 = the whole chunk, 1 = the first one (1-step TD) [ours]", 0, 200
    )
    prefixes: bool = option(True, "value every prefix; false = only the whole chunk (Q-chunking) [paper]")
    head: str = option(
        "c51", "plain value, or probabilities over atoms of the feasible range (HL-Gauss, C51) [ours; paper: scalar]",
        choices=("scalar", "hl_gauss", "c51"),
    )
    atoms: int = option(51, "atoms of a distributional head [C51: 51]", 11, 1001)


@dataclass(frozen=True)
class SelectionConfig:
    """Policy extraction at run time: the critic ranks several chunks of a stochastic head."""

    samples: int = option(16, "chunks drawn and ranked; 1 = no ranking [study]", 1, 1024)
    rank: str = option("last", "rank by the whole chunk's Q or the mean over prefixes [Q-chunking: last]",
                       choices=("last", "mean"))
    gradient_steps: int = option(0, "steps of the chosen chunk along the critic's gradient [study: 5]", 0, 100)
    gradient_step_size: float = option(0.1, "size of such a step, RMS in normalised units [study]", 0.0, 10.0)
    noise_scale: float = option(
        0.3, "scale of the noise that a flow's chunks start from; below 1 they lie nearer to the likeliest one [ours]",
        0.0, 2.0,
    )
    adaptive: bool = option(
        False, "execute the longest prefix that every critic puts above the mean of the drawn chunks [ours]"
    )


@dataclass(frozen=True)
class PolicyConfig:
    """Everything needed to rebuild the networks of a checkpoint."""

    horizon: int = option(10, "actions in a chunk [study; paper: not reported]", 1, 200)
    backbone: str = option(
        "effnet", "effnet, tiny, none (tasks without cameras), or hf:<folder or hub id> [ours; paper: Kosmos-2]")
    backbone_options: dict = dataclasses.field(
        default_factory=dict, metadata={"doc": "keyword arguments of the backbone"}
    )
    encoder: EncoderConfig = section(EncoderConfig, "observation encoder")  # noqa: RUF009
    history: HistoryConfig = section(HistoryConfig, "memory")  # noqa: RUF009
    head: HeadConfig = section(HeadConfig, "action expert")  # noqa: RUF009
    critic: CriticConfig = section(CriticConfig, "critic expert")  # noqa: RUF009
    selection: SelectionConfig = section(SelectionConfig, "chunk selection at run time")  # noqa: RUF009

    def __post_init__(self) -> None:
        if self.critic.horizon > self.horizon:
            raise ConfigError(
                f"policy.critic.horizon = {self.critic.horizon}: the critic cannot read more actions than "
                f"policy.horizon = {self.horizon}."
            )
        if self.history.kind == "transformer" and self.encoder.embedding % self.history.heads:
            raise ConfigError(
                f"policy.encoder.embedding = {self.encoder.embedding} cannot be shared out among "
                f"policy.history.heads = {self.history.heads}: choose a divisor."
            )
