"""DeepMind Control tasks behind the Gymnasium API."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from pwm.envs.actions import checked_action
from pwm.envs.registry import canonical_id, task_spec
from pwm.envs.rendering import SceneRenderer, gl_error, select_gl_backend
from pwm.envs.seeds import check_seed
from pwm.errors import MissingExtra, UserError

if TYPE_CHECKING:
    from dm_control.rl import control

# dm_control's own names, where they differ from "<domain>-<task>".
_STOCK_NAMES = {
    "cup-catch": ("ball_in_cup", "catch"),
}


def load_dm_environment(task_id: str, seed: int) -> control.Environment:
    """Construct the plain dm_control environment of a ``dmc/`` task.

    Args:
        task_id: id or alias of a ``dmc/`` task.
        seed: seed of the task's ``numpy.random.RandomState``, which draws every initial state.

    Returns:
        Environment that takes one *control* step (not agent step) a ``step`` and that stops after
        the suite's 1000 control steps.

    Raises:
        MissingExtra: dm_control is not installed.
        UserError: not a ``dmc/`` task, or a seed outside 0 .. 2**32 - 1.
    """
    canonical = canonical_id(task_id)
    if not canonical.startswith("dmc/"):
        raise UserError(f"'{task_id}' is no DMControl task; its id would start with 'dmc/'")
    seed = check_seed(seed)
    suite = _import_suite()
    name = canonical.removeprefix("dmc/")
    with _without_deprecation_notes():
        from pwm.envs.dmcontrol_extra import LOADERS

        if name in LOADERS:
            return LOADERS[name](seed)
        domain, _, task = name.partition("-")
        domain, task = _STOCK_NAMES.get(name, (domain, task.replace("-", "_")))
        return suite.load(domain, task, task_kwargs={"random": seed})


def _import_suite() -> ModuleType:
    """Import ``dm_control.suite`` without the renderer of dm_control's own.

    That renderer opens an EGL display in every process that imports it, fails where none can be
    opened, and disturbs MuJoCo's renderer at exit; pictures come from the latter alone.
    """
    loaded = sys.modules.get("dm_control.suite")
    if loaded is not None:
        return loaded
    backend = select_gl_backend()
    try:
        import mujoco  # noqa: F401  (reads MUJOCO_GL now, for the pictures)

        os.environ["MUJOCO_GL"] = "disable"
        return import_module("dm_control.suite")
    except ModuleNotFoundError as error:
        package = (error.name or "dm_control").partition(".")[0]
        raise MissingExtra(package, "dmcontrol") from None
    # A GL backend that the user asked for and that is not there: PyOpenGL raises AttributeError.
    except (AttributeError, ImportError, RuntimeError) as error:
        raise gl_error(backend, error) from error
    finally:
        os.environ["MUJOCO_GL"] = backend
        if not backend:
            del os.environ["MUJOCO_GL"]


@contextmanager
def _without_deprecation_notes() -> Iterator[None]:
    """Keep MuJoCo's notes on old attributes in dm_control's own XML from the user's screen."""

    def wanted(record: logging.LogRecord) -> bool:
        return "is deprecated" not in record.getMessage()

    logger = logging.getLogger("absl")
    logger.addFilter(wanted)
    try:
        yield
    finally:
        logger.removeFilter(wanted)


def flatten_observation(observation: dict[str, Any]) -> NDArray[np.float32]:
    """Concatenate the entries of a dm_control observation in dict order: float32 [O]."""
    return np.concatenate([np.ravel(value) for value in observation.values()], dtype=np.float32)


class DMControlEnv(gymnasium.Env[NDArray[np.float32], NDArray[np.float32]]):
    """One ``dmc/`` task.

    Observations are float32 [O], actions float32 [A] in [-1, 1] (values outside are clipped). An
    agent step repeats the action for 2 control steps and sums their rewards, so a reward lies in
    [0, 2]. Episodes are truncated after 500 agent steps and never terminate.

    Args:
        task_id: id or alias of a ``dmc/`` task.
        seed: seed of the first ``reset()`` that is given none.
        render_mode: None or ``"rgb_array"``.
        width, height: size of the pictures in pixels.

    Raises:
        MissingExtra: dm_control is not installed.
        UserError: unknown task or unfit seed.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 25}

    def __init__(
        self,
        task_id: str,
        seed: int = 0,
        *,
        render_mode: str | None = None,
        width: int = 320,
        height: int = 320,
    ):
        self.task = task_spec(task_id)
        self.dm_environment = load_dm_environment(task_id, seed)
        self.render_mode = render_mode
        self.observation_space = gymnasium.spaces.Box(
            -np.inf, np.inf, (self.task.obs_dim,), np.float32
        )
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (self.task.action_dim,), np.float32)
        control_fps = 1.0 / self.dm_environment.control_timestep()
        self.metadata = {**self.metadata, "render_fps": control_fps / self.task.action_repeat}
        self._size = (width, height)
        self._renderer: SceneRenderer | None = None
        self._steps: int | None = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Start an episode; with ``seed``, restart the stream of initial states from it."""
        if seed is not None:
            seed = check_seed(seed)
            self.dm_environment.task.random.seed(seed)
        super().reset(seed=seed)
        self._steps = 0
        return flatten_observation(self.dm_environment.reset().observation), {}

    def step(
        self, action: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        """Take one agent step (2 control steps).

        Raises:
            UserError: the action has the wrong shape or is not finite.
            gymnasium.error.ResetNeeded: no episode is under way.
        """
        if self._steps is None:
            raise gymnasium.error.ResetNeeded("call reset() before step()")
        control = checked_action(self.task.id, action, self.task.action_dim)
        reward = 0.0
        for _ in range(self.task.action_repeat):
            time_step = self.dm_environment.step(control)
            reward += float(time_step.reward)
        self._steps += 1
        truncated = self._steps == self.task.episode_length
        if truncated:
            self._steps = None
        return flatten_observation(time_step.observation), reward, False, truncated, {}

    def render(self) -> NDArray[np.uint8] | None:
        """Return a picture, uint8 [H, W, 3]; None unless ``render_mode="rgb_array"``.

        Raises:
            UserError: no OpenGL renderer works on this machine.
        """
        if self.render_mode is None:
            return None
        if self._renderer is None:
            self._renderer = SceneRenderer(self.dm_environment.physics.model.ptr, *self._size)
        return self._renderer.render(self.dm_environment.physics.data.ptr)

    def close(self) -> None:
        """Free the renderer."""
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None
