"""Settings of ``pwm extract``."""

from __future__ import annotations

from dataclasses import dataclass

from pwm.algorithms.pwm import PWMConfig
from pwm.errors import UserError
from pwm.models.actor import ActorConfig
from pwm.models.critic import CriticConfig
from pwm.stages.trainer import TrainerConfig


@dataclass(frozen=True)
class ExtractConfig:
    """Settings of ``pwm extract``. See docs/extraction.md for the evidence behind the defaults.

    ``select`` says which policy the run keeps: "best" by the real return of the evaluations during
    training (whose episodes are never those of the final evaluation), or "last", which looks
    at no real return and is the papers' way.
    """

    world_model: str = ""
    data: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    out: str = ""
    # length and size
    updates: int = 10_000
    batch_size: int = 512
    horizon: int = 16
    # objective
    gamma: float = 0.99
    lam: float = 0.95
    reward_space: str = "linear"
    detach_policy_input: bool = True
    behavior_weight: float = 5.0
    behavior_sharpness: float = 2.0
    behavior_horizon: int = 50
    actor_average: float = 0.98
    # optimisation
    actor_units: tuple[int, ...] = (400, 200, 100)
    critic_units: tuple[int, ...] = (400, 200)
    critics: int = 3
    learning_rate: float = 5e-4
    final_learning_rate: float = 1e-5
    critic_passes: int = 8
    critic_minibatches: int = 4
    # bookkeeping
    seed: int = 0
    select: str = "best"
    log_every: int = 10
    eval_every: int = 500
    eval_episodes: int = 5
    checkpoint_every: int = 500
    device: str = "auto"
    compile: bool = False
    resume: bool = False


def check(config: ExtractConfig) -> None:
    """Raise UserError for settings that can't work."""
    if not config.world_model:
        raise UserError("no world model: give its run folder with --world-model RUN")
    if not config.data:
        raise UserError("no data: start states come from a data set, give it with --data DIR")
    if not config.out:
        raise UserError("no run folder: give one with --out RUN")
    if not 0 <= config.actor_average < 1:
        raise UserError("--actor-average must be at least 0 (off) and less than 1")
    if config.behavior_horizon < 1:
        raise UserError("--behavior-horizon must be at least 1")
    for name in ("behavior_weight", "behavior_sharpness"):
        if getattr(config, name) < 0:
            raise UserError(f"--{name.replace('_', '-')} must not be negative")
    if config.select not in ("best", "last"):
        raise UserError(f"--select is 'best' or 'last', not '{config.select}'")
    if config.reward_space not in ("linear", "symlog"):
        raise UserError(f"--reward-space is 'linear' or 'symlog', not '{config.reward_space}'")
    for name in ("updates", "batch_size", "horizon", "eval_every", "log_every", "eval_episodes"):
        if getattr(config, name) < 1:
            raise UserError(f"--{name.replace('_', '-')} must be at least 1")


def trainer_config(config: ExtractConfig) -> TrainerConfig:
    """The part of the stage's settings that concerns the updates."""
    update = PWMConfig(
        horizon=config.horizon, gamma=config.gamma, lam=config.lam,
        detach_policy_input=config.detach_policy_input, reward_space=config.reward_space,
        critic_passes=config.critic_passes, critic_minibatches=config.critic_minibatches,
        behavior_weight=config.behavior_weight,
        behavior_sharpness=config.behavior_sharpness,
    )  # fmt: skip
    return TrainerConfig(
        update=update, actor=ActorConfig(units=config.actor_units),
        critic=CriticConfig(config.critic_units, config.critics), updates=config.updates,
        learning_rate=config.learning_rate, final_learning_rate=config.final_learning_rate,
        seed=config.seed, actor_average=config.actor_average, compile=config.compile,
    )  # fmt: skip
