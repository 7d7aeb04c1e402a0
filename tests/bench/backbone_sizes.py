"""The published sizes of the models that `hf:` fine-tunes, as configurations; and inputs of the right shapes for them.

Every configuration is written down here, so that a model can be laid out without its weights and without a network.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from corft_core.policy.backbones.hf_families import family_of
from corft_core.policy.backbones.hf_family import Family, Pixels, Work

INSTRUCTION_TOKENS = 12
CAMERAS = 2


@dataclass(frozen=True)
class Size:
    """A published model: its configuration, its number of parameters, and what a picture is to it."""

    name: str
    parameters: float
    """As its authors give it; only to check the configuration against."""
    config: Callable[[], Any]
    side: int
    """Pixels of a picture's side after the image processor (Qwen: the least it takes for a small camera picture)."""
    patches: int
    tokens: int
    """Of a picture in the prompt."""

    def work(self, several_images: bool) -> Work:
        """Two cameras and a short instruction."""
        prompts = 1 if several_images else CAMERAS
        return Work(prompts, CAMERAS // prompts * (self.tokens + 4) + INSTRUCTION_TOKENS, CAMERAS, self.patches)


def _smolvlm(text: dict[str, Any], vision: dict[str, Any], scale: int) -> Callable[[], Any]:
    def config() -> Any:
        import transformers as tf

        return tf.SmolVLMConfig(text_config={"model_type": "llama", "vocab_size": 49280, "pad_token_id": 2, **text},
                                vision_config=vision, image_token_id=49190, scale_factor=scale,
                                tie_word_embeddings=False)

    return config


def _text(hidden: int, inner: int, layers: int, heads: int, shared: int, **more: Any) -> dict[str, Any]:
    return {"hidden_size": hidden, "intermediate_size": inner, "num_hidden_layers": layers,
            "num_attention_heads": heads, "num_key_value_heads": shared, **more}


def _vision(hidden: int, inner: int, layers: int, heads: int, side: int, patch: int) -> dict[str, Any]:
    return {"hidden_size": hidden, "intermediate_size": inner, "num_hidden_layers": layers,
            "num_attention_heads": heads, "image_size": side, "patch_size": patch}


_SIGLIP_BASE, _SIGLIP_LARGE = _vision(768, 3072, 12, 12, 512, 16), _vision(1152, 4304, 27, 16, 384, 14)


def _kosmos2() -> Any:
    import transformers as tf

    return tf.Kosmos2Config(latent_query_num=64)  # the published model is the default one


def _paligemma() -> Any:
    import transformers as tf

    text = {"model_type": "gemma", "vocab_size": 257216, "head_dim": 256, **_text(2048, 16384, 18, 8, 1)}
    vision = {"model_type": "siglip_vision_model", "vision_use_head": False, "projection_dim": 2048,
              **_vision(1152, 4304, 27, 16, 224, 14)}
    return tf.PaliGemmaConfig(text_config=text, vision_config=vision, image_token_id=257152, projection_dim=2048)


def _qwen25(text: dict[str, Any], tied: bool) -> Callable[[], Any]:
    def config() -> Any:
        import transformers as tf

        rope = {"type": "mrope", "mrope_section": [16, 24, 24]}
        vision = {"depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16, "patch_size": 14,
                  "out_hidden_size": text["hidden_size"], "spatial_merge_size": 2, "window_size": 112,
                  "fullatt_block_indexes": [7, 15, 23, 31]}
        return tf.Qwen2_5_VLConfig(text_config={**text, "rope_scaling": rope}, vision_config=vision,
                                   tie_word_embeddings=tied)

    return config


def _qwen3(text: dict[str, Any], vision: dict[str, Any]) -> Callable[[], Any]:
    def config() -> Any:
        import transformers as tf

        inner = {"depth": 24, "hidden_size": 1024, "intermediate_size": 4096, "num_heads": 16, "patch_size": 16,
                 "out_hidden_size": text["hidden_size"], "deepstack_visual_indexes": [5, 11, 17], **vision}
        rope = {"rope_type": "default", "mrope_section": [24, 20, 20], "mrope_interleaved": True}
        return tf.Qwen3VLConfig(text_config={**text, "head_dim": 128, "vocab_size": 151936, "rope_scaling": rope},
                                vision_config=inner, tie_word_embeddings=True)

    return config


def _florence(width: int, layers: int, inner: int, heads: int, channels: list[int]) -> Callable[[], Any]:
    def config() -> Any:
        import transformers as tf

        text = {"model_type": "bart", "vocab_size": 51289, "d_model": width, "encoder_layers": layers,
                "decoder_layers": layers, "encoder_ffn_dim": inner, "decoder_ffn_dim": inner,
                "encoder_attention_heads": heads, "decoder_attention_heads": heads, "max_position_embeddings": 4096}
        vision = {"embed_dim": channels, "depths": [1, 1, 9, 1], "num_heads": [c // 32 for c in channels],
                  "num_groups": [c // 32 for c in channels], "projection_dim": width}
        return tf.Florence2Config(text_config=text, vision_config=vision, image_token_id=51288)

    return config


SIZES = (
    Size("Kosmos-2", 1.66e9, _kosmos2, 224, 257, 64),
    Size("SmolVLM2-256M", 0.256e9, _smolvlm(_text(576, 1536, 30, 9, 3), _SIGLIP_BASE, 4), 512, 1024, 64),
    Size("SmolVLM2-500M", 0.507e9, _smolvlm(_text(960, 2560, 32, 15, 5), _SIGLIP_BASE, 4), 512, 1024, 64),
    Size("SmolVLM2-2.2B", 2.25e9, _smolvlm(_text(2048, 8192, 24, 32, 32), _SIGLIP_LARGE, 3), 384, 729, 81),
    Size("PaliGemma-3B (224)", 2.92e9, _paligemma, 224, 256, 256),
    Size("Qwen2.5-VL-3B", 3.75e9, _qwen25(_text(2048, 11008, 36, 16, 2, vocab_size=151936), True), 140, 100, 25),
    Size("Qwen2.5-VL-7B", 8.29e9, _qwen25(_text(3584, 18944, 28, 28, 4, vocab_size=152064), False), 140, 100, 25),
    Size("Qwen3-VL-2B", 2.13e9, _qwen3(_text(2048, 6144, 28, 16, 8), {}), 256, 256, 64),
    Size("Qwen3-VL-4B", 4.44e9, _qwen3(_text(2560, 9728, 36, 32, 8), {}), 256, 256, 64),
    Size("Florence-2-base", 0.232e9, _florence(768, 6, 3072, 12, [128, 256, 512, 1024]), 768, 192**2, 577),
    Size("Florence-2-large", 0.771e9, _florence(1024, 12, 4096, 16, [256, 512, 1024, 2048]), 768, 192**2, 577),
)


def laid_out(config: Any) -> Family:
    """The model of a configuration without weights (torch's meta device), in its adapter."""
    with torch.device("meta"):
        return built(config)


def built(config: Any, dtype: torch.dtype = torch.float32, attention: str | None = None) -> Family:
    """The model of a configuration with random weights, in its adapter, without tokenizer and image processor."""
    from transformers import AutoModelForImageTextToText

    model = AutoModelForImageTextToText.from_config(config, dtype=dtype, attn_implementation=attention).eval()
    family = family_of(config.model_type)(model, None, None)
    if config.model_type == "kosmos-2":
        family.image_id = 3
    return family


def made_up(family: Family, size: Size, samples: int, device: str, dtype: torch.dtype) -> tuple[Any, Any, Pixels]:
    """Token ids, attention mask and pixels as `Family.hidden` takes them, of random content."""
    work, config = size.work(family.several_images), family.config
    rows, per_prompt = samples * work.prompts, work.pictures // work.prompts
    ids = torch.randint(5, 1000, (rows, work.tokens))
    for picture in range(per_prompt):
        start = 2 + picture * (size.tokens + 2)
        ids[:, start : start + size.tokens] = family.image_id
    shape: tuple[int, ...] = (rows * per_prompt, 3, size.side, size.side)
    inputs: dict[str, torch.Tensor] = {}
    if config.model_type == "smolvlm":
        shape = (rows, per_prompt, 3, size.side, size.side)
    elif config.model_type.startswith("qwen"):
        vision = config.vision_config
        shape = (rows * per_prompt * size.patches, 3 * vision.temporal_patch_size * vision.patch_size**2)
        side = int(size.patches**0.5)
        inputs["image_grid_thw"] = torch.tensor([[1, side, side]] * (rows * per_prompt))
    inputs["pixel_values"] = torch.randn(shape, dtype=dtype)
    inputs = {name: value.to(device) for name, value in inputs.items()}
    return ids.to(device), torch.ones_like(ids).to(device), Pixels(inputs, (1, size.tokens), size.patches)
