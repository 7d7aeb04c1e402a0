"""Small random models of every family, for tests and for trying `hf:` without a download.

    python -m corft_core.policy.backbones.small out/small_vlm --family smolvlm
    make demo BACKBONE=hf:out/small_vlm
"""

from __future__ import annotations

import argparse
import json
import string
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from corft_core.cli import run_main
from corft_core.files import atomic_folder

from .base import BackboneError

_SIDE = 32
_TEXT: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 128,
    "pad_token_id": 1,
    "bos_token_id": 2,
    "eos_token_id": 3,
}
_VISION: dict[str, Any] = {
    "hidden_size": 24,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": _SIDE,
    "patch_size": 8,
}
_SQUARE = {"height": _SIDE, "width": _SIDE}


def _save(folder: Path, model: Any, special: list[str], processor: dict[str, Any]) -> None:
    """Write a model as `save_pretrained` does, with a tokenizer of characters; the ids of `special` begin at 4."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = ["<unk>", "<pad>", "<s>", "</s>", *special, *string.printable]
    tokenizer = Tokenizer(models.WordLevel({piece: i for i, piece in enumerate(vocabulary)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="<unk>",
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        additional_special_tokens=special,
    ).save_pretrained(folder)
    model.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))


def _smolvlm(folder: Path) -> None:
    import transformers as tf

    config = tf.SmolVLMConfig(
        text_config={"model_type": "llama", **_TEXT},
        vision_config=_VISION,
        image_token_id=4,
        scale_factor=2,
        tie_word_embeddings=False,
    )
    size = {"longest_edge": _SIDE}
    processor = {"image_processor_type": "SmolVLMImageProcessor", "size": size, "max_image_size": size}
    special = ["<image>", "<fake_token_around_image>", "<global-img>"]
    _save(folder, tf.SmolVLMForConditionalGeneration(config), special, processor)


def _paligemma(folder: Path) -> None:
    import transformers as tf

    config = tf.PaliGemmaConfig(
        text_config={"model_type": "gemma", **_TEXT, "head_dim": 8},
        vision_config={"model_type": "siglip_vision_model", **_VISION, "projection_dim": 32},
        image_token_index=4,
        projection_dim=32,
    )
    processor = {"image_processor_type": "SiglipImageProcessor", "size": _SQUARE}
    _save(folder, tf.PaliGemmaForConditionalGeneration(config), ["<image>"], processor)


def _llava(folder: Path) -> None:
    import transformers as tf

    config = tf.LlavaConfig(
        text_config={"model_type": "llama", **_TEXT},
        vision_config={"model_type": "clip_vision_model", **_VISION, "projection_dim": 32},
        image_token_index=4,
    )
    processor = {"image_processor_type": "CLIPImageProcessor", "size": _SQUARE, "crop_size": _SQUARE}
    _save(folder, tf.LlavaForConditionalGeneration(config), ["<image>"], processor)


def _qwen(folder: Path) -> None:
    import transformers as tf

    config = tf.Qwen2_5_VLConfig(
        text_config={**_TEXT, "rope_scaling": {"type": "mrope", "mrope_section": [2, 1, 1]}},
        vision_config={
            "depth": 2,
            "hidden_size": 32,
            "intermediate_size": 32,
            "num_heads": 2,
            "out_hidden_size": 32,
            "patch_size": 8,
            "spatial_merge_size": 2,
            "window_size": 32,
            "fullatt_block_indexes": [1],
        },
        image_token_id=4,
        vision_start_token_id=5,
        vision_end_token_id=6,
    )
    processor = {
        "image_processor_type": "Qwen2VLImageProcessor",
        "patch_size": 8,
        "merge_size": 2,
        "size": {"shortest_edge": _SIDE * _SIDE, "longest_edge": _SIDE * _SIDE},
    }
    special = ["<|image_pad|>", "<|vision_start|>", "<|vision_end|>", "<|im_start|>", "<|im_end|>"]
    _save(folder, tf.Qwen2_5_VLForConditionalGeneration(config), special, processor)


def _kosmos(folder: Path) -> None:
    import transformers as tf

    config = tf.Kosmos2Config(
        text_config={
            "vocab_size": 128,
            "embed_dim": 32,
            "layers": 2,
            "ffn_dim": 48,
            "attention_heads": 4,
            "max_position_embeddings": 256,
        },
        vision_config=_VISION,
        latent_query_num=4,
    )
    processor = {"image_processor_type": "CLIPImageProcessor", "size": _SQUARE, "crop_size": _SQUARE}
    _save(folder, tf.Kosmos2ForConditionalGeneration(config), ["<image>", "</image>"], processor)


def _florence(folder: Path) -> None:
    import transformers as tf

    config = tf.Florence2Config(
        text_config={
            "model_type": "bart",
            "vocab_size": 128,
            "d_model": 32,
            "encoder_layers": 2,
            "decoder_layers": 1,
            "encoder_ffn_dim": 48,
            "decoder_ffn_dim": 48,
            "encoder_attention_heads": 4,
            "decoder_attention_heads": 4,
            "max_position_embeddings": 256,
            "pad_token_id": 1,
            "bos_token_id": 2,
            "eos_token_id": 3,
        },
        vision_config={
            "embed_dim": [8, 16, 16, 32],
            "depths": [1, 1, 1, 1],
            "num_heads": [2, 2, 2, 2],
            "num_groups": [2, 2, 2, 2],
            "window_size": 4,
            "projection_dim": 32,
        },
        image_token_id=4,
    )
    size = {"height": 64, "width": 64}
    processor = {"image_processor_type": "CLIPImageProcessor", "size": size, "crop_size": size}
    _save(folder, tf.Florence2ForConditionalGeneration(config), ["<image>"], processor)


FAMILIES: dict[str, Callable[[Path], None]] = {
    "smolvlm": _smolvlm,
    "paligemma": _paligemma,
    "llava": _llava,
    "qwen2_5_vl": _qwen,
    "kosmos-2": _kosmos,
    "florence2": _florence,
}


def make_small(folder: Path | str, family: str, seed: int = 0) -> Path:
    """Write a model of 10⁴ to 10⁵ random weights with tokenizer and image processor to the new `folder`.

    Raises BackboneError for an unknown family, or a folder that exists.
    """
    if family not in FAMILIES:
        raise BackboneError(f"No small model of family {family!r}. Expected one of: {', '.join(FAMILIES)}.")
    if Path(folder).exists():
        raise BackboneError(f"{folder} exists; name a new folder.")
    with torch.random.fork_rng(devices=[]), atomic_folder(folder) as temporary:
        torch.manual_seed(seed)
        FAMILIES[family](temporary)
    return Path(folder)


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(
        prog="python -m corft_core.policy.backbones.small", formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Write a small random vision-language model to a folder.",
        epilog="example:\n  python -m corft_core.policy.backbones.small out/small_vlm --family kosmos-2")
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="folder to make")
    parser.add_argument("--family", choices=sorted(FAMILIES), default="smolvlm", help="(default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the weights (default: %(default)s)")
    arguments = parser.parse_args()

    def body() -> None:
        print(f"written: {make_small(arguments.folder, arguments.family, arguments.seed)}")

    return run_main(body)


if __name__ == "__main__":
    sys.exit(main())
