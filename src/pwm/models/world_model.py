"""The multi-task world model: encoder, latent dynamics, reward head, and optional heads.

Architecture: TD-MPC2 (arXiv 2310.16828), as used by PWM (arXiv 2407.02466). Shapes below use
B batch (any leading dimensions), O padded observation, A padded action, D latent, E embedding.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from pwm.errors import UserError
from pwm.models.config import WorldModelConfig, config_for_tasks
from pwm.models.layers import (
    Head,
    NormedLinear,
    SimNorm,
    init_world_model_weights,
    normalized,
    pad_features,
)
from pwm.models.prior import PriorSample, squashed_gaussian
from pwm.models.two_hot import symlog, two_hot_decode

__all__ = ["TaskEmbedding", "WorldModel", "WorldModelConfig", "config_for_tasks"]


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
        state = c.latent_dim + c.task_dim
        ends = state if c.termination_on_next else joint
        self.termination_head = Head(ends, hidden, 1, zero_last=True) if c.termination else None
        self.q_heads, self.target_q_heads = _q_heads(c, joint), _q_heads(c, joint)
        self.prior_head = Head(state, hidden, 2 * c.action_dim) if c.policy_prior else None
        masks = torch.zeros(len(c.tasks), c.action_dim)
        for row, width in zip(masks, c.action_dims, strict=True):
            row[:width] = 1
        self.register_buffer("action_masks", masks, persistent=False)
        if c.normalize_observations:
            self.register_buffer("obs_mean", torch.zeros(len(c.tasks), c.obs_dim))
            self.register_buffer("obs_scale", torch.ones(len(c.tasks), c.obs_dim))
        init_world_model_weights(self)
        if self.q_heads is not None and self.target_q_heads is not None:
            self.target_q_heads.load_state_dict(self.q_heads.state_dict())
            self.target_q_heads.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> WorldModel:
        """Training mode for all but the target heads, which never drop features."""
        super().train(mode)
        if self.target_q_heads is not None:
            self.target_q_heads.eval()
        return self

    @classmethod
    def from_pretrained(cls, run: Any, device: str | torch.device = "cpu") -> WorldModel:
        """Load the world model of a run folder (newest complete checkpoint), ready for use.

        Args:
            run: run folder written by ``pwm pretrain``, ``pwm convert`` or ``pwm tdmpc2``.

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
        if self.config.symlog_observations:
            obs = symlog(obs)
        if self.config.normalize_observations:
            index = 0 if len(self.config.tasks) == 1 or task is None else task
            limit = self.config.obs_limit
            obs = normalized(obs, self.obs_mean[index], self.obs_scale[index], limit)
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
        if self.config.termination_on_next:
            joint = self.join(self.next(z, action, task), task)
        else:
            joint = self.join(z, task, action)
        return self.termination_head(joint).squeeze(-1)

    def q_logits(
        self, z: Tensor, action: Tensor, task: Tensor | None = None, target: bool = False
    ) -> Tensor:
        """[K, ..., bins] logits of the K action-value heads (or of their slow targets)."""
        heads = self.target_q_heads if target else self.q_heads
        assert heads is not None, "model has no Q heads"
        joint = self.join(z, task, action)
        return torch.stack([head(joint) for head in heads])

    def q_values(
        self, z: Tensor, action: Tensor, task: Tensor | None = None, target: bool = False
    ) -> Tensor:
        """[K, ...] expected action values in reward units."""
        return self.decode_reward(self.q_logits(z, action, task, target))

    def sample_prior(
        self, z: Tensor, task: Tensor | None = None, noise: Tensor | None = None
    ) -> PriorSample:
        """Action of the policy prior and its statistics; noise [..., A] or None for the mean."""
        assert self.prior_head is not None, "model has no policy prior"
        mask = self.action_masks[0 if self.embedding is None or task is None else task]
        low, high = self.config.log_std_min, self.config.log_std_max
        return squashed_gaussian(self.prior_head(self.join(z, task)), mask, noise, low, high)

    def prior(self, z: Tensor, task: Tensor | None = None, noise: Tensor | None = None) -> Tensor:
        """[..., A] action of the policy prior, masked; the mean action without noise."""
        return self.sample_prior(z, task, noise).action

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
        """Parameters without the target heads, which are a copy."""
        copies = self.target_q_heads.parameters() if self.target_q_heads is not None else ()
        return sum(p.numel() for p in self.parameters()) - sum(p.numel() for p in copies)


def _q_heads(config: WorldModelConfig, inputs: int) -> nn.ModuleList | None:
    """Independent action-value heads; plain modules in a list, so that a planner can pick two."""
    if not config.num_q:
        return None
    hidden = [config.hidden_dim, config.hidden_dim]
    return nn.ModuleList(
        Head(inputs, hidden, config.num_bins, zero_last=True, dropout=config.q_dropout)
        for _ in range(config.num_q)
    )
