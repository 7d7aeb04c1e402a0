"""Inverse kinematics for the scripted operator: damped least squares on the same URDF, MuJoCo's Jacobians."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from corft_core.cell import model as cell_model
from corft_core.cell.backend import mujoco

Array = NDArray[np.float64]

# The tool frame points straight down with its x axis forward.
TOOL_DOWN = np.diag([1.0, -1.0, -1.0])
_DAMPING = 0.02
_POSTURE_PULL = 0.1


def tool_orientation(yaw_rad: float, pitch_rad: float = 0.0) -> Array:
    """Rotation (3, 3) of a tool that points down, leant forward by ``pitch_rad`` (π/2: it points along x), and then
    turned by ``yaw_rad`` about z."""
    cos, sin = np.cos(yaw_rad), np.sin(yaw_rad)
    turned = np.array([[cos, -sin, 0.0], [sin, cos, 0.0], [0.0, 0.0, 1.0]])
    cos, sin = np.cos(pitch_rad), np.sin(pitch_rad)
    return turned @ np.array([[cos, 0.0, -sin], [0.0, 1.0, 0.0], [sin, 0.0, cos]]) @ TOOL_DOWN


class ArmKinematics:
    """Forward and inverse kinematics of the arm's tool frame in the base frame."""

    def __init__(self, home_rad: tuple[float, ...] = cell_model.HOME_RAD) -> None:
        self._model = cell_model.robot_spec().compile()
        self._data = mujoco.MjData(self._model)
        self._home = np.asarray(home_rad, dtype=np.float64)
        self._body = self._model.body(cell_model.TOOL_FRAME).id
        self._limits = self._model.jnt_range[:7] + np.array([0.03, -0.03])
        self._jacobian = np.zeros((6, self._model.nv))

    def tool_position(self, joints_rad: Array) -> Array:
        """Position (3,) [m] of the tool frame at ``joints_rad`` (7,)."""
        self._place(joints_rad)
        return self._data.xpos[self._body].copy()

    def tool_rotation(self, joints_rad: Array) -> Array:
        """Rotation matrix (3, 3) of the tool frame at ``joints_rad`` (7,)."""
        self._place(joints_rad)
        return self._data.xmat[self._body].reshape(3, 3).copy()

    def solve(self, position_m: Array, yaw_rad: float, seed_rad: Array, iterations: int = 4, *,
              pitch_rad: float = 0.0) -> Array:
        """Joints (7,) [rad] that put the tool at ``position_m`` with :func:`tool_orientation`.

        Starts at ``seed_rad``, pulled towards the home posture in the null space. Returns the nearest it finds.
        """
        wanted = tool_orientation(yaw_rad, pitch_rad)
        joints = np.array(seed_rad, dtype=np.float64)
        error = np.zeros(6)
        for _ in range(iterations):
            self._place(joints)
            current = self._data.xmat[self._body].reshape(3, 3)
            turn = wanted @ current.T
            error[:3] = position_m - self._data.xpos[self._body]
            error[3:] = (turn[2, 1] - turn[1, 2]) / 2, (turn[0, 2] - turn[2, 0]) / 2, (turn[1, 0] - turn[0, 1]) / 2
            mujoco.mj_jacBody(self._model, self._data, self._jacobian[:3], self._jacobian[3:], self._body)
            jacobian = self._jacobian[:, :7]
            pull = _POSTURE_PULL * (self._home - joints)
            # With M the damped inverse of J: M e + (1 - M J) p = M (e - J p) + p.
            damped = jacobian @ jacobian.T + _DAMPING**2 * np.eye(6)
            joints = joints + pull + jacobian.T @ np.linalg.solve(damped, error - jacobian @ pull)
            joints = np.clip(joints, self._limits[:, 0], self._limits[:, 1])
        return joints

    def _place(self, joints_rad: Array) -> None:
        self._data.qpos[:7] = joints_rad
        mujoco.mj_kinematics(self._model, self._data)
        mujoco.mj_comPos(self._model, self._data)
