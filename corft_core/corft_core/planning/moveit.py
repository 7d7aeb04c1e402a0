"""Motion planning by MoveIt through ``moveit_py`` (Jazzy, Kilted, Lyrical).

:class:`MoveItPlanner` must be alone in its process: ``MoveItPy`` holds the GIL while it starts and plans, and a fault
in it ends the process. ``make_planner("moveit", …)`` therefore runs it in a process of its own (:mod:`process`).
"""

from __future__ import annotations

import copy
import importlib.machinery
import importlib.util
import itertools
import logging
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from corft_core.contract import Contract
from corft_core.planning import moveit_messages as messages
from corft_core.planning import timing
from corft_core.planning.description import RobotDescription, resolve_description, with_tool_frame
from corft_core.planning.interface import (
    COLLISION_STEP_RAD,
    Array,
    PlanningError,
    SceneObject,
    check_joints,
    check_path,
    check_pose,
    check_scene,
    check_within,
    collision_spacing,
    curve_of,
    densify,
    thinned,
)
from corft_core.planning.moveit_config import moveit_config
from corft_core.trajectory import JointPath

logger = logging.getLogger(__name__)

_NODE = "moveit_py"   # also the name under which MoveItPy files its parameters
_PLAN_ATTEMPTS = 5    # about 1 plan in 10 near an obstacle fails its own validation
_IK_TIMEOUT_S, _IK_NEAR_TIMEOUT_S = 0.05, 0.002
_ROUNDING_RAD = 1e-6
_SPACINGS_RAD = (0.1, 0.03)   # of MoveIt's waypoints that the timed spline goes through


def require_moveit() -> None:
    """Raise PlanningError saying what to install when ``moveit_py`` isn't there, or is there for another Python."""
    missing = [name for name in ("moveit", "moveit_msgs", "shape_msgs") if importlib.util.find_spec(name) is None]
    if missing:
        raise PlanningError(f"planner moveit needs the Python package {', '.join(missing)}, which is not importable "
                            "here. Install it (sudo apt install ros-$ROS_DISTRO-moveit "
                            "ros-$ROS_DISTRO-moveit-py) and source /opt/ros/$ROS_DISTRO/setup.bash, or use "
                            "planner:=embedded.")
    package = importlib.util.find_spec("moveit")
    folders = [Path(folder) for folder in (package.submodule_search_locations or ())] if package else []
    built_for = {file.name for folder in folders for file in folder.glob("*.so")}
    suffixes = tuple(importlib.machinery.EXTENSION_SUFFIXES)
    if built_for and not any(name.endswith(suffixes) and (".cpython-" not in name or suffixes[0] in name)
                             for name in built_for):
        raise PlanningError(f"moveit_py is built for another Python ({', '.join(sorted(built_for))}), this is Python "
                            f"{sys.version_info.major}.{sys.version_info.minor}: make the virtual environment with the "
                            "Python of the ROS distribution, or use planner:=embedded.")


def _moveit_py() -> Any:
    """The class MoveItPy. Raises PlanningError when it can't be loaded."""
    try:
        from moveit.planning import MoveItPy
    except ImportError as error:
        raise PlanningError(f"moveit_py is installed and cannot be loaded: {error}. This is NumPy {np.__version__}; "
                            "a moveit_py from apt on Ubuntu 24.04 is built for NumPy 1.26. Check with: python3 -c "
                            "'import moveit.planning', or use planner:=embedded.") from error
    return MoveItPy


