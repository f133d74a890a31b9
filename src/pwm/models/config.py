"""Configuration of a world model: everything needed to rebuild it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from pwm.errors import UserError


@dataclass(frozen=True)
class WorldModelConfig:
    """Everything needed to rebuild a world model: sizes and the tasks that it knows.

    Task i has ``obs_dims[i]`` real observation features and ``action_dims[i]`` real actions; the
    networks work on the largest of each, zero-padded. ``task_dim`` 0 means a single-task model
    without an embedding. ``num_q`` action-value heads and a policy prior (whose log standard
    deviation lies between ``log_std_min`` and ``log_std_max``) are what a planner needs.

    ``num_bins`` 1 means a reward head that puts out the reward itself. Normalised observations
    are clipped to +-``obs_limit`` (0: not at all). The termination head reads [z, e, a], or, with
    ``termination_on_next`` (TD-MPC2's way), the latent that the step leads to, [z', e].
    """

    tasks: tuple[str, ...]
    obs_dims: tuple[int, ...]
    action_dims: tuple[int, ...]
    episode_lengths: tuple[int | None, ...]
    task_dim: int = 96
    latent_dim: int = 512
    hidden_dim: int = 512
    encoder_dim: int = 256
    encoder_layers: int = 1
    simnorm_dim: int = 8
    num_bins: int = 101
    bin_low: float = -10.0
    bin_high: float = 10.0
    termination: bool = False
    termination_on_next: bool = False
    normalize_observations: bool = False
    obs_limit: float = 0.0
    symlog_observations: bool = False
    num_q: int = 0
    q_dropout: float = 0.01
    policy_prior: bool = False
    log_std_min: float = -10.0
    log_std_max: float = 2.0

    def __post_init__(self) -> None:
        if self.latent_dim % self.simnorm_dim:
            raise UserError(
                f"latent_dim {self.latent_dim} is not a multiple of simnorm_dim {self.simnorm_dim}"
            )
        if not len(self.tasks) == len(self.obs_dims) == len(self.action_dims):
            raise UserError("tasks, obs_dims and action_dims must have one entry a task")
        if len(self.tasks) > 1 and self.task_dim == 0:
            raise UserError("a model of several tasks needs task_dim > 0")
        if self.policy_prior and self.num_q < 2:
            raise UserError("a policy prior needs at least 2 Q heads to learn from")
        if self.log_std_min >= self.log_std_max:
            raise UserError(f"log_std_min {self.log_std_min} is not below {self.log_std_max}")

    @property
    def obs_dim(self) -> int:
        return max(self.obs_dims)

    @property
    def action_dim(self) -> int:
        return max(self.action_dims)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> WorldModelConfig:
        """Strict inverse of :meth:`to_dict`; raises UserError on unknown or missing fields."""
        known = {field.name for field in fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise UserError(f"world-model config has unknown fields {unknown}")
        try:
            tuples = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
            return cls(**tuples)  # type: ignore[arg-type]
        except TypeError as error:
            raise UserError(f"world-model config is incomplete: {error}") from None


def config_for_tasks(
    tasks: Sequence[str],
    obs_dims: Sequence[int],
    action_dims: Sequence[int],
    episode_lengths: Sequence[int | None],
    sizes: dict[str, Any],
    **options: Any,
) -> WorldModelConfig:
    """World-model config from the facts of a data set and the sizes of a preset."""
    return WorldModelConfig(
        tasks=tuple(tasks),
        obs_dims=tuple(obs_dims),
        action_dims=tuple(action_dims),
        episode_lengths=tuple(episode_lengths),
        **sizes,
        **options,
    )
