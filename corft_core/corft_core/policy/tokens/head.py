"""The token policy as an action expert: the same questions as the other heads, answered in tokens."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from corft_core.policy.config import HeadConfig
from corft_core.policy.heads import Head
from corft_core.policy.tokens.binning import BinTokenizer
from corft_core.policy.tokens.decoding import (
    Decoded,
    autoregressive,
    best_token,
    gumbel,
    jacobi,
    jacobi_bidirectional,
)
from corft_core.policy.tokens.fast import FastTokenizer
from corft_core.policy.tokens.transformer import TokenTransformer

SPARSE = 8
"""One sample in so many has the consistency term."""


class TokenHead(Head):
    """Observation embedding → tokens → chunk of H normalised actions. One sample is the likeliest chunk, several are
    draws at `tokens.temperature`. `decoded` keeps what the last decoding took."""

    stochastic = True
    taught: Tensor | None

    def __init__(self, embedding: int, horizon: int, action_dim: int, config: HeadConfig) -> None:
        super().__init__()
        self.horizon, self.action_dim, self.config = horizon, action_dim, config.tokens
        self.per_step = config.tokens.tokenizer == "bins"
        self.tokenizer = BinTokenizer(action_dim, config.tokens.vocabulary) if self.per_step else FastTokenizer(
            horizon, action_dim, config.tokens.vocabulary)
        self.end = None if isinstance(self.tokenizer, BinTokenizer) else self.tokenizer.end
        self.model = TokenTransformer(embedding, horizon * action_dim, config.tokens.vocabulary, config.width,
                                      config.layers, config.tokens.heads)
        near = torch.arange(config.tokens.vocabulary, dtype=torch.float32)
        smoothing = config.tokens.smoothing if self.per_step else 0.0
        self.register_buffer("taught", None if smoothing == 0.0 else (
            -0.5 * ((near - near[:, None]) / smoothing).square()).softmax(1), persistent=False)

    def fit_actions(self, chunks: Tensor) -> None:
        """Set the tokens' meaning from training chunks (N, H, A), before the first step."""
        self.tokenizer.fit(chunks)

    def loss(self, embedding: Tensor, actions: Tensor, valid: Tensor,
             generator: torch.Generator | None = None) -> Tensor:
        """Masked cross-entropy per sample in nats a token, (B,); with the consistency term where it is on.

        Bins: the tokens of padded steps do not count. FAST: a token speaks of all steps, so chunks with padded steps
        do not count at all; nor does what stands behind a chunk's end.
        """
        tokens = self.tokenizer.encode(actions)
        mask = self._counted(tokens, valid)
        longest = tokens.shape[1] if self.per_step else int(mask.sum(1).max().clamp_min(1))
        logits = self.model(embedding, tokens[:, :longest])
        error = _masked_error(logits, tokens[:, :longest], mask[:, :longest], self.taught)
        if self.config.consistency and self.progress >= 1.0 - self.config.consistency_share:
            error = error + self.config.consistency * self._inconsistency(embedding, tokens, valid, generator)
        return error

    def _counted(self, tokens: Tensor, valid: Tensor) -> Tensor:
        """Which of the tokens (B, L) are to be learned, given which steps (B, H) are."""
        if self.per_step:
            return valid.repeat_interleave(self.action_dim, 1)
        assert self.end is not None
        return valid.all(1, keepdim=True) & (tokens.eq(self.end).long().cumsum(1) <= 1)

    def sample(self, embedding: Tensor, samples: int = 1, generator: torch.Generator | None = None,
               plan: Tensor | None = None, frozen: int = 0, noise_scale: float = 1.0) -> Tensor:
        """(B, samples, H, A). `plan` (B, H, A): actions expected for these steps, the first guess of the decoder; it
        changes the number of passes, not the chunk, unless decoding is bidirectional or cut off. `frozen` is not used:
        what is executed anyway is spliced by the executor. Nor is `noise_scale`: tokens have a temperature."""
        context = embedding.repeat_interleave(samples, 0)
        noise = None if samples == 1 else gumbel(
            (len(context), self.model.length, self.config.vocabulary), self.config.temperature, generator, embedding)
        guess = None if plan is None else self.tokenizer.encode(plan).repeat_interleave(samples, 0)
        self.decoded = self._decode(context, guess, noise)
        chunks = self.tokenizer.decode(self.decoded.tokens)
        missing = self.horizon - chunks.shape[1]
        if missing:
            chunks = torch.cat([chunks, chunks[:, -1:].expand(-1, missing, -1)], 1)
        return chunks.unflatten(0, (-1, samples))

    def _decode(self, context: Tensor, guess: Tensor | None, noise: Tensor | None) -> Decoded:
        steps = min(self.config.steps, self.horizon) if self.per_step else 0
        count = steps * self.action_dim or None
        if self.config.decoder == "autoregressive":
            return autoregressive(self.model, context, count, noise, self.end)
        if self.config.decoder == "jacobi":
            return jacobi(
                self.model, context, guess, self.config.window, self.config.most_forwards, noise, count, self.end)
        return jacobi_bidirectional(
            self.model, context, guess, self.config.window, self.config.most_forwards, noise, count)

    def _inconsistency(self, embedding: Tensor, tokens: Tensor, valid: Tensor,
                       generator: torch.Generator | None) -> Tensor:
        """How badly the chunk that decoding ends at is said from the guesses on the way, (B,) (CLLM, CEED-VLA).

        The guess is the chunk of some steps ago, as the warm start's is. What decoding ends at is the policy's own.
        Decoding takes many passes: one sample in eight has the term, eight times.
        """
        rows = slice(0, None, SPARSE)
        embedding, tokens, valid, batch = embedding[rows], tokens[rows], valid[rows], len(embedding)
        if self.per_step:
            shift = self.action_dim * int(torch.randint(1, self.horizon, (), generator=generator))
            guess = torch.cat([tokens[:, shift:], tokens[:, -self.action_dim:].repeat(1, shift // self.action_dim)], 1)
        else:
            guess = tokens.roll(1, 0)
        with torch.no_grad():
            end = jacobi(self.model, embedding, guess, end=self.end).tokens
            later = best_token(self.model(embedding, guess))
        mask = self._counted(end, valid)
        errors = [_masked_error(self.model(embedding, state), end, mask) for state in (guess, later)]
        found = errors[0].new_zeros(batch)
        found[rows] = torch.stack(errors).mean(0) * batch / len(end)
        return found


def _masked_error(logits: Tensor, tokens: Tensor, mask: Tensor, taught: Tensor | None = None) -> Tensor:
    """Mean cross-entropy over the masked tokens: logits (B, L, V), tokens and mask (B, L) → (B,).

    taught (V, V): the distribution that each token stands for, None: itself.
    """
    goal = tokens.flatten() if taught is None else taught[tokens.flatten()]
    error = cross_entropy(logits.flatten(0, 1), goal, reduction="none").view(tokens.shape)
    weight = mask.to(error.dtype)
    return (error * weight).sum(1) / weight.sum(1).clamp_min(1.0)
