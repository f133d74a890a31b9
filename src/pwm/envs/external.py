"""Environments from outside: installed Gymnasium ids and the user's own registered tasks."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box
from numpy.typing import NDArray

from pwm.envs.actions import checked_action
from pwm.envs.registry import TaskSpec, entry_point_of
from pwm.envs.rendering import select_gl_backend
from pwm.envs.seeds import check_seed
from pwm.errors import UserError, nearest


def construct(task_id: str, render_mode: str | None = None) -> gymnasium.Env:
    """Construct the raw environment of a ``gym/`` or registered id.

    Raises:
        UserError: unknown id, missing dependency, or an entry point that gives no environment.
    """
    kwargs: dict[str, Any] = {} if render_mode is None else {"render_mode": render_mode}
    # MuJoCo reads its OpenGL backend at its first import, which may come below.
    select_gl_backend()
    entry_point = entry_point_of(task_id)
    if entry_point is not None:
        env = entry_point(**kwargs)
        if not isinstance(env, gymnasium.Env):
            raise UserError(
                f"task '{task_id}': entry_point returned {type(env).__name__}, not a gymnasium.Env"
            )
        return env
    name = task_id.removeprefix("gym/")
    try:
        # The ready-made checker is of use to authors of environments; here it would only warn.
        return gymnasium.make(name, disable_env_checker=True, **kwargs)
    except gymnasium.error.DependencyNotInstalled as error:
        raise UserError(
            f"'{task_id}' needs a package that is not installed: {_first_line(error)}"
        ) from None
    except (gymnasium.error.Error, ModuleNotFoundError) as error:
        hint = nearest(name, gymnasium.registry)
        raise UserError(f"'{task_id}' is no Gymnasium id ({_first_line(error)}).{hint}") from None


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


class FlatFloatEnv(gymnasium.Wrapper):
    """Float32 observations and actions in [-1, 1], stretched to the environment's own bounds.

    Args:
        env: environment with 1-D ``Box`` observations and a bounded 1-D ``Box`` of actions.
        task_id: id for the messages.
        seed: seed of the first ``reset()`` that is given none.

    Raises:
        UserError: other kinds of spaces.
    """

    def __init__(self, env: gymnasium.Env, task_id: str, seed: int = 0):
        super().__init__(env)
        observation, action = env.observation_space, env.action_space
        for kind, space in (("observation", observation), ("action", action)):
            if not isinstance(space, Box) or len(space.shape) != 1:
                env.close()
                raise UserError(
                    f"'{task_id}': the {kind} space must be a 1-D Box, not {space}; "
                    "wrap the environment (gymnasium.wrappers.FlattenObservation, "
                    "RescaleAction) and pass it to pwm.envs.register"
                )
        assert isinstance(observation, Box) and isinstance(action, Box)
        if not action.is_bounded("both"):
            env.close()
            raise UserError(f"'{task_id}': the action space must be bounded, not {action}")
        self._task_id = task_id
        self._first_seed: int | None = check_seed(seed)
        self._middle = (action.high.astype(np.float64) + action.low) / 2
        self._reach = (action.high.astype(np.float64) - action.low) / 2
        self._bounds = action
        low, high = observation.low.astype(np.float32), observation.high.astype(np.float32)
        self.observation_space = Box(low, high, dtype=np.float32)
        self.action_space = Box(-1.0, 1.0, action.shape, np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Reset; the first call without ``seed`` uses the constructor's."""
        seed = self._first_seed if seed is None else check_seed(seed)
        self._first_seed = None
        observation, info = self.env.reset(seed=seed, options=options)
        return np.asarray(observation, np.float32), info

    def step(
        self, action: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        """Step with an action float32 [A] in [-1, 1] (values outside are clipped).

        Raises:
            UserError: the action has the wrong shape or is not finite.
        """
        unit = checked_action(self._task_id, action, len(self._middle))
        native = self._middle + self._reach * unit
        # Rounding to the native dtype may step over a bound by one unit in the last place.
        native = native.astype(self._bounds.dtype).clip(self._bounds.low, self._bounds.high)
        observation, reward, terminated, truncated, info = self.env.step(native)
        observation = np.asarray(observation, np.float32)
        return observation, float(reward), bool(terminated), bool(truncated), info

    def render(self) -> Any:
        """Return the environment's own picture.

        Raises:
            UserError: a package that it draws with is not installed.
        """
        try:
            return self.env.render()
        except gymnasium.error.DependencyNotInstalled as error:
            raise UserError(
                f"'{self._task_id}' needs a package to draw: {_first_line(error)}"
            ) from None


def make_external(task_id: str, seed: int = 0, render_mode: str | None = None) -> gymnasium.Env:
    """Construct a ``gym/`` or registered task with float32 observations and unit actions."""
    return FlatFloatEnv(construct(task_id, render_mode), task_id, seed)


def measure(task_id: str, suites: tuple[str, ...]) -> TaskSpec:
    """Construct the environment once and read its dims and time limit off it."""
    env = make_external(task_id)
    try:
        observation, action = env.observation_space.shape, env.action_space.shape
        assert observation is not None and action is not None
        return TaskSpec(
            id=task_id,
            suites=suites,
            obs_dim=observation[0],
            action_dim=action[0],
            episode_length=_time_limit(env),
            action_repeat=1,
            extra=None,
        )
    finally:
        env.close()


def _time_limit(env: gymnasium.Env) -> int | None:
    """Agent steps of the outermost TimeLimit wrapper, or of the Gymnasium spec."""
    layer: Any = env
    while isinstance(layer, gymnasium.Wrapper):
        if isinstance(layer, gymnasium.wrappers.TimeLimit):
            return int(layer._max_episode_steps)
        layer = layer.env
    return None if layer.spec is None else layer.spec.max_episode_steps
