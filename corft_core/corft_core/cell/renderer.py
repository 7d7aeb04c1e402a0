"""Off-screen images of the cell. One OpenGL context serves all cells of a task in a thread and all image sizes, since
making one costs as much time as a hundred images."""

from __future__ import annotations

import atexit
import os
import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray

from corft_core.cell.backend import mujoco
from corft_core.errors import CorftError


class Renderer:
    """Draws cells whose models differ from ``model`` in poses and light only. Belongs to the thread that made it."""

    def __init__(self, model: Any) -> None:
        self._context: Any = None
        self._target: Any = None
        try:
            # The size is that of a window that is never shown; images go to the model's off-screen buffer.
            self._context = mujoco.gl_context.GLContext(64, 64)
            self._context.make_current()
            self._target = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_50.value)
            mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN.value, self._target)
        except Exception as error:  # the GL loaders raise anything from AttributeError to their own EGLError
            raise CorftError(
                f"off-screen rendering doesn't work with MUJOCO_GL={os.environ.get('MUJOCO_GL')}: {error!r}. On Debian "
                "and Ubuntu: apt-get install libegl1 libgl1 libgl1-mesa-dri; or apt-get install libosmesa6 and "
                "MUJOCO_GL=osmesa") from error
        self._scene = mujoco.MjvScene(model, maxgeom=1000)
        self._options = mujoco.MjvOption()
        self._camera = mujoco.MjvCamera()
        self._camera.type = mujoco.mjtCamera.mjCAMERA_FIXED

    def draw(self, model: Any, data: Any, camera: int, size: tuple[int, int], *, shadows: bool = False,
             sky: bool = False) -> NDArray[np.uint8]:
        """RGB image (H, W, 3) of the model's camera of this number; ``size`` (height, width)."""
        self._camera.fixedcamid = camera
        mujoco.mjv_updateScene(model, data, self._options, None, self._camera, mujoco.mjtCatBit.mjCAT_ALL.value,
                               self._scene)
        flags = self._scene.flags
        flags[mujoco.mjtRndFlag.mjRND_SHADOW] = shadows
        flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = False
        flags[mujoco.mjtRndFlag.mjRND_SKYBOX] = sky
        self._context.make_current()
        rectangle = mujoco.MjrRect(0, 0, size[1], size[0])
        mujoco.mjr_render(rectangle, self._scene, self._target)
        upside_down = np.empty((*size, 3), dtype=np.uint8)
        mujoco.mjr_readPixels(upside_down, None, rectangle, self._target)
        return upside_down[::-1].copy()

    def close(self) -> None:
        """Free the context and its buffers."""
        if self._context is not None:
            self._context.make_current()
            if self._target is not None:
                self._target.free()
            self._context.free()
        self._context = self._target = None


# (thread, task) → renderer and the number of its users.
_shared: dict[tuple[int, str], tuple[Renderer, int]] = {}


def borrow_renderer(task: str, model: Any) -> Renderer:
    """The thread's renderer for a task, made if there is none. Give it back with :func:`return_renderer`."""
    key = (threading.get_ident(), task)
    if key in _shared:
        renderer, users = _shared[key]
    else:
        renderer, users = Renderer(model), 0
        # Registered after the GL library's own clean-up, and so called before it.
        atexit.unregister(_close_all)
        atexit.register(_close_all)
    _shared[key] = renderer, users + 1
    return renderer


def return_renderer(renderer: Renderer) -> None:
    """One user less; the last one frees it."""
    for key, (shared, users) in list(_shared.items()):
        if shared is renderer:
            if users > 1:
                _shared[key] = renderer, users - 1
            else:
                del _shared[key]
                renderer.close()


def _close_all() -> None:
    for renderer, _ in _shared.values():
        renderer.close()
    _shared.clear()
