"""A motion planner in a process of its own, behind the same interface.

MoveIt needs this: it holds the GIL while it plans, and a fault in it ends its process, not the caller's. The two
processes exchange JSON over a socket, in it tables of numbers as base64 of their bytes, which takes a tenth of the time
of digits; ``python -m corft_core.planning.process FD`` is the serving side, which ends when
the other end closes.
"""

from __future__ import annotations

import base64
import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from typing import Any

import numpy as np

import corft_core
from corft_core.contract import Contract
from corft_core.errors import CorftError
from corft_core.planning.interface import (
    COLLISION_STEP_RAD,
    Array,
    Box,
    Cylinder,
    Mesh,
    MotionPlanner,
    PlanningError,
    SceneObject,
    Shape,
    Sphere,
    Triangles,
)
from corft_core.trajectory import JointPath

logger = logging.getLogger(__name__)

_START_S = 90.0
_CALL_S = 30.0
_EXECUTE_MARGIN_S = 30.0
_CLOSE_S = 10.0
SMALL = 16  # numbers: written as digits


class ProcessPlanner:
    """A planner made by ``make_planner(kind, …)`` in a child process. One lock: calls come one at a time.

    Raises PlanningError when the child can't make the planner; later, when it has ended or doesn't answer in time.
    """

    def __init__(self, kind: str, contract: Contract, scene: Sequence[SceneObject] = (), **options: Any):
        self._lock = threading.Lock()
        self._names = contract.robot.joints
        self._connection, theirs = Pipe()
        package_root = str(Path(corft_core.__file__).parent.parent)
        search = os.pathsep.join(filter(None, [package_root, os.environ.get("PYTHONPATH")]))
        # A session of its own: Ctrl-C in the terminal ends the caller, which then closes the planner in order.
        self._process = subprocess.Popen([sys.executable, "-m", "corft_core.planning.process", str(theirs.fileno())],
                                         pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, start_new_session=True,
                                         env={**os.environ, "PYTHONPATH": search})
        theirs.close()
        try:
            self._limits, self._hard_limits = map(np.array, self._call("make", {
                "kind": kind, "contract": contract.to_dict(), "scene": [_scene_to_plain(item) for item in scene],
                "options": {key: str(value) if isinstance(value, Path) else value for key, value in options.items()},
            }, _START_S))
            self._objects = tuple(scene)
        except PlanningError:
            self.close()
            raise

    @property
    def joint_names(self) -> tuple[str, ...]:
        """The arm's joints, in the contract's order."""
        return self._names

    @property
    def position_limits(self) -> Array:
        """(2, J): lower and upper limits, drawn in by the contract's ``position_margin_rad``."""
        return self._limits.copy()

    @property
    def alive(self) -> bool:
        """Whether the planner's process runs. When it has ended every call raises PlanningError."""
        return self._process.poll() is None

    @property
    def hard_limits(self) -> Array:
        """(2, J): lower and upper limits of the description."""
        return self._hard_limits.copy()

    @property
    def scene(self) -> tuple[SceneObject, ...]:
        """The objects given to :meth:`set_scene`."""
        return self._objects

    def forward_kinematics(self, q: Array, frame: str | None = None) -> Array:
        """Pose 4x4 of ``frame`` (default: the tool frame) in the base frame."""
        return np.array(self._call("forward_kinematics", {"q": q, "frame": frame}))

    def poses(self, path: Array, frame: str | None = None) -> Array:
        """Poses (N, 4, 4) of ``frame`` along ``path`` (N, J)."""
        return np.array(self._call("poses", {"path": path, "frame": frame}))

    def inverse_kinematics(self, pose: Array, seed: Array, frame: str | None = None, *,
                           near: bool = False) -> Array | None:
        """Joint positions (J,) that put ``frame`` at ``pose``, near ``seed``; None if not found."""
        found = self._call("inverse_kinematics", {"pose": pose, "seed": seed, "frame": frame, "near": near})
        return None if found is None else np.array(found)

    def in_collision(self, q: Array) -> list[tuple[str, str]]:
        """Colliding pairs at ``q``. Empty when free."""
        return [(first, second) for first, second in self._call("in_collision", {"q": q})]

    def penetration_m(self, q: Array) -> float | None:
        """Depth of the deepest contact; None when the planner can't tell."""
        depth = self._call("penetration_m", {"q": q})
        return None if depth is None else float(depth)

    def first_collision(self, path: Array, step_rad: float = COLLISION_STEP_RAD) -> int | None:
        """Index k of the first colliding segment k to k+1 of ``path`` (N, J), None when free."""
        found = self._call("first_collision", {"path": path, "step_rad": step_rad})
        return None if found is None else int(found)

    def set_scene(self, objects: Sequence[SceneObject]) -> None:
        """Replace all scene objects."""
        self._call("set_scene", {"objects": [_scene_to_plain(item) for item in objects]})
        self._objects = tuple(objects)

    def plan(self, start: Array, goal: Array, *, velocity_scale: float = 1.0, acceleration_scale: float = 1.0,
             planning_time_s: float = 5.0) -> JointPath:
        """Collision-free motion at rest at both ends; see MotionPlanner."""
        return _path_from_plain(self._call("plan", {
            "start": start, "goal": goal, "velocity_scale": velocity_scale, "acceleration_scale": acceleration_scale,
            "planning_time_s": planning_time_s}, 4 * planning_time_s + _CALL_S))

    def time_parametrise(self, waypoints: Array, start_velocity: Array | None = None, velocity_scale: float = 1.0,
                         acceleration_scale: float = 1.0) -> JointPath:
        """Timing through ``waypoints`` (N, J); see MotionPlanner."""
        return _path_from_plain(self._call("time_parametrise", {
            "waypoints": waypoints, "start_velocity": start_velocity, "velocity_scale": velocity_scale,
            "acceleration_scale": acceleration_scale}))

    def execute(self, path: JointPath) -> bool:
        """Execute a discrete motion, blocking; whether it succeeded."""
        return bool(self._call("execute", {"path": _path_to_plain(path)}, 2 * path.duration_s + _EXECUTE_MARGIN_S))

    def close(self) -> None:
        """End the child process: closing the connection makes it shut its planner down; it is killed when it hangs."""
        with self._lock:
            self._connection.close()
            try:
                self._process.wait(_CLOSE_S)
            except subprocess.TimeoutExpired:
                logger.warning("the planner process did not end within %.0f s and is killed", _CLOSE_S)
                self._process.kill()
                self._process.wait()

    def _call(self, method: str, arguments: dict[str, Any], timeout_s: float = _CALL_S) -> Any:
        with self._lock:
            if self._connection.closed:
                raise PlanningError("the planner was closed")
            try:
                self._connection.send_bytes(json.dumps([method, arguments], default=_plain).encode())
                if not self._connection.poll(timeout_s):
                    # The answer would arrive in place of the next one, so this process can't be used any more.
                    self._process.kill()
                    raise PlanningError(f"the planner process did not answer {method} within {timeout_s:.0f} s and was "
                                        "ended; configure the node again (deactivate, cleanup, configure, activate)")
                answer = json.loads(self._connection.recv_bytes(), object_hook=_from_plain)
            except (OSError, EOFError) as error:
                code = self._process.wait()
                raise PlanningError(f"the planner process ended with code {code} during {method}; its messages are "
                                    "above. Configure the node again (deactivate, cleanup, configure, "
                                    "activate).") from error
        if "error" in answer:
            raise PlanningError(answer["error"])
        return answer["result"]


