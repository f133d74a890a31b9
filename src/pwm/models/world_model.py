"""The multi-task world model: encoder, latent dynamics, reward (and termination) heads.

Architecture: TD-MPC2 (arXiv 2310.16828), as used by PWM (arXiv 2407.02466). Shapes below use
B batch (any leading dimensions), O padded observation, A padded action, D latent, E embedding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn

from pwm.errors import UserError
from pwm.models.layers import Head, NormedLinear, SimNorm, init_world_model_weights, pad_features
from pwm.models.two_hot import two_hot_decode


@dataclass(frozen=True)
class WorldModelConfig:
    """Everything needed to rebuild a world model: sizes and the tasks that it knows.

    Task i has ``obs_dims[i]`` real observation features and ``action_dims[i]`` real actions; the
    networks work on the largest of each, zero-padded. ``task_dim`` 0 means a single-task model
    without an embedding.
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
    normalize_observations: bool = False

    def __post_init__(self) -> None:
        if self.latent_dim % self.simnorm_dim:
            raise UserError(
                f"latent_dim {self.latent_dim} is not a multiple of simnorm_dim {self.simnorm_dim}"
            )
        if not len(self.tasks) == len(self.obs_dims) == len(self.action_dims):
            raise UserError("tasks, obs_dims and action_dims must have one entry a task")
        if len(self.tasks) > 1 and self.task_dim == 0:
            raise UserError("a model of several tasks needs task_dim > 0")

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


class TaskEmbedding(nn.Module):
    """Learned vector a task whose norm is limited to 1 at every lookup.

    torch's ``Embedding(max_norm=1)`` rewrites its weight inside forward; here the weight stays as
    it is and the looked-up row is scaled by 1 / (norm + 1e-7), which gives the same numbers and
    leaves frozen models untouched.
    """

    def __init__(self, tasks: int, dim: int):
        super().__init__()
        self.table = nn.Embedding(tasks, dim)

    def forward(self, task: Tensor) -> Tensor:
        """[...] long -> [..., E]."""
        rows = self.table(task)
        norm = rows.detach().norm(dim=-1, keepdim=True)
        return rows * torch.where(norm > 1, 1 / (norm + 1e-7), torch.ones_like(norm))


