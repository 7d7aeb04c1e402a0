"""`ros2 run corft dataset`: verbs, exit codes, messages."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from small_datasets import demonstration, write

from corft.dataset import main
from corft_core.data import EpisodeDataset
from corft_core.data import lerobot_format as fmt
from corft_core.data.step_labels import step_labels


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    episodes = [demonstration(k, 24 + k, success=k != 2, instruction=f"pick cube {k % 2}") for k in range(4)]
    return write(tmp_path_factory.mktemp("program") / "data", episodes)


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = main([*map(str, arguments), "--quiet"])
    said = capsys.readouterr()
    return code, said.out, said.err


def test_info_is_one_screen(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "info", folder)
    assert code == 0 and len(out.splitlines()) <= 24
    for expected in ("panda_cell", "4 (75 % success), 102 steps at 10 Hz", "2 x pick cube 1", "front: 128x96, h264",
                     "panda_joint7", "relative when trained", "1 bag(s)"):
        assert expected in out, out
    code, out, _ = run(capsys, "info", folder, "--json")
    about = json.loads(out)
    assert about["success_share"] == 0.75 and about["length_s"] == {"min": 2.4, "median": 2.55, "max": 2.7}
    assert about["tasks"] == {"pick cube 0": 2, "pick cube 1": 2} and about["cameras"]["wrist"]["files"] == 1


def test_check_exits_1_with_findings_only(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "check", folder)
    assert code == 0 and "0 errors, 0 warnings, 1 notes" in out and "joint limits were not checked" not in out
    bad = write(tmp_path / "bad", [demonstration(0), demonstration(0)])
    code, out, _ = run(capsys, "check", bad, "--quick")
    assert code == 1 and "warning duplicate, episode 1: a copy of episode 0" in out
    code, out, _ = run(capsys, "check", bad, "--quick", "--json")
    assert code == 1 and [f["episode"] for f in json.loads(out)["findings"] if f["code"] == "duplicate"] == [1]


def test_a_robot_without_known_limits_is_told(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "check", folder, "--quick", "--description", "/nowhere/robot.urdf")
    assert code == 0 and "joint limits were not checked" in out and "/nowhere/robot.urdf" in out


def test_stats_are_compared_and_written(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    code, out, _ = run(capsys, "stats", copy)
    assert code == 0 and "the stored statistics are exact" in out and "action.panda_joint4" in out
    stats = json.loads((copy / fmt.STATS_PATH).read_text())
    stats["action"]["mean"][0] = 9.0
    (copy / fmt.STATS_PATH).write_text(json.dumps(stats))
    code, out, _ = run(capsys, "stats", copy)
    assert code == 1 and "stored otherwise: action. Write them anew with --write." in out
    assert run(capsys, "stats", copy, "--write")[0] == 0
    code, out, _ = run(capsys, "stats", copy, "--json")
    assert code == 0 and json.loads(out)["wrong"] == []


def test_split_merge_delete_export(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "split", folder, tmp_path / "parts", "--by", "outcome")[0] == 0
    parts = [tmp_path / "parts" / name for name in ("success", "failure")]
    code, out, _ = run(capsys, "merge", *parts, tmp_path / "all")
    assert code == 0 and out == f"data set: {tmp_path / 'all'}, 4 episodes, 102 steps\n"
    assert run(capsys, "split", folder, tmp_path / "listed", "--episodes", "0,2-3")[1].splitlines() == [
        f"{tmp_path / 'listed/selected'}: 3 episodes", f"{tmp_path / 'listed/rest'}: 1 episodes"]
    assert run(capsys, "split", folder, tmp_path / "drawn", "--fraction", "0.5")[0] == 0
    assert run(capsys, "delete", tmp_path / "all", "3", "--in-place")[0] == 0
    assert EpisodeDataset.open(tmp_path / "all").episode_success.all()
    assert run(capsys, "delete", tmp_path / "all", "0", tmp_path / "two")[0] == 0
    assert EpisodeDataset.open(tmp_path / "two").num_episodes == 2
    for to in ("arrays", "lerobot"):
        assert run(capsys, "export", tmp_path / "two", tmp_path / to, "--to", to)[0] == 0
    plain = tmp_path / "lerobot"
    code, _, err = run(capsys, "info", plain)
    assert code == 2 and "--contract" in err
    contract = folder / fmt.CONTRACT_PATH
    assert run(capsys, "info", plain, "--contract", contract)[0] == 0


def test_a_data_set_without_rewards_is_made_ours(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
                                                 ) -> None:
    """As other software writes them: no next.* columns, no contract, columns of its own."""
    plain, contract = tmp_path / "plain", folder / fmt.CONTRACT_PATH
    assert run(capsys, "export", folder, plain, "--to", "lerobot")[0] == 0
    info = json.loads((plain / fmt.INFO_PATH).read_text())
    for name in ("next.reward", "next.done", "next.truncated", "next.success"):
        del info["features"][name]
    info["features"] |= {"observation.force": {"dtype": "float32", "shape": [3], "names": None},
                         "note": {"dtype": "string", "shape": [1], "names": None}}
    (plain / fmt.INFO_PATH).write_text(json.dumps(info))
    for path in (plain / "data").rglob("*.parquet"):
        table = pq.read_table(path)
        force = pa.FixedSizeListArray.from_arrays(pa.array(np.arange(3 * len(table)), pa.float32()), 3)
        table = table.drop_columns([name for name in table.column_names if name.startswith("next.")])
        pq.write_table(table.append_column("observation.force", force).append_column(
            "note", pa.array(["x"] * len(table))), path)

    code, _, err = run(capsys, "merge", plain, tmp_path / "x")
    assert code == 2 and "--contract FILE --outcome success" in err
    code, out, err = run(capsys, "merge", plain, tmp_path / "failed", "--contract", contract)
    assert code == 0 and f"note: {plain}: left out note" in out, err
    failed = EpisodeDataset.open(tmp_path / "failed")
    assert not failed.reward.any() and not failed.done.any() and failed.truncated.sum() == failed.num_episodes
    assert run(capsys, "merge", plain, tmp_path / "ours", "--contract", contract, "--outcome", "success")[0] == 0
    ours, last = EpisodeDataset.open(tmp_path / "ours"), EpisodeDataset.open(folder).episode_starts[1:] - 1
    assert ours.episode_success.all() and not ours.truncated.any()
    assert np.flatnonzero(ours.done).tolist() == np.flatnonzero(ours.reward == 1).tolist() == last.tolist()
    assert np.array_equal(ours.action, EpisodeDataset.open(folder).action)
    assert ours.column("observation.force")[1].tolist() == [3, 4, 5]


def test_rewards_that_are_stored_say_what_succeeded() -> None:
    starts, reward = np.array([0, 2, 5]), np.array([0, 1, 0, 0, 0], np.float32)
    labels = step_labels({"next.reward": reward}, starts, succeeded=True)
    assert labels["next.success"].tolist() == labels["next.done"].tolist() == [False, True, False, False, False]
    assert labels["next.truncated"].tolist() == [False, False, False, False, True]
    ended = step_labels({"next.done": np.array([0, 1, 0, 0, 1])}, starts, succeeded=False)
    assert not ended["next.reward"].any() and not ended["next.truncated"].any()


@pytest.mark.parametrize(("arguments", "message"), [
    (("info", "{tmp}"), "not a LeRobot v3 data set"),
    (("check", "{tmp}/nothing"), "not a LeRobot v3 data set"),
    (("delete", "{data}", "3,x", "{tmp}/out"), "such as 3,7-9"),
    (("delete", "{data}", "9", "{tmp}/out"), "episodes 0 to 3"),
    (("delete", "{data}", "1"), "OUT or --in-place"),
    (("delete", "{data}", "1", "{tmp}/out", "--in-place"), "OUT or --in-place"),
    (("split", "{data}", "{tmp}/out", "--fraction", "0"), "between 0 and 1"),
    (("merge", "{data}", "{data}"), "one of the data sets"),
    (("export", "{data}", "{data}", "--to", "lerobot"), "exists already"),
])
def test_bad_input_exits_2_and_writes_nothing(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
                                              arguments: tuple[str, ...], message: str) -> None:
    code, _, err = run(capsys, *(text.format(tmp=tmp_path, data=folder) for text in arguments))
    assert code == 2 and message in err and "Traceback" not in err
    assert list(tmp_path.iterdir()) == []


def test_help_shows_examples_and_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["--help"], ["check", "--help"]):
        with pytest.raises(SystemExit):
            main(arguments)
        said = capsys.readouterr().out
        assert "examples:" in said and "exit codes:" in said
