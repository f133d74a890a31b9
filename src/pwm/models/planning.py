"""A frozen world model with its Q heads and policy prior, laid out for fast planning."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pwm.errors import UserError
from pwm.models.frozen import FrozenTaskModel
from pwm.models.inference import Products, Tails, layer_norm, strided_simnorm_
from pwm.models.layers import Head, NormedLinear
from pwm.models.prior import squashed_gaussian
from pwm.models.two_hot import two_hot_decode
from pwm.models.world_model import WorldModel


class PlanningModel(FrozenTaskModel):
    """World model restricted to one task, with everything that a planner evaluates.

    For inference only, and a snapshot: later changes of ``model`` do not arrive here. Latents have
    the members of a SimNorm group side by side over the whole vector (feature j of every group,
    then j + 1), so that their sums vectorise. Latents are therefore those of :meth:`encode` here,
    not the world model's.

    Raises:
        UserError: the model has no Q heads or no policy prior.
    """

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
        self._pack(self.source)

    def _pack(self, source: WorldModel) -> None:
        assert source.q_heads is not None and source.prior_head is not None
        joint = torch.cat([self.z_weight, self.a_weight], 1)
        self._from_z = Products([self.z_weight], [self.bias])
        self._from_action = Products([self.a_weight], [torch.zeros_like(self.bias)])
        self._from_both = Products([joint], [self.bias])
        first, second, last = self.dynamics
        _reorder(last, self.order)
        self._dynamics = Tails([[first, second]], [last.linear])
        self._last_norm = last.norm.weight, last.norm.bias
        self._reward = Tails.of_heads([source.reward_head])
        ends = source.termination_head
        self._termination = Tails.of_heads([ends]) if ends is not None else None
        if self.config.termination_on_next and ends is not None:
            self._end_first = Products([self.end_weight], [self.end_bias])
        self._prior = self._heads([source.prior_head])
        self._q = self._heads(list(source.q_heads))  # type: ignore[arg-type]
        # of the source only the encoder is used from here on
        source.q_heads = source.prior_head = None

    def _heads(self, heads: Sequence[Head]) -> tuple[Products, Tails]:
        folded = [self.fold([head.first.linear]) for head in heads]
        weights = [torch.cat([z_weight, a_weight], 1) for z_weight, a_weight, _ in folded]
        return Products(weights, [bias for *_, bias in folded]), Tails.of_heads(heads)

    def load_state_dict(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError("a PlanningModel is a snapshot with packed weights; make a new one")

    def fold(self, layers: Sequence[nn.Linear]) -> tuple[Tensor, Tensor, Tensor]:
        z_weight, a_weight, bias = super().fold(layers)
        return z_weight[:, self.order].contiguous(), a_weight, bias

    def encode(self, obs: Tensor) -> Tensor:
        """[..., O] -> [..., D] for this task, in this model's order of features."""
        return super().encode(obs)[..., self.order]

    def state_part(self, z: Tensor) -> Tensor:
        """What latents [B, D] contribute to the first layers of a step: [B, N]."""
        return self._from_z(z)

    def first_step(
        self, state_part: Tensor, action: Tensor
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """:meth:`step` from latents whose :meth:`state_part` [B or 1, N] is known."""
        return self.after_first(self._from_action(action).add_(state_part))

    def step(self, z: Tensor, action: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        return self.after_first(self._from_both(torch.cat([z, action], dim=-1)))

    def after_first(self, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        dynamics, reward, *ends = hidden.split(self.widths, dim=-1)
        z = layer_norm(self._dynamics(dynamics), *self._last_norm)
        z = strided_simnorm_(z, self.config.simnorm_dim)
        logits = self._reward(reward)
        if self._termination is None:
            return z, logits, None
        end = self._end_first(z) if self.config.termination_on_next else ends[0]
        return z, logits, self._termination(end).squeeze(-1)

    def prior(self, z: Tensor, noise: Tensor | None) -> Tensor:
        """[B, D] latents and [B, A] noise (None: the mean) -> [B, A] action of the prior."""
        first, tail = self._prior
        c = self.config
        return squashed_gaussian(
            tail(first(z)), self.action_mask, noise, c.log_std_min, c.log_std_max
        ).action

    def q_mean(self, z: Tensor, action: Tensor, pair: Tensor) -> Tensor:
        """[B] mean of the decoded values of the two Q heads in ``pair`` [2]; no other is
        evaluated."""
        joint = torch.cat([z, action], dim=-1)
        heads, tails = self._q
        one, other = [self.decode(tails(heads(joint, which), which)) for which in pair.split(1)]
        return 0.5 * (one + other)

    def decode(self, logits: Tensor) -> Tensor:
        """[B, bins] -> [B] in reward units."""
        return two_hot_decode(logits, self.config.bin_low, self.config.bin_high)


def _reorder(layer: NormedLinear, order: list[int]) -> None:
    for tensor in (layer.linear.weight, layer.linear.bias, layer.norm.weight, layer.norm.bias):
        tensor.data = tensor.data[order].contiguous()
