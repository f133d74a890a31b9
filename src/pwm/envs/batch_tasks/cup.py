"""Ball-in-cup tasks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pwm.envs.batch_tasks.base import INF, BatchTask, Floats, norm, tolerance

if TYPE_CHECKING:
    from mujoco.batch import Batch


class Catch(BatchTask):
    """Keep the ball in the cup."""

    def __init__(self, batch: Batch):
        super().__init__(batch)
        ball, target = self.model.body("ball").id, self.model.site("target").id
        # The plane is x, z.
        self._target = batch.bind("site_xpos")[:, target, ::2]
        self._ball = batch.bind("xpos")[:, ball, ::2]
        radius = self.model.geom_size[self.model.geom("ball").id, 0]
        self._room = self.model.site_size[target, ::2] - radius

    def ball_to_target(self) -> Floats:
        """Vector from ball to target, [N, 2]."""
        return self._target - self._ball

    def in_target(self) -> Floats:
        """1 where the whole ball is in the target."""
        return np.all(np.abs(self.ball_to_target()) < self._room, axis=1).astype(np.float64)

    def observe(self) -> tuple[Floats, ...]:
        """Positions and velocities."""
        return self.qpos, self.qvel

    def reward(self) -> Floats:
        """1 where the ball is in the cup."""
        return self.in_target()


class Spin(Catch):
    """Swing the ball around the cup."""

    def __init__(self, batch: Batch):
        super().__init__(batch)
        self._dofs = [self.model.joint(name).dofadr[0] for name in ("ball_x", "ball_z")]

    def reward(self) -> Floats:
        """Ball outside the cup, far and fast."""
        distance = tolerance(
            norm(self.ball_to_target()),
            0.5,
            INF,
            margin=0.25,
            value_at_margin=0.5,
            sigmoid="linear",
        )
        speed = tolerance(
            norm(self.qvel[:, self._dofs]),
            6.0,
            INF,
            margin=3.0,
            value_at_margin=0.5,
            sigmoid="linear",
        )
        return (1 - self.in_target()) * (distance + 2 * speed) / 3
