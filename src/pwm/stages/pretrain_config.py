"""Settings of ``pwm pretrain`` and what follows from them before any work starts."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from pwm.data import EpisodeDataset
from pwm.envs.registry import canonical_id
from pwm.errors import UserError, nearest
from pwm.models.world_model import WorldModelConfig, config_for_tasks


@dataclass(frozen=True)
class PretrainConfig:
    """Settings of ``pwm pretrain``; presets fill in sizes, batch and length of training.

    The first ``short_fraction`` of the updates use windows of ``short_horizon`` steps, which cost
    that much less; see docs/pretraining.md for what it brings.

    With ``num_q`` Q heads (TD-MPC2 has 5) the model also learns them and a policy prior, by
    TD-MPC2's full loss: what planning needs. 0 trains neither, which PWM does without.
    """

    data: tuple[str, ...] = ()
    out: str = ""
    tasks: tuple[str, ...] = ()
    task_weights: tuple[float, ...] = ()
    # network sizes
    task_dim: int = 96
    latent_dim: int = 512
    hidden_dim: int = 512
    encoder_dim: int = 256
    encoder_layers: int = 1
    normalize_observations: bool = False
    num_q: int = 0
    # optimisation
    updates: int = 100_000
    batch_size: int = 1024
    horizon: int = 16
    short_horizon: int = 4
    short_fraction: float = 0.0
    rho: float = 0.99
    consistency_weight: float = 20.0
    reward_weight: float = 0.1
    termination_weight: float = 1.0
    value_weight: float = 0.1
    prior_entropy: float = 1e-4
    target_rate: float = 0.01
    learning_rate: float = 3e-4
    encoder_lr_scale: float = 0.3
    decay_fraction: float = 0.0
    gradient_clip: float = 20.0
    # bookkeeping
    seed: int = 0
    holdout_fraction: float = 0.05
    log_every: int = 50
    eval_every: int = 500
    eval_batch_size: int = 512
    checkpoint_every: int = 1000
    device: str = "auto"
    compile: bool = False
    resume: bool = False


def learning_rate_at(config: PretrainConfig, step: int) -> float:
    """Constant, then linear to 2 % over the last ``decay_fraction`` of the updates."""
    span = config.decay_fraction * config.updates
    left = 1.0 if span == 0 else min(1.0, (config.updates - step) / span)
    return config.learning_rate * max(left, 0.02)


def horizon_at(config: PretrainConfig, step: int) -> int:
    """Steps of the windows of update ``step``, counted from 1."""
    return (
        config.short_horizon if step <= config.short_fraction * config.updates else config.horizon
    )


def check(config: PretrainConfig) -> None:
    """Raise UserError for settings that can't work."""
    if not config.data:
        raise UserError("no data: give one or more data set folders with --data DIR...")
    if not config.out:
        raise UserError("no run folder: give one with --out RUN")
    for name in ("updates", "batch_size", "horizon", "short_horizon", "log_every", "eval_every",
                 "checkpoint_every"):  # fmt: skip
        if getattr(config, name) < 1:
            raise UserError(f"--{name.replace('_', '-')} must be at least 1")
    if config.num_q < 0 or config.num_q == 1:
        raise UserError("--num-q is 0 (no planning) or at least 2; TD-MPC2 has 5")
    if config.short_fraction and config.short_horizon > config.horizon:
        raise UserError(
            f"--short-horizon {config.short_horizon} is longer than --horizon {config.horizon}"
        )
    for name in ("short_fraction", "decay_fraction", "holdout_fraction"):
        if not 0 <= getattr(config, name) <= 1:
            raise UserError(f"--{name.replace('_', '-')} must be between 0 and 1")


def _task_in(available: Collection[str], name: str) -> str:
    """Id of the data's task that ``name``, an id or an alias like ``walker-walk``, stands for."""
    if name in available:
        return name
    try:
        id_ = canonical_id(name)
    except UserError:
        id_ = name
    if id_ not in available:
        raise UserError(f"the data holds no task '{name}'.{nearest(id_, available)}")
    return id_


def model_config_for(
    config: PretrainConfig, datasets: Sequence[EpisodeDataset]
) -> WorldModelConfig:
    """Network config from the preset's sizes and the tasks of the data."""
    available = {id_: task for dataset in datasets for id_, task in dataset.tasks.items()}
    ids = tuple(dict.fromkeys(_task_in(available, name) for name in config.tasks or available))
    chosen = [available[id_] for id_ in ids]
    sizes = {
        name: getattr(config, name)
        for name in ("latent_dim", "hidden_dim", "encoder_dim", "encoder_layers")
    }
    sizes["task_dim"] = config.task_dim if len(ids) > 1 else 0
    ends = any(dataset.tasks[id_].any_terminated() for dataset in datasets
               for id_ in ids if id_ in dataset.tasks)  # fmt: skip
    return config_for_tasks(
        ids,
        [task.obs_dim for task in chosen],
        [task.action_dim for task in chosen],
        [task.episode_length for task in chosen],
        sizes,
        termination=ends,
        normalize_observations=config.normalize_observations,
        num_q=config.num_q,
        policy_prior=config.num_q > 0,
    )
