"""Exported policies: complete, equal to the checkpoint, strict, and read where their source is gone."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from learning_data import RED, small_config, square_data
from safetensors.torch import load_file, save_file

from corft import export_policy as program
from corft_core.errors import CorftError
from corft_core.learning.export import export_policy
from corft_core.learning.trainer import train
from corft_core.policy import Policy, load_checkpoint
from corft_core.policy.backbones.small import make_small


def chunk(policy: Policy) -> np.ndarray:
    images = {name: np.random.default_rng(0).integers(0, 255, (1, 32, 32, 3), np.uint8) for name in ("front", "wrist")}
    return policy.act(images, np.zeros((1, 8)), [RED], torch.Generator().manual_seed(0)).actions


def trained(folder: Path, backbone: str, **options: object) -> Path:
    config = small_config(policy__backbone=backbone, policy__backbone_options=options, sft__steps=2, co_rft__steps=0,
                          co_rft__warmup=0, sft__backbone_lr=1e-2)
    return train(square_data(2, 6), folder, config, dataset_path=folder.parent / "no" / "data", quiet=True)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(square_data(3, 8), tmp_path_factory.mktemp("tiny") / "run", small_config(), quiet=True)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fine-tuned language model's policy; neither the run nor the model's folder is there any more."""
    place = tmp_path_factory.mktemp("exported")
    (make_small(place / "vlm", "smolvlm") / "README.md").write_text("---\nlicense: apache-2.0\n---\n")
    run = trained(place / "run", f"hf:{place / 'vlm'}", trainable="all")
    expected = chunk(Policy.load(run / "checkpoints/sft"))
    export_policy(run, place / "out")
    shutil.rmtree(place / "vlm")
    shutil.rmtree(run)
    np.save(place / "expected.npy", expected)
    return place / "out"


def test_a_fine_tuned_model_is_exported_whole_and_acts_as_before(exported: Path) -> None:
    np.testing.assert_array_equal(chunk(Policy.from_pretrained(exported)), np.load(exported.parent / "expected.npy"))
    from transformers import AutoModelForImageTextToText, AutoTokenizer

    AutoTokenizer.from_pretrained(exported / "backbone", local_files_only=True)
    AutoModelForImageTextToText.from_pretrained(exported / "backbone", local_files_only=True)
    suffixes = {path.suffix for path in exported.rglob("*") if path.is_file()}
    assert suffixes <= {".json", ".safetensors", ".md", ".jinja"}, suffixes
    assert str(exported.parent) not in (exported / "config.json").read_text(), "no path of the machine it was made on"


def test_the_exported_description_keeps_source_revision_and_licence(exported: Path, tmp_path: Path) -> None:
    backbone = json.loads((exported / "config.json").read_text())["backbone"]
    assert backbone["provenance"] == {
        "source": "vlm", "model_type": "smolvlm", "revision": None, "license": "apache-2.0"}
    again = export_policy(exported, tmp_path / "again")
    assert json.loads((again / "config.json").read_text())["backbone"] == backbone
    assert (again / "model.safetensors").read_bytes() == (exported / "model.safetensors").read_bytes()


@pytest.mark.parametrize("options", [{"trainable": "none"}, {"trainable": "last:1", "dtype": "bfloat16"},
                                     {"trainable": "lora:2"}])
def test_every_way_of_training_gives_a_plain_folder(options: dict[str, str], tmp_path: Path) -> None:
    make_small(tmp_path / "vlm", "kosmos-2")
    run = trained(tmp_path / "run", f"hf:{tmp_path / 'vlm'}", **options)
    policy = Policy.load(run / "checkpoints/sft")
    policy.bundle.backbone.prepare_to_act()
    before = chunk(policy)
    export_policy(run / "checkpoints" / "sft", tmp_path / "out")
    shutil.rmtree(tmp_path / "vlm")
    np.testing.assert_array_equal(chunk(Policy.load(tmp_path / "out")), before)
    with pytest.raises(CorftError, match="no such folder"):
        Policy.load(run / "checkpoints/sft")


def test_a_policy_without_foreign_weights_is_exported_too(tiny: Path, tmp_path: Path) -> None:
    export_policy(tiny, tmp_path / "out")
    policy = Policy.from_pretrained(tmp_path / "out")
    assert policy.bundle.stage == "co_rft" and not (tmp_path / "out" / "backbone").exists()
    np.testing.assert_array_equal(chunk(policy), chunk(Policy.load(tiny / "checkpoints/co_rft")))


def test_the_model_card_says_what_it_is_and_how_to_run_it(tiny: Path, exported: Path, tmp_path: Path) -> None:
    export_policy(tiny, tmp_path / "out")
    text = (tmp_path / "out" / "README.md").read_text()
    digest = json.loads((tiny / "config.json").read_text())["data_digest"]
    for words in (RED, digest, "no success rate", "action error", "checkpoint:=", "from_pretrained", "`front` 32×32"):
        assert words in text, words
    card = (exported / "README.md").read_text()
    assert yaml.safe_load(card.split("---")[1])["license"] == "apache-2.0"



@pytest.mark.parametrize("file, name", [("model.safetensors", "actor.keyframe.bias"),
                                        ("backbone/model.safetensors", "lm_head.weight")])
@pytest.mark.parametrize("change", [
    lambda weights, name: {key: value for key, value in weights.items() if key != name},
    lambda weights, name: weights | {f"{name}.extra": torch.zeros(1)},
    lambda weights, name: weights | {name: weights[name][:1]},
], ids=["missing", "extra", "other shape"])
def test_a_tensor_that_does_not_fit_is_named(
    exported: Path, tmp_path: Path, file: str, name: str, change: Callable[[dict, str], dict]
) -> None:
    copy = shutil.copytree(exported, tmp_path / "copy")
    save_file(change(load_file(copy / file), name), copy / file, {"format": "pt"})
    with pytest.raises(CorftError, match=name.removeprefix("actor.")):
        load_checkpoint(copy)


def test_other_weights_and_damage_in_the_backbone_are_refused(exported: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(exported, tmp_path / "copy")
    path = copy / "backbone" / "model.safetensors"
    weights = load_file(path)
    save_file({name: value + 1 for name, value in weights.items()}, path, {"format": "pt"})
    with pytest.raises(CorftError, match="not the ones this checkpoint was trained with"):
        load_checkpoint(copy)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(CorftError, match="damaged"):
        load_checkpoint(copy)
    shutil.rmtree(copy / "backbone")
    with pytest.raises(CorftError, match="Copy the whole policy"):
        load_checkpoint(copy)


def test_the_program_refuses_what_it_cannot_export(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert program.main([str(tiny), str(tmp_path / "out")]) == 0
    assert program.main([str(tiny), str(tmp_path / "out")]) == 2 and "--overwrite" in capsys.readouterr().err
    assert program.main([str(tiny), str(tmp_path / "out"), "--overwrite"]) == 0
    assert program.main([str(tmp_path / "nothing"), str(tmp_path / "new")]) == 2
    assert "Train first" in capsys.readouterr().err and not (tmp_path / "new").exists()


def test_an_id_on_the_hub_is_asked_for_and_a_folder_never_is(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert Policy.from_pretrained(tiny / "checkpoints/sft").horizon == 3
    with pytest.raises(CorftError, match="hf download nobody/no-such-policy"):
        Policy.from_pretrained("nobody/no-such-policy")
    with pytest.raises(CorftError, match="is no checkpoint"):
        Policy.from_pretrained("./nobody/here")
