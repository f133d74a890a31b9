"""Small environments and an independent reward function for the tests of this folder."""

from __future__ import annotations

import math
from typing import Any

import gymnasium
import numpy as np


class CountingEnv(gymnasium.Env):
    """Ends (terminated) after ``length`` steps; notes the native actions that reach it."""

    def __init__(self, length: int = 3, render_mode: str | None = None):
        self.length = length
        self.render_mode = render_mode
        self.observation_space = gymnasium.spaces.Box(-10.0, 10.0, (2,), np.float64)
        self.action_space = gymnasium.spaces.Box(
            np.array([-2.0, 0.0]), np.array([4.0, 10.0]), dtype=np.float64
        )
        self.received: list[np.ndarray] = []

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        super().reset(seed=seed)
        self._step = 0
        self._start = self.np_random.uniform(-1, 1)
        return np.array([self._start, 0.0]), {}

    def step(self, action: np.ndarray):
        assert self.action_space.contains(action)
        self.received.append(action)
        self._step += 1
        observation = np.array([self._start, float(self._step)])
        done = self._step == self.length
        return observation, np.float64(self._step), done, False, {"success": float(done)}


def tolerance(
    x: float,
    low: float,
    high: float,
    margin: float,
    value: float = 0.1,
    linear: bool = False,
) -> float:
    """Reward of a value: 1 inside [low, high], falling to ``value`` at ``margin`` outside."""
    if low <= x <= high:
        return 1.0
    distance = ((low - x) if x < low else (x - high)) / margin
    if linear:
        return max(0.0, 1.0 - distance * (1.0 - value))
    return math.exp(math.log(value) * distance**2)
