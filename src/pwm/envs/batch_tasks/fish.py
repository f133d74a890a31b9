"""Fish task."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pwm.envs.batch_tasks.base import ZZ, BatchTask, Floats, norm, tolerance

if TYPE_CHECKING:
    from mujoco.batch import Batch

_JOINTS = (
    "tail1",
    "tail_twist",
    "tail2",
    "finright_roll",
    "finright_pitch",
    "finleft_roll",
    "finleft_pitch",
)


class Swim(BatchTask):
    """Bring the mouth to the target, whose place changes by episode."""

    episode_fields = ("geom_pos",)

    def __init__(self, batch: Batch):
        super().__init__(batch)
        self._joints = [self.model.joint(name).qposadr[0] for name in _JOINTS]
        self._upright = batch.bind("xmat")[:, self.model.body("torso").id, ZZ]
        mouth, target = self.model.geom("mouth").id, self.model.geom("target").id
        xpos = batch.bind("geom_xpos")
        self._mouth, self._target = xpos[:, mouth], xpos[:, target]
        self._mouth_axes = batch.bind("geom_xmat")[:, mouth]
        self._radii = float(self.model.geom_size[[mouth, target], 0].sum())

    def _mouth_to_target(self) -> Floats:
        """Vector to the target in the mouth's frame, [N, 3]."""
        axes = self._mouth_axes.reshape(-1, 3, 3)
        return np.matmul((self._target - self._mouth)[:, None], axes)[:, 0]

    def observe(self) -> tuple[Floats, ...]:
        """Joint angles, uprightness, vector to the target, velocities."""
        angles = self.qpos[:, self._joints]
        return angles, self._upright[:, None], self._mouth_to_target(), self.qvel

    def reward(self) -> Floats:
        """Close to the target, and a little for being upright."""
        distance = norm(self._mouth_to_target())
        in_target = tolerance(distance, 0.0, self._radii, margin=2 * self._radii)
        return (7 * in_target + 0.5 * (self._upright + 1)) / 8
