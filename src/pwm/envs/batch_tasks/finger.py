"""Finger tasks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pwm.envs.batch_tasks.base import BatchTask, Floats, norm

if TYPE_CHECKING:
    from mujoco.batch import Batch


class _Finger(BatchTask):
    def __init__(self, batch: Batch):
        super().__init__(batch)
        self._sensors: Floats = batch.bind("sensordata")
        self._joints = self._columns("proximal", "distal")
        self._velocities = self._columns("proximal_velocity", "distal_velocity", "hinge_velocity")
        self._touches = self._columns("touchtop", "touchbottom")
        self._spinner, self._tip = self._plane("spinner"), self._plane("tip")
        self.spin: Floats = self._sensors[:, self._velocities[-1]]

    def _columns(self, *names: str) -> list[int]:
        return [int(self.model.sensor(name).adr[0]) for name in names]

    def _plane(self, name: str) -> Floats:
        """The x, z columns of a position sensor, a live view."""
        (start,) = self._columns(name)
        return self._sensors[:, start : start + 3 : 2]

    def tip(self) -> Floats:
        """Tip relative to the hinge, [N, 2]."""
        return self._tip - self._spinner

    def observe(self) -> tuple[Floats, ...]:
        """Joint angles, tip, velocities, scaled touch sensors."""
        sensors = self._sensors
        touch = np.log1p(sensors[:, self._touches])
        return sensors[:, self._joints], self.tip(), sensors[:, self._velocities], touch


class Spin(_Finger):
    """Keep the body spinning."""

    def reward(self) -> Floats:
        """1 at 15 rad/s or faster."""
        return (self.spin <= -15.0).astype(np.float64)


class Turn(_Finger):
    """Turn the body's tip into the target, whose place changes by episode."""

    episode_fields = ("site_pos",)

    def __init__(self, batch: Batch):
        super().__init__(batch)
        self._target = self._plane("target")
        self._radius = float(self.model.site_size[self.model.site("target").id, 0])

    def _distance(self, target: Floats) -> Floats:
        return norm(target - self.tip()) - self._radius

    def observe(self) -> tuple[Floats, ...]:
        """The finger's, then target position and distance."""
        target = self._target - self._spinner
        return *super().observe(), target, self._distance(target)[:, None]

    def reward(self) -> Floats:
        """1 where the tip is in the target."""
        return (self._distance(self._target - self._spinner) <= 0).astype(np.float64)
