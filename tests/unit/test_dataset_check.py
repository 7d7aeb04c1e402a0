"""`dataset check`: silent on good data, and each fault that spoils training is found where it is."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from small_datasets import CONTRACT, demonstration, write

from corft_core.data import Episode, EpisodeDataset
from corft_core.data import findings as findings_text
from corft_core.data import lerobot_format as fmt
from corft_core.data.check_pictures import block_shift
from corft_core.data.dataset_findings import find
from corft_core.data.findings import Finding
from corft_core.errors import CorftError

EPISODES = 6
JOINT = CONTRACT.robot.joints[3]
LIMITS = np.array([[-3.0] * 7, [3.0] * 7])


def good() -> list[Episode]:
    return [demonstration(k, 28 + k) for k in range(EPISODES)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("check") / "data", good())


def serious(found: list[Finding]) -> list[Finding]:
    return [finding for finding in found if finding.severity != "note"]


def test_good_data_raise_nothing_but_notes(folder: Path) -> None:
    found = find(EpisodeDataset.open(folder), LIMITS)
    assert serious(found) == []
    assert [finding.code for finding in found] == ["few_episodes"]


def frozen_joint(episodes: list[Episode]) -> None:
    episodes[2].state[5:20, 3] = episodes[2].state[5, 3]


def frozen_from_the_start(episodes: list[Episode]) -> None:
    episodes[1].state[:, 3] = 0.25


def nothing_commanded(episodes: list[Episode]) -> None:
    episodes[4].action[:] = episodes[4].action[0]


def degrees(episodes: list[Episode]) -> None:
    for episode in episodes:
        episode.action[:, 3] = np.rad2deg(episode.action[:, 3])


def turned_sign(episodes: list[Episode]) -> None:
    for episode in episodes:
        episode.state[:, 3] *= -1


def late_commands(episodes: list[Episode]) -> None:
    for episode in episodes:
        episode.action[:, :7] = np.roll(episode.action[:, :7], 6, axis=0)
        episode.action[:6, :7] = episode.action[6, :7]


def jump(episodes: list[Episode]) -> None:
    episodes[3].action[12, 3] += 2.0


def waiting(episodes: list[Episode]) -> None:
    for episode in episodes[:2]:
        episode.action[2:22] = episode.action[2]


def beyond_limits(episodes: list[Episode]) -> None:
    episodes[5].action[10, 3] = 3.2


def grid_jump(episodes: list[Episode]) -> None:
    episodes[2].columns["source.tick_ns"][10:] += 500_000_000


def stamps_go_back(episodes: list[Episode]) -> None:
    episodes[2].columns["source.front.stamp_ns"][10:] -= 2_000_000_000


def look_ahead(episodes: list[Episode]) -> None:
    episodes[2].columns["source.wrist.age_s"][7] = -0.02


def stale_stream(episodes: list[Episode]) -> None:
    episodes[3].columns["source.front.age_s"][3:9] = 1.5


def frozen_camera(episodes: list[Episode]) -> None:
    episodes[2].images["wrist"][4:15] = episodes[2].images["wrist"][4]


def black(episodes: list[Episode]) -> None:
    episodes[1].images["front"][6:12] = 2


def overexposed(episodes: list[Episode]) -> None:
    episodes[1].images["front"][:] = 255


def moved_camera(episodes: list[Episode]) -> None:
    episodes[4].images["front"] = demonstration(4, 32, shift=(3, 0)).images["front"]


def camera_moved_far(episodes: list[Episode]) -> None:
    episodes[4].images["front"] = demonstration(4, 32, shift=(14, -11)).images["front"]


def no_grasp(episodes: list[Episode]) -> None:
    episodes[3].action[:, 7] = 1.0


def gripper_in_metres(episodes: list[Episode]) -> None:
    for episode in episodes:
        episode.action[:, 7] *= 40.0


def gripper_never_moves(episodes: list[Episode]) -> None:
    for episode in episodes:
        episode.action[:, 7] = 1.0


def gripper_hardly_closes(episodes: list[Episode]) -> None:
    for episode in episodes:
        episode.action[:, 7] = 0.6 + 0.4 * episode.action[:, 7]


def left_running(episodes: list[Episode]) -> None:
    episodes[2] = demonstration(2, 120)


def other_writing(episodes: list[Episode]) -> None:
    episodes[5].instruction = "Pick the  red cube."


def copy(episodes: list[Episode]) -> None:
    episodes[5] = demonstration(1, 29)


def no_success(episodes: list[Episode]) -> None:
    for episode in episodes:
        episode.success = False


IN_PICTURES = (frozen_camera, black, overexposed, moved_camera, camera_moved_far)
Fault = Callable[[list[Episode]], None]
FAULTS: list[tuple[Fault, str, int | None, str | None]] = [
    (frozen_joint, "frozen_joint", 2, JOINT), (frozen_from_the_start, "frozen_joint", 1, JOINT),
    (nothing_commanded, "constant_action", 4, "action"), (degrees, "unit_mismatch", None, JOINT),
    (turned_sign, "unit_mismatch", None, JOINT), (late_commands, "action_lag", None, JOINT),
    (jump, "action_jump", 3, JOINT), (waiting, "idle", 1, "action"), (beyond_limits, "joint_limit", 5, JOINT),
    (grid_jump, "clock_jump", 2, "source.tick_ns"), (stamps_go_back, "clock_jump", 2, "source.front.stamp_ns"),
    (look_ahead, "future_sample", 2, "source.wrist.age_s"), (stale_stream, "stale", 3, "front"),
    (frozen_camera, "repeated_pictures", 2, "wrist"), (black, "dark_picture", 1, "front"),
    (overexposed, "bright_picture", 1, "front"), (moved_camera, "camera_moved", 4, "front"),
    (camera_moved_far, "camera_moved", 4, "front"),
    (no_grasp, "label", 3, "gripper"), (gripper_in_metres, "gripper_range", None, "gripper"),
    (gripper_never_moves, "gripper_still", None, "gripper"),
    (gripper_hardly_closes, "gripper_never_closes", None, "gripper"), (left_running, "length", 2, None),
    (other_writing, "instruction", None, None), (copy, "duplicate", 5, None), (no_success, "no_success", None, None),
]


@pytest.mark.parametrize(("fault", "code", "episode", "name"), FAULTS, ids=[case[0].__name__ for case in FAULTS])
def test_a_fault_is_found_where_it_is(tmp_path: Path, fault: Fault, code: str, episode: int | None, name: str | None
                                      ) -> None:
    episodes = good()
    fault(episodes)
    found = serious(find(EpisodeDataset.open(write(tmp_path / "data", episodes)), LIMITS, fault in IN_PICTURES))
    matching = [finding for finding in found if finding.code == code and (name is None or finding.name == name)]
    assert matching, findings_text.text(found)
    assert episode is None or episode in {finding.episode for finding in matching}
    assert all(finding.remedy and finding.text for finding in found)
    assert code in findings_text.text(found) and json.dumps([finding.to_dict() for finding in found])


@pytest.mark.parametrize(("motion_rad", "told"), [(0.7, False), (1.3, True)])
def test_a_camera_without_noise_may_repeat_its_picture_while_the_arm_is_out_of_sight(
        tmp_path: Path, motion_rad: float, told: bool) -> None:
    episodes = good()
    for episode in episodes:
        episode.images["front"][3:14] = episode.images["front"][3]
        episode.state[3:14, :7] = 0.0
        episode.state[3:14, 3] = np.linspace(0.0, motion_rad, 11)
        episode.state[3:14, 7] = np.linspace(-1.0, 1.0, 11)  # the gripper's opening is no joint
    found = find(EpisodeDataset.open(write(tmp_path / "data", episodes)), LIMITS)
    assert ("repeated_pictures" in {finding.code for finding in found}) == told


def test_amount_and_place_of_a_frozen_joint_are_told(tmp_path: Path) -> None:
    episodes = good()
    frozen_joint(episodes)
    (finding,) = [f for f in find(EpisodeDataset.open(write(tmp_path / "d", episodes)), pictures=False)
                  if f.code == "frozen_joint"]
    travel = float(np.ptp(episodes[2].action[5:20, 3]))
    assert (finding.severity, finding.frame) == ("error", 5) and finding.amount == pytest.approx(travel, abs=0.05)
    assert f"{travel:.3f} rad" in finding.text


def test_values_that_are_not_finite_are_found(folder: Path, tmp_path: Path) -> None:
    copy_ = tmp_path / "copy"
    shutil.copytree(folder, copy_)
    path = next((copy_ / "data").rglob("*.parquet"))
    table = pq.read_table(path)
    action = np.array(table["action"].combine_chunks().flatten())
    action[8 * 40 + 3] = np.nan  # the 13th step of the second episode
    column = pa.FixedSizeListArray.from_arrays(pa.array(action), type=table.schema.field("action").type)
    pq.write_table(table.set_column(table.schema.get_field_index("action"), table.schema.field("action"), column), path)
    found = [f for f in find(EpisodeDataset.open(copy_), LIMITS) if f.code == "not_finite"]
    assert [(f.episode, f.frame, f.name) for f in found] == [(1, 12, "action")] and JOINT in found[0].text


def test_an_arm_camera_is_not_called_moved(tmp_path: Path) -> None:
    """The wrist camera starts each episode elsewhere; that is no fault."""
    found = find(EpisodeDataset.open(write(tmp_path / "d", good())), LIMITS)
    assert not [f for f in found if f.code == "camera_moved"]


@pytest.mark.parametrize("shift", [(0, 0), (3, 0), (-2, 1), (5, -4)])
def test_the_shift_of_a_background_is_measured(shift: tuple[int, int]) -> None:
    import cv2

    one, other = (cv2.cvtColor(demonstration(k, 12, shift=s).images["front"][0], cv2.COLOR_RGB2GRAY).astype(np.float32)
                  for k, s in ((0, (0, 0)), (1, shift)))
    assert block_shift(one, other) == pytest.approx(shift, abs=0.5)


def test_a_picture_without_texture_has_no_shift() -> None:
    assert block_shift(np.full((96, 128), 90, np.float32), np.full((96, 128), 91, np.float32)) is None


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def damages() -> dict[str, Callable[[Path], None]]:
    def flip(path: Path) -> None:
        data = bytearray(path.read_bytes())
        for place in range(0, len(data), max(1, len(data) // 50)):
            data[place] ^= 0xFF
        path.write_bytes(bytes(data))

    return {"removed": Path.unlink, "emptied": lambda path: path.write_bytes(b""),
            "cut": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
            "junk": lambda path: path.write_bytes(bytes(range(256)) * 8), "flipped": flip}


@pytest.mark.parametrize("kind", damages())
def test_damage_of_each_file_is_found(folder: Path, tmp_path: Path, kind: str) -> None:
    """Opening refuses with a message, or the check names the damage; never a traceback, never silence."""
    for number, name in enumerate(files(folder)):
        copy_ = tmp_path / str(number)
        shutil.copytree(folder, copy_)
        damages()[kind](copy_ / name)
        try:
            found = serious(find(EpisodeDataset.open(copy_), LIMITS, name.endswith(".mp4")))
        except CorftError as error:
            assert str(error)
            continue
        optional = kind == "removed" and name.startswith("meta/corft")
        assert found or optional, f"{name} {kind}"


def test_counts_that_disagree_are_found(folder: Path, tmp_path: Path) -> None:
    copy_ = tmp_path / "copy"
    shutil.copytree(folder, copy_)
    dataset = EpisodeDataset.open(copy_)
    rows = [dict(row) for row in dataset.episodes]
    key = fmt.image_key("front")
    rows[2][f"videos/{key}/to_timestamp"] -= 0.1
    rows[3]["dataset_from_index"] += 1
    found = {f.text for f in find(dataclasses.replace(dataset, episodes=rows), pictures=False) if f.code == "damaged"}
    assert any("episode 2: from and to stamps of front" in text for text in found)
    assert any("row 3 of the episodes table" in text for text in found)
