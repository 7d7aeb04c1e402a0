"""Discrete moves: home, park, approach, recovery, and ways around obstacles. For any MotionPlanner.

Every move is planned, within velocity, acceleration and jerk limits, ends at rest and is checked as it will be
followed. All raise PlanningError, and block for as long as the planner may search.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from corft_core.contract import Contract
from corft_core.planning.interface import (
    Array,
    MotionPlanner,
    PlanningError,
    SceneObject,
    check_joints,
    check_pose,
    curve_of,
    densify,
    thinned,
)
from corft_core.trajectory import JointPath

MOVE_SCALE = 0.5       # of the limits, for moves near people
RECOVERY_SCALE = 0.1
MAX_DEPTH_M = 0.03     # deeper, and the way out is a guess
MAX_OUTSIDE_RAD = 0.2  # beyond the position limits
MAX_RECOVERY_RAD = 0.4
_CHECK_RAD = 0.01      # between configurations whose contacts are compared
_DEEPER_M = 5e-4       # a contact may deepen by this much between two of them: accuracy of depths
_REACHED_RAD = 1e-3
_LINE_STEP_M = 0.01
_LINE_STEP_RAD = 0.25  # a larger jump between two poses of a line means another posture
_APPROACH_TRIES = 12


def home(planner: MotionPlanner, contract: Contract, q: Array, scale: float = MOVE_SCALE) -> JointPath:
    """From rest at ``q`` (J,) to the contract's ``home_rad``."""
    return _to(planner, q, contract.robot.home_rad, scale)


def park(planner: MotionPlanner, contract: Contract, q: Array, scale: float = MOVE_SCALE) -> JointPath:
    """From rest at ``q`` (J,) to the contract's ``park_rad``, or home where it has none."""
    return _to(planner, q, contract.robot.park_rad or contract.robot.home_rad, scale)


def approach(planner: MotionPlanner, q: Array, pose: Array, straight_m: float = 0.1,
             scale: float = MOVE_SCALE) -> JointPath:
    """From rest at ``q`` (J,) to the tool ``pose`` (4, 4), the last ``straight_m`` in a line along the tool's z axis.

    The arm stops where the line begins.
    """
    q = check_joints(q, planner.joint_names, "start")
    pose = check_pose(pose, "approach")
    random = np.random.default_rng(0)
    low, high = planner.position_limits
    reason = "the pose is out of reach"
    for attempt in range(_APPROACH_TRIES):
        spread = min(1.0, attempt / 4) * np.minimum((high - low) / 2, np.pi)
        goal = planner.inverse_kinematics(pose, np.clip(q + random.uniform(-spread, spread), low, high))
        if goal is None:
            break
        line = _line_to(planner, goal, pose, straight_m)
        if line is None:
            reason = "the arm cannot follow the straight line to it"
        elif planner.first_collision(line) is not None:
            reason = "the straight line to it is not free"
        else:
            try:
                there = planner.plan(q, line[0], velocity_scale=scale, acceleration_scale=scale)
                last = planner.time_parametrise(line, None, scale, scale)
            except PlanningError as error:
                reason = str(error)
                continue
            if planner.first_collision(curve_of(last)) is None:
                return joined(there, last)
    position = ", ".join(f"{value:.3f}" for value in pose[:3, 3])
    raise PlanningError(f"no approach to the pose at ({position}) m, {straight_m:.2f} m of it straight: {reason}")


def recover(planner: MotionPlanner, q: Array, max_depth_m: float = MAX_DEPTH_M,
            max_move_rad: float = MAX_RECOVERY_RAD, scale: float = RECOVERY_SCALE) -> JointPath:
    """From rest at ``q`` (J,), in collision or outside the position limits, to a free state nearby.

    On the way no contact deepens and none is made. Refuses when a contact is deeper than ``max_depth_m``, when a joint
    is outside by more than MAX_OUTSIDE_RAD, and when no free state is found within ``max_move_rad`` of any joint.
    """
    q = check_joints(q, planner.joint_names, "start")
    limits = planner.position_limits
    inside = np.clip(q, *limits)
    pairs, outside = planner.in_collision(q), np.abs(q - inside)
    joint = int(np.argmax(outside))
    if outside[joint] > MAX_OUTSIDE_RAD:
        raise PlanningError(f"{planner.joint_names[joint]} is {outside[joint]:.3f} rad outside its limits, recovery "
                            f"moves by at most {MAX_OUTSIDE_RAD}: move the arm in its own interface")
    if not pairs and not np.any(outside > 0):
        raise PlanningError("nothing to recover from: the arm is free and within its limits")
    touching = "; ".join(" with ".join(pair) for pair in pairs)
    depth = planner.penetration_m(q)
    if depth is not None and depth > max_depth_m:
        raise PlanningError(f"the collision is {depth * 1000:.0f} mm deep, recovery takes on {max_depth_m * 1000:.0f} "
                            f"mm ({touching}): move the arm by hand, or correct the scene")
    for waypoints in _ways_out(planner, q, inside, max_move_rad):
        if _leaves(planner, waypoints):
            path = planner.time_parametrise(densify(waypoints, 0.1)[0], None, scale, scale)
            if _leaves(planner, curve_of(path)):
                return path
    raise PlanningError(f"no way out of the collision within {max_move_rad} rad of each joint that only leaves it "
                        f"({touching or 'at the position limits'}): move the arm by hand, or correct the scene")