def serve(connection: Connection) -> None:
    """Answer requests until the other end closes. The first must be ``make``."""
    planner: MotionPlanner | None = None
    try:
        while True:
            try:
                method, arguments = json.loads(connection.recv_bytes(), object_hook=_from_plain)
            except EOFError:
                return
            try:
                if method == "make":
                    planner = _make(arguments)
                    result: Any = [planner.position_limits, planner.hard_limits]
                elif planner is None or method not in _METHODS:
                    raise PlanningError(f"unexpected request {method}")
                else:
                    result = _METHODS[method](planner, arguments)
                answer = {"result": result}
            except CorftError as error:
                answer = {"error": str(error)}
            connection.send_bytes(json.dumps(answer, default=_plain).encode())
    finally:
        if planner is not None:
            planner.close()


def _make(arguments: dict[str, Any]) -> MotionPlanner:
    from corft_core.planning import build_planner

    return build_planner(arguments["kind"], Contract.from_dict(arguments["contract"]),
                         [_scene_from_plain(item) for item in arguments["scene"]], arguments["options"])


def _array(value: Any) -> Array:
    return np.array(value, dtype=np.float64)


def _set_scene(planner: MotionPlanner, a: dict[str, Any]) -> None:
    planner.set_scene([_scene_from_plain(item) for item in a["objects"]])


