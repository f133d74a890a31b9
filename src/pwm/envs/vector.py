"""Many copies of one task stepped together, in this process."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from numpy.typing import NDArray

from pwm.envs.making import make
from pwm.envs.seeds import env_seeds
from pwm.errors import UserError


class ReferenceVectorEnv(SyncVectorEnv):
    """``num_envs`` environments of :func:`pwm.envs.make`, stepped one after the other.

    An episode's end resets its environment within the same step (Gymnasium's SAME_STEP): the
    returned observation is the next episode's first one, and the last observation of the ended
    episode stands in ``info["final_obs"][i]`` where ``info["_final_obs"][i]``.

    Args:
        task_id: any id that :func:`pwm.envs.make` takes.
        num_envs: number of environments, at least 1.
        seed: seed of the first ``reset()`` that is given none.
        pad_to: see :func:`pwm.envs.make`; the mask of the real action entries is then also the
            attribute ``action_mask``, float32 [A].
    """

    def __init__(
        self,
        task_id: str,
        num_envs: int,
        seed: int = 0,
        pad_to: tuple[int, int] | None = None,
    ):
        seeds = env_seeds(seed, num_envs)
        super().__init__(
            [partial(make, task_id, value, pad_to=pad_to) for value in seeds],
            autoreset_mode=AutoresetMode.SAME_STEP,
        )
        if pad_to is not None:
            self.action_mask = self.envs[0].get_wrapper_attr("action_mask")

    def reset(
        self,
        *,
        seed: int | Sequence[int] | None = None,  # type: ignore[override]
        options: dict[str, Any] | None = None,
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Start an episode in every environment.

        Args:
            seed: None continues every environment's stream; an int restarts the streams (seed,
                "env", i); a sequence gives each environment its own seed.
        """
        seeds = None if seed is None else env_seeds(seed, self.num_envs)
        return super().reset(seed=seeds, options=options)  # type: ignore[arg-type]

    def step(self, actions: NDArray[np.float32]) -> tuple[Any, ...]:
        """Take one agent step in every environment with ``actions`` float32 [N, A].

        Raises:
            UserError: wrong shape or a non-finite action; no environment has stepped then.
        """
        if np.shape(actions) != self.action_space.shape:
            raise UserError(
                f"actions must have shape {self.action_space.shape}, not {np.shape(actions)}"
            )
        if not np.isfinite(actions).all():
            raise UserError("actions must be finite")
        return super().step(actions)
