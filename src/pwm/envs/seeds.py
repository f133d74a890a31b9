"""Seeds of environments: what is accepted, and which stream each of many copies gets."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pwm.errors import UserError
from pwm.seeding import stream_seed


def check_seed(seed: int) -> int:
    """Return ``seed`` as int.

    Raises:
        UserError: not a whole number in 0 .. 2**32 - 1 (what ``numpy.random.RandomState`` takes).
    """
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer):
        raise UserError(f"seed must be a whole number, not {seed!r}")
    if not 0 <= seed < 2**32:
        raise UserError(f"seed must lie in 0 .. 2**32 - 1, not {seed}")
    return int(seed)


def env_seeds(seed: int | Sequence[int], num_envs: int) -> list[int]:
    """Return the reset seeds of ``num_envs`` environments.

    An int gives environment i the stream (seed, "env", i); a sequence is taken as it is.

    Raises:
        UserError: a sequence of another length than ``num_envs``, or an unfit seed.
    """
    if isinstance(seed, int | np.integer):
        checked = check_seed(seed)
        return [stream_seed(checked, "env", index) for index in range(num_envs)]
    if len(seed) != num_envs:
        raise UserError(f"{len(seed)} seeds given for {num_envs} environments")
    return [check_seed(value) for value in seed]
