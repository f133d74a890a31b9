"""Walker tasks, forwards and backwards."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pwm.envs.batch_tasks.base import INF, XX, XZ, ZZ, BatchTask, Floats, tolerance

if TYPE_CHECKING:
    from mujoco.batch import Batch

_STAND_HEIGHT = 1.2


class Walker(BatchTask):
    """Stand and move.

    Args:
        speed: wanted horizontal speed in m/s, negative for backwards, 0 for standing alone.
    """

    def __init__(self, batch: Batch, speed: float):
        super().__init__(batch)
        self._speed = speed
        torso = self.model.body("torso").id
        xmat = batch.bind("xmat")
        # Body 0 is the world.
        self._bodies = xmat[:, 1:, XX : XZ + 1 : 2]
        self._upright = xmat[:, torso, ZZ]
        self._height = batch.bind("xpos")[:, torso, 2]
        velocity = self.model.sensor("torso_subtreelinvel").adr[0]
        self._velocity = batch.bind("sensordata")[:, velocity]

    def observe(self) -> tuple[Floats, ...]:
        """Orientations of all bodies, torso height, velocities."""
        orientations = self._bodies.reshape(len(self.qpos), -1)
        return orientations, self._height[:, None], self.qvel

    def reward(self) -> Floats:
        """Standing reward, times that of the speed unless the speed is 0."""
        standing = tolerance(self._height, _STAND_HEIGHT, INF, margin=_STAND_HEIGHT / 2)
        upright = (1 + self._upright) / 2
        stand = (3 * standing + upright) / 4
        if self._speed == 0:
            return stand
        lower, upper = (self._speed, INF) if self._speed > 0 else (-INF, self._speed)
        move = tolerance(
            self._velocity,
            lower,
            upper,
            margin=abs(self._speed) / 2,
            value_at_margin=0.5,
            sigmoid="linear",
        )
        return stand * (5 * move + 1) / 6
