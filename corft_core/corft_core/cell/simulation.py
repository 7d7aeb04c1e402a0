"""The simulated cell: physics, controllers, cameras and the judgement of success, without ROS."""

from __future__ import annotations

import weakref

import numpy as np
from numpy.typing import NDArray

from corft_core.cell import model as cell_model
from corft_core.cell.backend import mujoco
from corft_core.cell.controller import JointTrajectoryController
from corft_core.cell.renderer import Renderer, borrow_renderer, return_renderer
from corft_core.cell.scene import DEFAULT_TASK, Scene
from corft_core.cell.tasks import get_task
from corft_core.errors import CorftError
from corft_core.trajectory import JointPath

Array = NDArray[np.float64]

CAMERAS = ("front", "wrist", "overview")
OPEN_M = 0.04
FINGER_SPEED_M_S = 0.15
CONTROLLER_PERIOD_S = 0.005


class Cell:
    """A Panda on a table with a task's objects. Positions in the base frame (= ``panda_link0``), m and rad.

    ``image_size``: (height, width) of rendered images. ``task``: one of ``tasks.TASKS``. Time starts at 0 with every
    reset. Not safe for threads.
    """

    def __init__(self, image_size: tuple[int, int] = (128, 128),
                 home_rad: tuple[float, ...] = cell_model.HOME_RAD, task: str = DEFAULT_TASK) -> None:
        self.image_size = image_size
        self.task = get_task(task)
        self._model = cell_model.cell_model(task)
        self._data = mujoco.MjData(self._model)
        self._renderer: Renderer | None = None
        self._cameras = {name: self._model.camera(name).id for name in CAMERAS}
        self._home = np.asarray(home_rad, dtype=np.float64)
        self._arm = self._addresses(cell_model.ARM_JOINTS)
        self._fingers = self._addresses(cell_model.FINGER_JOINTS)
        self._velocity_lead = cell_model.ARM_DAMPING / cell_model.ARM_STIFFNESS
        self._lights = self._model.light_diffuse.copy()
        self.controller = JointTrajectoryController(cell_model.ARM_JOINTS, self._home)
        self.scene: Scene | None = None
        self._gripper_target_m = self._gripper_setpoint_m = OPEN_M
        self._achieved_since_s: float | None = None

    def reset(self, scene: Scene) -> None:
        """Put objects, arm and gripper where the scene says, at rest, at time 0."""
        if scene.task != self.task.name:
            raise CorftError(f"scene {scene.scene_id} belongs to the task {scene.task}, this cell is set up for "
                             f"{self.task.name}")
        data = self._data
        mujoco.mj_resetData(self._model, data)
        arm = self._home + np.asarray(scene.joint_noise_rad)
        data.qpos[self._arm], data.qpos[self._fingers] = arm, OPEN_M
        for name, (x, y, yaw) in scene.places:
            start = self._model.joint(name).qposadr[0]
            height = self._model.qpos0[start + 2]
            data.qpos[start:start + 7] = [x, y, height, np.cos(yaw / 2), 0.0, 0.0, np.sin(yaw / 2)]
        self._model.light_diffuse[:] = self._lights * scene.light
        self.controller = JointTrajectoryController(cell_model.ARM_JOINTS, arm)
        self._gripper_target_m = self._gripper_setpoint_m = OPEN_M
        data.ctrl[:9] = self._controls(np.zeros(1))[0]
        mujoco.mj_forward(self._model, data)
        self.scene = scene
        self._achieved_since_s = None

    @property
    def time_s(self) -> float:
        """Simulated time since the reset."""
        return float(self._data.time)

    @property
    def joint_positions(self) -> Array:
        """Measured arm joints (7,) [rad]."""
        return self._data.qpos[self._arm].copy()

    @property
    def joint_velocities(self) -> Array:
        """Measured arm joint velocities (7,) [rad/s]."""
        return self._data.qvel[self._arm].copy()

    @property
    def finger_position_m(self) -> float:
        """Measured position of ``panda_finger_joint1``, 0 closed … 0.04 open."""
        return float(self._data.qpos[self._fingers[0]])

    @property
    def finger_velocity_m_s(self) -> float:
        """Measured velocity of ``panda_finger_joint1``."""
        return float(self._data.qvel[self._fingers[0]])

    @property
    def tool_position(self) -> Array:
        """Position (3,) [m] of the tool frame in the base frame."""
        return self._data.body(cell_model.TOOL_FRAME).xpos.copy()

    def command_trajectory(self, path: JointPath, start_s: float | None = None) -> None:
        """Give the arm controller a trajectory that starts at ``start_s``, by default now.

        Raises TrajectoryRejected as joint_trajectory_controller would.
        """
        self.controller.accept(path, self.time_s, start_s)

    def command_gripper(self, position_m: float) -> None:
        """Move the fingers to a position, clipped to 0 … 0.04 m. Raises CorftError when it isn't finite."""
        if not np.isfinite(position_m):
            raise CorftError(f"gripper command {position_m} is not a finite position in m")
        self._gripper_target_m = float(np.clip(position_m, 0.0, OPEN_M))

    def step(self, duration_s: float) -> None:
        """Advance by ``duration_s``, a multiple of the controller's period of 5 ms."""
        model, data, substeps = self._model, self._data, round(CONTROLLER_PERIOD_S / cell_model.TIMESTEP_S)
        periods = max(1, round(duration_s / CONTROLLER_PERIOD_S))
        # MuJoCo's clock adds up its time steps, so these are the times at which each period will start.
        ticks = np.full(periods * substeps, cell_model.TIMESTEP_S)
        ticks[0] = data.time
        for controls in self._controls(np.cumsum(ticks)[::substeps]):
            data.ctrl[:9] = controls
            mujoco.mj_step(model, data, nstep=substeps)
        if not self.task.achieved(self):
            self._achieved_since_s = None
        elif self._achieved_since_s is None:
            self._achieved_since_s = self.time_s

    def render(self, camera: str, size: tuple[int, int] | None = None, *, shadows: bool = False) -> NDArray[np.uint8]:
        """RGB image (H, W, 3) of camera ``front``, ``wrist`` or ``overview`` (a bystander's, for reports).

        ``size``: (height, width), by default ``image_size``. ``shadows`` look better and cost most of the time.
        """
        if camera not in CAMERAS:
            raise CorftError(f"no camera {camera!r} in the cell, it has {', '.join(CAMERAS)}")
        if self._renderer is None:
            self._renderer = borrow_renderer(self.task.name, self._model)
            self._give_back = weakref.finalize(self, return_renderer, self._renderer)
        # The robot's own cameras never see above the horizon, and the sky costs a quarter of their time.
        return self._renderer.draw(self._model, self._data, self._cameras[camera], size or self.image_size,
                                   shadows=shadows, sky=camera == "overview")

    def field_of_view_rad(self, camera: str) -> float:
        """Vertical opening angle of a camera."""
        return float(np.deg2rad(self._model.camera(camera).fovy[0]))

    @property
    def success(self) -> bool:
        """Whether the task's goal is reached, and has been for as long as it asks."""
        since = self._achieved_since_s
        return since is not None and self.time_s - since >= self.task.hold_s - 1e-9

    @property
    def gripper_target_m(self) -> float:
        """Finger position of the last command."""
        return self._gripper_target_m

    def position_m(self, body: str) -> Array:
        """Position (3,) of a body's origin."""
        return self._data.body(body).xpos.copy()

    def speed_m_s(self, body: str) -> float:
        """Speed of a free body's origin."""
        start = self._model.joint(body).dofadr[0]
        return float(np.linalg.norm(self._data.qvel[start:start + 3]))

    def risen_m(self, body: str) -> float:
        """How much higher a free body's origin is than at rest on the table."""
        return float(self._data.body(body).xpos[2] - self._model.qpos0[self._model.joint(body).qposadr[0] + 2])

    def touching(self, body: str) -> set[str]:
        """Names of the bodies that a body touches; the table is ``world``."""
        number = self._model.body(body).id
        pairs = self._model.geom_bodyid[self._data.contact.geom[:self._data.ncon]]  # (contacts, 2)
        return {self._model.body(other).name for other in
                {*pairs[pairs[:, 0] == number, 1].tolist(), *pairs[pairs[:, 1] == number, 0].tolist()}}

    def objects(self) -> dict[str, tuple[Array, Array]]:
        """Name → position (3,) [m] and quaternion (4,) x, y, z, w of the task's bodies, in the base frame."""
        return {name: (self._data.body(name).xpos.copy(), self._data.body(name).xquat[[1, 2, 3, 0]])
                for name in self.task.bodies}

    def close(self) -> None:
        """Give the renderer back; the cell can still step, and render again."""
        if self._renderer is not None:
            self._give_back()
            self._renderer = None

    def _controls(self, times_s: Array) -> Array:
        """Set-points (N, 9) of arm joints [rad] and fingers [m] at the starts (N,) of the controller's periods."""
        desired = self.controller.desired(times_s)
        controls = np.empty((len(times_s), 9))
        # The servo's damping acts on the measured velocity: leading by the desired one leaves no lag.
        controls[:, :7] = desired.positions + self._velocity_lead * desired.velocities
        travel = FINGER_SPEED_M_S * CONTROLLER_PERIOD_S
        for i in range(len(times_s)):
            self._gripper_setpoint_m += max(-travel, min(travel, self._gripper_target_m - self._gripper_setpoint_m))
            controls[i, 7:] = self._gripper_setpoint_m
        return controls

    def _addresses(self, joints: tuple[str, ...]) -> NDArray[np.intp]:
        # All joints before the objects have one coordinate, so positions and velocities share addresses.
        return np.array([self._model.joint(name).qposadr[0] for name in joints])
