"""Reacher tasks, with the stock arm and the three-link one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pwm.envs.batch_tasks.base import BatchTask, Floats, norm, tolerance

if TYPE_CHECKING:
    from mujoco.batch import Batch


class Reacher(BatchTask):
    """Bring the finger into the target, whose place changes by episode."""

    episode_fields = ("geom_pos",)

    def __init__(self, batch: Batch):
        super().__init__(batch)
        target, finger = self.model.geom("target").id, self.model.geom("finger").id
        xpos = batch.bind("geom_xpos")
        self._target, self._finger = xpos[:, target, :2], xpos[:, finger, :2]
        self._radii = float(self.model.geom_size[[target, finger], 0].sum())

    def _to_target(self) -> Floats:
        return self._target - self._finger

    def observe(self) -> tuple[Floats, ...]:
        """Positions, vector to the target, velocities."""
        return self.qpos, self._to_target(), self.qvel

    def reward(self) -> Floats:
        """1 while the finger touches the target."""
        return tolerance(norm(self._to_target()), 0.0, self._radii)
