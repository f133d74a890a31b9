"""Observations and rewards of the ``dmc/`` tasks for many simulations at once.

Each class here mirrors one domain of dm_control (or of ``pwm.envs.dmcontrol_extra``), with NumPy
over all simulations instead of Python over each. The arithmetic keeps the original's order of
operations, so that observations agree to the last bit and rewards to the rounding of exp.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from pwm.envs.batch_tasks import (
    acrobot,
    cartpole,
    cheetah,
    cup,
    finger,
    fish,
    hopper,
    pendulum,
    reacher,
    walker,
)
from pwm.envs.batch_tasks.base import BatchTask

if TYPE_CHECKING:
    from mujoco.batch import Batch

__all__ = ["TASKS", "BatchTask"]

# Canonical id -> constructor that takes the batch.
TASKS: dict[str, Callable[[Batch], BatchTask]] = {
    "dmc/walker-stand": partial(walker.Walker, speed=0.0),
    "dmc/walker-walk": partial(walker.Walker, speed=1.0),
    "dmc/walker-run": partial(walker.Walker, speed=8.0),
    "dmc/walker-walk-backwards": partial(walker.Walker, speed=-1.0),
    "dmc/walker-run-backwards": partial(walker.Walker, speed=-8.0),
    "dmc/cheetah-run": cheetah.Run,
    "dmc/cheetah-run-backwards": cheetah.RunBackwards,
    "dmc/cheetah-run-front": partial(cheetah.RunOnOneFoot, raised_foot="bfoot"),
    "dmc/cheetah-run-back": partial(cheetah.RunOnOneFoot, raised_foot="ffoot"),
    "dmc/cheetah-jump": cheetah.Jump,
    "dmc/reacher-easy": reacher.Reacher,
    "dmc/reacher-hard": reacher.Reacher,
    "dmc/reacher-three-easy": reacher.Reacher,
    "dmc/reacher-three-hard": reacher.Reacher,
    "dmc/acrobot-swingup": acrobot.SwingUp,
    "dmc/pendulum-swingup": pendulum.SwingUp,
    "dmc/pendulum-spin": pendulum.Spin,
    "dmc/cartpole-balance": cartpole.Smooth,
    "dmc/cartpole-balance-sparse": cartpole.Sparse,
    "dmc/cartpole-swingup": cartpole.Smooth,
    "dmc/cartpole-swingup-sparse": cartpole.Sparse,
    "dmc/cup-catch": cup.Catch,
    "dmc/cup-spin": cup.Spin,
    "dmc/finger-spin": finger.Spin,
    "dmc/finger-turn-easy": finger.Turn,
    "dmc/finger-turn-hard": finger.Turn,
    "dmc/fish-swim": fish.Swim,
    "dmc/hopper-stand": hopper.Stand,
    "dmc/hopper-hop": hopper.Hop,
    "dmc/hopper-hop-backwards": hopper.HopBackwards,
}
