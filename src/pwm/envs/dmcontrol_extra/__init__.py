"""The 11 tasks that TD-MPC2's 30-task set adds to the DMControl suite.

Every task takes the XML, observation, reset and time limit of a stock domain from the installed
dm_control, and changes the reward (for the cup also the reset, for the reacher the arm). The
formulas are those of the set's data, so that returns compare with published ones.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from dm_control.rl import control

from pwm.envs.dmcontrol_extra import cheetah, cup, hopper, pendulum, reacher, walker

# Task name -> function of the seed that constructs the environment.
LOADERS: dict[str, Callable[[int], control.Environment]] = {
    "walker-walk-backwards": partial(walker.backwards, 1.0),
    "walker-run-backwards": partial(walker.backwards, 8.0),
    "cheetah-run-backwards": cheetah.run_backwards,
    "cheetah-run-front": partial(cheetah.run_on_one_foot, "bfoot"),
    "cheetah-run-back": partial(cheetah.run_on_one_foot, "ffoot"),
    "cheetah-jump": cheetah.jump,
    "hopper-hop-backwards": hopper.hop_backwards,
    "reacher-three-easy": partial(reacher.three_links, 0.05),
    "reacher-three-hard": partial(reacher.three_links, 0.015),
    "cup-spin": cup.spin,
    "pendulum-spin": pendulum.spin,
}
