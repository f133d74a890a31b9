"""Zero-padding of single tasks to the common widths of a multi-task model."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from pwm.errors import UserError


def action_mask(action_dim: int, padded_dim: int) -> NDArray[np.float32]:
    """Return float32 [padded_dim]: 1 for the first ``action_dim`` entries, 0 for the padding.

    Raises:
        UserError: ``action_dim`` does not lie in 1 .. ``padded_dim``.
    """
    if not 1 <= action_dim <= padded_dim:
        raise UserError(f"action dim {action_dim} does not fit the padded dim {padded_dim}")
    mask = np.zeros(padded_dim, np.float32)
    mask[:action_dim] = 1.0
    return mask


class PadEnv(gymnasium.Wrapper):
    """Widen a flat environment to common observation and action dims.

    Observations get zeros behind them; the surplus entries of an action are ignored. The mask of
    the real action entries, float32 [A], is the attribute ``action_mask`` and stands in the
    ``info`` of every ``reset`` and ``step`` under ``"action_mask"``.

    Args:
        env: environment with 1-D ``Box`` spaces.
        pad_to: (observation dim, action dim) to reach.

    Raises:
        UserError: the environment is wider than ``pad_to``.
    """

    def __init__(self, env: gymnasium.Env, pad_to: tuple[int, int]):
        super().__init__(env)
        padded_obs, padded_action = pad_to
        (self._obs_dim,) = env.observation_space.shape or (0,)
        (self._action_dim,) = env.action_space.shape or (0,)
        if self._obs_dim > padded_obs or self._action_dim > padded_action:
            raise UserError(
                f"pad_to=({padded_obs}, {padded_action}) is smaller than the task's dims "
                f"({self._obs_dim}, {self._action_dim})"
            )
        self.action_mask = action_mask(self._action_dim, padded_action)
        self.observation_space = _padded_box(env.observation_space, padded_obs)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (padded_action,), np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Reset the wrapped environment and pad its observation."""
        observation, info = self.env.reset(seed=seed, options=options)
        return self._pad(observation), {**info, "action_mask": self.action_mask.copy()}

    def step(
        self, action: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        """Step the wrapped environment with the real entries of ``action`` [A].

        Raises:
            UserError: ``action`` does not have the padded shape.
        """
        if np.shape(action) != self.action_space.shape:
            raise UserError(
                f"action must have the padded shape {self.action_space.shape}, "
                f"not {np.shape(action)}"
            )
        observation, reward, terminated, truncated, info = self.env.step(action[: self._action_dim])
        info = {**info, "action_mask": self.action_mask.copy()}
        return self._pad(observation), float(reward), terminated, truncated, info

    def _pad(self, observation: NDArray[np.float32]) -> NDArray[np.float32]:
        padded = np.zeros(self.observation_space.shape or (), np.float32)
        padded[: self._obs_dim] = observation
        return padded


def _padded_box(space: gymnasium.Space, width: int) -> gymnasium.spaces.Box:
    assert isinstance(space, gymnasium.spaces.Box)
    low, high = np.zeros(width, np.float32), np.zeros(width, np.float32)
    low[: space.shape[0]], high[: space.shape[0]] = space.low, space.high
    return gymnasium.spaces.Box(low, high, dtype=np.float32)
