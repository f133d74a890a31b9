"""A frozen world model specialised to one task, laid out for fast differentiable rollouts.

The first layers of all heads read the same input [z, e, a], so they run as one matrix product;
the task embedding is constant over a rollout and disappears into the bias. Weights are buffers
that never require gradients: the model takes part in back-propagation as a function only.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy

import torch
from torch import Tensor, nn

from pwm.models.layers import NormedLinear, pad_features
from pwm.models.world_model import WorldModel

# Heads that only planners use.
VALUE_HEADS = ("q_heads", "target_q_heads", "prior_head")


class FrozenTaskModel(nn.Module):
    """World model ``model`` restricted to task index ``task``; same outputs, no weight gradients.

    Args:
        values: keep the Q heads and the policy prior too, which only planners use.

    Attributes:
        action_mask: [A] of 0/1.
    """

    action_mask: Tensor
    z_weight: Tensor
    a_weight: Tensor
    bias: Tensor
    end_weight: Tensor
    end_bias: Tensor

    def __init__(self, model: WorldModel, task: int, values: bool = False):
        super().__init__()
        self.config = model.config
        self.task = task
        source = _copy(model, ["target_q_heads"] if values else list(VALUE_HEADS))
        self.source = source
        self.dynamics: list[NormedLinear] = list(source.dynamics)  # type: ignore[arg-type]
        first = [self.dynamics[0], source.reward_head.first]
        ends = source.termination_head
        if ends is not None and not self.config.termination_on_next:
            first.append(ends.first)
        elif ends is not None:
            end_weight, _, end_bias = self.fold([ends.first.linear])
            self.register_buffer("end_weight", end_weight)
            self.register_buffer("end_bias", end_bias)
        z_weight, a_weight, bias = self.fold([layer.linear for layer in first])
        self.register_buffer("z_weight", z_weight)
        self.register_buffer("a_weight", a_weight)
        self.register_buffer("bias", bias)
        self.register_buffer("action_mask", source.action_masks[task].clone())
        self.widths = [layer.linear.out_features for layer in first]

    def fold(self, layers: Sequence[nn.Linear]) -> tuple[Tensor, Tensor, Tensor]:
        """Stack first layers that read [z, e, a]; the task embedding goes into the bias.

        Returns:
            Weights of z [N, D] and of a [N, A] (no columns for layers that read [z, e]), bias [N].
        """
        latent, embed = self.config.latent_dim, self.config.task_dim
        weight = torch.cat([layer.weight for layer in layers])
        bias = torch.cat([layer.bias for layer in layers])
        if self.source.embedding is not None:
            index = torch.tensor(self.task, device=weight.device)
            bias = bias + weight[:, latent : latent + embed] @ self.source.embedding(index)
        return weight[:, :latent].contiguous(), weight[:, latent + embed :].contiguous(), bias

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
        return self.after_first(
            torch.addmm(self.bias, z, self.z_weight.t()) + action @ self.a_weight.t()
        )

    def after_first(self, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Continue a step from the pre-activations [B, N] of its first layers."""
        parts = hidden.split(self.widths, dim=-1)
        first, second, last = self.dynamics
        z_next = last(second(first.finish(parts[0])))
        logits = self.source.reward_head.after_first(parts[1])
        ends = self.source.termination_head
        if ends is None:
            return z_next, logits, None
        if self.config.termination_on_next:
            end = torch.addmm(self.end_bias, z_next, self.end_weight.t())
        else:
            end = parts[2]
        return z_next, logits, ends.after_first(end).squeeze(-1)


def _copy(model: WorldModel, left_out: Sequence[str]) -> WorldModel:
    """Frozen copy of ``model`` without some of its heads."""
    found = [getattr(model, name) for name in left_out]
    return deepcopy(model, {id(part): None for part in found if part is not None}).freeze()
