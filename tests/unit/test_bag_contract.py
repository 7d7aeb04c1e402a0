"""Which contract the programs take when none is given, and what they say about it."""

from __future__ import annotations

from pathlib import Path

import pytest
from recordings import CONTRACT_FILE, Recording, Take

from corft import bag_to_dataset, contract_choice, doctor, record
from corft_core.contract import Contract
from corft_core.data import EpisodeDataset
from corft_core.data.bag_contract import keep_contract

CONTRACT = Contract.load(CONTRACT_FILE)


@pytest.fixture(autouse=True)
def _cell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contract_choice, "panda_contract_path", lambda: CONTRACT_FILE)


def bag(folder: Path, contract: Contract | None = None) -> Path:
    path = Recording(CONTRACT, [Take(duration_s=1.0)]).write(folder)
    if contract is not None:
        keep_contract(path, contract)
    return path


def convert(*bags: Path, out: Path) -> int:
    return bag_to_dataset.main([*map(str, bags), str(out), "--quiet"])


def test_the_contract_recorded_with_the_bags_is_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    slow = Contract.from_dict(CONTRACT.to_dict() | {"rate_hz": 5})
    first, second = bag(tmp_path / "a", slow), bag(tmp_path / "b")
    (storage,) = first.glob("*.mcap")
    assert convert(storage, second, out=tmp_path / "out") == 0
    assert "contract: recorded with the bags" in capsys.readouterr().err
    assert EpisodeDataset.open(tmp_path / "out").fps == 5


def test_bags_of_different_contracts_need_a_choice(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = bag(tmp_path / "a", Contract.from_dict(CONTRACT.to_dict() | {"rate_hz": 5}))
    assert convert(first, bag(tmp_path / "b", CONTRACT), out=tmp_path / "out") == 2
    assert "different contracts" in (message := capsys.readouterr().err) and "--contract FILE" in message
    assert not (tmp_path / "out").exists()


def test_falling_back_to_the_cells_contract_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert convert(bag(tmp_path / "a"), out=tmp_path / "out") == 0
    assert "contract: the Panda cell's" in capsys.readouterr().err
    other = Recording(CONTRACT, [Take(duration_s=1.0)], without=("front",)).write(tmp_path / "b")
    assert convert(other, out=tmp_path / "other") == 2
    assert "Give your robot's: --contract FILE" in capsys.readouterr().err


def test_recording_and_diagnosing_without_a_contract_say_whose_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert record.main(["--print-command"]) == 0
    printed = capsys.readouterr()
    assert "contract: the Panda cell's" in printed.err and "ros2 bag record" in printed.out
    doctor.main(["--offline", "--json"])
    assert "contract: the Panda cell's" in capsys.readouterr().err
    assert record.main(["--print-command", "--contract", str(CONTRACT_FILE)]) == 0
    assert not capsys.readouterr().err
