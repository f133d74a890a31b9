"""Hopper tasks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pwm.envs.batch_tasks.base import INF, BatchTask, Floats, tolerance

if TYPE_CHECKING:
    from mujoco.batch import Batch


class _Hopper(BatchTask):
    def __init__(self, batch: Batch):
        super().__init__(batch)
        xipos = batch.bind("xipos")
        self._torso = xipos[:, self.model.body("torso").id, 2]
        self._foot = xipos[:, self.model.body("foot").id, 2]
        self._sensors = batch.bind("sensordata")
        self.speed: Floats = self._sensors[:, self.model.sensor("torso_subtreelinvel").adr[0]]
        self._touches = [self.model.sensor(name).adr[0] for name in ("touch_toe", "touch_heel")]

    def observe(self) -> tuple[Floats, ...]:
        """Positions without the horizontal one, velocities, scaled touch sensors."""
        return self.qpos[:, 1:], self.qvel, np.log1p(self._sensors[:, self._touches])

    def standing(self) -> Floats:
        """1 where the torso is high enough above the foot."""
        return tolerance(self._torso - self._foot, 0.6, 2.0)


class Stand(_Hopper):
    """Stand with little control."""

    def __init__(self, batch: Batch):
        super().__init__(batch)
        self._control = batch.bind("ctrl")

    def reward(self) -> Floats:
        """Standing times small control."""
        small_control = tolerance(
            self._control, margin=1.0, value_at_margin=0.0, sigmoid="quadratic"
        ).mean(axis=1)
        return self.standing() * ((small_control + 4) / 5)


class Hop(_Hopper):
    """Hop forwards at 2 m/s."""

    def reward(self) -> Floats:
        """Standing times speed."""
        return self.standing() * tolerance(
            self.speed, 2.0, INF, margin=1.0, value_at_margin=0.5, sigmoid="linear"
        )


class HopBackwards(_Hopper):
    """Hop backwards at 1 m/s."""

    def reward(self) -> Floats:
        """Standing times speed."""
        return self.standing() * tolerance(
            self.speed, -INF, -1.0, margin=0.5, value_at_margin=0.5, sigmoid="linear"
        )
