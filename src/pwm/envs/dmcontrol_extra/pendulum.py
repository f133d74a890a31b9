"""Pendulum task: spin as fast as the motor allows."""

from __future__ import annotations

import numpy as np
from dm_control.rl import control
from dm_control.suite import pendulum
from dm_control.utils import rewards


class Spin(pendulum.SwingUp):
    """Turn at 9 rad/s or faster, in either direction; reset and observation of the swing-up."""

    def get_reward(self, physics: pendulum.Physics) -> float:
        """Return the reward of the physics' present state, in [0, 1]."""
        return rewards.tolerance(
            float(np.linalg.norm(physics.angular_velocity())),
            bounds=(9.0, float("inf")),
            margin=4.5,
            value_at_margin=0.5,
            sigmoid="linear",
        )


def spin(seed: int) -> control.Environment:
    """Construct pendulum-spin."""
    physics = pendulum.Physics.from_xml_string(*pendulum.get_model_and_assets())
    return control.Environment(physics, Spin(random=seed), time_limit=20)
