"""A fixture whose set-up fails takes down what it has started: neither context nor process stays for later modules."""

from __future__ import annotations

from typing import Any

import psutil
import pytest
import rclpy
from ros import arm_operator

pytestmark = pytest.mark.ros


class Failure(Exception):
    """What goes wrong during the set-up."""


@pytest.mark.parametrize("step", ["Operator", "spin_until"])
def test_an_operator_that_cannot_be_set_up_leaves_no_context_and_no_cell(
        ros_domain: int, step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    cells: list[psutil.Process] = []

    def fail(*_: Any) -> None:
        cells.extend(child for child in psutil.Process().children() if "corft.cell_node" in child.cmdline())
        raise Failure

    monkeypatch.setattr(arm_operator, step, fail)
    with pytest.raises(Failure), arm_operator.operator_on_a_cell():
        pass
    assert len(cells) == 1 and not cells[0].is_running() and not rclpy.ok()
