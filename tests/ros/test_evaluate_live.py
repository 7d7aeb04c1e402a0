"""evaluate_live's arguments; its run through a live graph is in test_bringup.py."""

from __future__ import annotations

import pytest

from corft.evaluate_live import scene_list
from corft_core.errors import CorftError

pytestmark = pytest.mark.ros


def test_scenes_are_ids_ranges_and_counts() -> None:
    assert scene_list(["ind/3"]) == ["ind/3"]
    assert scene_list(["ind/0..ind/2,ood/7", "demo:2"]) == ["ind/0", "ind/1", "ind/2", "ood/7", "demo/0", "demo/1"]
    assert scene_list(["ood/4..5"]) == ["ood/4", "ood/5"]


@pytest.mark.parametrize("text", ["ind/3..ood/5", "ind/5..ind/3", "ind:many", "ind/a..ind/b", ""])
def test_unclear_scenes_are_refused_with_an_example(text: str) -> None:
    with pytest.raises(CorftError, match=r"ind/0\.\.ind/9"):
        scene_list([text])