class WorldModel(nn.Module):
    """Encoder z = E(s, e), dynamics z' = F(z, e, a), reward r = R(z, e, a).

    ``task`` is a LongTensor of task indices that broadcasts against the leading dimensions of the
    other arguments; single-task models ignore it. Observations and actions narrower than the
    model's are zero-padded.
    """

    # Run folder that the weights came from; None for a model made in memory.
    source: str | None = None
    action_masks: Tensor
    obs_mean: Tensor
    obs_scale: Tensor

    def __init__(self, config: WorldModelConfig):
        super().__init__()
        self.config = config
        c = config
        self.embedding = TaskEmbedding(len(c.tasks), c.task_dim) if c.task_dim else None
        widths = [c.obs_dim + c.task_dim, *[c.encoder_dim] * c.encoder_layers]
        simnorm = SimNorm(c.simnorm_dim)
        self.encoder = nn.Sequential(
            *[NormedLinear(a, b) for a, b in zip(widths[:-1], widths[1:], strict=True)],
            NormedLinear(widths[-1], c.latent_dim, simnorm),
        )
        joint = c.latent_dim + c.task_dim + c.action_dim
        self.dynamics = nn.Sequential(
            NormedLinear(joint, c.hidden_dim),
            NormedLinear(c.hidden_dim, c.hidden_dim),
            NormedLinear(c.hidden_dim, c.latent_dim, simnorm),
        )
        hidden = [c.hidden_dim, c.hidden_dim]
        self.reward_head = Head(joint, hidden, c.num_bins, zero_last=True)
        self.termination_head = Head(joint, hidden, 1, zero_last=True) if c.termination else None
        masks = torch.zeros(len(c.tasks), c.action_dim)
        for row, width in zip(masks, c.action_dims, strict=True):
            row[:width] = 1
        self.register_buffer("action_masks", masks, persistent=False)
        if c.normalize_observations:
            self.register_buffer("obs_mean", torch.zeros(len(c.tasks), c.obs_dim))
            self.register_buffer("obs_scale", torch.ones(len(c.tasks), c.obs_dim))
        init_world_model_weights(self)

    @classmethod
    def from_pretrained(cls, run: Any, device: str | torch.device = "cpu") -> WorldModel:
        """Load the world model of a run folder (newest complete checkpoint), ready for use.

        Args:
            run: run folder written by ``pwm pretrain``.

        Raises:
            UserError: not a run folder, or its files are damaged.
        """
        from pwm.models.pretrained import load_world_model

        return load_world_model(run, device)

    def task_index(self, task_id: str) -> int:
        """Index of a task id; raises UserError when the model does not know it."""
        from pwm.errors import nearest

        if task_id not in self.config.tasks:
            raise UserError(
                f"the world model does not know task '{task_id}'; it knows: "
                f"{', '.join(self.config.tasks)}.{nearest(task_id, self.config.tasks)}"
            )
        return self.config.tasks.index(task_id)

    def encode(self, obs: Tensor, task: Tensor | None = None) -> Tensor:
        """[..., O] observations -> [..., D] latents."""
        obs = pad_features(obs, self.config.obs_dim)
        if self.config.normalize_observations:
            index = 0 if len(self.config.tasks) == 1 or task is None else task
            obs = (obs - self.obs_mean[index]) * self.obs_scale[index]
        return self.encoder(self.join(obs, task))

    def set_observation_moments(self, index: int, mean: Tensor, std: Tensor) -> None:
        """Normalise the observations of task ``index`` by ``mean`` and ``std``, [obs_dim] each.

        Features that hardly change in the data (std below 1e-3) are only centred: dividing by
        next to nothing would make a later change look enormous.
        """
        width = self.config.obs_dims[index]
        self.obs_mean[index, :width] = mean
        self.obs_scale[index, :width] = torch.where(std > 1e-3, 1 / std, 1.0)

    def next(self, z: Tensor, action: Tensor, task: Tensor | None = None) -> Tensor:
        """[..., D] latents and [..., A] actions -> [..., D] next latents."""
        return self.dynamics(self.join(z, task, action))

    def reward_logits(self, z: Tensor, action: Tensor, task: Tensor | None = None) -> Tensor:
        """[..., bins] logits of the reward of taking ``action`` in ``z``."""
        return self.reward_head(self.join(z, task, action))

    def reward(self, z: Tensor, action: Tensor, task: Tensor | None = None) -> Tensor:
        """[...] expected reward in reward units."""
        return self.decode_reward(self.reward_logits(z, action, task))

    def decode_reward(self, logits: Tensor, space: str = "linear") -> Tensor:
        """[..., bins] -> [...]; see :func:`pwm.models.two_hot.two_hot_decode`."""
        return two_hot_decode(logits, self.config.bin_low, self.config.bin_high, space)

    def terminated_logits(self, z: Tensor, action: Tensor, task: Tensor | None = None) -> Tensor:
        """[...] logits that the step ends the episode; the model must have the head."""
        assert self.termination_head is not None, "model has no termination head"
        return self.termination_head(self.join(z, task, action)).squeeze(-1)

    def join(self, x: Tensor, task: Tensor | None, action: Tensor | None = None) -> Tensor:
        """Concatenate [x, embedding, action], the input order of every network."""
        parts: list[Tensor] = [x]
        if self.embedding is not None:
            if task is None:
                raise ValueError("a multi-task world model needs task indices")
            embedded = self.embedding(task)
            parts.append(embedded.expand(*x.shape[:-1], -1))
        if action is not None:
            parts.append(pad_features(action, self.config.action_dim))
        return torch.cat(parts, dim=-1) if len(parts) > 1 else x

    def freeze(self) -> WorldModel:
        """Switch off every weight gradient; the model then takes part as a function only."""
        self.requires_grad_(False)
        return self.eval()

    def num_parameters(self) -> int:
        return sum(p.numel() for p in self.parameters())


def config_for_tasks(
    tasks: Sequence[str],
    obs_dims: Sequence[int],
    action_dims: Sequence[int],
    episode_lengths: Sequence[int | None],
    sizes: dict[str, Any],
    **options: bool,
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
