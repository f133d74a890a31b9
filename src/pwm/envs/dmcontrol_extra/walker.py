"""Walker tasks in reverse: stand as in the stock tasks and move towards negative x."""

from __future__ import annotations

from dm_control.rl import control
from dm_control.suite import walker
from dm_control.utils import rewards


class BackwardsWalker(walker.PlanarWalker):
    """Walk at ``speed`` m/s or faster towards negative x.

    Reward: stand (5 move + 1) / 6, where stand is the stock standing reward.
    """

    def __init__(self, speed: float, random: int):
        # With a move speed of 0 the parent's reward is the standing reward alone.
        super().__init__(move_speed=0, random=random)
        self._speed = speed

    def get_reward(self, physics: walker.Physics) -> float:
        """Return the reward of the physics' present state, in [0, 1]."""
        stand = super().get_reward(physics)
        move = rewards.tolerance(
            physics.horizontal_velocity(),
            bounds=(-float("inf"), -self._speed),
            margin=self._speed / 2,
            value_at_margin=0.5,
            sigmoid="linear",
        )
        return float(stand * (5 * move + 1) / 6)


def backwards(speed: float, seed: int) -> control.Environment:
    """Construct walker-walk-backwards (speed 1) or walker-run-backwards (speed 8)."""
    physics = walker.Physics.from_xml_string(*walker.get_model_and_assets())
    task = BackwardsWalker(speed, seed)
    return control.Environment(physics, task, time_limit=25, control_timestep=0.025)
