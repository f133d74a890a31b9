"""Cartpole tasks; balancing and swinging up differ by the reset alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pwm.envs.batch_tasks.base import XZ, ZZ, BatchTask, Floats, tolerance

if TYPE_CHECKING:
    from mujoco.batch import Batch


class _Cartpole(BatchTask):
    def __init__(self, batch: Batch):
        super().__init__(batch)
        self.cart: Floats = self.qpos[:, self.model.joint("slider").qposadr[0]]
        self._pole = batch.bind("xmat")[:, self.model.body("pole_1").id]
        self.cosine: Floats = self._pole[:, ZZ]

    def observe(self) -> tuple[Floats, ...]:
        """Cart position, pole orientation, velocities."""
        return self.cart[:, None], self._pole[:, [ZZ, XZ]], self.qvel


class Smooth(_Cartpole):
    """Pole upright, cart in the middle, little control, slow pole."""

    def __init__(self, batch: Batch):
        super().__init__(batch)
        self._control = batch.bind("ctrl")[:, 0]
        self._pole_velocity = self.qvel[:, 1]

    def reward(self) -> Floats:
        """Product of the four."""
        upright = (self.cosine + 1) / 2
        centered = (1 + tolerance(self.cart, margin=2.0)) / 2
        small_control = tolerance(
            self._control, margin=1.0, value_at_margin=0.0, sigmoid="quadratic"
        )
        small_velocity = (1 + tolerance(self._pole_velocity, margin=5.0)) / 2
        return upright * ((4 + small_control) / 5) * small_velocity * centered


class Sparse(_Cartpole):
    """Pole nearly upright and cart near the middle."""

    def reward(self) -> Floats:
        """1 where both hold."""
        return tolerance(self.cart, -0.25, 0.25) * tolerance(self.cosine, 0.995, 1.0)
