"""Episodes out of a vector environment, put together step by step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pwm.envs import TaskSpec

# observations [T+1, O], actions [T, A], rewards [T], terminated, success of the last step
Store = Callable[[NDArray, NDArray, NDArray, bool, float | None], None]


class VectorRecorder:
    """Hands every finished episode of E environments to ``store``, with arrays of its own.

    Args:
        limit: steps after which an episode without a time limit is cut; what follows is recorded
            as another one.
        observations: [E, O] of the reset.

    Attributes:
        active: [E] bool; episodes that end in an environment which is not active are dropped.
    """

    def __init__(self, spec: TaskSpec, limit: int, observations: NDArray[np.float32], store: Store):
        count = len(observations)
        self.limit, self.store = limit, store
        self.active = np.ones(count, bool)
        self._columns = np.arange(count)
        self._observations = np.zeros((limit + 1, count, spec.obs_dim), np.float32)
        self._actions = np.zeros((limit, count, spec.action_dim), np.float32)
        self._rewards = np.zeros((limit, count), np.float32)
        self._counts = np.zeros(count, np.int64)
        self._observations[0] = observations

    def add(
        self,
        actions: NDArray[np.float32],
        observations: NDArray[np.float32],
        rewards: NDArray,
        terminated: NDArray[np.bool_],
        truncated: NDArray[np.bool_],
        info: dict[str, Any],
    ) -> NDArray[np.bool_]:
        """Take in what a step with SAME_STEP autoreset returned.

        Returns:
            [E] environments whose episode ended.
        """
        counts, columns = self._counts, self._columns
        self._actions[counts, columns], self._rewards[counts, columns] = actions, rewards
        counts += 1
        self._observations[counts, columns] = observations
        reset = terminated | truncated
        ended = reset | (counts == self.limit)
        for i in np.flatnonzero(ended & self.active).tolist():
            n = counts[i]
            if reset[i]:
                self._observations[n, i] = info["final_obs"][i]
            self.store(
                self._observations[: n + 1, i].copy(), self._actions[:n, i].copy(),
                self._rewards[:n, i].copy(), bool(terminated[i]), _success(info, i),
            )  # fmt: skip
        counts[ended] = 0
        self._observations[0, ended] = observations[ended]
        return ended


def _success(info: dict[str, Any], index: int) -> float | None:
    """With SAME_STEP autoreset the last step's is in ``final_info``."""
    values = info.get("final_info", info).get("success")
    return None if values is None else float(values[index])
