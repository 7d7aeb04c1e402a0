"""Scene files, robot descriptions, and the cell's scene against the cell itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from corft_core.contract import Contract
from corft_core.planning import Box, Cylinder, Mesh, PlanningError, load_scene, pose_matrix, resolve_description
from corft_core.planning.description import RobotDescription, with_tool_frame
from corft_core.planning.scene import scene_from_dict

CELL = Path(__file__).parents[2] / "ros2_ws/src/corft/config/panda_cell"
CONTRACT = Contract.load(CELL / "contract.yaml")


def scene(*objects: dict) -> dict:
    return {"frame": "base", "objects": list(objects)}


def test_every_shape_is_read(tmp_path: Path) -> None:
    (tmp_path / "part.stl").write_text("solid part\nendsolid part\n")
    (tmp_path / "scene.yaml").write_text(
        "frame: base\n"
        "objects:\n"
        "  - {name: table, box_m: [1, 2, 0.5], position_m: [0.1, 0.2, 0.3], touch_links: [foot]}\n"
        "  - {name: post, cylinder_m: {radius: 0.1, height: 2}, rpy_rad: [0, 0, 1.5707963267948966]}\n"
        "  - {name: part, mesh: part.stl, scale: [0.001, 0.001, 0.001], attached_to: hand}\n")
    table, post, part = load_scene(tmp_path / "scene.yaml", "base")
    assert table.shape == Box((1.0, 2.0, 0.5)) and table.touch_links == ("foot",)
    np.testing.assert_allclose(table.pose[:3, 3], [0.1, 0.2, 0.3])
    assert post.shape == Cylinder(0.1, 2.0)
    np.testing.assert_allclose(post.pose[:3, 0], [0, 1, 0], atol=1e-12)
    assert part.shape == Mesh(tmp_path / "part.stl", (0.001, 0.001, 0.001)) and part.attached_to == "hand"


def test_roll_pitch_yaw_turn_about_the_fixed_axes() -> None:
    half = np.pi / 2
    # Roll takes y to z, then yaw takes x to y.
    np.testing.assert_allclose(pose_matrix([0, 0, 0], [half, 0, half])[:3, :3], [[0, 0, 1], [1, 0, 0], [0, 1, 0]],
                               atol=1e-12)


@pytest.mark.parametrize("data, message", [
    ([], "expected the keys frame and objects"),
    ({"frame": "map", "objects": []}, "frame is 'map', the contract's base frame is 'base'"),
    (scene({"box_m": [1, 1, 1]}), r"objects\[0\] must be a mapping with a name"),
    (scene({"name": "a", "box": [1, 1, 1]}), r"objects\[0\] \(a\): unknown key box"),
    (scene({"name": "a"}), "needs exactly one of box_m, cylinder_m, sphere_m, mesh, got none"),
    (scene({"name": "a", "box_m": [1, 1]}), r"box_m must be 3 finite numbers, got \[1, 1\]"),
    (scene({"name": "a", "box_m": [1, 1, -1]}), "sizes must be positive"),
    (scene({"name": "a", "box_m": [1, 1, 1], "position_m": [0, 0, float("nan")]}), "position_m must be 3 finite"),
    (scene({"name": "a", "mesh": "absent.stl"}), r"no file .*absent\.stl"),
    (scene({"name": "a", "box_m": [1, 1, 1], "scale": [1, 1, 1]}), "scale belongs to a mesh"),
    (scene({"name": "a", "box_m": [1, 1, 1]}, {"name": "a", "box_m": [1, 1, 1]}), "a is given more than once"),
])
def test_mistakes_in_a_scene_are_named(data: object, message: str) -> None:
    with pytest.raises(PlanningError, match=message):
        scene_from_dict(data, "base")


def test_a_missing_scene_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(PlanningError, match=r"scene file .*none\.yaml cannot be read"):
        load_scene(tmp_path / "none.yaml", "base")


def test_the_scene_agrees_with_the_simulated_cell() -> None:
    mujoco = pytest.importorskip("mujoco")
    from corft_core.cell.model import cell_model

    model = cell_model()
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    cell = {}
    for index in range(model.ngeom):
        name = model.geom(index).name
        if name == "table" or name.startswith("bin_"):
            cell[name] = np.concatenate([data.geom_xpos[index], 2 * model.geom_size[index]])
    objects = load_scene(CELL / "scene.yaml", CONTRACT.robot.base_frame)
    assert {item.name for item in objects} == set(cell)
    for item in objects:
        assert isinstance(item.shape, Box)
        np.testing.assert_allclose(np.concatenate([item.pose[:3, 3], item.shape.size_m]), cell[item.name], atol=1e-9,
                                   err_msg=item.name)


def test_the_wheels_panda_has_its_meshes() -> None:
    description = resolve_description("example-robot-data:panda_description")
    assert "package://" not in description.urdf
    paths = [Path(part.split('"')[0]) for part in description.urdf.split('filename="')[1:]]
    assert paths and all(path.is_file() for path in paths)
    assert description.planning_group(CONTRACT.robot.joints) == "arm"


URDF = """<robot name="r"><link name="foot"><collision><geometry>
<mesh filename="package://arm/meshes/foot.stl"/></geometry></collision></link><link name="hand"/>
<joint name="a" type="revolute"><parent link="foot"/><child link="hand"/><limit lower="-1" upper="2"/></joint>
</robot>"""
SRDF = """<robot name="r"><group name="all"><chain base_link="foot" tip_link="hand"/></group></robot>"""


def test_a_description_is_read_from_files_with_its_package(tmp_path: Path) -> None:
    (tmp_path / "arm/urdf").mkdir(parents=True)
    (tmp_path / "arm/srdf").mkdir()
    (tmp_path / "arm/urdf/r.urdf").write_text(URDF)
    (tmp_path / "arm/srdf/r.srdf").write_text(SRDF)
    for source in (f"{tmp_path}/arm/urdf/r.urdf", f"{tmp_path}/arm/urdf/r.urdf:{tmp_path}/arm/srdf/r.srdf"):
        description = resolve_description(source)
        assert f'"{tmp_path}/arm/meshes/foot.stl"' in description.urdf
        assert f'"file://{tmp_path}/arm/meshes/foot.stl"' in description.with_mesh_uris()
    assert description.planning_group(("a",)) == "all"
    assert description.links() == ("foot", "hand") and description.links(with_collision=True) == ("foot",)
    np.testing.assert_array_equal(description.position_limits(("a",)), [[-1], [2]])


def test_a_package_is_found_on_the_ament_prefix_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "share/arm").mkdir(parents=True)
    with pytest.raises(PlanningError, match=r"the package arm .* source the workspace"):
        resolve_description(URDF, SRDF)
    monkeypatch.setenv("AMENT_PREFIX_PATH", str(tmp_path))
    assert f'"{tmp_path}/share/arm/meshes/foot.stl"' in resolve_description(URDF, SRDF).urdf


@pytest.mark.parametrize("source, message", [
    ("example-robot-data:nobody_description", "has no robot 'nobody_description'; it has .*panda_description"),
    ("/nowhere/r.urdf", r"/nowhere/r\.urdf cannot be read"),
    ("/nowhere/r.urdf.xacro", "is a xacro file and xacro is not installed here; write the URDF first"),
    ("<robot name='r'/>", "cannot be read"),
])
def test_a_description_that_is_not_there_is_named(source: str, message: str) -> None:
    with pytest.raises(PlanningError, match=message):
        resolve_description(source)


def test_the_hands_tool_frame_is_added_where_the_urdf_lacks_it() -> None:
    full = resolve_description(CONTRACT.robot.description)
    assert with_tool_frame(full, CONTRACT) is full
    hand_only = RobotDescription(full.urdf.replace("panda_hand_tcp", "some_frame"), full.srdf)
    added = with_tool_frame(hand_only, CONTRACT)
    from corft_core.planning.embedded import EmbeddedPlanner

    home = np.array(CONTRACT.robot.home_rad)
    expected = EmbeddedPlanner(CONTRACT, full).forward_kinematics(home)
    np.testing.assert_allclose(EmbeddedPlanner(CONTRACT, added).forward_kinematics(home), expected, atol=1e-12)
    without_hand = RobotDescription(full.urdf.replace("panda_hand", "claw"), full.srdf)
    with pytest.raises(PlanningError, match="no link panda_hand_tcp"):
        with_tool_frame(without_hand, CONTRACT)
