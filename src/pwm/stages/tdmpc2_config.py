"""Settings of ``pwm tdmpc2``."""

from __future__ import annotations

from dataclasses import dataclass

from pwm.algorithms.planner import PlannerConfig
from pwm.envs import TaskSpec
from pwm.errors import UserError, nearest
from pwm.models.sizes import Q_HEADS, SIZES
from pwm.models.world_model import WorldModelConfig

# Episodes without a time limit are stored in pieces of so many steps.
PIECE = 1000

# Simulators in which no episode ends before its time limit.
_NEVER_TERMINATE = ("dmc/", "metaworld/")


@dataclass(frozen=True)
class TDMPC2Config:
    """Settings of ``pwm tdmpc2``: TD-MPC2's agent of one task, trained online.

    ``size`` names the network: "5m" is TD-MPC2's default, "1m" is for CPUs. ``steps`` are agent
    steps; the first ``seed_steps`` act at random (0: five episodes, at least 1000). From then on
    there is one update for every agent step, of all ``num_envs`` environments, the seed steps'
    updates being made up for first.
    """

    task: str = ""
    out: str = ""
    size: str = "5m"
    steps: int = 500_000
    num_envs: int = 1
    seed_steps: int = 0
    updates_per_step: float = 1.0
    # optimisation
    batch_size: int = 256
    horizon: int = 3
    rho: float = 0.5
    consistency_weight: float = 20.0
    reward_weight: float = 0.1
    value_weight: float = 0.1
    termination_weight: float = 1.0
    prior_entropy: float = 1e-4
    target_rate: float = 0.01
    learning_rate: float = 3e-4
    encoder_lr_scale: float = 0.3
    gradient_clip: float = 20.0
    buffer_size: int = 1_000_000
    # planning
    plan_horizon: int = 3
    plan_iterations: int = 0
    plan_samples: int = 512
    # bookkeeping
    seed: int = 0
    log_every: int = 500
    eval_every: int = 25_000
    eval_episodes: int = 5
    checkpoint_every: int = 5_000
    device: str = "auto"
    compile: bool = False
    resume: bool = False


def check(config: TDMPC2Config) -> None:
    """Raise UserError for settings that can't work."""
    if not config.task:
        raise UserError("no task: give one with --task ID; see: pwm tasks")
    if not config.out:
        raise UserError("no run folder: give one with --out RUN")
    if config.size.lower() not in SIZES:
        raise UserError(
            f"unknown --size '{config.size}'.{nearest(config.size.lower(), SIZES)} Sizes: "
            f"{', '.join(SIZES)}"
        )
    for name in ("steps", "num_envs", "batch_size", "horizon", "log_every", "eval_every",
                 "eval_episodes", "checkpoint_every"):  # fmt: skip
        if getattr(config, name) < 1:
            raise UserError(f"--{name.replace('_', '-')} must be at least 1")
    if config.seed_steps < 0 or config.updates_per_step <= 0:
        raise UserError("--seed-steps must not be negative and --updates-per-step be above 0")
    planner_of(config)


def episode_limit(spec: TaskSpec) -> int:
    """Longest episode, or piece of one, in the replay."""
    return spec.episode_length or PIECE


def replay_rows(config: TDMPC2Config, spec: TaskSpec) -> int:
    """Rows of the replay: no more than the run can fill."""
    limit = episode_limit(spec) + 1
    if config.buffer_size < limit:
        raise UserError(
            f"--buffer-size {config.buffer_size} is less than an episode of {spec.id}, {limit} rows"
        )
    return min(config.buffer_size, 2 * config.steps + config.num_envs * limit)


def seed_steps_of(config: TDMPC2Config, spec: TaskSpec) -> int:
    """Agent steps at random before the first update: at least one episode of each environment."""
    limit = episode_limit(spec)
    return max(config.seed_steps or max(1000, 5 * limit), config.num_envs * limit)


def planner_of(config: TDMPC2Config) -> PlannerConfig:
    return PlannerConfig(config.plan_horizon, config.plan_iterations, samples=config.plan_samples)


def model_of(config: TDMPC2Config, spec: TaskSpec) -> WorldModelConfig:
    """Network of one task, with a termination head where an environment may terminate."""
    size, ends = config.size.lower(), not spec.id.startswith(_NEVER_TERMINATE)
    return WorldModelConfig(
        tasks=(spec.id,), obs_dims=(spec.obs_dim,), action_dims=(spec.action_dim,),
        episode_lengths=(spec.episode_length,), **SIZES[size], task_dim=0,
        termination=ends, termination_on_next=ends, num_q=Q_HEADS[size], policy_prior=True,
    )  # fmt: skip
