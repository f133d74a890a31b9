"""Actions as every environment of this package takes them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pwm.errors import UserError


def checked_action(task_id: str, action: Any, action_dim: int) -> NDArray[np.float64]:
    """Return ``action`` as float64 [A], clipped to [-1, 1].

    Raises:
        UserError: wrong shape, or an entry that is not finite. (MuJoCo would quietly replace a NaN
            control by zero.)
    """
    values = np.asarray(action, np.float64)
    if values.shape != (action_dim,):
        raise UserError(f"{task_id}: action must have shape ({action_dim},), not {values.shape}")
    if not np.isfinite(values).all():
        raise UserError(f"{task_id}: action must be finite, not {values}")
    return values.clip(-1.0, 1.0)
