"""What differs between families of transformers image-text models: one small adapter each.

An adapter turns pictures into the model's pixel inputs, says how many hidden states a picture occupies and how
the prompt around it looks, and runs the model up to the last hidden states. Prompts are built from token ids,
because the ready-made processors of several families need torchvision.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .base import BackboneError
from .hf_family import Family, Pixels


class Idefics3(Family):
    """Idefics3 and SmolVLM; pictures are not cut into tiles."""

    model_types = ("idefics3", "smolvlm")

    def pixels(self, images: Sequence[Sequence[np.ndarray]]) -> Pixels:
        inputs = self.process([list(row) for row in images], do_image_splitting=False)
        vision = self.config.vision_config
        patches = inputs["pixel_values"].shape[-1] // vision.patch_size
        side = patches // self.config.scale_factor
        names = ("pixel_values", "pixel_attention_mask")
        return Pixels({name: inputs[name] for name in names if name in inputs}, (side, side), patches**2)

    def prompt(self, tokens_per_image: int, images: int, text: list[int]) -> list[int]:
        fake, whole = self.special("<fake_token_around_image>", "<global-img>")
        block = [fake, whole, *[self.image_id] * tokens_per_image, fake]
        start = [self.tokenizer.bos_token_id] if self.tokenizer.bos_token_id is not None else []
        return [*start, *self.words("User:"), *block * images, *text, *self.words("\nAssistant:")]

    def layers(self) -> nn.ModuleList:
        return self.model.model.text_model.layers

    def vision_tower(self) -> Any:
        return self.model.model.vision_model


class PaliGemma(Family):
    """PaliGemma 1 and 2: pictures, start token, instruction, line feed; attention is bidirectional over all of it."""

    model_types = ("paligemma",)

    def pixels(self, images: Sequence[Sequence[np.ndarray]]) -> Pixels:
        values = self.process([image for row in images for image in row])["pixel_values"]
        side = values.shape[-1] // self.config.vision_config.patch_size
        return Pixels({"pixel_values": values}, (side, side), side**2)

    def prompt(self, tokens_per_image: int, images: int, text: list[int]) -> list[int]:
        pictures = [self.image_id] * (tokens_per_image * images)
        return [*pictures, self.tokenizer.bos_token_id, *text, *self.words("\n")]

    def more(self, ids: Tensor) -> dict[str, Tensor]:
        return {"token_type_ids": torch.zeros_like(ids)}

    def layers(self) -> nn.ModuleList:
        return self.model.model.language_model.layers

    def vision_tower(self) -> Any:
        return _inner(self.model.model.vision_tower)

    def unused(self) -> list[nn.Module]:
        head = getattr(self.vision_tower(), "head", None)  # SigLIP's pooling, where the tower has one
        return [*([head] if head is not None else []), *super().unused()]


class Llava(Family):
    """LLaVA 1.5: the pictures' tokens stand in the user's turn."""

    model_types = ("llava",)

    def pixels(self, images: Sequence[Sequence[np.ndarray]]) -> Pixels:
        values = self.process([image for row in images for image in row])["pixel_values"]
        side = values.shape[-1] // self.config.vision_config.patch_size
        extra = 0 if self.config.vision_feature_select_strategy == "default" else 1
        return Pixels({"pixel_values": values}, (side, side), side**2, extra)

    def prompt(self, tokens_per_image: int, images: int, text: list[int]) -> list[int]:
        pictures = [self.image_id] * (tokens_per_image * images)
        start = [self.tokenizer.bos_token_id] if self.tokenizer.bos_token_id is not None else []
        return [*start, *self.words("USER: "), *pictures, *self.words("\n"), *text, *self.words(" ASSISTANT:")]

    def layers(self) -> nn.ModuleList:
        return self.model.model.language_model.layers

    def vision_tower(self) -> Any:
        return _inner(self.model.model.vision_tower)

    def unused(self) -> list[nn.Module]:
        """The pictures' features come from a layer before the last one."""
        tower = self.vision_tower()
        if not hasattr(tower, "post_layernorm"):  # neither CLIP nor SigLIP
            return super().unused()
        return [*tower.encoder.layers[self._depth():], tower.post_layernorm, *super().unused()]

    def vision_layers(self) -> list[nn.Module]:
        return super().vision_layers()[: self._depth()]

    def _depth(self) -> int:
        """Number of the tower's layers up to the one that the features come from."""
        chosen, count = self.config.vision_feature_layer, len(self.vision_tower().encoder.layers)
        return max(count + 1 + i if i < 0 else i for i in (chosen if isinstance(chosen, list) else [chosen]))