_METHODS: dict[str, Callable[[MotionPlanner, dict[str, Any]], Any]] = {
    "forward_kinematics": lambda planner, a: planner.forward_kinematics(_array(a["q"]), a["frame"]),
    "poses": lambda planner, a: planner.poses(_array(a["path"]), a["frame"]),
    "inverse_kinematics": lambda planner, a: planner.inverse_kinematics(
        _array(a["pose"]), _array(a["seed"]), a["frame"], near=a["near"]),
    "penetration_m": lambda planner, a: planner.penetration_m(_array(a["q"])),
    "in_collision": lambda planner, a: planner.in_collision(_array(a["q"])),
    "first_collision": lambda planner, a: planner.first_collision(_array(a["path"]), a["step_rad"]),
    "set_scene": _set_scene,
    "plan": lambda planner, a: _path_to_plain(planner.plan(
        _array(a.pop("start")), _array(a.pop("goal")), **a)),
    "time_parametrise": lambda planner, a: _path_to_plain(planner.time_parametrise(
        _array(a["waypoints"]), None if a["start_velocity"] is None else _array(a["start_velocity"]),
        a["velocity_scale"], a["acceleration_scale"])),
    "execute": lambda planner, a: planner.execute(_path_from_plain(a["path"])),
}


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray) and value.dtype == np.float64 and value.size > SMALL:
        return {"float64": base64.b64encode(value.tobytes()).decode(), "shape": value.shape}
    if isinstance(value, (np.ndarray, np.generic)):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} cannot go to the planner process")


def _from_plain(data: dict[str, Any]) -> Any:
    if "float64" not in data:
        return data
    return np.frombuffer(base64.b64decode(data["float64"]), dtype=np.float64).reshape(data["shape"])


def _path_to_plain(path: JointPath) -> dict[str, Any]:
    return {"names": path.names, "times_s": path.times_s, "positions": path.positions, "velocities": path.velocities,
            "accelerations": path.accelerations}


def _path_from_plain(data: dict[str, Any]) -> JointPath:
    optional = [None if data[key] is None else _array(data[key]) for key in ("velocities", "accelerations")]
    return JointPath(tuple(data["names"]), _array(data["times_s"]), _array(data["positions"]), *optional)


_SHAPES: dict[str, Any] = {shape.__name__: shape for shape in (Box, Cylinder, Sphere, Mesh, Triangles)}


def _scene_to_plain(item: SceneObject) -> dict[str, Any]:
    shape = {key: str(value) if isinstance(value, Path) else value for key, value in vars(item.shape).items()}
    return {**vars(item), "shape": {"kind": type(item.shape).__name__, **shape}}


def _scene_from_plain(data: dict[str, Any]) -> SceneObject:
    values = {key: Path(value) if key == "path" else _tuples(value) for key, value in data["shape"].items()}
    shape: Shape = _SHAPES[str(values.pop("kind"))](**values)
    return SceneObject(data["name"], shape, _array(data["pose"]), data["attached_to"], tuple(data["touch_links"]),
                       tuple(data["touch_objects"]))


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


if __name__ == "__main__":
    serve(Connection(int(sys.argv[1])))