class MoveItPlanner:
    """A :class:`~corft_core.planning.interface.MotionPlanner` on ``MoveItPy``.

    ``config``: the folder of MoveIt's YAML files. ``gripper_position``: where the fingers are in every query, default
    open. One lock serialises everything: a second ``execute`` while one runs crashes MoveIt.
    Raises PlanningError when MoveIt isn't installed or the configuration doesn't fit.
    """

    def __init__(self, contract: Contract, config: str | Path, description: RobotDescription | str | None = None,
                 scene: Sequence[SceneObject] = (), gripper_position: float | None = None,
                 joint_state_topic: str | None = None, use_sim_time: bool = False):
        require_moveit()
        if not isinstance(description, RobotDescription):
            description = resolve_description(description or contract.robot.description)
        self._description = with_tool_frame(description, contract)
        self._contract = contract
        self._lock = threading.RLock()
        self._group = self._description.planning_group(contract.robot.joints)
        self._gripper = {}   # position by joint name
        if contract.gripper is not None:
            opening = contract.gripper.open_position if gripper_position is None else gripper_position
            self._gripper[contract.gripper.joint] = float(opening)
        margin = contract.limits.position_margin_rad
        self._prismatic = self._description.prismatic(contract.robot.joints)
        self._hard_limits = self._description.position_limits(contract.robot.joints)
        self._position_limits = self._hard_limits + np.array([[margin], [-margin]])
        self._objects: list[SceneObject] = []
        # A name space other than "" keeps MoveItPy from finding its parameters.
        self._moveit: Any = _moveit_py()(node_name=_NODE, name_space="", config_dict=moveit_config(
            contract, config, self._description, joint_state_topic, use_sim_time))
        self._component: Any = self._moveit.get_planning_component(self._group)
        self._monitor: Any = self._moveit.get_planning_scene_monitor()
        self._model: Any = self._moveit.get_robot_model()
        self.set_scene(scene)

    @property
    def joint_names(self) -> tuple[str, ...]:
        """The arm's joints, in the contract's order."""
        return self._contract.robot.joints

    @property
    def position_limits(self) -> Array:
        """(2, J): limits of the URDF, drawn in by the contract's ``position_margin_rad``."""
        return self._position_limits.copy()

    @property
    def alive(self) -> bool:
        """Always: it runs in this process."""
        return True

    @property
    def hard_limits(self) -> Array:
        """(2, J): limits of the URDF."""
        return self._hard_limits.copy()

    @property
    def scene(self) -> tuple[SceneObject, ...]:
        """The objects given to :meth:`set_scene`; MoveIt's own scene may hold more."""
        return tuple(self._objects)

    def forward_kinematics(self, q: Array, frame: str | None = None) -> Array:
        """Pose 4x4 of ``frame`` (default: the tool frame) in the base frame."""
        q = check_joints(q, self.joint_names, "joint positions")
        with self._lock:
            state = self._state(q)
            return np.linalg.inv(self._link_pose(state, self._contract.robot.base_frame)) @ self._link_pose(
                state, frame or self._contract.robot.tool_frame)

    def poses(self, path: Array, frame: str | None = None) -> Array:
        """Poses (N, 4, 4) of ``frame`` in the base frame along ``path`` (N, J)."""
        return np.stack([self.forward_kinematics(q, frame) for q in check_path(path, self.joint_names, "path")])

    def inverse_kinematics(self, pose: Array, seed: Array, frame: str | None = None, *,
                           near: bool = False) -> Array | None:
        """Joint positions (J,) within the limits that put ``frame`` at ``pose``, from ``seed``; None if not found."""
        target = check_pose(pose, "inverse kinematics")
        seed = check_joints(seed, self.joint_names, "seed")
        tip = frame or self._contract.robot.tool_frame
        self._require_link(tip)
        with self._lock:
            state = self._state(seed)
            target = self._link_pose(state, self._contract.robot.base_frame) @ target
            if not state.set_from_ik(self._group, messages.pose(target), tip,
                                     _IK_NEAR_TIMEOUT_S if near else _IK_TIMEOUT_S):
                return None
            state.update()
            positions = state.joint_positions
        q = np.array([positions[name] for name in self.joint_names])
        low, high = self._position_limits
        inside = np.all(q >= low - _ROUNDING_RAD) and np.all(q <= high + _ROUNDING_RAD)
        return np.clip(q, low, high) if inside else None

    def in_collision(self, q: Array) -> list[tuple[str, str]]:
        """Colliding pairs at ``q``: two links, or a link and a scene object. Empty when free."""
        q = check_joints(q, self.joint_names, "joint positions")
        with self._lock:
            if self._first_hit(q[None]) is None:
                return []
            return self._colliding_pairs(q)

    def penetration_m(self, q: Array) -> float | None:
        """0 when free, else None: moveit_py does not hand out the depth of a contact."""
        return None if self.in_collision(q) else 0.0

    def first_collision(self, path: Array, step_rad: float = COLLISION_STEP_RAD) -> int | None:
        """Index k of the first colliding segment k to k+1, None when free. Waypoints are densified: MoveIt's own
        path check looks at waypoints only."""
        path = check_path(path, self.joint_names, "path")
        with self._lock:
            samples, segments = densify(path, collision_spacing(step_rad, self._prismatic))
            hit = self._first_hit(samples)
        return None if hit is None else int(segments[hit])

    def set_scene(self, objects: Sequence[SceneObject]) -> None:
        """Replace all scene objects. Raises PlanningError on duplicate names or unknown links.

        Objects with ``touch_links`` are attached to the base link, MoveIt's way to let chosen links touch one object.
        What others have put into MoveIt's scene stays there, and counts as well.
        """
        check_scene(objects, self._description.links())
        with self._lock:
            with self._monitor.read_only() as scene:
                others = messages.object_names(scene.planning_scene_message) - {item.name for item in self._objects}
            taken = sorted(others & {item.name for item in objects})
            if taken:
                raise PlanningError(f"MoveIt's scene holds {', '.join(taken)} already, put there by somebody else: "
                                    "give the objects of the scene file other names")
            self._put(objects)

    def _put(self, objects: Sequence[SceneObject]) -> None:
        """Replace our objects in MoveIt's scene by ``objects``."""
        base = self._contract.robot.base_frame
        new = [messages.scene_object(item, base) for item in objects]
        with self._monitor.read_write() as scene:
            present = messages.object_names(scene.planning_scene_message)
            for item in self._objects:
                if item.name not in present:
                    continue
                message, attached = messages.scene_object(item, base, remove=True)
                if attached is not None:   # detaching puts the object into the world, from where it is removed next
                    scene.process_attached_collision_object(attached)
                scene.apply_collision_object(message)
            for message, attached in new:
                if attached is not None:
                    scene.process_attached_collision_object(attached)
                else:
                    scene.apply_collision_object(message)
            scene.current_state.update()
            matrix = scene.planning_scene_message.allowed_collision_matrix
        before, now = _touching(self._objects), _touching(objects)
        if before or now:
            messages.allow(matrix, before - now, False)
            messages.allow(matrix, now, True)
            # moveit_py hands out copies of the matrix: it is written back as a difference, outside of the lock.
            self._monitor.new_planning_scene_message(messages.matrix_difference(matrix))
        self._objects = list(objects)

    def plan(self, start: Array, goal: Array, *, velocity_scale: float = 1.0, acceleration_scale: float = 1.0,
             planning_time_s: float = 5.0) -> JointPath:
        """Collision-free motion at rest at both ends; ``goal`` (J,) or a pose (4, 4) of the tool frame.

        Plans that fail the dense check, or enter the margin of the position limits, which MoveIt doesn't know, are
        planned again. Raises PlanningError.
        """
        from moveit.planning import PlanRequestParameters

        start = check_joints(start, self.joint_names, "start")
        check_within(start, self._hard_limits, self.joint_names, "start")
        self._require_free(start, "start")
        goal = self._goal_joints(np.asarray(goal, dtype=np.float64), start)
        low = np.minimum(self._position_limits[0], start) - _ROUNDING_RAD
        high = np.maximum(self._position_limits[1], start) + _ROUNDING_RAD
        reason = "no attempt was made"
        with self._lock:
            parameters = PlanRequestParameters(self._moveit, "")
            parameters.planning_time = planning_time_s / _PLAN_ATTEMPTS
            parameters.max_velocity_scaling_factor = float(velocity_scale)
            parameters.max_acceleration_scaling_factor = float(acceleration_scale)
            for _ in range(_PLAN_ATTEMPTS):
                self._component.set_start_state(robot_state=self._state(start))
                self._component.set_goal_state(robot_state=self._state(goal))
                response = self._component.plan(single_plan_parameters=parameters)
                if not response:
                    reason = f"MoveIt's error code is {response.error_code.val}"
                    continue
                found = messages.joint_path(response.trajectory.get_robot_trajectory_msg(), self.joint_names)
                for spacing_rad in _SPACINGS_RAD:
                    path = self.time_parametrise(thinned(found.positions, spacing_rad), None, velocity_scale,
                                                 acceleration_scale)
                    curve = curve_of(path)
                    if np.any(curve < low) or np.any(curve > high):
                        reason = "every plan comes too near to a position limit"
                    elif self.first_collision(curve) is not None:
                        reason = "every plan grazes an obstacle between its waypoints"
                    else:
                        return path
        raise PlanningError(f"no plan from start to goal in {_PLAN_ATTEMPTS} attempts: {reason}")

    def time_parametrise(self, waypoints: Array, start_velocity: Array | None = None, velocity_scale: float = 1.0,
                         acceleration_scale: float = 1.0) -> JointPath:
        """As the embedded planner does it: MoveIt's TOTG starts at rest and knows no jerk. Raises PlanningError."""
        return timing.time_parametrise(self.joint_names, waypoints, self._contract.limits, start_velocity,
                                       velocity_scale, acceleration_scale)

    def execute(self, path: JointPath) -> bool:
        """Execute a discrete motion (home, approach, recover), blocking; whether it succeeded. Not for chunks: each
        call starts and ends at rest. The arm must be within 0.01 rad of the first waypoint."""
        with self._lock:
            self._moveit.get_trajectory_execution_manager().stop_execution()
            trajectory = self._trajectory(messages.trajectory_of(path), path.positions[0])
            return bool(self._moveit.execute(trajectory, controllers=[]))

    def close(self) -> None:
        """Shut down. The ROS context ends first, then MoveIt's objects go, MoveItPy last: any other order aborts."""
        with self._lock:
            if self._moveit is None:
                return
            self._moveit.shutdown()
            self._component = self._monitor = self._model = None
            self._moveit = None

    def _state(self, q: Array) -> Any:
        """Robot state at ``q`` with the scene's attached objects. By name: array arguments crash with NumPy 2."""
        with self._monitor.read_only() as scene:
            state = copy.deepcopy(scene.current_state)
        state.joint_positions = {**dict(zip(self.joint_names, map(float, q), strict=True)), **self._gripper}
        state.update()
        return state

    def _trajectory(self, message: Any, start: Array) -> Any:
        from moveit.core.robot_trajectory import RobotTrajectory

        trajectory = RobotTrajectory(self._model)
        trajectory.joint_model_group_name = self._group   # before it is filled
        trajectory.set_robot_trajectory_msg(self._state(start), message)
        return trajectory

    def _link_pose(self, state: Any, link: str) -> Array:
        self._require_link(link)
        return messages.matrix(state.get_pose(link))

    def _require_link(self, link: str) -> None:
        if link not in self._description.links():
            raise PlanningError(f"the robot has no frame {link!r}; its links: {', '.join(self._description.links())}")

    def _require_free(self, q: Array, what: str) -> None:
        pairs = self.in_collision(q)
        if pairs:
            raise PlanningError(f"{what} is in collision: {'; '.join(' with '.join(pair) for pair in pairs)}")

    def _goal_joints(self, goal: Array, start: Array) -> Array:
        if goal.shape == (4, 4):
            found = self.inverse_kinematics(goal, start)
            if found is None:
                raise PlanningError(f"goal pose at {goal[:3, 3].round(3).tolist()} m: the "
                                    f"{self._contract.robot.tool_frame} cannot reach it within the joint limits")
            goal = found
        goal = check_joints(goal, self.joint_names, "goal")
        check_within(goal, self._position_limits, self.joint_names, "goal")
        self._require_free(goal, "goal")
        return goal

    def _first_hit(self, samples: Array) -> int | None:
        """Index of the first of ``samples`` (M, J) that collides."""
        with self._monitor.read_only() as scene:
            lost = [item.name for item in self._objects if not scene.knows_frame_transform(item.name)]
        if lost:
            logger.warning("somebody replaced MoveIt's scene, %s is put back. Publish differences (is_diff: true) to "
                           "keep what is there.", ", ".join(lost))
            self._put(self._objects)
        state = self._state(samples[0])
        with self._monitor.read_only() as scene:
            for k, q in enumerate(samples):
                state.joint_positions = dict(zip(self.joint_names, map(float, q), strict=True))
                state.update()
                if scene.is_state_colliding(robot_state=state, joint_model_group_name=self._group):
                    return k
        return None

    def _colliding_pairs(self, q: Array) -> list[tuple[str, str]]:
        """One check a pair: moveit_py does not hand out the contacts of a check."""
        from moveit.core.collision_detection import AllowedCollisionMatrix, CollisionRequest, CollisionResult

        state = self._state(q)
        request = CollisionRequest()
        request.joint_model_group_name = self._group
        links = self._description.links(with_collision=True)
        found = []
        with self._monitor.read_only() as scene:
            message = scene.planning_scene_message
            objects = sorted(messages.object_names(message))
            allowed = messages.allowed_pairs(message.allowed_collision_matrix)
            for item in self._objects:
                allowed |= {frozenset((link, item.name)) for link in item.touch_links}
            for pair in itertools.combinations([*links, *objects], 2):
                if frozenset(pair) in allowed:
                    continue
                matrix = AllowedCollisionMatrix([*links, *objects], True)
                matrix.set_entry(*pair, False)
                result = CollisionResult()
                scene.check_collision(request, result, state, matrix)
                if result.collision:
                    found.append(pair)
        return sorted(found)


def _touching(objects: Sequence[SceneObject]) -> set[frozenset[str]]:
    """Pairs of objects that may touch."""
    return {frozenset((item.name, other)) for item in objects for other in item.touch_objects}