def plan_between(planner: MotionPlanner, start: Array, goal: Array, start_velocity: Array | None = None,
                 scale: float = 1.0, planning_time_s: float = 1.0) -> JointPath:
    """Free motion from ``start`` (J,), which may be moving with ``start_velocity`` (J,), to rest at ``goal``.

    ``goal`` as for ``MotionPlanner.plan``. In motion the arm first goes on in its direction, for about as long as it
    would take to stop, and turns from there. The acceleration along the path starts at zero.
    """
    start = check_joints(start, planner.joint_names, "start")
    if start_velocity is None or not np.any(np.abs(start_velocity) > 1e-6):
        return planner.plan(start, goal, velocity_scale=scale, acceleration_scale=scale,
                            planning_time_s=planning_time_s)
    velocity = check_joints(start_velocity, planner.joint_names, "start velocity")
    low, high = planner.hard_limits
    reason = "the way ahead leads into an obstacle or a position limit"
    for lead_s in (0.15, 0.3, 0.5):
        turn = start + velocity * lead_s
        ahead = np.stack([start, turn])
        if np.any(turn < low) or np.any(turn > high) or planner.first_collision(ahead) is not None:
            break
        try:
            around = planner.plan(turn, goal, velocity_scale=scale, acceleration_scale=scale,
                                  planning_time_s=planning_time_s / 3)
            for spacing_rad in (0.2, 0.1, 0.05):
                waypoints = np.concatenate([densify(ahead, spacing_rad)[0], thinned(around.positions, spacing_rad)[1:]])
                path = planner.time_parametrise(waypoints, velocity, scale, scale)
                if planner.first_collision(curve_of(path)) is None:
                    return path
            reason = "every way around grazes an obstacle when followed"
        except PlanningError as error:
            reason = str(error)
    raise PlanningError(f"no way around in motion: {reason}")


def attach(planner: MotionPlanner, name: str, link: str, q: Array, touch_links: Sequence[str] = ()) -> None:
    """From now on the scene object ``name`` moves with ``link``, as it stands to it at ``q`` (J,)."""
    item = _object(planner, name)
    pose = np.linalg.inv(planner.forward_kinematics(q, link)) @ _world_pose(planner, item, q)
    _replace(planner, replace(item, pose=_rigid(pose), attached_to=link, touch_links=tuple(touch_links)))


def detach(planner: MotionPlanner, name: str, q: Array) -> None:
    """From now on the scene object ``name`` stays where it is at ``q`` (J,)."""
    item = _object(planner, name)
    _replace(planner, replace(item, pose=_rigid(_world_pose(planner, item, q)), attached_to=None, touch_links=()))


def joined(first: JointPath, second: JointPath) -> JointPath:
    """Two paths one after the other; the second begins, at rest, where the first ends."""
    if np.max(np.abs(first.positions[-1] - second.positions[0])) > _REACHED_RAD:
        raise PlanningError("the second path does not begin where the first ends")

    def both(one: Array | None, other: Array | None) -> Array | None:
        return None if one is None or other is None else np.concatenate([one, other[1:]])

    velocities = both(first.velocities, second.velocities)
    return JointPath(first.names, np.concatenate([first.times_s, first.duration_s + second.times_s[1:]]),
                     np.concatenate([first.positions, second.positions[1:]]), velocities,
                     both(first.accelerations, second.accelerations))


def _to(planner: MotionPlanner, q: Array, goal: Sequence[float], scale: float) -> JointPath:
    return planner.plan(q, np.array(goal), velocity_scale=scale, acceleration_scale=scale)


