"""Cheetah tasks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pwm.envs.batch_tasks.base import INF, BatchTask, Floats, tolerance

if TYPE_CHECKING:
    from mujoco.batch import Batch

_UP = 1.2


class _Cheetah(BatchTask):
    def __init__(self, batch: Batch):
        super().__init__(batch)
        velocity = self.model.sensor("torso_subtreelinvel").adr[0]
        self.speed: Floats = batch.bind("sensordata")[:, velocity]

    def observe(self) -> tuple[Floats, ...]:
        """Positions without the horizontal one, velocities."""
        return self.qpos[:, 1:], self.qvel


class _HighCheetah(_Cheetah):
    def __init__(self, batch: Batch):
        super().__init__(batch)
        self._xpos = batch.bind("xpos")

    def height(self, body: str) -> Floats:
        """Height of a body in metres, a live view."""
        return self._xpos[:, self.model.body(body).id, 2]


def _raised(height: Floats) -> Floats:
    return tolerance(height, _UP, INF, margin=_UP / 2)


class Run(_Cheetah):
    """Run forwards at 10 m/s."""

    def reward(self) -> Floats:
        """Linear in the speed."""
        return tolerance(self.speed, 10.0, INF, margin=10.0, value_at_margin=0.0, sigmoid="linear")


class RunBackwards(_Cheetah):
    """Run backwards at 8 m/s."""

    def reward(self) -> Floats:
        """Linear in the speed."""
        return tolerance(self.speed, -INF, -8.0, margin=8.0, value_at_margin=0.0, sigmoid="linear")


class RunOnOneFoot(_HighCheetah):
    """Run with the torso and ``raised_foot`` up."""

    def __init__(self, batch: Batch, raised_foot: str):
        super().__init__(batch)
        self._foot, self._torso = self.height(raised_foot), self.height("torso")

    def reward(self) -> Floats:
        """Raised parts times speed."""
        up = (3 * _raised(self._foot) + 2 * _raised(self._torso)) / 5
        speed = tolerance(self.speed, 6.0, INF, margin=6.0, value_at_margin=0.0, sigmoid="linear")
        return up * (5 * speed + 1) / 6


class Jump(_HighCheetah):
    """Get high without moving along."""

    def __init__(self, batch: Batch):
        super().__init__(batch)
        self._torso = self.height("torso")
        self._back, self._front = self.height("bfoot"), self.height("ffoot")

    def reward(self) -> Floats:
        """Mean over the feet of height and stillness."""
        still = tolerance(self.speed, -0.5, 0.5, margin=0.5, value_at_margin=0.0, sigmoid="linear")
        back = _raised((self._torso + self._back) / 2)
        front = _raised((self._torso + self._front) / 2)
        return ((5 * back + still) / 6 + (5 * front + still) / 6) / 2
