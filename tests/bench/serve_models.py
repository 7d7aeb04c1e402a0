"""Vision-language models with random weights for the bench `serve`: small ones, and ones of the real sizes.

Small: 192 wide, four layers of vision and of language. Real: the sizes that the models' published configurations give.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from corft_core.policy.backbones import small as tiny_models

REAL_NAMES = {"smolvlm": "SmolVLM2-500M", "paligemma": "PaliGemma-3B-224", "qwen2_5_vl": "Qwen2.5-VL-3B",
              "kosmos-2": "Kosmos-2", "florence2": "Florence-2-base"}
_SMALL_TEXT = {"hidden_size": 192, "intermediate_size": 768, "num_hidden_layers": 4, "num_attention_heads": 4,
               "num_key_value_heads": 2, "vocab_size": 1024, "pad_token_id": 1, "bos_token_id": 2, "eos_token_id": 3}
_SMALL_VISION = {"hidden_size": 192, "intermediate_size": 768, "num_hidden_layers": 4, "num_attention_heads": 4,
                 "image_size": 96, "patch_size": 12}


def _text(**sizes: Any) -> dict[str, Any]:
    return {"pad_token_id": 1, "bos_token_id": 2, "eos_token_id": 3, **sizes}


def _smolvlm(real: bool) -> Any:
    import transformers as tf

    text = _text(hidden_size=960, intermediate_size=2560, num_hidden_layers=32, num_attention_heads=15,
                 num_key_value_heads=5, vocab_size=49280) if real else _SMALL_TEXT
    vision = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12,
              "image_size": 512, "patch_size": 16} if real else _SMALL_VISION
    config = tf.SmolVLMConfig(text_config={"model_type": "llama", **text}, vision_config=vision, image_token_id=4,
                              scale_factor=4 if real else 2, tie_word_embeddings=False)
    size = {"longest_edge": vision["image_size"]}
    return (tf.SmolVLMForConditionalGeneration, config,
            {"image_processor_type": "SmolVLMImageProcessor", "size": size, "max_image_size": size},
            ["<image>", "<fake_token_around_image>", "<global-img>"])


def _paligemma(real: bool) -> Any:
    import transformers as tf

    text = _text(hidden_size=2048, intermediate_size=16384, num_hidden_layers=18, num_attention_heads=8,
                 num_key_value_heads=1, vocab_size=257216) if real else _SMALL_TEXT
    vision = {"hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 27, "num_attention_heads": 16,
              "image_size": 224, "patch_size": 14} if real else _SMALL_VISION
    width = text["hidden_size"]
    config = tf.PaliGemmaConfig(
        text_config={"model_type": "gemma", **text, "head_dim": 256 if real else 48},
        vision_config={"model_type": "siglip_vision_model", **vision, "projection_dim": width},
        **{"image_token_id": 4, "projection_dim": width})
    size = dict.fromkeys(("height", "width"), vision["image_size"])
    return (tf.PaliGemmaForConditionalGeneration, config,
            {"image_processor_type": "SiglipImageProcessor", "size": size}, ["<image>"])


def _qwen(real: bool) -> Any:
    import transformers as tf

    text = _text(hidden_size=2048, intermediate_size=11008, num_hidden_layers=36, num_attention_heads=16,
                 num_key_value_heads=2, vocab_size=151936) if real else _SMALL_TEXT
    vision = {"depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16, "out_hidden_size": 2048,
              "patch_size": 14, "spatial_merge_size": 2, "window_size": 112, "fullatt_block_indexes": [7, 15, 23, 31]
              } if real else {"depth": 4, "hidden_size": 192, "intermediate_size": 768, "num_heads": 4,
                              "out_hidden_size": 192, "patch_size": 12, "spatial_merge_size": 2, "window_size": 96,
                              "fullatt_block_indexes": [3]}
    sections = [16, 24, 24] if real else [8, 8, 8]
    config = tf.Qwen2_5_VLConfig(
        text_config={**text, "rope_scaling": {"type": "mrope", "mrope_section": sections}}, vision_config=vision,
        image_token_id=4, vision_start_token_id=5, vision_end_token_id=6)
    area = (224 if real else 96) ** 2
    return (tf.Qwen2_5_VLForConditionalGeneration, config,
            {"image_processor_type": "Qwen2VLImageProcessor", "patch_size": vision["patch_size"], "merge_size": 2,
             "size": {"shortest_edge": area, "longest_edge": area}},
            ["<|image_pad|>", "<|vision_start|>", "<|vision_end|>", "<|im_start|>", "<|im_end|>"])


def _kosmos(real: bool) -> Any:
    import transformers as tf

    text = {"vocab_size": 65037, "embed_dim": 2048, "layers": 24, "ffn_dim": 8192, "attention_heads": 32,
            "max_position_embeddings": 2048} if real else {
        "vocab_size": 1024, "embed_dim": 192, "layers": 4, "ffn_dim": 768, "attention_heads": 4,
        "max_position_embeddings": 256}
    vision = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16,
              "image_size": 224, "patch_size": 14} if real else _SMALL_VISION
    config = tf.Kosmos2Config(text_config=text, vision_config=vision, latent_query_num=64 if real else 16)
    size = dict.fromkeys(("height", "width"), vision["image_size"])
    return (tf.Kosmos2ForConditionalGeneration, config,
            {"image_processor_type": "CLIPImageProcessor", "size": size, "crop_size": size}, ["<image>", "</image>"])


def _florence(real: bool) -> Any:
    import transformers as tf

    width, layers = (768, 6) if real else (192, 4)
    text = {"model_type": "bart", "vocab_size": 51289 if real else 1024, "d_model": width, "encoder_layers": layers,
            "decoder_layers": layers, "encoder_ffn_dim": 4 * width, "decoder_ffn_dim": 4 * width,
            "encoder_attention_heads": 12 if real else 4, "decoder_attention_heads": 12 if real else 4,
            "max_position_embeddings": 4096, "pad_token_id": 1, "bos_token_id": 2, "eos_token_id": 3}
    heads = [4, 8, 16, 32] if real else [2, 4, 4, 8]
    vision = {"embed_dim": [128, 256, 512, 1024] if real else [24, 48, 96, 192], "num_heads": heads,
              "depths": [1, 1, 9, 1] if real else [1, 1, 1, 1], "num_groups": heads, "window_size": 12 if real else 4,
              "projection_dim": width}
    config = tf.Florence2Config(text_config=text, vision_config=vision, image_token_id=4)
    size = dict.fromkeys(("height", "width"), 768 if real else 128)
    return (tf.Florence2ForConditionalGeneration, config,
            {"image_processor_type": "CLIPImageProcessor", "size": size, "crop_size": size}, ["<image>"])


FAMILIES = {"smolvlm": _smolvlm, "paligemma": _paligemma, "qwen2_5_vl": _qwen, "kosmos-2": _kosmos,
            "florence2": _florence}


def make_model(folder: Path, family: str, real: bool = False) -> Path:
    """Write a model with its tokenizer and image processor; real sizes in bfloat16."""
    folder.mkdir(parents=True)
    cls, config, processor, special = FAMILIES[family](real)
    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16 if real else torch.float32)
    try:
        model = cls(config)
    finally:
        torch.set_default_dtype(before)
    tiny_models._save(folder, model, special, processor)
    return folder
