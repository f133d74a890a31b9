"""A frozen world model specialised to one task, laid out for fast differentiable rollouts.

The first layers of all heads read the same input [z, e, a], so they run as one matrix product;
the task embedding is constant over a rollout and disappears into the bias. Weights are buffers
that never require gradients: the model takes part in back-propagation as a function only.
"""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import Tensor, nn

from pwm.models.layers import NormedLinear, pad_features
from pwm.models.world_model import WorldModel


class FrozenTaskModel(nn.Module):
    """World model ``model`` restricted to task index ``task``; same outputs, no weight gradients.

    Attributes:
        action_mask: [A] of 0/1.
    """

    action_mask: Tensor
    z_weight: Tensor
    a_weight: Tensor
    bias: Tensor

    def __init__(self, model: WorldModel, task: int):
        super().__init__()
        self.config = model.config
        self.task = task
        source = _without_values(model)
        self.dynamics: list[NormedLinear] = list(source.dynamics)  # type: ignore[arg-type]
        first = [self.dynamics[0], source.reward_head.first]
        if source.termination_head is not None:
            first.append(source.termination_head.first)
        heads = [layer.linear for layer in first]
        latent, embed = self.config.latent_dim, self.config.task_dim
        weight = torch.cat([head.weight for head in heads])
        bias = torch.cat([head.bias for head in heads])
        index = torch.tensor(task, device=weight.device)
        if source.embedding is not None:
            bias = bias + weight[:, latent : latent + embed] @ source.embedding(index)
        self.register_buffer("z_weight", weight[:, :latent].contiguous())
        self.register_buffer("a_weight", weight[:, latent + embed :].contiguous())
        self.register_buffer("bias", bias)
        self.register_buffer("action_mask", source.action_masks[task].clone())
        self.widths = [head.out_features for head in heads]
        self.source = source

    def encode(self, obs: Tensor) -> Tensor:
        """[..., O] -> [..., D] for this task."""
        obs = pad_features(obs, self.config.obs_dim)
        return self.source.encode(obs, torch.tensor(self.task, device=obs.device))

    def step(self, z: Tensor, action: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """One latent step.

        Args:
            z: [B, D]; action: [B, A].

        Returns:
            Next latent [B, D], reward logits [B, bins], termination logits [B] or None.
        """
        hidden = torch.addmm(self.bias, z, self.z_weight.t()) + action @ self.a_weight.t()
        parts = hidden.split(self.widths, dim=-1)
        first, second, last = self.dynamics
        z_next = last(second(first.finish(parts[0])))
        logits = self.source.reward_head.after_first(parts[1])
        if self.source.termination_head is None:
            return z_next, logits, None
        return z_next, logits, self.source.termination_head.after_first(parts[2]).squeeze(-1)


def _without_values(model: WorldModel) -> WorldModel:
    """Frozen copy without the heads that only planners use."""
    heads = ("q_heads", "target_q_heads", "prior_head")
    shared = {id(part): None for name in heads if (part := getattr(model, name)) is not None}
    return deepcopy(model, shared).freeze()
