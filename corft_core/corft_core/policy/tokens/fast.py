"""FAST action tokens: DCT over time, rounding, byte-pair encoding (Pertsch et al. 2025, arXiv 2501.09747).

A smooth chunk has few coefficients that are not zero, and common runs of them become one token, so that a chunk takes a
few dozen tokens instead of one a step and dimension.
"""

from __future__ import annotations

import json
import math
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

FIRST = 0x100
"""Code point of the smallest coefficient: byte-pair encoding works on text, a coefficient is a letter."""
LARGEST = 127
"""Coefficients are cut off here, in units of 1 / scale."""


def dct_matrix(length: int) -> Tensor:
    """Orthonormal DCT-II (length, length): coefficients = matrix @ signal, signal = matrix.T @ coefficients."""
    k = torch.arange(length, dtype=torch.float64)
    matrix = torch.cos(math.pi / length * (k[None] + 0.5) * k[:, None]) * math.sqrt(2.0 / length)
    matrix[0] /= math.sqrt(2.0)
    return matrix.float()


class FastTokenizer(nn.Module):
    """Normalised chunks (B, H, A) ↔ tokens (B, H · A), filled up with the end token ``vocabulary - 1``.

    `fit` learns ranges and merges from training chunks; both are buffers and saved with the weights.
    """

    low: Tensor
    high: Tensor
    dct: Tensor
    merges: Tensor

    def __init__(self, horizon: int, action_dim: int, vocabulary: int = 1024, scale: float = 10.0) -> None:
        super().__init__()
        letters = 2 * LARGEST + 1
        if vocabulary <= letters + 1:
            raise ValueError(f"vocabulary must be above {letters + 1}, got {vocabulary}")
        self.horizon, self.action_dim, self.vocabulary, self.scale = horizon, action_dim, vocabulary, scale
        self.register_buffer("low", torch.full((action_dim,), -3.0))
        self.register_buffer("high", torch.full((action_dim,), 3.0))
        self.register_buffer("dct", dct_matrix(horizon), persistent=False)
        # Pairs of tokens that become the tokens letters, letters + 1, …; −1 where fewer were found.
        self.register_buffer("merges", torch.full((vocabulary - letters - 1, 2), -1, dtype=torch.long))
        self.register_load_state_dict_post_hook(lambda module, _: module._forget())

    @property
    def end(self) -> int:
        """The token that fills up."""
        return self.vocabulary - 1

    def fit(self, chunks: Tensor) -> None:
        """Ranges (1 % and 99 % quantiles, to −1 … 1 as in the paper) and merges of chunks (N, H, A)."""
        from tokenizers import Tokenizer, models, trainers

        flat = chunks.reshape(-1, self.action_dim).float()
        low, high = torch.quantile(flat, torch.tensor([0.01, 0.99]), dim=0)
        middle, half = (low + high) / 2, ((high - low) / 2).clamp_min(1e-3)
        self.low.copy_(middle - half)
        self.high.copy_(middle + half)
        learner = Tokenizer(models.BPE())
        alphabet = [chr(FIRST + letter) for letter in range(2 * LARGEST + 1)]
        trainer = trainers.BpeTrainer(vocab_size=self.vocabulary - 1, initial_alphabet=alphabet, show_progress=False,
                                      max_token_length=self.horizon * self.action_dim)
        learner.train_from_iterator([self._text(row) for row in self._coefficients(chunks)], trainer)
        self.merges.fill_(-1)
        ids = {piece: ord(piece) - FIRST for piece in alphabet}
        merges = [tuple(pair.split(" ")) if isinstance(pair, str) else tuple(pair)
                  for pair in json.loads(learner.to_str())["model"]["merges"]]
        for row, (left, right) in enumerate(merges):
            self.merges[row] = torch.tensor([ids[left], ids[right]])
            ids[left + right] = len(alphabet) + row
        self._forget()

    def encode(self, chunks: Tensor) -> Tensor:
        """Tokens (B, H · A) of chunks (B, H, A)."""
        length = self.horizon * self.action_dim
        tokens = torch.full((len(chunks), length), self.end, dtype=torch.long)
        for row, coefficients in enumerate(self._coefficients(chunks)):
            found = self._coder.encode(self._text(coefficients)).ids
            tokens[row, : len(found)] = torch.tensor(found)
        return tokens.to(chunks.device)

    def decode(self, tokens: Tensor) -> Tensor:
        """Chunks (…, H, A) of tokens (…, H · A). Too few coefficients are filled up with zeros, too many are cut."""
        size = self.horizon * self.action_dim
        rows = torch.zeros((tokens[..., 0].numel(), size))
        for row, sequence in enumerate(tokens.reshape(-1, tokens.shape[-1]).tolist()):
            letters: list[int] = []
            for token in sequence:
                if token == self.end:
                    break
                letters += self._pieces[token] if token < len(self._pieces) else []
            kept = letters[:size]
            rows[row, : len(kept)] = torch.tensor(kept, dtype=torch.float32) - LARGEST if kept else 0.0
        coefficients = rows.unflatten(-1, (self.horizon, self.action_dim)).to(self.dct.device) / self.scale
        unit = self.dct.T @ coefficients
        chunks = (unit + 1) / 2 * (self.high - self.low) + self.low
        return chunks.reshape(*tokens.shape[:-1], self.horizon, self.action_dim)

    def _coefficients(self, chunks: Tensor) -> Tensor:
        """(N, H · A) in 0 … 2 LARGEST, low frequencies of all dimensions first."""
        unit = (chunks.float() - self.low) / (self.high - self.low) * 2 - 1
        rounded = (self.dct @ unit * self.scale).round().clamp(-LARGEST, LARGEST)
        return (rounded + LARGEST).long().flatten(1)

    def _forget(self) -> None:
        """Merges have changed."""
        for name in ("_coder", "_pieces"):
            self.__dict__.pop(name, None)

    @staticmethod
    def _text(coefficients: Tensor) -> str:
        return "".join(chr(FIRST + letter) for letter in coefficients.tolist())

    @cached_property
    def _pieces(self) -> list[list[int]]:
        """Letters of every token."""
        pieces = [[letter] for letter in range(2 * LARGEST + 1)]
        for left, right in self.merges.tolist():
            if left >= 0:
                pieces.append(pieces[left] + pieces[right])
        return pieces

    @cached_property
    def _coder(self) -> Any:
        from tokenizers import Tokenizer, models

        texts = ["".join(chr(FIRST + letter) for letter in piece) for piece in self._pieces]
        merges = [(texts[left], texts[right]) for left, right in self.merges.tolist() if left >= 0]
        return Tokenizer(models.BPE({text: token for token, text in enumerate(texts)}, merges))
