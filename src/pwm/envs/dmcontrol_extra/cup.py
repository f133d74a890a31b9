"""Ball-in-cup task: swing the ball around the cup on its string."""

from __future__ import annotations

import numpy as np
from dm_control.rl import control
from dm_control.suite import ball_in_cup, base
from dm_control.utils import rewards


class Physics(ball_in_cup.Physics):
    """Adds the ball's speed."""

    def ball_speed(self) -> float:
        """Return the ball's speed in m/s."""
        return float(np.linalg.norm(self.named.data.qvel[["ball_x", "ball_z"]]))


class Spin(ball_in_cup.BallInCup):
    """Keep the ball outside the cup, far from it and fast.

    Nine of ten episodes start with the ball in the cup, so that it has to be thrown out first.
    """

    def initialize_episode(self, physics: Physics) -> None:
        """Place the ball at random, free of contact, as a rule inside the cup."""
        anywhere = self.random.uniform(0, 1) < 0.1
        placed = False
        while not placed:
            physics.named.data.qpos["ball_x"] = self.random.uniform(-0.2, 0.2)
            physics.named.data.qpos["ball_z"] = self.random.uniform(0.2, 0.5)
            physics.after_reset()
            placed = physics.data.ncon == 0 and bool(anywhere or physics.in_target())
        # Not the parent's method: it would place the ball anew.
        base.Task.initialize_episode(self, physics)

    def get_reward(self, physics: Physics) -> float:
        """Return the reward of the physics' present state, in [0, 1]."""
        distance = rewards.tolerance(
            float(np.linalg.norm(physics.ball_to_target())),
            bounds=(0.5, float("inf")),
            margin=0.25,
            value_at_margin=0.5,
            sigmoid="linear",
        )
        speed = rewards.tolerance(
            physics.ball_speed(),
            bounds=(6.0, float("inf")),
            margin=3.0,
            value_at_margin=0.5,
            sigmoid="linear",
        )
        return (1 - physics.in_target()) * (distance + 2 * speed) / 3


def spin(seed: int) -> control.Environment:
    """Construct cup-spin."""
    physics = Physics.from_xml_string(*ball_in_cup.get_model_and_assets())
    return control.Environment(physics, Spin(random=seed), time_limit=20, control_timestep=0.02)
