"""The interface over families of transformers image-text models, see hf_families.py."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from torch import Tensor, nn

from .base import BackboneError


@dataclass(frozen=True)
class Pixels:
    """Model inputs made from a batch of pictures: `inputs` by argument name, and the token grid of one picture.

    `extra` hidden states in front of the grid are summaries that belong to no place. `patches`: how many places of a
    picture the first layer of the vision tower sees.
    """

    inputs: dict[str, Tensor]
    grid: tuple[int, int]
    patches: int
    extra: int = 0

    @property
    def tokens(self) -> int:
        return self.grid[0] * self.grid[1] + self.extra


@dataclass(frozen=True)
class Work:
    """What a model does for one observation: its prompts and their tokens, its pictures and their patches."""

    prompts: int
    tokens: int
    pictures: int
    patches: int


class Family(ABC):
    """Adapter of one family. `several_images`: whether one prompt takes the pictures of all cameras."""

    model_types: ClassVar[tuple[str, ...]]
    several_images: ClassVar[bool] = True

    def __init__(self, model: Any, tokenizer: Any, image_processor: Any) -> None:
        self.model, self.tokenizer, self.image_processor = model, tokenizer, image_processor
        self.config = model.config

    @cached_property
    def image_id(self) -> int:
        """See `placeholder_id`."""
        return self.placeholder_id()

    def placeholder_id(self) -> int:
        """Token id that the model replaces by a picture's features."""
        return int(self.config.image_token_id)

    @abstractmethod
    def pixels(self, images: Sequence[Sequence[np.ndarray]]) -> Pixels:
        """One list of uint8 (H, W, 3) pictures per prompt → pixel inputs."""

    @abstractmethod
    def prompt(self, tokens_per_image: int, images: int, text: list[int]) -> list[int]:
        """Token ids of a prompt with `images` pictures and the instruction `text`."""

    @abstractmethod
    def layers(self) -> nn.ModuleList:
        """Layers of the language model, for `trainable="last:n"`."""

    @abstractmethod
    def vision_tower(self) -> Any:
        """The part that turns pixels into features."""

    def vision_layers(self) -> list[nn.Module]:
        """Those of the tower's layers that the features come from."""
        return list(self.vision_tower().encoder.layers)

    def vision_rows(self, patches: int) -> list[tuple[nn.Module, int]]:
        """Each of these layers with the number of places it sees of a picture."""
        return [(layer, patches) for layer in self.vision_layers()]

    def unused(self) -> list[nn.Module]:
        """Parts of the model that play no role in the hidden states, so that nothing trains them."""
        head = self.model.get_output_embeddings()
        tied = head is None or head.weight is self.model.get_input_embeddings().weight
        return [] if tied else [head]

    def hidden(self, ids: Tensor, mask: Tensor, pixels: Pixels) -> Tensor:
        """Token ids and attention mask (S, T) → last hidden states (S, T, C)."""
        output = self.model.model(
            input_ids=ids, attention_mask=mask, use_cache=False, **pixels.inputs, **self.more(ids)
        )
        return output.last_hidden_state

    def more(self, ids: Tensor) -> dict[str, Tensor]:
        """Further model inputs that follow from the token ids."""
        return {}

    def special(self, *tokens: str) -> list[int]:
        """Ids of special tokens; raises BackboneError when the tokenizer lacks one."""
        ids = self.tokenizer.convert_tokens_to_ids(list(tokens))
        for token, index in zip(tokens, ids, strict=True):
            if index is None or index == self.tokenizer.unk_token_id:
                raise BackboneError(
                    f"The tokenizer has no token {token!r}, which {self.config.model_type} models need. Save the "
                    "tokenizer that belongs to the model into its folder."
                )
        return ids

    def words(self, text: str) -> list[int]:
        """Ids of plain text without added special tokens."""
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def process(self, images: Sequence[Any], **options: Any) -> dict[str, Tensor]:
        return dict(self.image_processor(images=images, return_tensors="pt", **options))