class QwenVL(Family):
    """Qwen2-VL, Qwen2.5-VL and Qwen3-VL: the number of tokens follows from the picture's size."""

    model_types = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl")

    def pixels(self, images: Sequence[Sequence[np.ndarray]]) -> Pixels:
        inputs = self.process([image for row in images for image in row])
        merge = self.config.vision_config.spatial_merge_size
        _, height, width = (int(size) for size in inputs["image_grid_thw"][0])
        names = ("pixel_values", "image_grid_thw")
        return Pixels({name: inputs[name] for name in names}, (height // merge, width // merge), height * width)

    def prompt(self, tokens_per_image: int, images: int, text: list[int]) -> list[int]:
        start, end = self.special("<|vision_start|>", "<|vision_end|>")
        turn, stop = self.special("<|im_start|>", "<|im_end|>")
        block = [start, *[self.image_id] * tokens_per_image, end]
        user, assistant = self.words("user\n"), self.words("assistant\n")
        return [turn, *user, *block * images, *text, stop, *self.words("\n"), turn, *assistant]

    def more(self, ids: Tensor) -> dict[str, Tensor]:
        return {"mm_token_type_ids": (ids == self.image_id).long()}

    def layers(self) -> nn.ModuleList:
        return self.model.model.language_model.layers

    def vision_tower(self) -> Any:
        return self.model.model.visual

    def vision_layers(self) -> list[nn.Module]:
        return list(self.vision_tower().blocks)


class Kosmos2(Family):
    """Kosmos-2: a fixed number of latent queries per picture, one picture per prompt."""

    model_types = ("kosmos-2",)
    several_images = False

    def placeholder_id(self) -> int:
        # The processor numbers the places upwards from here; the model overwrites their embeddings anyway.
        return int(self.tokenizer.unk_token_id)

    def pixels(self, images: Sequence[Sequence[np.ndarray]]) -> Pixels:
        values = self.process([image for row in images for image in row])["pixel_values"]
        patches = (values.shape[-1] // self.config.vision_config.patch_size) ** 2
        return Pixels({"pixel_values": values}, (1, int(self.config.latent_query_num)), patches)

    def prompt(self, tokens_per_image: int, images: int, text: list[int]) -> list[int]:
        begin, end = self.special("<image>", "</image>")
        pictures = [begin, *[self.image_id] * tokens_per_image, end]
        return [self.tokenizer.bos_token_id, *pictures, *text]

    def hidden(self, ids: Tensor, mask: Tensor, pixels: Pixels) -> Tensor:
        vision = self.model.vision_model
        patches = vision.model.post_layernorm(vision(pixels.inputs["pixel_values"]).last_hidden_state)
        embeds, _ = self.model.image_to_text_projection(nn.functional.normalize(patches, dim=-1))
        places = torch.zeros_like(ids)
        places[:, 2 : 2 + pixels.tokens] = 1
        output = self.model.text_model.model(
            input_ids=ids, attention_mask=mask, image_embeds=embeds, image_embeds_position_mask=places, use_cache=False
        )
        return output.last_hidden_state

    def layers(self) -> nn.ModuleList:
        return self.model.text_model.model.layers

    def vision_tower(self) -> Any:
        return self.model.vision_model.model


class Florence2(Family):
    """Florence-2: hidden states of the encoder; the decoder has no part. One picture per prompt."""

    model_types = ("florence2",)
    several_images = False

    def pixels(self, images: Sequence[Sequence[np.ndarray]]) -> Pixels:
        values = self.process([image for row in images for image in row])["pixel_values"]
        sides = [int(values.shape[-1])]
        for stride in self.config.vision_config.patch_stride:
            sides.append(-(-sides[-1] // stride))
        return Pixels({"pixel_values": values}, (sides[-1], sides[-1]), sides[1] ** 2, extra=1)

    def prompt(self, tokens_per_image: int, images: int, text: list[int]) -> list[int]:
        pictures = [self.image_id] * (tokens_per_image * images)
        return [*pictures, self.tokenizer.bos_token_id, *text, self.tokenizer.eos_token_id]

    def hidden(self, ids: Tensor, mask: Tensor, pixels: Pixels) -> Tensor:
        embeds = self.model.get_input_embeddings()(ids)
        features = self.model.get_image_features(pixels.inputs["pixel_values"]).pooler_output
        embeds = embeds.masked_scatter((ids == self.image_id).unsqueeze(-1), features.to(embeds.dtype))
        return self.model.model.language_model.encoder(inputs_embeds=embeds, attention_mask=mask).last_hidden_state

    def layers(self) -> nn.ModuleList:
        return self.model.model.language_model.encoder.layers

    def vision_tower(self) -> Any:
        return self.model.model.vision_tower

    def vision_layers(self) -> list[nn.Module]:
        return [layer for layer, _ in self.vision_rows(0)]

    def vision_rows(self, patches: int) -> list[tuple[nn.Module, int]]:
        rows: list[tuple[nn.Module, int]] = []
        strides = (1, *self.config.vision_config.patch_stride[1:])
        for stage, stride in zip(self.vision_tower().blocks, strides, strict=True):
            patches //= stride**2
            rows += [(block, patches) for block in stage]
        return rows

    def unused(self) -> list[nn.Module]:
        decoder = self.model.model.language_model.decoder  # but its word embedding is the encoder's
        return [decoder.layers, decoder.embed_positions, decoder.layernorm_embedding, *super().unused()]


def _inner(tower: Any) -> Any:
    """CLIP and SigLIP may be wrapped."""
    return getattr(tower, "vision_model", tower)


FAMILIES: tuple[type[Family], ...] = (Idefics3, PaliGemma, Llava, QwenVL, Kosmos2, Florence2)


def family_of(model_type: str) -> type[Family]:
    """Adapter class of a `model_type` in a config.json; raises BackboneError listing those that exist."""
    for family in FAMILIES:
        if model_type in family.model_types:
            return family
    known = ", ".join(name for family in FAMILIES for name in family.model_types)
    raise BackboneError(
        f"No adapter for models of type {model_type!r}. Expected an image-text model of one of these types: {known}."
    )
