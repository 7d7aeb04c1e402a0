"""MoveItPlanner against a double of moveit_py, where the real one can't be installed.

The double has the signatures of moveit_py's bindings (Jazzy) and insists on what breaks the real one: parameters by
name, plain configuration, an empty name space, joint values as a dictionary of floats, ``update()`` after setting them,
no use of a scene after its block, one ``execute`` at a time, and the order of shutting down. Its answers come from the
embedded planner. With the real MoveIt, ``test_planning_contract.py`` runs instead.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import sys
import threading
import types
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
from planning_scenes import check_that_objects_may_touch_where_the_scene_says_so

from corft_core.contract import Contract
from corft_core.execution import Chunk, ChunkExecutor, Command, Measured, check_command
from corft_core.planning import (
    Box,
    Cylinder,
    PlanningError,
    SceneObject,
    Sphere,
    Triangles,
    make_planner,
    pose_matrix,
    resolve_description,
)
from corft_core.planning.embedded import EmbeddedPlanner
from corft_core.planning.interface import MotionPlanner
from corft_core.poses import pose_matrices, pose_vector, quaternion_of
from corft_core.trajectory import JointPath

CELL = Path(__file__).parents[2] / "ros2_ws/src/corft/config/panda_cell"
CONTRACT = Contract.load(CELL / "contract.yaml")
NAMES = CONTRACT.robot.joints
HOME = np.array(CONTRACT.robot.home_rad)
DESCRIPTION = resolve_description(CONTRACT.robot.description)
LINKS = DESCRIPTION.links(with_collision=True)
SIDE = np.array([0.9, 0, 0, 0, 0, 0, 0])
POST = SceneObject("post", Box((0.1, 0.1, 0.8)), pose_matrix([0.37, 0.0, 0.4]))

pytestmark = pytest.mark.skipif(importlib.util.find_spec("moveit") is not None, reason="the real MoveIt is installed")


class Message(SimpleNamespace):
    """A ROS message: nested messages are there from the start, unknown fields are refused when built."""

    FIELDS: ClassVar[dict[str, Any]] = {}

    def __init__(self, **values: Any) -> None:
        unknown = set(values) - set(self.FIELDS)
        assert not unknown, f"{type(self).__name__} has no field {unknown}"
        super().__init__(**{key: make() for key, make in self.FIELDS.items()} | values)


def message(name: str, constants: dict[str, Any] | None = None, **fields: Any) -> type[Message]:
    return type(name, (Message,), {"FIELDS": fields, **(constants or {})})


Vector = message("Point", x=float, y=float, z=float)
Quaternion = message("Quaternion", x=float, y=float, z=float, w=lambda: 1.0)
Pose = message("Pose", position=Vector, orientation=Quaternion)
Header = message("Header", frame_id=str)
Primitive = message("SolidPrimitive", {"BOX": 1, "SPHERE": 2, "CYLINDER": 3}, type=int, dimensions=list)
MeshTriangle = message("MeshTriangle", vertex_indices=list)
MeshMessage = message("Mesh", triangles=list, vertices=list)
CollisionObject = message("CollisionObject", {"ADD": b"\0", "REMOVE": b"\1"}, header=Header, id=str, primitives=list,
                          primitive_poses=list, meshes=list, mesh_poses=list, operation=bytes)
Attached = message("AttachedCollisionObject", link_name=str, object=CollisionObject, touch_links=list)
State = message("RobotState", is_diff=bool, attached_collision_objects=list)
World = message("PlanningSceneWorld", collision_objects=list)
Entry = message("AllowedCollisionEntry", enabled=list)
Matrix = message("AllowedCollisionMatrix", entry_names=list, entry_values=list)
PlanningScene = message("PlanningScene", is_diff=bool, world=World, robot_state=State,
                        allowed_collision_matrix=Matrix)
Duration = message("Duration", sec=int, nanosec=int)
Point = message("JointTrajectoryPoint", positions=list, velocities=list, accelerations=list, effort=list,
                time_from_start=Duration)
Trajectory = message("JointTrajectory", joint_names=list, points=list)
RobotTrajectoryMessage = message("RobotTrajectory", joint_trajectory=Trajectory)


def to_matrix(pose: Any) -> np.ndarray:
    p, q = pose.position, pose.orientation
    return pose_matrices(pose_vector((p.x, p.y, p.z), (q.x, q.y, q.z, q.w)))


class RobotState:
    def __init__(self, attached: dict[str, SceneObject]) -> None:
        self._values = dict.fromkeys((*NAMES, CONTRACT.gripper.joint), 0.0)
        self._fresh, self.attached = False, dict(attached)

    def __deepcopy__(self, memo: dict) -> RobotState:
        other = RobotState(self.attached)
        other._values = dict(self._values)
        return other

    @property
    def joint_positions(self) -> dict[str, float]:
        return dict(self._values)

    @joint_positions.setter
    def joint_positions(self, values: dict[str, float]) -> None:
        assert type(values) is dict and all(type(value) is float for value in values.values())
        assert set(values) <= set(self._values)
        self._values |= values
        self._fresh = False

    def update(self, force: bool = False, type: str = "all") -> None:
        self._fresh = True

    @property
    def q(self) -> np.ndarray:
        assert self._fresh, "update() the state before it is used"
        return np.array([self._values[name] for name in NAMES])

    def get_pose(self, link_name: str) -> Any:
        matrix = MODEL.forward_kinematics(self.q, link_name)
        x, y, z, w = quaternion_of(matrix)
        return Pose(position=Vector(**dict(zip("xyz", map(float, matrix[:3, 3]), strict=True))),
                    orientation=Quaternion(x=x, y=y, z=z, w=w))

    def set_from_ik(self, joint_model_group_name: str, geometry_pose: Any, tip_name: str, timeout: float = 0.0) -> bool:
        assert joint_model_group_name == "arm"
        found = MODEL.inverse_kinematics(to_matrix(geometry_pose), self.q, tip_name)
        if found is None:
            return False
        self.joint_positions = dict(zip(NAMES, map(float, found), strict=True))
        return True


class AllowedCollisionMatrix:
    def __init__(self, names: list[str], default_entry: bool = False) -> None:
        assert default_entry
        assert all(type(name) is str for name in names)
        self.names, self.forbidden = set(names), set()

    def set_entry(self, name1: str, name2: str, allowed: bool) -> None:
        assert {name1, name2} <= self.names and not allowed
        self.forbidden.add(frozenset((name1, name2)))


class Scene:
    """A planning scene; ``open`` only within its block."""

    def __init__(self) -> None:
        self.world: dict[str, SceneObject] = {}
        self.others: list[SceneObject] = []   # put there by RViz or another node
        self.allowed: set[frozenset[str]] = set()
        self._seen: list[int] | None = None
        self.attached: dict[str, SceneObject] = {}
        self._state = RobotState({})
        self.open = 0
        self.writable = False

    def _enter(self, writable: bool) -> None:
        self.open, self.writable = self.open + 1, writable

    @property
    def current_state(self) -> RobotState:
        assert self.open
        self._state.attached = dict(self.attached)
        return self._state

    def apply_collision_object(self, collision_object_msg: Any, color_msg: Any = None) -> None:
        assert self.open and self.writable
        if collision_object_msg.operation == CollisionObject.REMOVE:
            self.world.pop(collision_object_msg.id)
        else:
            assert collision_object_msg.header.frame_id == CONTRACT.robot.base_frame
            self.world[collision_object_msg.id] = self._object(collision_object_msg)

    def process_attached_collision_object(self, object: Any) -> None:
        assert self.open and self.writable
        if object.object.operation == CollisionObject.REMOVE:
            self.world[object.object.id] = self.attached.pop(object.object.id)
            return
        base = object.link_name == CONTRACT.robot.base_frame
        self.attached[object.object.id] = self._object(object.object, None if base else object.link_name,
                                                       tuple(object.touch_links))

    def _object(self, item: Any, link: str | None = None, touch: tuple[str, ...] = ()) -> SceneObject:
        if item.meshes:
            corners = tuple((vertex.x, vertex.y, vertex.z) for vertex in item.meshes[0].vertices)
            faces = tuple(tuple(face.vertex_indices) for face in item.meshes[0].triangles)
            return SceneObject(item.id, Triangles(corners, faces), to_matrix(item.mesh_poses[0]), link, touch)
        primitive, size = item.primitives[0], [float(value) for value in item.primitives[0].dimensions]
        shape = {Primitive.BOX: lambda: Box(tuple(size)), Primitive.SPHERE: lambda: Sphere(*size),
                 Primitive.CYLINDER: lambda: Cylinder(size[1], size[0])}[primitive.type]()
        return SceneObject(item.id, shape, to_matrix(item.primitive_poses[0]), link, touch)

    def _pairs(self, state: RobotState) -> list[tuple[str, str]]:
        assert self.open
        objects = [*self.world.values(), *self.others, *state.attached.values()]
        if [id(item) for item in objects] != self._seen:
            MODEL.set_scene(objects)
            self._seen = [id(item) for item in objects]
        return [pair for pair in MODEL.in_collision(state.q) if frozenset(pair) not in self.allowed]

    def knows_frame_transform(self, frame_id: str) -> bool:
        assert self.open
        return frame_id in {*self.world, *self.attached, *(item.name for item in self.others)}

    @property
    def planning_scene_message(self) -> Any:
        """A copy, as the real one hands out."""
        assert self.open
        message = PlanningScene()
        message.world.collision_objects = [CollisionObject(id=name) for name in
                                           [*self.world, *(item.name for item in self.others)]]
        message.robot_state.attached_collision_objects = [Attached(object=CollisionObject(id=name))
                                                          for name in self.attached]
        links = [*LINKS]
        disabled = {frozenset((item.get("link1"), item.get("link2")))
                    for item in ElementTree.fromstring(DESCRIPTION.srdf).findall("disable_collisions")} | self.allowed
        names = sorted({*links, *(name for pair in disabled for name in pair)})
        message.allowed_collision_matrix = Matrix(entry_names=names, entry_values=[
            Entry(enabled=[frozenset((a, b)) in disabled for b in names]) for a in names])
        return message

    def is_state_colliding(self, robot_state: RobotState, joint_model_group_name: str, verbose: bool = False) -> bool:
        assert joint_model_group_name == "arm"
        return bool(self._pairs(robot_state))

    def check_collision(self, collision_request: Any, collision_result: Any, state: RobotState,
                        acm: AllowedCollisionMatrix) -> None:
        assert collision_request.joint_model_group_name == "arm"
        collision_result.collision = any(frozenset(pair) in acm.forbidden for pair in self._pairs(state))


class Block:
    def __init__(self, scene: Scene, writable: bool) -> None:
        self.scene, self.writable = scene, writable

    def __enter__(self) -> Scene:
        self.scene._enter(self.writable)
        return self.scene

    def __exit__(self, *_: Any) -> None:
        self.scene.open -= 1


class RobotTrajectory:
    def __init__(self, robot_model: Any) -> None:
        assert robot_model is not None
        self.joint_model_group_name, self.path = "", None

    def set_robot_trajectory_msg(self, robot_state: RobotState, msg: Any) -> None:
        assert self.joint_model_group_name == "arm", "name the group before filling the trajectory"
        source = msg.joint_trajectory
        assert source.joint_names == list(NAMES)
        assert all(type(value) is float for point in source.points for value in point.positions)
        self.positions = np.array([point.positions for point in source.points])
        np.testing.assert_allclose(robot_state.q, self.positions[0])

    def get_robot_trajectory_msg(self, joint_filter: list[str] = ()) -> Any:  # type: ignore[assignment]
        assert self.path is not None
        points = []
        for k, time_s in enumerate(self.path.times_s):
            point = Point(positions=list(self.path.positions[k]), velocities=list(self.path.velocities[k]))
            point.time_from_start.sec, point.time_from_start.nanosec = divmod(round(time_s * 1e9), 10**9)
            points.append(point)
        return RobotTrajectoryMessage(joint_trajectory=Trajectory(joint_names=list(NAMES), points=points))


class PlanRequestParameters:
    def __init__(self, moveit: Any, namespace: str) -> None:
        assert namespace == ""
        self.planning_time = self.max_velocity_scaling_factor = self.max_acceleration_scaling_factor = 1.0


class Component:
    def __init__(self, moveit: Any) -> None:
        self.moveit, self.start, self.goal = moveit, None, None

    def set_start_state(self, configuration_name: str | None = None, robot_state: RobotState | None = None) -> bool:
        self.start = robot_state
        return True

    def set_goal_state(self, configuration_name: str | None = None, robot_state: RobotState | None = None) -> bool:
        self.goal = robot_state
        return True

    def plan(self, single_plan_parameters: PlanRequestParameters) -> Any:
        self.moveit.plans += 1
        response = type("Response", (), {"__bool__": lambda self: self.trajectory is not None})()
        response.trajectory, response.error_code = None, SimpleNamespace(val=-1)
        if self.moveit.plans % 3 == 1:   # as the real one, now and then
            return response
        trajectory = RobotTrajectory(object())
        parameters = single_plan_parameters
        trajectory.path = MODEL.plan(self.start.q, self.goal.q,
                                     velocity_scale=parameters.max_velocity_scaling_factor,
                                     acceleration_scale=parameters.max_acceleration_scaling_factor)
        response.trajectory = trajectory
        return response


class MoveItPy:
    made: ClassVar[list[MoveItPy]] = []

    def __init__(self, node_name: str = "moveit_py", name_space: str = "",
                 launch_params_filepaths: list[str] | None = None, config_dict: dict | None = None,
                 provide_planning_service: bool = True) -> None:
        assert node_name == "moveit_py" and name_space == ""
        assert config_dict is not None and config_dict["planning_pipelines"]["pipeline_names"] == ["ompl"]
        self.scene, self.plans, self.events, self.executing = Scene(), 0, [], threading.Lock()
        self.monitor = SimpleNamespace(read_only=lambda: Block(self.scene, False),
                                       read_write=lambda: Block(self.scene, True),
                                       new_planning_scene_message=self._update)
        MoveItPy.made.append(self)

    def _update(self, scene: Any) -> None:
        assert not self.scene.open, "new_planning_scene_message takes the lock that the block holds"
        assert scene.is_diff and scene.robot_state.is_diff
        matrix = scene.allowed_collision_matrix
        assert all(len(row.enabled) == len(matrix.entry_names) for row in matrix.entry_values)
        self.scene.allowed = {frozenset((a, b)) for a, row in zip(matrix.entry_names, matrix.entry_values, strict=True)
                              for b, enabled in zip(matrix.entry_names, row.enabled, strict=True) if enabled}

    def get_planning_component(self, planning_component_name: str) -> Component:
        assert planning_component_name == "arm"
        return Component(self)

    def get_planning_scene_monitor(self) -> Any:
        return self.monitor

    def get_robot_model(self) -> Any:
        return SimpleNamespace(name="panda")

    def get_trajectory_execution_manager(self) -> Any:
        return SimpleNamespace(stop_execution=lambda: self.events.append("stop"))

    def execute(self, robot_trajectory: RobotTrajectory, controllers: list[str]) -> Any:
        assert controllers == [] and self.events[-1:] == ["stop"]
        assert self.executing.acquire(blocking=False), "a second execute crashes MoveIt"
        self.events.append("execute")
        threading.Event().wait(0.02)
        self.executing.release()
        return type("ExecutionStatus", (), {"__bool__": lambda self: True, "status": "SUCCEEDED"})()

    def shutdown(self) -> None:
        self.events.append("shutdown")


def modules() -> dict[str, types.ModuleType]:
    contents: dict[str, dict[str, Any]] = {
        "moveit": {}, "moveit.core": {},
        "moveit_msgs": {}, "shape_msgs": {}, "geometry_msgs": {}, "trajectory_msgs": {},
        "moveit.planning": {"MoveItPy": MoveItPy, "PlanRequestParameters": PlanRequestParameters},
        "moveit.core.robot_trajectory": {"RobotTrajectory": RobotTrajectory},
        "moveit.core.collision_detection": {"AllowedCollisionMatrix": AllowedCollisionMatrix,
                                            "CollisionRequest": SimpleNamespace, "CollisionResult": SimpleNamespace},
        "moveit_msgs.msg": {"CollisionObject": CollisionObject, "AttachedCollisionObject": Attached,
                            "RobotTrajectory": RobotTrajectoryMessage, "PlanningScene": PlanningScene,
                            "AllowedCollisionEntry": Entry},
        "shape_msgs.msg": {"SolidPrimitive": Primitive, "Mesh": MeshMessage, "MeshTriangle": MeshTriangle},
        "geometry_msgs.msg": {"Pose": Pose, "Point": Vector},
        "trajectory_msgs.msg": {"JointTrajectoryPoint": Point},
    }
    made = {}
    for name, content in contents.items():
        made[name] = types.ModuleType(name)
        made[name].__spec__ = importlib.machinery.ModuleSpec(name, None)
        made[name].__dict__.update(content)
    return made


MODEL: EmbeddedPlanner


@pytest.fixture
def planner(monkeypatch: pytest.MonkeyPatch) -> Iterator[MotionPlanner]:
    global MODEL
    MODEL = EmbeddedPlanner(CONTRACT)
    for name, module in modules().items():
        monkeypatch.setitem(sys.modules, name, module)
    from corft_core.planning.moveit import MoveItPlanner

    made = MoveItPlanner(CONTRACT, config=CELL / "moveit")
    yield made
    made.close()


def test_kinematics_and_limits(planner: MotionPlanner) -> None:
    assert isinstance(planner, MotionPlanner) and planner.joint_names == NAMES
    np.testing.assert_allclose(planner.position_limits, MODEL.position_limits)
    pose = planner.forward_kinematics(HOME)
    np.testing.assert_allclose(pose, MODEL.forward_kinematics(HOME), atol=1e-9)
    found = planner.inverse_kinematics(pose, HOME + 0.1)
    assert found is not None
    np.testing.assert_allclose(planner.forward_kinematics(found), pose, atol=1e-4)
    pose[0, 3] = 3.0
    assert planner.inverse_kinematics(pose, HOME) is None


def test_collision_pairs_are_found_by_asking_for_each(planner: MotionPlanner) -> None:
    assert planner.in_collision(HOME) == []
    planner.set_scene([POST])
    MODEL.set_scene([POST])
    assert planner.in_collision(HOME) == MODEL.in_collision(HOME)
    folded = np.array([0.0, 1.0, 0.0, -3.05, 0.0, 0.0025, 0.0])
    planner.set_scene([])
    MODEL.set_scene([])
    assert planner.in_collision(folded) == MODEL.in_collision(folded) != []


def test_paths_are_checked_between_waypoints(planner: MotionPlanner) -> None:
    path = np.linspace(HOME + SIDE, HOME - SIDE, 4)
    assert planner.first_collision(path) is None
    planner.set_scene([POST])
    assert planner.first_collision(path) == MODEL.first_collision(path)


def test_scenes_are_replaced_with_attached_and_tolerant_objects(planner: MotionPlanner) -> None:
    stick = SceneObject("stick", Cylinder(0.01, 0.3), pose_matrix([0, 0, 0.2]), "panda_hand", ("panda_leftfinger",))
    rug = SceneObject("rug", Box((1.0, 1.0, 0.01)), touch_links=("panda_link1",))
    planner.set_scene([POST, stick, rug])
    scene = MoveItPy.made[-1].scene
    assert set(scene.world) == {"post"} and set(scene.attached) == {"stick", "rug"}
    assert scene.attached["stick"].touch_links == ("panda_hand", "panda_leftfinger")
    assert scene.attached["stick"].shape == Cylinder(0.01, 0.3)
    planner.set_scene([stick])
    assert set(scene.world) == set() and set(scene.attached) == {"stick"}
    planner.set_scene([])
    assert not scene.world and not scene.attached


def test_failed_plans_are_planned_again(planner: MotionPlanner) -> None:
    planner.set_scene([POST])
    for _ in range(2):
        path = planner.plan(HOME + SIDE, HOME - SIDE, velocity_scale=0.5)
        np.testing.assert_allclose(path.positions[-1], HOME - SIDE, atol=1e-6)
        assert planner.first_collision(path.positions) is None
    planner.set_scene([])
    pose = planner.forward_kinematics(HOME + 0.2)
    to_pose = planner.plan(HOME, pose)
    np.testing.assert_allclose(planner.forward_kinematics(to_pose.positions[-1]), pose, atol=1e-4)
    with pytest.raises(PlanningError, match="start is in collision"):
        planner.set_scene([POST])
        planner.plan(HOME, HOME + SIDE)


def test_timing_begins_at_rest_or_in_motion(planner: MotionPlanner) -> None:
    waypoints = HOME + np.linspace(0, 0.5, 6)[:, None]
    resting = planner.time_parametrise(waypoints)
    np.testing.assert_allclose(resting.positions[-1], waypoints[-1], atol=1e-6)
    moving = planner.time_parametrise(waypoints, np.full(7, 0.4))
    assert moving.velocities is not None
    np.testing.assert_allclose(moving.velocities[0], 0.4, atol=1e-6)


def test_execution_stops_what_runs_and_is_never_doubled(planner: MotionPlanner) -> None:
    path = JointPath(NAMES, np.array([0.0, 1.0]), np.stack([HOME, HOME + 0.1]), np.zeros((2, 7)))
    results = []
    threads = [threading.Thread(target=lambda: results.append(planner.execute(path))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [True] * 3
    assert MoveItPy.made[-1].events == ["stop", "execute"] * 3


def test_closing_shuts_down_first_and_only_once(planner: MotionPlanner) -> None:
    made = MoveItPy.made[-1]
    planner.close()
    planner.close()
    assert made.events == ["shutdown"]
    assert planner._moveit is None and planner._component is None  # type: ignore[attr-defined]


def test_objects_that_others_put_into_moveits_scene_count_and_stay(planner: MotionPlanner) -> None:
    scene = MoveItPy.made[-1].scene
    scene.others = [POST]
    assert ("panda_hand", "post") in planner.in_collision(HOME)
    planner.set_scene([SceneObject("box", Box((0.1, 0.1, 0.1)), pose_matrix([2.0, 0.0, 0.0]))])
    planner.set_scene([])
    assert scene.others == [POST] and planner.scene == ()
    assert planner.first_collision(HOME[None]) == 0
    with pytest.raises(PlanningError, match="MoveIt's scene holds post already, put there by somebody else"):
        planner.set_scene([POST])


def test_our_objects_come_back_when_somebody_replaces_the_scene(planner: MotionPlanner) -> None:
    planner.set_scene([POST])
    MoveItPy.made[-1].scene.world.clear()
    assert planner.first_collision(HOME[None]) == 0
    assert set(MoveItPy.made[-1].scene.world) == {"post"}


def test_objects_may_touch_each_other_where_the_scene_says_so(planner: MotionPlanner) -> None:
    apart = check_that_objects_may_touch_where_the_scene_says_so(planner, HOME)
    assert planner.first_collision(HOME[None]) is None
    planner.set_scene(apart)
    assert planner.first_collision(HOME[None]) == 0


def test_planned_moves_run_on_moveit_too(planner: MotionPlanner) -> None:
    from corft_core.planning.moves import home, plan_between, recover

    np.testing.assert_allclose(home(planner, CONTRACT, HOME + SIDE).positions[-1], HOME, atol=1e-6)
    velocity = np.full(7, 0.2)
    around = plan_between(planner, HOME, HOME + 0.4, velocity)
    assert around.velocities is not None
    np.testing.assert_allclose(around.velocities[0], velocity, atol=1e-9)
    tool = planner.forward_kinematics(HOME)[:3, 3]
    planner.set_scene([SceneObject("plate", Box((0.3, 0.3, 0.02)), pose_matrix([tool[0], 0.0, tool[2] - 0.015]))])
    assert planner.in_collision(HOME) and planner.penetration_m(HOME) is None
    assert planner.in_collision(recover(planner, HOME).positions[-1]) == []


def test_chunks_become_the_same_motions_on_moveit(planner: MotionPlanner) -> None:
    """Through the post: cut before it, with a stop, and held; as on the embedded planner."""
    sweep = np.repeat(HOME[None], 14, axis=0)
    sweep[:, 0] += np.linspace(0.9, -0.9, 14)
    now_ns, paths = 10**12, []
    for each in (planner, MODEL):
        each.set_scene([POST])
        executor = ChunkExecutor(CONTRACT, each)
        start = Measured(now_ns, sweep[0], np.zeros(7))
        command = executor.accept(Chunk(now_ns, NAMES, sweep, np.ones(14), 0.2), now_ns, start)
        assert isinstance(command, Command), command
        assert command.truncated is not None and "post" in command.truncated.message
        assert check_command(command, None, executor.limits, each) == []
        then_ns = now_ns + 500_000_000
        stop = executor.hold(then_ns)
        assert stop is not None and check_command(stop, command, executor.limits, each) == []
        paths.append((command.path, stop.path))
    for ours, theirs in zip(*paths, strict=True):
        np.testing.assert_allclose(ours.positions, theirs.positions, atol=1e-6)
        np.testing.assert_allclose(ours.times_s, theirs.times_s, atol=1e-6)


def test_a_moveit_for_another_python_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from corft_core.planning.moveit import require_moveit

    (tmp_path / "moveit").mkdir()
    (tmp_path / "moveit/core.cpython-35-x86_64-linux-gnu.so").write_text("")
    for name, module in modules().items():
        monkeypatch.setitem(sys.modules, name, module)
    sys.modules["moveit"].__spec__ = importlib.machinery.ModuleSpec("moveit", None, is_package=True)
    sys.modules["moveit"].__spec__.submodule_search_locations = [str(tmp_path / "moveit")]
    with pytest.raises(PlanningError, match="moveit_py is built for another Python"):
        require_moveit()


def test_a_moveit_that_cannot_be_loaded_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from corft_core.planning.moveit import MoveItPlanner

    for name, module in modules().items():
        monkeypatch.setitem(sys.modules, name, module)
    del sys.modules["moveit.planning"].MoveItPy   # type: ignore[attr-defined]
    with pytest.raises(PlanningError, match=r"cannot be loaded: .*This is NumPy"):
        MoveItPlanner(CONTRACT, config=CELL / "moveit")


def test_spheres_and_meshes_reach_moveit(planner: MotionPlanner, tmp_path: Path) -> None:
    from corft_core.planning import Mesh

    (tmp_path / "part.obj").write_text("v 0 0 0\nv 1 0 0\nv 0 1 0\nv 0 0 1\nf 1 3 2\nf 1 2 4\nf 2 3 4\nf 3 1 4\n")
    corners = ((0.0, 0.0, 0.0), (0.1, 0.0, 0.0), (0.0, 0.1, 0.0), (0.0, 0.0, 0.1))
    far = pose_matrix([2.0, 0.0, 0.0])
    planner.set_scene([SceneObject("part", Mesh(tmp_path / "part.obj", (0.1, 0.1, 0.1)), far),
                       SceneObject("same", Triangles(corners, ((0, 2, 1), (0, 1, 3), (1, 2, 3), (2, 0, 3))), far),
                       SceneObject("ball", Sphere(0.1), far)])
    world = MoveItPy.made[-1].scene.world
    assert world["ball"].shape == Sphere(0.1)
    for name in ("part", "same"):
        shape = world[name].shape
        assert isinstance(shape, Triangles)
        np.testing.assert_allclose(np.max(shape.vertices_m, axis=0), 0.1, atol=1e-6)
        assert len(shape.faces) == 4
    with pytest.raises(PlanningError, match=r"absent\.stl cannot be read"):
        planner.set_scene([SceneObject("part", Mesh(tmp_path / "absent.stl"))])


def test_moveit_needs_its_configuration_folder(planner: MotionPlanner) -> None:
    with pytest.raises(PlanningError, match="config"):
        make_planner("moveit", CONTRACT)
