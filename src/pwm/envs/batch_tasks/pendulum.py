"""Pendulum tasks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pwm.envs.batch_tasks.base import INF, XZ, ZZ, BatchTask, Floats, norm, tolerance

if TYPE_CHECKING:
    from mujoco.batch import Batch

_COSINE_BOUND = float(np.cos(np.deg2rad(8)))


class SwingUp(BatchTask):
    """Balance the pole upright."""

    def __init__(self, batch: Batch):
        super().__init__(batch)
        self._pole = batch.bind("xmat")[:, self.model.body("pole").id]

    def observe(self) -> tuple[Floats, ...]:
        """Pole orientation, angular velocity."""
        return self._pole[:, [ZZ, XZ]], self.qvel

    def reward(self) -> Floats:
        """1 within 8 degrees of upright."""
        return tolerance(self._pole[:, ZZ], _COSINE_BOUND, 1.0)


class Spin(SwingUp):
    """Turn at 9 rad/s in either direction."""

    def reward(self) -> Floats:
        """Linear in the speed."""
        return tolerance(
            norm(self.qvel), 9.0, INF, margin=4.5, value_at_margin=0.5, sigmoid="linear"
        )
