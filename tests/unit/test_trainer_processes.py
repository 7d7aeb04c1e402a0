"""torchrun: two processes train as one with the joined batch does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from two_processes import adapters, full, gradients_of_training

from corft_core.errors import CorftError
from corft_core.learning import processes
from corft_core.learning.run_folder import RunFolder
from corft_core.policy.backbones.small import FAMILIES

TESTS = Path(__file__).parents[1]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_processes_give_the_gradients_of_one_with_the_joined_batch(tmp_path: Path) -> None:
    torch.manual_seed(0)
    FAMILIES["smolvlm"](tmp_path / "model")
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(TESTS), *sys.path])}
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
         str(TESTS / "two_processes.py"), str(tmp_path / "two"), str(tmp_path / "model")],
        env=environment, capture_output=True, text=True, timeout=800, check=False,
    )
    assert done.returncode == 0, done.stderr
    model = tmp_path / "model"
    for name, more, steps in (("tiny", {}, 4), ("adapters", adapters(model), 4), ("full", full(model), 6)):
        one = gradients_of_training(tmp_path / "one" / name, **more)
        assert len(one) == steps, "stage 1, two critic steps and one actor step"
        for rank in (0, 1):
            for expected, seen in zip(one, torch.load(tmp_path / "two" / name / f"gradients{rank}.pt"), strict=True):
                scale = float(expected.abs().max())
                assert scale > 0
                assert torch.allclose(seen, expected, rtol=1e-3, atol=1e-4 * scale)
    for name in ("sft", "co_rft"):
        alone, together = (load_file(tmp_path / run / "full" / "checkpoints" / name / "model.safetensors")
                           for run in ("one", "two"))
        assert alone.keys() == together.keys() and any(key.startswith("backbone.model.") for key in alone)
        for key, value in alone.items():
            torch.testing.assert_close(together[key], value, rtol=1e-3, atol=1e-4, msg=key)
    alone, together = (RunFolder(tmp_path / name / "tiny").metrics() for name in ("one", "two"))
    assert [row["stage"] for row in together] == [row["stage"] for row in alone], "only one process writes"
    assert together[0]["loss"] == pytest.approx(alone[0]["loss"], rel=1e-4), "logged means are over both"


def test_a_batch_is_divided_without_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "count", lambda: 3)
    monkeypatch.setattr(processes, "rank", lambda: 2)
    assert list(range(12))[processes.share(12)] == [8, 9, 10, 11]
    with pytest.raises(CorftError, match="batch of 10 cannot be divided among 3"):
        processes.share(10)


def test_alone_nothing_is_exchanged() -> None:
    value = torch.tensor([1.0, 2.0])
    assert processes.mean(value) is value and processes.balance(value > 1) == 1.0
    assert processes.is_main() and processes.count() == 1 and not processes.any_of(False)
