"""Decoders of a causal token policy: one token a forward pass, or many by Jacobi iteration (PD-VLA, §2 of its paper).

Jacobi: start from any guess, let one forward pass say every token given the guesses before it, repeat. In the causal
mode a token is right as soon as all tokens before it were: each pass fixes at least one, so after at most as many
passes as tokens the result is that of decoding one by one. Drawing instead of taking the best token works the same
way: the noise of the Gumbel-max trick is drawn once, and then everything is an argmax.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from corft_core.policy.tokens.transformer import TokenTransformer


@dataclass(frozen=True)
class Decoded:
    """Tokens (B, length); `forwards`, passes through the network; `ahead` (B,), tokens that were right before the pass
    that fixed them; `complete`, false where the cap on passes ended a decoder before it was done."""

    tokens: Tensor
    forwards: int
    ahead: Tensor
    complete: bool = True


def best_token(logits: Tensor) -> Tensor:
    """Index of the largest logit (…, V) → (…); of equal ones the first, on every device."""
    return (logits == logits.amax(-1, keepdim=True)).to(torch.uint8).argmax(-1)


def gumbel(shape: tuple[int, ...], temperature: float, generator: torch.Generator | None, like: Tensor) -> Tensor:
    """Noise (…, V) that, added to logits, makes their argmax a draw from softmax(logits / temperature)."""
    uniform = torch.rand(shape, generator=generator, dtype=like.dtype, device=like.device)
    return -temperature * (-uniform.clamp_min(1e-20).log()).clamp_min(1e-20).log()


@torch.no_grad()
def autoregressive(model: TokenTransformer, observation: Tensor, count: int | None = None,
                   noise: Tensor | None = None) -> Decoded:
    """The first `count` tokens (all when None), one a pass, for observations (B, E)."""
    batch, length = len(observation), model.length
    count = length if count is None else count
    tokens = torch.zeros((batch, length), dtype=torch.long, device=observation.device)
    cache = model.new_cache(observation)
    for place in range(count):
        position = torch.full((batch, 1), place, device=observation.device)
        logits = model.extend(cache, observation, tokens, position, position + 1)
        tokens[:, place] = best_token(logits[:, 0] if noise is None else logits[:, 0] + noise[:, place])
    return Decoded(tokens[:, :count], count, torch.zeros(batch, dtype=torch.long, device=observation.device))


@torch.no_grad()
def jacobi(model: TokenTransformer, observation: Tensor, guess: Tensor | None = None, window: int = 0,
           most_forwards: int = 0, noise: Tensor | None = None, count: int | None = None) -> Decoded:
    """Exactly what :func:`autoregressive` gives, in fewer passes where guesses are good.

    guess (B, length): first guesses, for example the last chunk's tokens shifted by the steps executed since; zeros
    when None. window: tokens worked on at a time, 0 = all. most_forwards: give up after so many passes, 0 = never.
    count: only the first so many tokens, None = all.
    """
    batch, length = len(observation), count or model.length
    device = observation.device
    window = length if window <= 0 else min(window, length)
    tokens = observation.new_zeros((batch, model.length), dtype=torch.long) if guess is None else guess.clone()
    cache = model.new_cache(observation)
    fixed = torch.zeros(batch, dtype=torch.long, device=device)
    ahead = torch.zeros_like(fixed)
    offsets = torch.arange(window, device=device)
    forwards = 0
    while int(fixed.min()) < length:
        if most_forwards and forwards == most_forwards:
            return Decoded(tokens[:, :length], forwards, ahead, complete=False)
        # A row that is done, or near its end, works on its last token again: equal inputs, equal answers.
        places = fixed[:, None] + offsets
        inside = places < length
        positions = places.clamp_max(length - 1)
        logits = model.extend(cache, observation, tokens, positions, positions + 1)
        if noise is not None:
            logits = logits + noise.gather(1, positions[..., None].expand(-1, -1, noise.shape[-1]))
        said = best_token(logits)
        right = ((said == tokens.gather(1, positions)) & inside).long().cumprod(1).sum(1)
        tokens.scatter_(1, positions, said)
        ahead += right
        fixed = (fixed + (right + 1).clamp_max(window)).clamp_max(length)
        forwards += 1
    return Decoded(tokens[:, :length], forwards, ahead)


@torch.no_grad()
def jacobi_bidirectional(model: TokenTransformer, observation: Tensor, guess: Tensor | None = None, window: int = 0,
                         most_forwards: int = 0, noise: Tensor | None = None, count: int | None = None) -> Decoded:
    """PD-VLA's own mode: within the window every position sees all the others. Not the autoregressive result.

    A window is done when a pass changes nothing; without a cap at most `window` passes each.
    """
    batch, length = len(observation), count or model.length
    device = observation.device
    window = length if window <= 0 else min(window, length)
    tokens = observation.new_zeros((batch, model.length), dtype=torch.long) if guess is None else guess.clone()
    cache = model.new_cache(observation)
    ahead = torch.zeros(batch, dtype=torch.long, device=device)
    forwards, complete = 0, True
    for start in range(0, length, window):
        end = min(start + window, length)
        positions = torch.arange(start, end, device=device).expand(batch, -1)
        seen = torch.full_like(positions, end)
        for _ in range(end - start):
            if most_forwards and forwards == most_forwards:
                return Decoded(tokens[:, :length], forwards, ahead, complete=False)
            logits = model.extend(cache, observation, tokens, positions, seen)
            said = best_token(logits if noise is None else logits + noise[:, start:end])
            forwards += 1
            same = said == tokens[:, start:end]
            tokens[:, start:end] = said
            if bool(same.all()):
                ahead += end - start
                break
        else:
            complete = False
    return Decoded(tokens[:, :length], forwards, ahead, complete)
