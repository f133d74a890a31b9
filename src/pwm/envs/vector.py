"""Many copies of one task stepped together, in this process."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from numpy.typing import NDArray

from pwm.envs.making import make
from pwm.errors import UserError
from pwm.seeding import stream_seed


def env_seeds(seed: int | Sequence[int], num_envs: int) -> list[int]:
    """Reset seeds of ``num_envs`` environments.

    An int gives environment i the stream (seed, "env", i); a sequence is taken as it is.

    Raises:
        UserError: a sequence of another length than ``num_envs``.
    """
    if isinstance(seed, int | np.integer):
        return [stream_seed(int(seed), "env", index) for index in range(num_envs)]
    if len(seed) != num_envs:
        raise UserError(f"{len(seed)} seeds given for {num_envs} environments")
    return [int(value) for value in seed]


class ReferenceVectorEnv(SyncVectorEnv):
    """``num_envs`` environments of :func:`pwm.envs.make`, stepped one after the other.

    An episode's end resets its environment within the same step (Gymnasium's SAME_STEP): the
    returned observation is the next episode's first one, and the last observation of the ended
    episode stands in ``info["final_obs"][i]`` where ``info["_final_obs"][i]``.

    Args:
        task_id: any id that :func:`pwm.envs.make` takes.
        num_envs: number of environments, at least 1.
        seed: seed of the first ``reset()`` that is given none.
        pad_to: see :func:`pwm.envs.make`.
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
