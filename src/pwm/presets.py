"""Presets: functions that return complete stage configurations.

Sizes are those of the models released by TD-MPC2 (arXiv 2310.16828, table 8), without the heads
that PWM does not need; ``tdmpc2-*`` has them all.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from pwm.errors import UserError, nearest
from pwm.models.sizes import Q_HEADS, SIZES

if TYPE_CHECKING:
    from pwm.stages.extract import ExtractConfig
    from pwm.stages.pretrain import PretrainConfig


def mt30(size: str) -> PretrainConfig:
    """30-task DMControl setting of the paper: batch 1024, horizon 16, rho 0.99."""
    from pwm.stages.pretrain import PretrainConfig

    sizes = dict(SIZES[size])
    if size == "19m":
        sizes["latent_dim"] = 512
    task_dim = 96 if size in ("1m", "317m") else 64
    return PretrainConfig(**sizes, task_dim=task_dim, batch_size=1024, updates=1_000_000)


def mt80(size: str) -> PretrainConfig:
    """80-task setting of the paper (DMControl and Meta-World)."""
    from pwm.stages.pretrain import PretrainConfig

    return PretrainConfig(**SIZES[size], task_dim=96, batch_size=1024, updates=1_000_000)


def single(size: str) -> PretrainConfig:
    """One task (or a few) on a small machine: batch 256, and what docs/pretraining.md found to help
    small data sets: normalised observations, short windows first, a learning rate that falls."""
    from pwm.stages.pretrain import PretrainConfig

    return PretrainConfig(
        **SIZES[size], task_dim=64, batch_size=256, updates=50_000, normalize_observations=True,
        short_fraction=0.75, decay_fraction=0.8,
    )  # fmt: skip


def tdmpc2(base: Callable[[str], PretrainConfig], size: str) -> PretrainConfig:
    """TD-MPC2's own training of ``base``'s tasks: Q heads and policy prior, horizon 3, rho 0.5.

    ``--num-q`` on another preset adds both to a model of horizon 16 and rho 0.99, which then serves
    planning and extraction.
    """
    return replace(base(size), horizon=3, rho=0.5, num_q=Q_HEADS[size], short_fraction=0.0)


def debug() -> PretrainConfig:
    """Runs in seconds; for trying out commands, learns next to nothing."""
    from pwm.stages.pretrain import PretrainConfig

    return PretrainConfig(
        task_dim=16, latent_dim=32, hidden_dim=32, encoder_dim=32, encoder_layers=1, updates=20,
        batch_size=16, log_every=5, eval_every=10, eval_batch_size=16, checkpoint_every=10,
    )  # fmt: skip


def demo() -> PretrainConfig:
    """World model of ``pwm demo``: three tasks in a few minutes on 2 CPU cores."""
    from pwm.stages.pretrain import PretrainConfig

    return PretrainConfig(
        **SIZES["1m"], task_dim=96, normalize_observations=True, updates=4200, batch_size=256,
        short_fraction=0.82, learning_rate=3e-4, encoder_lr_scale=1.0, decay_fraction=0.8,
        log_every=50, eval_every=500, checkpoint_every=1000,
    )  # fmt: skip


def demo_extract() -> ExtractConfig:
    """Policies of ``pwm demo``: about a minute a task."""
    from pwm.stages.extract import ExtractConfig

    return ExtractConfig(
        updates=330, batch_size=256, horizon=8, critic_passes=2, log_every=10, eval_every=50,
        eval_episodes=16, checkpoint_every=100,
    )  # fmt: skip


PRETRAIN: dict[str, Callable[[], Any]] = {
    **{f"mt30-{size}": partial(mt30, size) for size in SIZES},
    **{f"mt80-{size}": partial(mt80, size) for size in SIZES},
    **{f"single-{size}": partial(single, size) for size in SIZES},
    **{f"tdmpc2-mt30-{size}": partial(tdmpc2, mt30, size) for size in SIZES},
    **{f"tdmpc2-mt80-{size}": partial(tdmpc2, mt80, size) for size in SIZES},
    **{f"tdmpc2-single-{size}": partial(tdmpc2, single, size) for size in SIZES},
    "demo": demo,
    "debug": debug,
}


def pretrain_preset(name: str) -> PretrainConfig:
    """Look up a preset of ``pwm pretrain``; underscores and capitals are accepted."""
    key = name.lower().replace("_", "-")
    if key not in PRETRAIN:
        raise UserError(
            f"unknown preset '{name}'.{nearest(key, PRETRAIN)} Presets: {', '.join(PRETRAIN)}"
        )
    return PRETRAIN[key]()
