"""Memory of training by formula, against what is allocated; too little of it; the trainer around a backbone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from learning_data import RED, small_config, small_contract, square_data, squares
from safetensors import safe_open

from corft_core.errors import CorftError
from corft_core.learning import memory_check, processes
from corft_core.learning.footprint import Mode, footprint
from corft_core.learning.memory_check import TooLittleMemory, check_memory
from corft_core.learning.optim import backbone_groups
from corft_core.learning.trainer import train
from corft_core.policy.backbones import make_backbone
from corft_core.policy.backbones.small import FAMILIES
from corft_core.policy.policy import Policy

TEXTS = ["pick up the red cube", "pick up the blue cube, please"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    torch.manual_seed(0)
    found = {}
    for name in ("smolvlm", "kosmos-2", "qwen2_5_vl"):
        found[name] = tmp_path_factory.mktemp(name)
        FAMILIES[name](found[name])
    return found


@pytest.mark.parametrize(("name", "trainable", "dtype"), [
    ("smolvlm", "all", "float32"), ("smolvlm", "lora:2", "float32"), ("kosmos-2", "all", "float32"),
    ("kosmos-2", "lora:2", "bfloat16"), ("qwen2_5_vl", "last:1", "float32"),
])
def test_the_formula_is_near_what_a_step_allocates(
    folders: dict[str, Path], name: str, trainable: str, dtype: str
) -> None:
    backbone: Any = make_backbone(f"hf:{folders[name]}", 2, (48, 48), trainable=trainable, dtype=dtype)
    model: Any = make_backbone(f"hf:{folders[name]}", 2, (48, 48), dtype=dtype, weights=False)
    expected = footprint(model.family, Mode(trainable, dtype, samples=2, average=False), model.work(TEXTS[1]))
    own = {p.untyped_storage().data_ptr() for p in backbone.parameters()}
    kept: dict[int, torch.Tensor] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in own:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    images = torch.randint(0, 256, (2, 2, 48, 48, 3), dtype=torch.uint8)
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        vision, text = backbone.encode(images, TEXTS)
    allocated = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
    assert allocated == pytest.approx(expected.activations + expected.casts, rel=0.5)
    (vision.square().mean() + text.square().mean()).backward()
    moved = [p for p in backbone.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(moved)
    optimizer.step()
    assert sum(p.nbytes for p in backbone.parameters()) == expected.weights
    assert sum(p.grad.nbytes for p in moved if p.grad is not None) == expected.gradients
    state = sum(v.nbytes for entry in optimizer.state.values() for v in entry.values() if v.dim())
    assert state == pytest.approx(expected.optimizer, rel=0.01)


def test_smaller_modes_need_less(folders: dict[str, Path]) -> None:
    model: Any = make_backbone(f"hf:{folders['smolvlm']}", 2, (48, 48), weights=False)
    work = model.work(TEXTS[0])
    modes = [
        Mode("all", samples=8), Mode("all", samples=2), Mode("all", gradient_checkpointing=True, samples=2),
        Mode("lora", "bfloat16", gradient_checkpointing=True, samples=2), Mode("none", "bfloat16", samples=2),
    ]
    totals = [footprint(model.family, mode, work).total for mode in modes]
    assert totals == sorted(totals, reverse=True)
    operations = [footprint(model.family, Mode(mode), work).flops for mode in ("none", "last:1", "lora", "all")]
    assert operations == sorted(operations) and operations[-1] == pytest.approx(3 * operations[0])


def test_too_little_memory_is_said_before_the_start_with_what_fits(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = small_config(
        policy__backbone=f"hf:{folders['smolvlm']}", policy__backbone_options={"trainable": "all"}, sft__batch=8
    )
    arguments = config, small_contract(), (RED,), 100, torch.device("cpu")
    check_memory(*arguments)
    monkeypatch.setattr(memory_check, "free_bytes", lambda device: 1.4e6)
    with pytest.raises(TooLittleMemory, match=r"trainable=all.*optimiser.*1\.3 MiB free\. What fits: --set sft\.acc"):
        check_memory(*arguments)
    monkeypatch.setattr(processes, "count", lambda: 4)
    monkeypatch.setattr(memory_check, "free_bytes", lambda device: 0.9e6)
    with pytest.raises(TooLittleMemory, match=r"--set sft\.shard=true \("):
        check_memory(*arguments)
    monkeypatch.setattr(memory_check, "free_bytes", lambda device: 1e3)
    with pytest.raises(TooLittleMemory, match="choose a smaller model"):
        check_memory(*arguments)


def test_parts_of_a_backbone_learn_at_their_own_rates_and_vectors_do_not_decay() -> None:
    backbone = make_backbone("tiny", 1, (32, 32), channels=16, text_dim=16)
    groups = backbone_groups(backbone, 1e-4, 1e-5, 0.1)
    of = {id(p): group for group in groups for p in group["params"]}
    assert len(of) == len(list(backbone.parameters()))
    for name, parameter in backbone.named_parameters():
        group = of[id(parameter)]
        assert group["lr"] == (1e-5 if name.startswith("blocks.") else 1e-4)
        assert group["weight_decay"] == (0.1 if parameter.dim() > 1 else 0.0)
    assert {group["lr"] for group in backbone_groups(backbone, 1e-4, 0.0, 0.1)} == {1e-4}


def test_a_batch_in_parts_gives_the_gradient_of_the_joined_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gradients: dict[int, list[torch.Tensor]] = {}
    step = torch.optim.AdamW.step
    for parts in (1, 4):
        noted = gradients[parts] = []

        def noting(self: Any, *rest: Any, noted: list[torch.Tensor] = noted, **named: Any) -> Any:
            found = [p.grad.flatten() for g in self.param_groups for p in g["params"] if p.grad is not None]
            noted.append(torch.cat(found).clone())
            return step(self, *rest, **named)

        monkeypatch.setattr(torch.optim.AdamW, "step", noting)
        config = small_config(
            policy__head__kind="chunk", sft__steps=1, sft__token_noise=0.0, sft__state_noise=0.0,
            sft__accumulate=parts, co_rft__steps=0, co_rft__warmup=0, check_frames=0, sft__clip_norm=0.0,
            co_rft__extraction="imitation",
        )
        train(square_data(), tmp_path / str(parts), config, quiet=True)
    assert len(gradients[1]) == len(gradients[4]) == 1 and float(gradients[1][0].norm()) > 0
    torch.testing.assert_close(gradients[4][0], gradients[1][0], rtol=1e-4, atol=1e-6)
    with pytest.raises(CorftError, match=r"sft\.accumulate = 3: a batch of sft\.batch = 8"):
        small_config(sft__accumulate=3)


def test_both_stages_with_adapters_and_a_checkpoint_that_holds_little_more_than_them(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    data = square_data()
    config = small_config(
        policy__backbone=f"hf:{folders['smolvlm']}", sft__steps=2, sft__batch=4, sft__accumulate=2, co_rft__steps=4,
        policy__backbone_options={"trainable": "lora:2", "dtype": "bfloat16", "tokens": 4}, co_rft__warmup=2,
        co_rft__actor_steps=2, check_frames=0, policy__selection__samples=1,
    )
    run = train(data, tmp_path / "run", config, quiet=True)
    images = {camera.name: np.stack([squares(3, 20)]) for camera in data.contract.cameras}
    policy = Policy.load(run / "checkpoints" / "co_rft")
    assert np.isfinite(policy.act(images, np.zeros((1, 8)), [RED]).actions).all()
    with safe_open(run / "checkpoints" / "co_rft" / "model.safetensors", "pt") as file:
        kept = [name for name in file.keys() if name.startswith("backbone.")]  # noqa: SIM118
    assert kept and all(".lora_" in name for name in kept)


def test_a_gated_model_says_where_to_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import AutoConfig

    def refuse(*arguments: Any, **named: Any) -> None:
        raise OSError("You are trying to access a gated repo.\nMake sure to have access to it at ...")

    monkeypatch.setattr(AutoConfig, "from_pretrained", refuse)
    with pytest.raises(CorftError, match=r"gated.*accept the licence.*hf auth login"):
        make_backbone("hf:some/model")
