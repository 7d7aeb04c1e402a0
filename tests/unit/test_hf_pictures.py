"""Pictures made ready on the device are those that the model's own image processor makes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from corft_core.policy.backbones.hf import HFBackbone
from corft_core.policy.backbones.small import FAMILIES


@pytest.mark.parametrize("family", list(FAMILIES))
@pytest.mark.parametrize("size", [(48, 48), (128, 128), (96, 128)])
def test_pictures_are_those_of_the_processor(family: str, size: tuple[int, int], tmp_path: Path) -> None:
    FAMILIES[family](tmp_path)
    pictures = HFBackbone(str(tmp_path), image_size=size)._pictures
    assert pictures.known == ((family, size) != ("qwen2_5_vl", (96, 128))), "only this one resizes twice"
    images = torch.randint(0, 256, (3, 2, *size, 3), dtype=torch.uint8)
    ours = pictures(images)
    pictures.known = False
    theirs = pictures(images)
    assert ours.inputs.keys() == theirs.inputs.keys() and ours.tokens == theirs.tokens
    for name, value in theirs.inputs.items():
        assert ours.inputs[name].shape == value.shape
    levels = (ours.inputs["pixel_values"] - theirs.inputs["pixel_values"]).abs() / pictures.get_buffer("scale").max()
    assert float(levels.max()) < 2.5 and float(levels.mean()) < 0.01, "a step of the 8-bit scale, now and then"
