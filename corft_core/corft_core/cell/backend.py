"""MuJoCo with its off-screen renderer chosen before the first import, and the error that helps when none works."""

from __future__ import annotations

import os
import sys

from corft_core.errors import CorftError

if sys.platform == "linux":
    # MuJoCo reads this while it is imported; a machine without a screen needs EGL (or osmesa).
    os.environ.setdefault("MUJOCO_GL", "egl")
    # Mesa's software renderer: for images this small its worker threads cost more than they give.
    os.environ.setdefault("LP_NUM_THREADS", "0")

try:
    import mujoco
except ImportError as error:
    raise CorftError(f"MuJoCo can't be imported ({error}). Install it with: pip install mujoco==3.3.0") from error
except (AttributeError, RuntimeError) as error:
    # A GL library that is missing shows up here, as whatever its loader raises.
    raise CorftError(f"MuJoCo finds no off-screen renderer for MUJOCO_GL={os.environ.get('MUJOCO_GL')} ({error}). "
                     "On Debian and Ubuntu: apt-get install libegl1 libgl1 libgl1-mesa-dri; or "
                     "apt-get install libosmesa6 and MUJOCO_GL=osmesa") from error

__all__ = ["mujoco"]
