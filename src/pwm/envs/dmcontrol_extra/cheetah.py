"""Cheetah tasks: run in reverse, run on one foot with the other one raised, jump."""

from __future__ import annotations

from dm_control.rl import control
from dm_control.suite import cheetah
from dm_control.utils import rewards

# Height of a raised body, in metres, at and above which its reward is 1.
_UP = 1.2


def _raised(height: float) -> float:
    return rewards.tolerance(height, bounds=(_UP, float("inf")), margin=_UP / 2)


def _height(physics: cheetah.Physics, body: str) -> float:
    return physics.named.data.xpos[body, "z"]


class RunBackwards(cheetah.Cheetah):
    """Run towards negative x; the reward grows linearly to 1 at 8 m/s."""

    def get_reward(self, physics: cheetah.Physics) -> float:
        """Return the reward of the physics' present state, in [0, 1]."""
        return rewards.tolerance(
            physics.speed(),
            bounds=(-float("inf"), -8.0),
            margin=8.0,
            value_at_margin=0,
            sigmoid="linear",
        )


class RunOnOneFoot(cheetah.Cheetah):
    """Run forwards, up to 6 m/s, with ``raised_foot`` and the torso high above the ground.

    Reward: up (5 speed + 1) / 6.
    """

    def __init__(self, raised_foot: str, random: int):
        super().__init__(random=random)
        self._raised_foot = raised_foot

    def get_reward(self, physics: cheetah.Physics) -> float:
        """Return the reward of the physics' present state, in [0, 1]."""
        foot = _raised(_height(physics, self._raised_foot))
        torso = _raised(_height(physics, "torso"))
        speed = rewards.tolerance(
            physics.speed(),
            bounds=(6.0, float("inf")),
            margin=6.0,
            value_at_margin=0,
            sigmoid="linear",
        )
        return (3 * foot + 2 * torso) / 5 * (5 * speed + 1) / 6


class Jump(cheetah.Cheetah):
    """Get both ends of the body high up while standing still.

    Reward: mean over the two feet of (5 height + still) / 6, where the height is that of the
    middle between torso and foot.
    """

    def get_reward(self, physics: cheetah.Physics) -> float:
        """Return the reward of the physics' present state, in [0, 1]."""
        still = rewards.tolerance(
            physics.speed(), bounds=(-0.5, 0.5), margin=0.5, value_at_margin=0, sigmoid="linear"
        )
        torso = _height(physics, "torso")
        back = _raised((torso + _height(physics, "bfoot")) / 2)
        front = _raised((torso + _height(physics, "ffoot")) / 2)
        return ((5 * back + still) / 6 + (5 * front + still) / 6) / 2


def _environment(task: cheetah.Cheetah) -> control.Environment:
    physics = cheetah.Physics.from_xml_string(*cheetah.get_model_and_assets())
    return control.Environment(physics, task, time_limit=10)


def run_backwards(seed: int) -> control.Environment:
    """Construct cheetah-run-backwards."""
    return _environment(RunBackwards(random=seed))


def run_on_one_foot(raised_foot: str, seed: int) -> control.Environment:
    """Construct cheetah-run-front (the back foot raised) or cheetah-run-back (the front foot)."""
    return _environment(RunOnOneFoot(raised_foot, seed))


def jump(seed: int) -> control.Environment:
    """Construct cheetah-jump."""
    return _environment(Jump(random=seed))
