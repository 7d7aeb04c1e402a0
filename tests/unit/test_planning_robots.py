"""Other arms than the Panda, from the wheel example-robot-data, through the whole interface; robots without an SRDF."""

from __future__ import annotations

import logging
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from corft_core.contract import Contract
from corft_core.planning import Box, PlanningError, SceneObject, pose_matrix, resolve_description, srdf
from corft_core.planning.embedded import EmbeddedPlanner
from corft_core.planning.moves import approach, home, plan_between

CELL = Path(__file__).parents[2] / "ros2_ws/src/corft/config/panda_cell"
PANDA = Contract.load(CELL / "contract.yaml")
UR_JOINTS = ("shoulder_pan_joint", "shoulder_lift_joint", "elbow_joint", "wrist_1_joint", "wrist_2_joint",
             "wrist_3_joint")


def arm(description: str, joints: tuple[str, ...], base: str, tool: str, home_rad: list[float]) -> Contract:
    count = len(joints)
    limits = replace(PANDA.limits, velocity_rad_s=(2.0,) * count, acceleration_rad_s2=(5.0,) * count,
                     jerk_rad_s3=(500.0,) * count)
    robot = replace(PANDA.robot, name="arm", description=description, joints=joints, base_frame=base, tool_frame=tool,
                    home_rad=tuple(home_rad))
    return replace(PANDA, robot=robot, gripper=None, limits=limits)


ARMS = {
    "ur5": arm("example-robot-data:ur_description/ur5_robot", UR_JOINTS, "base_link", "tool0",
               [0.0, -1.57, 1.57, -1.57, -1.57, 0.0]),
    "xarm7": arm("example-robot-data:xarm_description/xarm7", tuple(f"joint{k}" for k in range(1, 8)), "link_base",
                 "link_eef", [0.0, -0.5, 0.0, 0.8, 0.0, 1.3, 0.0]),
    "z1": arm("example-robot-data:z1_description", tuple(f"joint{k}" for k in range(1, 7)), "link00", "link06",
              [0.0, 1.5, -1.0, -0.54, 0.0, 0.0]),
}


@pytest.fixture(scope="module", params=ARMS)
def contract(request: pytest.FixtureRequest) -> Contract:
    return ARMS[request.param]


@pytest.fixture(scope="module")
def planner(contract: Contract) -> EmbeddedPlanner:
    return EmbeddedPlanner(contract)


def test_it_stands_free_at_home_and_its_kinematics_close(planner: EmbeddedPlanner, contract: Contract) -> None:
    q = np.array(contract.robot.home_rad)
    assert planner.in_collision(q) == []
    np.testing.assert_allclose(planner.forward_kinematics(q, contract.robot.base_frame), np.eye(4), atol=1e-9)
    low, high = planner.position_limits
    random = np.random.default_rng(0)
    for _ in range(5):
        wanted = np.clip(q + random.normal(0, 0.4, len(q)), low, high)
        pose = planner.forward_kinematics(wanted)
        found = planner.inverse_kinematics(pose, wanted + random.normal(0, 0.05, len(q)))
        assert found is not None
        np.testing.assert_allclose(planner.forward_kinematics(found), pose, atol=1e-4)


def test_it_plans_around_an_obstacle_and_home(planner: EmbeddedPlanner, contract: Contract) -> None:
    q = np.array(contract.robot.home_rad)
    turn = np.eye(len(q))[0]
    tool = planner.forward_kinematics(q)[:3, 3]
    planner.set_scene([SceneObject("post", Box((0.06, 0.06, 0.06)), pose_matrix(tool))])
    assert any("post" in pair for pair in planner.in_collision(q))
    start, goal = q + turn, q - turn
    assert planner.in_collision(start) == [] and planner.first_collision(np.stack([start, goal])) == 0
    path = planner.plan(start, goal)
    assert planner.first_collision(path.positions) is None
    planner.set_scene([])
    np.testing.assert_allclose(home(planner, contract, path.positions[-1]).positions[-1], q, atol=1e-6)


def test_it_approaches_in_a_line_and_replans_in_motion(planner: EmbeddedPlanner, contract: Contract) -> None:
    q = np.array(contract.robot.home_rad)
    pose = planner.forward_kinematics(q + 0.1)
    path = approach(planner, q, pose, straight_m=0.05)
    np.testing.assert_allclose(planner.forward_kinematics(path.positions[-1]), pose, atol=1e-3)
    velocity = np.full(len(q), 0.3)
    moving = plan_between(planner, q, q + 0.5, velocity)
    assert moving.velocities is not None
    np.testing.assert_allclose(moving.velocities[0], velocity, atol=1e-6)
    np.testing.assert_allclose(moving.positions[-1], q + 0.5, atol=1e-6)


