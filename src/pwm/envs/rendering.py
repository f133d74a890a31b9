"""Pictures of MuJoCo scenes without a screen."""

from __future__ import annotations

import atexit
import ctypes
import os
import platform
import weakref
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pwm.errors import UserError

_VARIABLE = "MUJOCO_GL"
_OFF = ("disable", "disabled", "off", "false", "0")
_REMEDY = (
    "install an OpenGL renderer (Debian: libegl1 libopengl0 libgl1 libgl1-mesa-dri for EGL, "
    "or libosmesa6 for software rendering) and leave MUJOCO_GL unset"
)


def select_gl_backend() -> str:
    """Choose MuJoCo's OpenGL backend and return the value of ``MUJOCO_GL`` ("" = platform default).

    MuJoCo reads the variable once, at its first import, so every module of this package calls
    this before it imports MuJoCo. A value that the user set always stays. Otherwise, on Linux,
    EGL is chosen where it finds a device, then OSMesa, and ``disable`` where neither is there: a
    training run without pictures needs no OpenGL.
    """
    if not os.environ.get(_VARIABLE) and platform.system() == "Linux":
        if _egl_finds_device():
            choice = "egl"
        elif _loads("libOSMesa.so.8") or _loads("libOSMesa.so.6") or _loads("libOSMesa.so"):
            choice = "osmesa"
        else:
            choice = "disable"
        os.environ[_VARIABLE] = choice
    return os.environ.get(_VARIABLE, "")


def _loads(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def _egl_finds_device() -> bool:
    """Whether EGL and OpenGL load and a driver (mesa or the GPU's own) offers a device."""
    if not _loads("libOpenGL.so.0"):
        return False
    try:
        egl = ctypes.CDLL("libEGL.so.1")
    except OSError:
        return False
    egl.eglGetProcAddress.restype = ctypes.c_void_p
    address = egl.eglGetProcAddress(b"eglQueryDevicesEXT")
    if not address:
        return False
    signature = ctypes.CFUNCTYPE(
        ctypes.c_uint, ctypes.c_int, ctypes.c_void_p, ctypes.POINTER(ctypes.c_int)
    )
    count = ctypes.c_int(0)
    return bool(signature(address)(0, None, ctypes.byref(count))) and count.value > 0


def gl_error(backend: str, error: Exception) -> UserError:
    """One-line error for an OpenGL backend that does not work, with the remedy."""
    reason = " ".join(str(error).split()) or type(error).__name__
    return UserError(f"OpenGL does not work here (MUJOCO_GL={backend}: {reason}); {_REMEDY}")


class SceneRenderer:
    """Draws one MuJoCo model from a camera of it.

    Multisampling and shadows are off: they cost five times the rest of the picture.

    Args:
        model: ``mujoco.MjModel``; its offscreen buffer is enlarged to the picture where needed.
        width, height: pixels.
        camera: index of a camera of the model, -1 for the free camera.

    Raises:
        UserError: a size below 1 pixel, or no OpenGL renderer works on this machine.
    """

    def __init__(self, model: Any, width: int, height: int, camera: int = 0):
        if width < 1 or height < 1:
            raise UserError(f"picture size must be at least 1 x 1 pixel, not {width} x {height}")
        backend = select_gl_backend()
        if backend.lower() in _OFF:
            raise UserError(f"rendering is off (MUJOCO_GL={backend}); {_REMEDY}")
        import mujoco

        model.vis.quality.offsamples = 0
        model.vis.global_.offwidth = max(model.vis.global_.offwidth, width)
        model.vis.global_.offheight = max(model.vis.global_.offheight, height)
        try:
            self._renderer = mujoco.Renderer(model, height, width)
        # The GL bindings raise anything from AttributeError to their own error classes.
        except Exception as error:
            raise gl_error(backend, error) from error
        _open.add(self)
        # MuJoCo ends EGL at exit; handlers run last-in-first-out, so this one, moved behind
        # MuJoCo's, frees the contexts while EGL still stands.
        atexit.unregister(_close_all)
        atexit.register(_close_all)
        self._renderer.scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = 0
        self._camera = camera if camera < model.ncam else -1

    def render(self, data: Any) -> NDArray[np.uint8]:
        """Draw the state ``data`` (``mujoco.MjData``): uint8 [H, W, 3]."""
        self._renderer.update_scene(data, camera=self._camera)
        return self._renderer.render()

    def close(self) -> None:
        """Free the OpenGL context; closing twice does no harm."""
        _open.discard(self)
        self._renderer.close()


_open: weakref.WeakSet[SceneRenderer] = weakref.WeakSet()


def _close_all() -> None:
    for renderer in list(_open):
        renderer.close()
