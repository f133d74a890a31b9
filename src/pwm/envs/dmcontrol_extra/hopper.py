"""Hopper task in reverse."""

from __future__ import annotations

from dm_control.rl import control
from dm_control.suite import hopper
from dm_control.utils import rewards


class HopBackwards(hopper.Hopper):
    """Stay upright and hop towards negative x at 1 m/s or faster."""

    def __init__(self, random: int):
        super().__init__(hopping=True, random=random)

    def get_reward(self, physics: hopper.Physics) -> float:
        """Return the reward of the physics' present state, in [0, 1]."""
        standing = rewards.tolerance(physics.height(), (0.6, 2))
        hopping = rewards.tolerance(
            physics.speed(),
            bounds=(-float("inf"), -1.0),
            margin=0.5,
            value_at_margin=0.5,
            sigmoid="linear",
        )
        return standing * hopping


def hop_backwards(seed: int) -> control.Environment:
    """Construct hopper-hop-backwards."""
    physics = hopper.Physics.from_xml_string(*hopper.get_model_and_assets())
    return control.Environment(physics, HopBackwards(seed), time_limit=20, control_timestep=0.02)
