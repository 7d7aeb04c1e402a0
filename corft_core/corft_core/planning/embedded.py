"""Motion planning without MoveIt: Pinocchio, Coal, OMPL, TOPP-RA and Ruckig, part for part what MoveIt is made of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from ompl import base as ompl_base
from ompl import geometric as ompl_geometric
from ompl import util as ompl_util

from corft_core.contract import Contract
from corft_core.planning import timing
from corft_core.planning.arm_model import ArmModel
from corft_core.planning.description import RobotDescription, resolve_description, with_tool_frame
from corft_core.planning.interface import (
    COLLISION_STEP_RAD,
    Array,
    PlanningError,
    SceneObject,
    check_joints,
    check_path,
    check_pose,
    check_within,
    collision_spacing,
    curve_of,
    densify,
)
from corft_core.trajectory import JointPath

_IK_STEPS = 100
_IK_RESTARTS = 60
_IK_PATIENCE = 8   # steps without progress before a start is given up
_IK_POSITION_M, _IK_ROTATION_RAD = 1e-6, 1e-5
_IK_MAX_STEP_RAD = 0.3
_PLAN_ATTEMPTS = 5
_LIMIT_ROUNDING_RAD = 1e-6


class EmbeddedPlanner:
    """A :class:`~corft_core.planning.interface.MotionPlanner` in this process.

    ``description`` defaults to the contract's; ``gripper_position`` is where the fingers are locked, default open.
    ``seed`` makes inverse kinematics repeatable; OMPL draws its own. Queries are safe from several threads.
    Raises PlanningError when the description doesn't fit the contract.
    """

    def __init__(self, contract: Contract, description: RobotDescription | str | None = None,
                 scene: Sequence[SceneObject] = (), gripper_position: float | None = None, seed: int = 0):
        if not isinstance(description, RobotDescription):
            description = resolve_description(description or contract.robot.description)
        self._contract = contract
        self._limits = contract.limits
        self._tool = contract.robot.tool_frame
        self._arm = ArmModel(contract, with_tool_frame(description, contract), gripper_position)
        self._prismatic = description.prismatic(contract.robot.joints)
        margin = contract.limits.position_margin_rad
        self._position_limits = self._arm.limits + np.array([[margin], [-margin]])
        if np.any(self._position_limits[0] >= self._position_limits[1]):
            raise PlanningError(f"limits.position_margin_rad = {margin} leaves no room between the joint limits")
        self._random = np.random.default_rng(seed)
        ompl_util.setLogLevel(ompl_util.LOG_ERROR)
        self.set_scene(scene)

    @property
    def joint_names(self) -> tuple[str, ...]:
        """The arm's joints, in the contract's order."""
        return self._arm.joint_names

    @property
    def position_limits(self) -> Array:
        """(2, J): lower and upper limits of the URDF, drawn in by the contract's ``position_margin_rad``."""
        return self._position_limits.copy()

    @property
    def alive(self) -> bool:
        """Always: it runs in this process."""
        return True

    @property
    def hard_limits(self) -> Array:
        """(2, J): lower and upper limits of the URDF."""
        return self._arm.limits.copy()

    @property
    def scene(self) -> tuple[SceneObject, ...]:
        """The scene's objects."""
        return self._arm.objects

    def set_scene(self, objects: Sequence[SceneObject]) -> None:
        """Replace all scene objects. Raises PlanningError on duplicate names or unknown links."""
        self._arm.set_scene(objects)

    def forward_kinematics(self, q: Array, frame: str | None = None) -> Array:
        """Pose 4x4 of ``frame`` (default: the tool frame) in the base frame at ``q`` (J,)."""
        q = check_joints(q, self.joint_names, "joint positions")
        return np.asarray(self._arm.poses(q[None], frame or self._tool)[0])

    def poses(self, path: Array, frame: str | None = None) -> Array:
        """Poses (N, 4, 4) of ``frame`` in the base frame along ``path`` (N, J)."""
        return self._arm.poses(check_path(path, self.joint_names, "path"), frame or self._tool)

    def inverse_kinematics(self, pose: Array, seed: Array, frame: str | None = None, *,
                           near: bool = False) -> Array | None:
        """Joint positions (J,) within the limits that put ``frame`` at ``pose`` within 1e-6 m and 1e-5 rad, or None.

        Damped least squares from ``seed``, then, unless ``near``, from random starts ever further away. Collisions are
        not regarded.
        """
        target = check_pose(pose, "inverse kinematics")
        seed = check_joints(seed, self.joint_names, "seed")
        return next(self._solutions(target, seed, frame or self._tool, 0 if near else _IK_RESTARTS), None)

    def in_collision(self, q: Array) -> list[tuple[str, str]]:
        """Colliding pairs at ``q``: two links, or a link and a scene object. Empty when free."""
        return self._arm.colliding_pairs(check_joints(q, self.joint_names, "joint positions"))

    def penetration_m(self, q: Array) -> float | None:
        """Depth of the deepest contact at ``q``; 0 when free."""
        return self._arm.penetration_m(check_joints(q, self.joint_names, "joint positions"))

    def first_collision(self, path: Array, step_rad: float = COLLISION_STEP_RAD) -> int | None:
        """Index k of the first colliding segment k to k+1 of ``path`` (N, J), None when free; see MotionPlanner."""
        path = check_path(path, self.joint_names, "path")
        if step_rad <= 0:
            raise PlanningError(f"step_rad must be positive, got {step_rad}")
        samples, segments = densify(path, collision_spacing(step_rad, self._prismatic))
        hit = self._arm.first_hit(samples)
        return None if hit is None else int(segments[hit])

    def plan(self, start: Array, goal: Array, *, velocity_scale: float = 1.0, acceleration_scale: float = 1.0,
             planning_time_s: float = 5.0) -> JointPath:
        """Collision-free motion at rest at both ends: a straight line where that is free, else RRTConnect.

        ``goal`` is joint positions (J,) or a pose (4, 4) of the tool frame. The timed curve itself is checked, every
        0.02 rad. A start beyond the margin but within the joint's own limits is allowed. Raises PlanningError.
        """
        start = check_joints(start, self.joint_names, "start")
        hard = self._arm.limits + np.array([[-_LIMIT_ROUNDING_RAD], [_LIMIT_ROUNDING_RAD]])
        check_within(start, hard, self.joint_names, "start")
        self._require_free(start, "start")
        goal = self._goal_joints(np.asarray(goal, dtype=np.float64), start)
        bounds = self._bounds(start, goal)
        failure = "none was tried"
        for attempt in range(_PLAN_ATTEMPTS):
            straight = np.stack([start, goal])
            if attempt == 0:
                if self.first_collision(straight) is not None:
                    continue
                waypoints = straight
            else:
                found = self._search(start, goal, bounds, planning_time_s / (_PLAN_ATTEMPTS - 1))
                if found is None:
                    failure = f"RRTConnect found no path within {planning_time_s:.1f} s"
                    continue
                waypoints = found
            # A spline through few waypoints swings wide of the straight segments that were checked.
            for spacing_rad in (0.4, 0.2, 0.1, 0.05):
                points, _ = densify(waypoints, spacing_rad)
                path = self.time_parametrise(points, None, velocity_scale, acceleration_scale)
                if self._curve_is_valid(path, bounds):
                    return path
            failure = "every path found grazes an obstacle when followed"
        raise PlanningError(f"no plan from start to goal: {failure}. Check the scene, or allow more planning_time_s.")

    def time_parametrise(self, waypoints: Array, start_velocity: Array | None = None, velocity_scale: float = 1.0,
                         acceleration_scale: float = 1.0) -> JointPath:
        """TOPP-RA through ``waypoints`` (N, J), ending at rest; see :func:`timing.time_parametrise`."""
        return timing.time_parametrise(self.joint_names, waypoints, self._limits, start_velocity, velocity_scale,
                                       acceleration_scale)

    def brake_path(self, q: Array, qd: Array, qdd: Array, step_s: float = 0.02) -> JointPath:
        """Jerk-limited stop from a moving state; see :func:`timing.brake_path`."""
        return timing.brake_path(self.joint_names, q, qd, qdd, self._limits, step_s)

    def execute(self, path: JointPath) -> bool:
        """Not supported: PlanningError. Send the path to the trajectory controller."""
        raise PlanningError(f"the embedded planner does not execute ({path.duration_s:.1f} s path): publish it to the "
                            "joint trajectory controller, or use planner:=moveit")

    def close(self) -> None:
        """Nothing to release."""

    def _require_free(self, q: Array, what: str) -> None:
        pairs = self.in_collision(q)
        if pairs:
            raise PlanningError(f"{what} is in collision: {'; '.join(' with '.join(pair) for pair in pairs)}")

    def _goal_joints(self, goal: Array, start: Array) -> Array:
        if goal.shape != (4, 4):
            goal = check_joints(goal, self.joint_names, "goal")
            check_within(goal, self._position_limits, self.joint_names, "goal")
            self._require_free(goal, "goal")
            return goal
        target = check_pose(goal, "goal")
        reached = False
        for q in self._solutions(target, start, self._tool):
            reached = True
            if not self._arm.collides(q):
                return q
        position = ", ".join(f"{value:.3f}" for value in target[:3, 3])
        raise PlanningError(f"goal pose at ({position}) m: " + ("every joint solution found is in collision" if reached
                            else f"the {self._tool} cannot reach it within the joint limits"))

    def _solutions(self, target: Array, seed: Array, frame: str, restarts: int = _IK_RESTARTS) -> Iterator[Array]:
        """Yield inverse kinematics solutions, those from starts near the seed first."""
        low, high = self._position_limits
        reach = np.minimum((high - low) / 2, np.pi)   # beyond a half turn there is nothing new
        for restart in range(1 + restarts):
            spread = restart / _IK_RESTARTS
            start = seed + spread * self._random.uniform(-reach, reach)
            q = self._descend(target, np.clip(start, low, high), frame)
            if q is not None:
                yield q

    def _descend(self, target: Array, q: Array, frame: str) -> Array | None:
        low, high = self._position_limits
        best, since = np.inf, 0
        for _ in range(_IK_STEPS):
            error, jacobian = self._arm.error_and_jacobian(q, frame, target)
            if np.linalg.norm(error[:3]) < _IK_POSITION_M and np.linalg.norm(error[3:]) < _IK_ROTATION_RAD:
                return q
            size = float(np.linalg.norm(error))
            best, since = (size, 0) if size < 0.95 * best else (best, since + 1)
            if since > _IK_PATIENCE:
                return None
            # Damping that vanishes with the error: steady far from the target, quadratic near it.
            damping = 1e-6 + 1e-2 * min(1.0, size**2)
            # Joints at a limit that would be pushed past it are left out of the step.
            free = np.ones(len(q), dtype=bool)
            for _ in range(2):
                active = jacobian * free
                step = active.T @ np.linalg.solve(active @ active.T + damping * np.eye(6), error)
                stuck = ((q <= low) & (step < 0)) | ((q >= high) & (step > 0))
                if not np.any(stuck & free):
                    break
                free &= ~stuck
            largest = float(np.max(np.abs(step)))
            if largest < 1e-10:
                return None
            q = np.clip(q + step * min(1.0, _IK_MAX_STEP_RAD / largest), low, high)
        return None

    def _search(self, start: Array, goal: Array, bounds: Array, time_s: float) -> Array | None:
        """RRTConnect and simplification: waypoints (N, J), or None when the time is up."""
        joints = len(self.joint_names)
        space = ompl_base.RealVectorStateSpace(joints)
        box = ompl_base.RealVectorBounds(joints)
        for i in range(joints):
            box.setLow(i, float(bounds[0, i]))
            box.setHigh(i, float(bounds[1, i]))
        space.setBounds(box)
        space.setLongestValidSegmentFraction(1.5 * COLLISION_STEP_RAD / float(np.linalg.norm(bounds[1] - bounds[0])))
        setup = ompl_geometric.SimpleSetup(space)
        setup.setStateValidityChecker(lambda state: not self._arm.collides(np.array([state[i] for i in range(joints)])))
        ends = []
        for q in (start, goal):
            state = space.allocState()
            for i in range(joints):
                state[i] = float(q[i])
            ends.append(state)
        setup.setStartAndGoalStates(*ends)
        setup.setPlanner(ompl_geometric.RRTConnect(setup.getSpaceInformation()))
        setup.solve(time_s)
        if not setup.haveExactSolutionPath():
            return None
        setup.simplifySolution(time_s)
        path = setup.getSolutionPath()
        points = np.array([[state[i] for i in range(joints)] for state in path.getStates()])
        # OMPL keeps its states in float64, so the ends are the requested ones; this pins them bit for bit.
        points[0], points[-1] = start, goal
        return points if self.first_collision(points) is None else None

    def _bounds(self, start: Array, goal: Array) -> Array:
        """(2, J) for the search: the limits, widened to a start beyond the margin; a turn about both ends at most."""
        low, high = self._position_limits
        return np.stack([np.minimum(np.maximum(low, np.minimum(start, goal) - 2 * np.pi), start),
                         np.maximum(np.minimum(high, np.maximum(start, goal) + 2 * np.pi), start)])

    def _curve_is_valid(self, path: JointPath, bounds: Array) -> bool:
        """Whether the path keeps the bounds and is free."""
        curve = curve_of(path)
        inside = np.all(curve >= bounds[0] - 1e-4) and np.all(curve <= bounds[1] + 1e-4)
        return bool(inside) and self.first_collision(curve) is None
