"""A frozen world model with its Q heads and policy prior, laid out for fast planning."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pwm.errors import UserError
from pwm.models.frozen import FrozenTaskModel
from pwm.models.layers import Head, NormedLinear
from pwm.models.prior import squashed_gaussian
from pwm.models.world_model import WorldModel


class PlanningModel(FrozenTaskModel):
    """World model restricted to one task, with everything that a planner evaluates.

    For inference only: activations keep nothing for a gradient, and latents have the members of a
    SimNorm group side by side over the whole vector (feature j of every group, then j + 1), so
    that their sums vectorise. Latents are therefore those of :meth:`encode` here, not the
    world model's.

    Raises:
        UserError: the model has no Q heads or no policy prior.
    """

    joint_weight: Tensor
    prior_z: Tensor
    prior_bias: Tensor

    def __init__(self, model: WorldModel, task: int):
        if model.q_heads is None or model.prior_head is None:
            raise UserError(
                f"the world model {model.source or ''} has no Q heads and policy prior, which "
                "planning needs; train one with them (pwm pretrain PRESET --num-q 5), convert one "
                "of TD-MPC2, or get an actor from it (pwm extract)"
            )
        group = model.config.simnorm_dim
        features = torch.arange(model.config.latent_dim)
        self.order = features.view(-1, group).t().flatten().tolist()
        super().__init__(model, task, values=True)
        source = self.source
        assert source.q_heads is not None and source.prior_head is not None
        _prepare_inference(source, self.dynamics[-1], self.order)
        self.register_buffer("joint_weight", torch.cat([self.z_weight, self.a_weight], 1))
        self.prior_head: Head = source.prior_head
        prior_z, _, prior_bias = self.fold([self.prior_head.first.linear])
        self.register_buffer("prior_z", prior_z)
        self.register_buffer("prior_bias", prior_bias)
        # Stacked over the heads, so that taking two of them is a gather and not a branch.
        heads: list[Head] = list(source.q_heads)  # type: ignore[arg-type]
        rows = []
        for head in heads:
            z_weight, a_weight, bias = self.fold([head.first.linear])
            rows.append(
                [torch.cat([z_weight, a_weight], 1), bias, *_norm(head.first), *_tail(head)]
            )
        self.q_names = [f"q_{index}" for index in range(len(rows[0]))]
        for name, tensors in zip(self.q_names, zip(*rows, strict=True), strict=True):
            self.register_buffer(name, torch.stack(tensors))
        source.q_heads = source.target_q_heads = None

    def fold(self, layers: Sequence[nn.Linear]) -> tuple[Tensor, Tensor, Tensor]:
        z_weight, a_weight, bias = super().fold(layers)
        return z_weight[:, self.order].contiguous(), a_weight, bias

    def encode(self, obs: Tensor) -> Tensor:
        """[..., O] -> [..., D] for this task, in this model's order of features."""
        return super().encode(obs)[..., self.order]

    def state_part(self, z: Tensor) -> Tensor:
        """What latents [B, D] contribute to the first layers of a step: [B, N]."""
        return torch.addmm(self.bias, z, self.z_weight.t())

    def first_step(
        self, state_part: Tensor, action: Tensor
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """:meth:`step` from latents whose :meth:`state_part` [B or 1, N] is known."""
        return self.after_first(state_part + action @ self.a_weight.t())

    def step(self, z: Tensor, action: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        joint = torch.cat([z, action], dim=-1)
        return self.after_first(torch.addmm(self.bias, joint, self.joint_weight.t()))

    def prior(self, z: Tensor, noise: Tensor | None) -> Tensor:
        """[B, D] latents and [B, A] noise (None: the mean) -> [B, A] action of the prior."""
        raw = self.prior_head.after_first(torch.addmm(self.prior_bias, z, self.prior_z.t()))
        c = self.config
        return squashed_gaussian(raw, self.action_mask, noise, c.log_std_min, c.log_std_max).action

    def q_mean(self, z: Tensor, action: Tensor, pair: Tensor) -> Tensor:
        """[B] mean of the decoded values of the two Q heads in ``pair`` [2]; no other is
        evaluated."""
        chosen = [getattr(self, name).index_select(0, pair) for name in self.q_names]
        first, second = (self._q(z, action, *[t[i] for t in chosen]) for i in range(2))
        return 0.5 * (first + second)

    def _q(self, z: Tensor, action: Tensor, *weights: Tensor) -> Tensor:
        joint, bias, scale, shift, *tail = weights
        x = torch.addmm(bias, torch.cat([z, action], -1), joint.t())
        x = inference_mish(F.layer_norm(x, x.shape[-1:], scale, shift))
        *hidden, out_weight, out_bias = tail
        for i in range(0, len(hidden), 4):
            weight, bias, scale, shift = hidden[i : i + 4]
            x = F.linear(x, weight, bias)
            x = inference_mish(F.layer_norm(x, x.shape[-1:], scale, shift))
        return self.decode(F.linear(x, out_weight, out_bias))

    def decode(self, logits: Tensor) -> Tensor:
        """[B, bins] -> [B] in reward units."""
        return self.source.decode_reward(logits)


def inference_mish(x: Tensor) -> Tensor:
    """Mish as x / (1 + 2 / (e^x (e^x + 2))): few passes and no clamp, exact at both infinities,
    but without a usable gradient there."""
    if torch.compiler.is_compiling():
        t = x.exp()
        return x / (1 + 2 / (t * (t + 2)))
    t = x.exp()
    return x / (t + 2).mul_(t).reciprocal_().mul_(2).add_(1)


class _InferenceMish(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return inference_mish(x)


class _StridedSimNorm(nn.Module):
    """SimNorm over groups whose members lie D / group features apart."""

    def __init__(self, group: int):
        super().__init__()
        self.group = group

    def forward(self, x: Tensor) -> Tensor:
        weights = x.clamp(-80.0, 80.0).exp().unflatten(-1, (self.group, -1))
        return (weights / weights.sum(-2, keepdim=True)).flatten(-2)


def _prepare_inference(source: WorldModel, last: NormedLinear, order: list[int]) -> None:
    """Swap activations for their inference form and reorder what the dynamics put out."""
    for part in (source.dynamics, source.reward_head, source.prior_head, source.termination_head):
        for layer in part.modules() if part is not None else ():
            if isinstance(layer, NormedLinear):
                layer.activation = _InferenceMish()
    last.activation = _StridedSimNorm(source.config.simnorm_dim)
    for tensor in (last.linear.weight, last.linear.bias, last.norm.weight, last.norm.bias):
        tensor.data = tensor.data[order].contiguous()


def _norm(layer: NormedLinear) -> list[Tensor]:
    return [layer.norm.weight, layer.norm.bias]


def _tail(head: Head) -> list[Tensor]:
    """Weights behind the first layer: of each further hidden layer, then of the output."""
    tensors: list[Tensor] = []
    for layer in head.hidden[1:]:
        assert isinstance(layer, NormedLinear)
        tensors += [layer.linear.weight, layer.linear.bias, *_norm(layer)]
    return [*tensors, head.out.weight, head.out.bias]
