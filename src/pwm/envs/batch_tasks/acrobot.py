"""Acrobot task."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pwm.envs.batch_tasks.base import XZ, ZZ, BatchTask, Floats, norm, tolerance

if TYPE_CHECKING:
    from mujoco.batch import Batch


class SwingUp(BatchTask):
    """Bring the tip to the target above."""

    def __init__(self, batch: Batch):
        super().__init__(batch)
        self._arms = [self.model.body(name).id for name in ("upper_arm", "lower_arm")]
        self._xmat = batch.bind("xmat")
        target, tip = self.model.site("target").id, self.model.site("tip").id
        xpos = batch.bind("site_xpos")
        self._target, self._tip = xpos[:, target], xpos[:, tip]
        self._radius = float(self.model.site_size[target, 0])

    def observe(self) -> tuple[Floats, ...]:
        """Horizontal and vertical components of the arms' axes, velocities."""
        return self._xmat[:, self._arms, XZ], self._xmat[:, self._arms, ZZ], self.qvel

    def reward(self) -> Floats:
        """Falls with the tip's distance from the target."""
        return tolerance(norm(self._target - self._tip), 0.0, self._radius, margin=1.0)