def test_a_robot_without_srdf_gets_one_by_sampling(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    full = resolve_description(ARMS["ur5"].robot.description)
    (tmp_path / "ur5.urdf").write_text(full.urdf)
    with caplog.at_level(logging.WARNING):
        sampled = resolve_description(str(tmp_path / "ur5.urdf"))
    assert "has no SRDF" in caplog.text and "corft_core.planning.srdf" in caplog.text
    contract = replace(ARMS["ur5"], robot=replace(ARMS["ur5"].robot, description=str(tmp_path / "ur5.urdf")))
    bare, known = EmbeddedPlanner(contract, sampled), EmbeddedPlanner(ARMS["ur5"])
    q = np.array(contract.robot.home_rad)
    assert bare.in_collision(q) == []
    low, high = known.position_limits
    # What the maker's SRDF lets collide, the sampled one sees as well.
    for configuration in np.random.default_rng(1).uniform(low, high, (60, 6)):
        assert set(known.in_collision(configuration)) <= set(bare.in_collision(configuration))


def test_the_sampled_srdf_is_written_with_a_planning_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    contract = tmp_path / "contract.yaml"
    contract.write_text((CELL / "contract.yaml").read_text())
    out = tmp_path / "panda.srdf"
    monkeypatch.setattr(sys, "argv", ["srdf", "--contract", str(contract), "--out", str(out)])
    assert srdf.main() == 0
    description = resolve_description(PANDA.robot.description)
    written = replace(description, srdf=out.read_text())
    assert written.planning_group(PANDA.robot.joints) == "arm"
    planner = EmbeddedPlanner(PANDA, written)
    assert planner.in_collision(np.array(PANDA.robot.home_rad)) == []
    assert planner.in_collision(np.array([0.0, 1.0, 0.0, -3.05, 0.0, 0.0025, 0.0]))


def test_groups_may_be_joints_links_chains_or_groups() -> None:
    xarm = resolve_description(ARMS["xarm7"].robot.description)
    assert xarm.planning_group(ARMS["xarm7"].robot.joints) == "xarm7"   # lists fixed joints too
    panda = resolve_description(PANDA.robot.description)
    for group in ('<chain base_link="panda_link0" tip_link="panda_hand"/>', '<group name="inner"/>',
                  "".join(f'<link name="panda_link{k}"/>' for k in range(8))):
        text = (f'<robot name="r"><group name="whole">{group}</group><group name="inner">'
                '<chain base_link="panda_link0" tip_link="panda_link8"/></group></robot>')
        assert replace(panda, srdf=text).planning_group(PANDA.robot.joints) == "whole"


MESH = """<robot name="r"><link name="a"/><link name="b"><collision><geometry>
<mesh filename="{}"/></geometry></collision></link>
<joint name="j" type="revolute"><parent link="a"/><child link="b"/><axis xyz="0 0 1"/>
<limit lower="-1" upper="1" effort="1" velocity="1"/></joint></robot>"""


def test_a_missing_mesh_is_named(tmp_path: Path) -> None:
    contract = arm("", ("j",), "a", "b", [0.0])
    (tmp_path / "r.urdf").write_text(MESH.format("meshes/b.stl"))
    (tmp_path / "r.srdf").write_text('<robot name="r"/>')
    with pytest.raises(PlanningError, match=r"1 collision mesh files .* do not exist, the first is .*meshes/b\.stl"):
        EmbeddedPlanner(contract, str(tmp_path / "r.urdf"))


def test_files_of_ros_packages_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    share = tmp_path / "share/my_arm"
    (share / "meshes").mkdir(parents=True)
    (share / "meshes/b.stl").write_text("")
    (share / "r.urdf").write_text(MESH.format("package://my_arm/meshes/b.stl"))
    (share / "r.srdf").write_text('<robot name="r"/>')
    with pytest.raises(PlanningError, match=r"package my_arm .* source the workspace"):
        resolve_description("package://my_arm/r.urdf")
    monkeypatch.setenv("AMENT_PREFIX_PATH", str(tmp_path))
    for source in ("package://my_arm/r.urdf", "package://my_arm/r.urdf:package://my_arm/r.srdf"):
        assert resolve_description(source).meshes() == [share / "meshes/b.stl"]


def test_a_wheel_robot_with_several_variants_asks_which() -> None:
    with pytest.raises(PlanningError, match=r"name one of .*example-robot-data:ur_description/ur5_robot"):
        resolve_description("example-robot-data:ur_description")


LINKAGE = """<robot name="r"><link name="a"/><link name="b"/><link name="c"><collision><geometry>
<box size="0.1 0.1 0.1"/></geometry></collision></link>
<joint name="j" type="revolute"><parent link="a"/><child link="b"/><axis xyz="0 0 1"/>
<limit lower="-2" upper="2" effort="1" velocity="1"/></joint>
<joint name="c" type="revolute"><parent link="b"/><child link="c"/><origin xyz="1 0 0"/><axis xyz="0 0 1"/>
<limit lower="-2" upper="2" effort="1" velocity="1"/><mimic joint="j" multiplier="-1"/></joint></robot>"""


def test_a_joint_that_mimics_one_of_the_arm_moves_with_it(tmp_path: Path) -> None:
    # The mimicking joint also has the name of its link, as in some URDFs.
    (tmp_path / "r.urdf").write_text(LINKAGE)
    (tmp_path / "r.srdf").write_text('<robot name="r"/>')
    planner = EmbeddedPlanner(arm("", ("j",), "a", "c", [0.0]), str(tmp_path / "r.urdf"))
    pose = planner.forward_kinematics(np.array([0.7]))
    np.testing.assert_allclose(pose[:3, 3], [np.cos(0.7), np.sin(0.7), 0.0], atol=1e-9)
    np.testing.assert_allclose(pose[:3, :3], np.eye(3), atol=1e-9)   # held level by the linkage
