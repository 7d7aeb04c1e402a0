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
    """Tokens (B, count); `forwards`, passes through the network; `changed` (B, count), the pass that changed each token
    last, 0 where the first guess stayed; `complete`, false where the cap on passes ended a decoder early."""

    tokens: Tensor
    forwards: int
    changed: Tensor
    complete: bool = True

    @property
    def kept(self) -> Tensor:
        """Share of the first guess's tokens that stayed, (B,)."""
        return (self.changed == 0).float().mean(1)

    @property
    def fixed(self) -> Tensor:
        """Share of fixed tokens, (B,): right, and never changed again, while one in front of them was still wrong."""
        before = self.changed.cummax(1).values[:, :-1]
        return (self.changed[:, 1:] < before).float().sum(1) / self.changed.shape[1]


def best_token(logits: Tensor) -> Tensor:
    """Index of the largest logit (…, V) → (…); of equal ones the first, on every device."""
    return (logits == logits.amax(-1, keepdim=True)).to(torch.uint8).argmax(-1)


def gumbel(shape: tuple[int, ...], temperature: float, generator: torch.Generator | None, like: Tensor) -> Tensor:
    """Noise (…, V) that, added to logits, makes their argmax a draw from softmax(logits / temperature)."""
    uniform = torch.rand(shape, generator=generator, dtype=like.dtype, device=like.device)
    return -temperature * (-uniform.clamp_min(1e-20).log()).clamp_min(1e-20).log()


class _Finished:
    """Whether a decoder is done, as the host knows it: on a GPU what the pass before said, so that the GPU never waits
    for the host. The one pass more changes nothing."""

    def __init__(self, device: torch.device) -> None:
        self._on_gpu, self._asked = device.type == "cuda", 0
        if self._on_gpu:
            self._said = torch.zeros(2, dtype=torch.bool, pin_memory=True)
            self._known = [torch.cuda.Event(), torch.cuda.Event()]

    def __call__(self, done: Tensor) -> bool:
        if not self._on_gpu:
            return bool(done)
        place, before = self._asked % 2, (self._asked + 1) % 2
        self._said[place].copy_(done, non_blocking=True)
        self._known[place].record()
        self._asked += 1
        if self._asked == 1:
            return False
        self._known[before].synchronize()
        return bool(self._said[before])


def _filled(tokens: Tensor, end: int | None) -> Tensor:
    """Tokens (B, count) with nothing but `end` after the first `end`."""
    if end is None:
        return tokens
    return tokens.masked_fill((tokens == end).long().cumsum(1) > 0, end)


@torch.no_grad()
def autoregressive(model: TokenTransformer, observation: Tensor, count: int | None = None,
                   noise: Tensor | None = None, end: int | None = None) -> Decoded:
    """The first `count` tokens (all when None), one a pass, for observations (B, E).

    end: the token after which nothing else comes; decoding stops when all rows have said it.
    """
    batch, count = len(observation), count or model.length
    tokens = torch.zeros((batch, model.length), dtype=torch.long, device=observation.device)
    cache, finished, forwards = model.new_cache(observation), _Finished(observation.device), 0
    while forwards < count:
        position = torch.full((batch, 1), forwards, device=observation.device)
        logits = model.extend(cache, observation, tokens, position, position + 1)
        tokens[:, forwards] = best_token(logits[:, 0] if noise is None else logits[:, 0] + noise[:, forwards])
        forwards += 1
        if end is not None and finished((tokens[:, :forwards] == end).any(1).all()):
            tokens[:, forwards:] = end
            break
    passes = torch.arange(1, count + 1, device=observation.device).clamp_max(forwards)
    return Decoded(_filled(tokens[:, :count], end), forwards, passes.expand(batch, -1))


@torch.no_grad()
def jacobi(model: TokenTransformer, observation: Tensor, guess: Tensor | None = None, window: int = 0,
           most_forwards: int = 0, noise: Tensor | None = None, count: int | None = None,
           end: int | None = None) -> Decoded:
    """Exactly what :func:`autoregressive` gives, in fewer passes where guesses are good.

    guess (B, length): first guesses, for example the last chunk's tokens shifted by the steps executed since; zeros
    when None. window: tokens worked on at a time, 0 = all. most_forwards: give up after so many passes, 0 = never.
    count: only the first so many tokens, None = all. end: as there.
    """
    batch, length = len(observation), count or model.length
    device = observation.device
    window = length if window <= 0 else min(window, length)
    tokens = observation.new_zeros((batch, model.length), dtype=torch.long) if guess is None else guess.clone()
    cache = model.new_cache(observation)
    changed = torch.zeros_like(tokens)
    fixed = torch.zeros(batch, dtype=torch.long, device=device)
    offsets, places = torch.arange(window, device=device), torch.arange(length, device=device)
    forwards, finished = 0, _Finished(device)
    while not most_forwards or forwards < most_forwards:
        if device.type == "cpu":  # the host knows what is left; a GPU would have to wait for it
            offsets = offsets[: length - int(fixed.min())]
        # A row that is done, or near its end, works on its last token again: equal inputs, equal answers.
        wanted = fixed[:, None] + offsets
        inside = wanted < length
        positions = wanted.clamp_max(length - 1)
        logits = model.extend(cache, observation, tokens, positions, positions + 1)
        if noise is not None:
            logits = logits + noise.gather(1, positions[..., None].expand(-1, -1, noise.shape[-1]))
        said = best_token(logits)
        same = said == tokens.gather(1, positions)
        right = (same & inside).long().cumprod(1).sum(1)
        forwards += 1
        tokens.scatter_(1, positions, said)
        changed.scatter_(1, positions, torch.where(same, changed.gather(1, positions), forwards))
        fixed = (fixed + (right + 1).clamp_max(window)).clamp_max(length)
        if end is not None:
            ended = ((tokens[:, :length] == end) & (places < fixed[:, None])).any(1)
            fixed = fixed.masked_fill(ended, length)
        if finished(fixed.min() >= length):
            break
    complete = not most_forwards or bool(fixed.min() >= length)
    return Decoded(_filled(tokens[:, :length], end), forwards, changed[:, :length], complete)


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
    changed = torch.zeros_like(tokens)
    forwards, complete = 0, True
    for start in range(0, length, window):
        end = min(start + window, length)
        positions = torch.arange(start, end, device=device).expand(batch, -1)
        seen, finished = torch.full_like(positions, end), _Finished(device)
        for _ in range(end - start):
            if most_forwards and forwards == most_forwards:
                return Decoded(tokens[:, :length], forwards, changed[:, :length], complete=False)
            logits = model.extend(cache, observation, tokens, positions, seen)
            said = best_token(logits if noise is None else logits + noise[:, start:end])
            forwards += 1
            same = said == tokens[:, start:end]
            tokens[:, start:end] = said
            changed[:, start:end] = torch.where(same, changed[:, start:end], forwards)
            if finished(same.all()):
                break
        else:
            complete = complete and bool(same.all())
    return Decoded(tokens[:, :length], forwards, changed[:, :length], complete)
