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


class TokenHead(Head):
    """Observation embedding → tokens → chunk of H normalised actions. One sample is the likeliest chunk, several are
    draws at `tokens.temperature`. `decoded` keeps what the last decoding took."""

    stochastic = True

    def __init__(self, embedding: int, horizon: int, action_dim: int, config: HeadConfig) -> None:
        super().__init__()
        self.horizon, self.action_dim, self.config = horizon, action_dim, config.tokens
        self.per_step = config.tokens.tokenizer == "bins"
        self.tokenizer = BinTokenizer(action_dim, config.tokens.vocabulary) if self.per_step else FastTokenizer(
            horizon, action_dim, config.tokens.vocabulary)
        self.model = TokenTransformer(embedding, horizon * action_dim, config.tokens.vocabulary, config.width,
                                      config.layers, config.tokens.heads)

    def fit_actions(self, chunks: Tensor) -> None:
        """Set the tokens' meaning from training chunks (N, H, A), before the first step."""
        self.tokenizer.fit(chunks)

    def loss(self, embedding: Tensor, actions: Tensor, valid: Tensor,
             generator: torch.Generator | None = None) -> Tensor:
        """Masked cross-entropy per sample in nats a token, (B,); with the consistency term where it is on.

        Bins: the tokens of padded steps do not count. FAST: a token speaks of all steps, so chunks with padded steps
        do not count at all.
        """
        tokens = self.tokenizer.encode(actions)
        mask = valid.repeat_interleave(self.action_dim, 1) if self.per_step else valid.all(1, keepdim=True).expand(
            -1, tokens.shape[1])
        error = _masked_error(self.model(embedding, tokens), tokens, mask)
        if self.config.consistency:
            error = error + self.config.consistency * self._inconsistency(embedding, tokens, mask, generator)
        return error

    def sample(self, embedding: Tensor, samples: int = 1, generator: torch.Generator | None = None,
               plan: Tensor | None = None, frozen: int = 0) -> Tensor:
        """(B, samples, H, A). `plan` (B, H, A): actions expected for these steps, the first guess of the decoder; it
        changes the number of passes, not the chunk, unless decoding is bidirectional or cut off. `frozen` is not used:
        what is executed anyway is spliced by the executor."""
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
            return autoregressive(self.model, context, count, noise)
        decode = jacobi if self.config.decoder == "jacobi" else jacobi_bidirectional
        return decode(self.model, context, guess, self.config.window, self.config.most_forwards, noise, count)

    def _inconsistency(self, embedding: Tensor, tokens: Tensor, mask: Tensor,
                       generator: torch.Generator | None) -> Tensor:
        """How badly the chunk that decoding ends at is said from the guesses on the way, (B,) (CLLM, CEED-VLA).

        The guess is the chunk of some steps ago, as the warm start's is. What decoding ends at is the policy's own.
        """
        if self.per_step:
            shift = self.action_dim * int(torch.randint(1, self.horizon, (), generator=generator))
            guess = torch.cat([tokens[:, shift:], tokens[:, -self.action_dim:].repeat(1, shift // self.action_dim)], 1)
        else:
            guess = tokens.roll(1, 0)
        with torch.no_grad():
            end = jacobi(self.model, embedding, guess).tokens
            later = best_token(self.model(embedding, guess))
        errors = [_masked_error(self.model(embedding, state), end, mask) for state in (guess, later)]
        return torch.stack(errors).mean(0)


def _masked_error(logits: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
    """Mean cross-entropy over the masked tokens: logits (B, L, V), tokens and mask (B, L) → (B,)."""
    error = cross_entropy(logits.flatten(0, 1), tokens.flatten(), reduction="none").view(tokens.shape)
    weight = mask.to(error.dtype)
    return (error * weight).sum(1) / weight.sum(1).clamp_min(1.0)
