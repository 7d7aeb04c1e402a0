"""How `hf:` backbones are trained: which parameters move, adapters, precision, recomputation, what is saved."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from corft_core.errors import CorftError
from corft_core.learning.footprint import trained_numbers
from corft_core.policy.backbones import backbone_from_config, make_backbone
from corft_core.policy.backbones.hf_training import plain_model
from corft_core.policy.backbones.small import FAMILIES

TEXTS = ["pick up the red cube", "pick up the blue cube, please"]
MODES: list[dict[str, Any]] = [
    {"trainable": "none"},
    {"trainable": "all"},
    {"trainable": "all", "dtype": "bfloat16", "gradient_checkpointing": True},
    {"trainable": "last:1", "dtype": "bfloat16"},
    {"trainable": "lora:2"},
    {"trainable": "lora", "dtype": "bfloat16", "lora_vision": True},
]


def images() -> torch.Tensor:
    return torch.randint(0, 256, (2, 2, 48, 48, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module", params=list(FAMILIES))
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp(request.param)
    FAMILIES[request.param](path)
    return path


@pytest.fixture(scope="module")
def smolvlm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("smolvlm")
    FAMILIES["smolvlm"](path)
    return path


def build(folder: Path, **options: Any) -> Any:
    torch.manual_seed(1)
    return make_backbone(f"hf:{folder}", cameras=2, image_size=(48, 48), **options)


def backward(backbone: Any) -> torch.Tensor:
    vision, text = backbone.encode(images(), TEXTS)
    loss = (vision - 1).square().mean() + (text + 1).square().mean()
    loss.backward()
    return loss


def train(backbone: Any, steps: int = 3) -> None:
    optimizer = torch.optim.AdamW([p for p in backbone.parameters() if p.requires_grad], lr=1e-2)
    for _ in range(steps):
        optimizer.zero_grad()
        backward(backbone)
        optimizer.step()


def belongs(name: str, trainable: str, lora_vision: bool = False) -> bool:
    """Whether a mode is to train the parameter of this name."""
    if trainable == "last:1":
        return ".layers.1." in name and not any(part in name for part in ("vision", "visual", "decoder.layers"))
    if trainable.startswith("lora"):
        return ".lora_" in name and (lora_vision or not any(part in name for part in ("vision", "visual")))
    return trainable == "all"


@pytest.mark.parametrize("options", MODES, ids=lambda options: "-".join(str(value) for value in options.values()))
def test_a_mode_moves_exactly_its_parameters_and_comes_back_equal(folder: Path, options: dict[str, Any]) -> None:
    backbone = build(folder, **options)
    before = {name: p.detach().clone() for name, p in backbone.named_parameters()}
    trained = {name for name, p in backbone.named_parameters() if p.requires_grad}
    if not backbone.frozen:
        train(backbone)
    moved = {name for name, p in backbone.named_parameters() if not torch.equal(p, before[name])}
    assert moved == trained
    unused = {id(p) for part in backbone.family.unused() for p in part.parameters()}
    mode = {"trainable": options["trainable"], "lora_vision": options.get("lora_vision", False)}
    assert trained == {n for n, p in backbone.named_parameters() if belongs(n, **mode) and id(p) not in unused}
    assert all(p.dtype == torch.float32 for p in backbone.parameters() if p.requires_grad)
    count = sum(p.numel() for p in backbone.parameters() if p.requires_grad)
    assert count == trained_numbers(build(folder, weights=False).family, **mode)

    state = {name: value.clone() for name, value in backbone.saved_state().items()}
    assert set(state) == trained
    rebuilt: Any = backbone_from_config(json.loads(json.dumps(backbone.config())))
    rebuilt.load_saved_state(state)
    with torch.no_grad():
        ours, theirs = backbone.encode(images(), TEXTS), rebuilt.encode(images(), TEXTS)
        assert torch.equal(ours[0], theirs[0]) and torch.equal(ours[1], theirs[1])
        rebuilt.prepare_to_act()
        acting = rebuilt.encode(images(), TEXTS)
    near = 1e-4 if backbone.dtype == "float32" else 0.1
    torch.testing.assert_close(acting[0], ours[0], rtol=near, atol=near)
    if trained:
        with pytest.raises(CorftError, match="missing"):
            rebuilt.load_saved_state(dict(list(state.items())[1:]))


def test_recomputing_activations_keeps_less_and_gives_the_same_gradients(folder: Path) -> None:
    kept, gradients = [], []
    for again in (False, True):
        backbone = build(folder, trainable="all", gradient_checkpointing=again)
        stored: list[int] = []

        def note(tensor: torch.Tensor, stored: list[int] = stored) -> torch.Tensor:
            stored.append(tensor.nbytes)
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            vision, text = backbone.encode(images(), TEXTS)
        (vision.square().mean() + text.square().mean()).backward()
        kept.append(sum(stored))
        gradients.append([p.grad for p in backbone.parameters() if p.grad is not None])
    assert kept[1] < 0.5 * kept[0]
    for first, second in zip(*gradients, strict=True):
        torch.testing.assert_close(first, second, rtol=1e-4, atol=1e-7)


def test_attention_can_be_chosen_and_gives_the_same_states(smolvlm: Path) -> None:
    answers = []
    for name in ("sdpa", "eager"):
        backbone = build(smolvlm, attn_implementation=name)
        assert backbone.model.config.text_config._attn_implementation == name
        answers.append(backbone.encode(images(), TEXTS)[0])
    torch.testing.assert_close(*answers, rtol=1e-3, atol=1e-4)
    with pytest.raises(CorftError, match="Cannot load"):
        build(smolvlm, attn_implementation="no-such-attention")


def test_adapters_are_small_and_can_be_taken_out_merged(smolvlm: Path) -> None:
    backbone = build(smolvlm, trainable="lora:2")
    whole = sum(p.numel() for p in backbone.parameters())
    assert 0 < sum(value.numel() for value in backbone.saved_state().values()) < 0.2 * whole
    train(backbone)
    with torch.no_grad():
        expected = backbone.encode(images(), TEXTS)[0]
        plain_model(backbone.model)
        torch.testing.assert_close(backbone.encode(images(), TEXTS)[0], expected, rtol=1e-4, atol=1e-4)
    assert not any("lora" in name or "base_layer" in name for name, _ in backbone.named_parameters())


def test_other_frozen_weights_under_adapters_are_refused(smolvlm: Path, tmp_path: Path) -> None:
    config = build(smolvlm, trainable="lora:2").config()
    torch.manual_seed(5)
    FAMILIES["smolvlm"](tmp_path / "other")
    with pytest.raises(CorftError, match="not the ones this checkpoint was trained with"):
        backbone_from_config(config, name=f"hf:{tmp_path / 'other'}")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_compiled_layers_train_alike(smolvlm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Traced and differentiated as ever; only the C++ compiler, which takes minutes, is left out.
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager"))
    plain, compiled = (build(smolvlm, trainable="last:1", compile=value) for value in (False, True))
    torch.testing.assert_close(backward(compiled), backward(plain), rtol=1e-4, atol=1e-5)
    for ours, theirs in zip(compiled.parameters(), plain.parameters(), strict=True):
        if ours.grad is not None:
            torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"trainable": "lora:0"}, "adapters of rank r"),
        ({"trainable": "some"}, "'lora' or 'lora:r'"),
        ({"trainable": "all", "lora_vision": True}, "adapts nothing"),
        ({"trainable": "all", "dtype": "float16"}, "choose dtype='bfloat16'"),
    ],
)
def test_modes_that_do_not_exist_are_named(smolvlm: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(CorftError, match=message):
        build(smolvlm, **options)


def test_vision_and_language_parameters_are_told_apart(folder: Path) -> None:
    backbone = build(folder, trainable="all")
    vision = {id(p) for p in backbone.vision_parameters()}
    language = {id(p) for layer in backbone.family.layers() for p in layer.parameters()}
    assert vision and not vision & language
    assert all(any(id(p) in vision for p in layer.parameters()) for layer in backbone.family.vision_layers())
    assert isinstance(backbone.family.layers(), nn.ModuleList)


@pytest.mark.parametrize("trainable", ["none", "lora"])
def test_only_a_model_that_is_trained_in_full_or_in_layers_is_divided(smolvlm: Path, trainable: str) -> None:
    with pytest.raises(CorftError, match=r"sft\.shard divides.*trainable='all' or 'last:n'"):
        make_backbone(f"hf:{smolvlm}", 2, (48, 48), trainable=trainable).divide(torch.device("cpu"))
    with pytest.raises(CorftError, match=r"'tiny' is small"):
        make_backbone("tiny", 2, (48, 48)).divide(torch.device("cpu"))
