"""docs/how-to/your-robot.md, followed on a second arm as far as no robot is needed.

Fenced blocks carry a word after the language: `offline` is run here, `live` and `stays` are run in
tests/ros/test_your_robot_live.py, `installed` needs a ROS installation; `changes` and `scene.yaml` make
tests/second_robot. With `expect=` the output must have that text, and the exit code may be any.
"""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import yaml
from test_contract_page import WHOLE, over
from your_robot import FOLDER, GUIDE, ROOT, blocks

from corft.doctor_machine import moveit_files
from corft_core.contract import Contract
from corft_core.execution import Reason
from corft_core.planning import make_planner, resolve_description
from corft_core.planning.moveit_config import FILES
from corft_core.planning.moves import home, plan_between
from corft_core.planning.srdf import sampled_srdf

CONTRACT = Contract.load(FOLDER / "contract.yaml")
HOME = np.array(CONTRACT.robot.home_rad)
WHEEL = "cmeel.prefix/share/example-robot-data/robots/ur_description/urdf/ur5_robot.urdf"


def test_every_block_has_a_known_mark() -> None:
    marks = {(block.language, block.mark) for block in blocks()}
    assert marks == {("sh", "installed"), ("sh", "offline"), ("sh", "live"), ("sh", "stays"), ("text", ""),
                     ("yaml", "changes"), ("yaml", "scene.yaml"), ("yaml", "controllers")}


def test_the_second_robots_files_are_what_the_guide_says() -> None:
    by_mark = {block.mark: yaml.safe_load(block.text) for block in blocks() if block.language == "yaml"}
    made = Contract.from_dict(over(WHOLE, by_mark["changes"]))
    assert made.differences(CONTRACT) == []
    assert by_mark["scene.yaml"] == yaml.safe_load((FOLDER / "scene.yaml").read_text())
    name = CONTRACT.arm_command.topic.split("/")[0]
    assert by_mark["controllers"][name]["ros__parameters"]["joints"] == list(CONTRACT.robot.joints)


def test_every_reason_that_the_guide_explains_is_one() -> None:
    table = GUIDE.read_text().partition("| reason | usually means |")[2].partition("\n\n")[0]
    first_cells = [row.split("|")[1] for row in table.splitlines() if row]
    named = {code for cell in first_cells for code in re.findall(r"`([A-Z_]+)`", cell)}
    assert len(named) > 5 and named <= {reason.value for reason in Reason}


@pytest.mark.skipif(shutil.which("ros2") is None, reason="no ros2 command on the PATH")
def test_the_commands_that_need_no_robot_run(tmp_path: Path) -> None:
    (tmp_path / "ros2_ws").symlink_to(ROOT / "ros2_ws")
    seen = ""
    for block in blocks():
        if (block.language, block.mark) != ("sh", "offline"):
            continue
        result = subprocess.run(["bash", "-ec", block.text], cwd=tmp_path, capture_output=True, text=True, check=False,
                                timeout=200, env={**os.environ, "OMP_NUM_THREADS": "1"})
        seen += result.stdout
        assert block.expect in result.stdout and (result.returncode == 0 or block.expect), result.stdout + result.stderr
        for file in ("contract.yaml", "scene.yaml"):
            shutil.copy(FOLDER / file, tmp_path / "my_robot")
    for block in blocks():
        if block.language == "text" and "contract:" in block.text:
            assert [line for line in block.text.splitlines() if "  ok  " in line and line not in seen] == []
    written = (tmp_path / "my_robot/robot.srdf").read_text()
    assert '<group name="arm">' in written and "0 errors" in seen
    assert "MoveIt's files: the SRDF has no group of the joints" in seen, "the wheel's own SRDF has none"


def test_moveits_files_fit_the_contract_and_the_sampled_srdf(tmp_path: Path) -> None:
    urdf = Path(str(importlib.metadata.distribution("example-robot-data").locate_file(WHEEL)))
    shutil.copytree(FOLDER / "moveit", tmp_path / "moveit")
    assert {path.stem for path in (tmp_path / "moveit").iterdir()} == set(FILES)
    (tmp_path / "robot.srdf").write_text(sampled_srdf(resolve_description(str(urdf), None).urdf,
                                                      CONTRACT.robot.joints, samples=50))
    plain = CONTRACT.to_dict()
    plain["robot"]["description"] = f"{urdf}:robot.srdf"
    (tmp_path / "contract.yaml").write_text(yaml.safe_dump(plain))
    contract = Contract.load(tmp_path / "contract.yaml")
    assert contract.robot.description == f"{urdf}:{tmp_path / 'robot.srdf'}", "beside the contract"
    found = moveit_files(contract, tmp_path)
    assert found.level == "ok", found
    (tmp_path / "moveit/moveit_py.yaml").unlink()
    assert "moveit_py.yaml cannot be read" in moveit_files(contract, tmp_path).seen


def test_a_description_beside_the_contract_is_found_from_anywhere(tmp_path: Path,
                                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    plain = CONTRACT.to_dict()
    plain["robot"]["description"] = "robot.urdf:config/arm.srdf"
    (tmp_path / "contract.yaml").write_text(yaml.safe_dump(plain))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    expected = f"{tmp_path / 'robot.urdf'}:{tmp_path / 'config/arm.srdf'}"
    assert Contract.load("../contract.yaml").robot.description.replace("elsewhere/../", "") == expected
    for same in ("example-robot-data:ur_description/ur5_robot", "package://a/r.urdf:package://a/r.srdf",
                 "/opt/robot.urdf"):
        plain["robot"]["description"] = same
        (tmp_path / "contract.yaml").write_text(yaml.safe_dump(plain))
        assert Contract.load(tmp_path / "contract.yaml").robot.description == same


def test_the_planner_knows_the_arm_its_gripper_and_the_scene() -> None:
    planner = make_planner("embedded", CONTRACT, FOLDER / "scene.yaml")
    pose = planner.forward_kinematics(HOME)
    found = planner.inverse_kinematics(pose, HOME + 0.1)
    assert found is not None
    np.testing.assert_allclose(planner.forward_kinematics(found), pose, atol=1e-3)
    assert planner.in_collision(HOME) == []
    down = planner.forward_kinematics(HOME)
    down[2, 3] = 0.1
    into_table = planner.inverse_kinematics(down, HOME)
    assert into_table is not None
    assert {frozenset(pair) for pair in planner.in_collision(into_table)} == {frozenset(("gripper", "table"))}
    start, goal = HOME + np.array([1.2, 0, 0, 0, 0, 0]), HOME - np.array([0.8, 0, 0, 0, 0, 0])
    path = plan_between(planner, start, goal)
    assert planner.first_collision(path.positions) is None
    np.testing.assert_allclose(home(planner, CONTRACT, goal).positions[-1], HOME, atol=1e-6)


def test_the_guide_is_linked() -> None:
    for page in ("README.md", "how-to.md"):
        assert str(GUIDE.relative_to(ROOT / "docs")) in (ROOT / "docs" / page).read_text()
