"""Pictures of MuJoCo scenes without a screen."""

from __future__ import annotations

import atexit
import ctypes
import os
import platform
import weakref
from importlib import import_module
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


def _context_class(backend: str) -> Any:
    """MuJoCo's OpenGL context class of a backend, whichever MuJoCo took at its import."""
    default = {"Linux": "glfw", "Darwin": "cgl"}.get(platform.system(), "glfw")
    name = backend.lower() if backend.lower() in ("egl", "osmesa", "cgl") else default
    return import_module(f"mujoco.{name}").GLContext


class SceneRenderer:
    """Draws one MuJoCo model from a camera of it.

    Multisampling and shadows are off: they cost five times the rest of the picture. MuJoCo's
    drawing functions are called directly, since ``mujoco.Renderer`` is bound to the backend that
    was set when MuJoCo was first imported, perhaps long before this package.

    Args:
        model: ``mujoco.MjModel``; its offscreen buffer is enlarged to the picture where needed.
        width, height: pixels.
        camera: index of a camera of the model, -1 for the free camera.

    Raises:
        UserError: no OpenGL renderer works on this machine.
    """

    def __init__(self, model: Any, width: int, height: int, camera: int = 0):
        backend = select_gl_backend()
        if backend.lower() in _OFF:
            raise UserError(f"rendering is off (MUJOCO_GL={backend}); {_REMEDY}")
        import mujoco

        model.vis.quality.offsamples = 0
        model.vis.global_.offwidth = max(model.vis.global_.offwidth, width)
        model.vis.global_.offheight = max(model.vis.global_.offheight, height)
        try:
            self._gl: Any = _context_class(backend)(width, height)
            self._gl.make_current()
            self._context = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100.value)
        # The GL bindings raise anything from AttributeError to their own error classes.
        except Exception as error:
            raise gl_error(backend, error) from error
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN.value, self._context)
        self._model = model
        self._rect = mujoco.MjrRect(0, 0, width, height)
        self._scene = mujoco.MjvScene(model, maxgeom=1000)
        self._scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = 0
        self._options = mujoco.MjvOption()
        self._camera = mujoco.MjvCamera()
        if 0 <= camera < model.ncam:
            self._camera.type = mujoco.mjtCamera.mjCAMERA_FIXED
            self._camera.fixedcamid = camera
        else:
            mujoco.mjv_defaultFreeCamera(model, self._camera)
        _open.add(self)
        # MuJoCo ends EGL at exit; handlers run last-in-first-out, so this one, moved behind
        # MuJoCo's, frees the contexts while EGL still stands.
        atexit.unregister(_close_all)
        atexit.register(_close_all)

    def render(self, data: Any) -> NDArray[np.uint8]:
        """Draw the state ``data`` (``mujoco.MjData``): uint8 [H, W, 3]."""
        import mujoco

        self._gl.make_current()
        mujoco.mjv_updateScene(
            self._model, data, self._options, None, self._camera,
            mujoco.mjtCatBit.mjCAT_ALL.value, self._scene,
        )  # fmt: skip
        mujoco.mjr_render(self._rect, self._scene, self._context)
        picture = np.empty((self._rect.height, self._rect.width, 3), np.uint8)
        mujoco.mjr_readPixels(picture, None, self._rect, self._context)
        # OpenGL counts rows from the bottom.
        return np.ascontiguousarray(picture[::-1])

    def close(self) -> None:
        """Free the OpenGL context; closing twice does no harm."""
        if self in _open:
            _open.discard(self)
            self._gl.make_current()
            self._context.free()
            self._gl.free()


_open: weakref.WeakSet[SceneRenderer] = weakref.WeakSet()


def _close_all() -> None:
    for renderer in list(_open):
        renderer.close()