def _line_to(planner: MotionPlanner, goal: Array, pose: Array, length_m: float) -> Array | None:
    """Waypoints (N, J) of a straight line to ``goal`` along the tool's z axis; None where the arm can't follow it."""
    line = [goal]
    count = max(1, int(np.ceil(length_m / _LINE_STEP_M)))
    for k in range(1, count + 1):
        back = pose.copy()
        back[:3, 3] -= length_m * k / count * pose[:3, 2]
        q = planner.inverse_kinematics(back, line[-1], near=True)
        if q is None or np.max(np.abs(q - line[-1])) > _LINE_STEP_RAD:
            return None
        line.append(q)
    return np.stack(line[::-1])


def _ways_out(planner: MotionPlanner, q: Array, inside: Array, max_move_rad: float) -> Iterator[Array]:
    """Waypoints (N, J) from ``q`` over ``inside`` to states ever further away: along the depth's gradient, by tool
    motions, in random directions."""
    first = [q] if np.array_equal(q, inside) else [q, inside]
    if len(first) == 2:
        yield np.stack(first)
    downhill = _downhill(planner, inside, max_move_rad)
    if len(downhill) > 1:
        yield np.stack([*first, *downhill[1:]])
    low, high = planner.position_limits
    random = np.random.default_rng(0)
    tool = planner.forward_kinematics(inside)
    axes = np.concatenate([-tool[:3, 2:3].T, np.eye(3)[::-1], -np.eye(3)])   # back along the tool, up, …
    for radius in np.linspace(max_move_rad / 6, max_move_rad, 6):
        for axis in axes:
            pose = tool.copy()
            pose[:3, 3] += radius / 2 * axis
            found = planner.inverse_kinematics(pose, inside, near=True)
            if found is not None and np.max(np.abs(found - inside)) <= max_move_rad:
                yield np.stack([*first, found])
        for _ in range(16):
            direction = random.normal(size=len(q))
            yield np.stack([*first, np.clip(inside + radius * direction / np.max(np.abs(direction)), low, high)])


def _downhill(planner: MotionPlanner, q: Array, max_move_rad: float) -> list[Array]:
    """States from ``q`` on, each less deep in collision than the last; ``q`` only where depth is unknown."""
    low, high = planner.position_limits
    states = [q]
    depth = planner.penetration_m(q)
    while depth is not None and depth > 0:
        at = states[-1]
        steps = 1e-3 * np.eye(len(q))
        slope = np.array([(planner.penetration_m(at + step) or 0.0) - (planner.penetration_m(at - step) or 0.0)
                          for step in steps])
        if not np.any(slope):
            break
        at = np.clip(at - 0.02 * slope / np.max(np.abs(slope)), low, high)
        deeper, depth = depth, planner.penetration_m(at)
        if depth is None or depth >= deeper or np.max(np.abs(at - q)) > max_move_rad:
            break
        states.append(at)
    return states


def _leaves(planner: MotionPlanner, waypoints: Array) -> bool:
    """Whether contacts only end along ``waypoints``, none is made or deepens, and the last state is free and inside."""
    low, high = planner.position_limits
    if np.any(waypoints[-1] < low) or np.any(waypoints[-1] > high) or planner.in_collision(waypoints[-1]):
        return False
    before: set[tuple[str, str]] | None = None
    depth_before: float | None = None
    for q in densify(waypoints, _CHECK_RAD)[0]:
        pairs = set(planner.in_collision(q))
        depth = planner.penetration_m(q) if pairs else 0.0
        if before is not None and not pairs <= before:
            return False
        if depth is not None and depth_before is not None and depth > depth_before + _DEEPER_M:
            return False
        before, depth_before = pairs, depth
    return True


def _object(planner: MotionPlanner, name: str) -> SceneObject:
    found = next((item for item in planner.scene if item.name == name), None)
    if found is None:
        raise PlanningError(f"the scene has no object {name!r}; its objects: "
                            f"{', '.join(item.name for item in planner.scene) or 'none'}")
    return found


def _replace(planner: MotionPlanner, item: SceneObject) -> None:
    planner.set_scene([item if other.name == item.name else other for other in planner.scene])


def _world_pose(planner: MotionPlanner, item: SceneObject, q: Array) -> Array:
    return item.pose if item.attached_to is None else planner.forward_kinematics(q, item.attached_to) @ item.pose


def _rigid(pose: Array) -> Array:
    """``pose`` with its rotation made orthonormal again."""
    u, _, vt = np.linalg.svd(pose[:3, :3])
    result = pose.copy()
    result[:3, :3] = u @ vt
    return result
