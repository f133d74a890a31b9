"""TD-MPC2's value learning and policy prior (arXiv 2310.16828), as pure functions.

Together with :mod:`pwm.algorithms.world_model` this is its full loss. Shapes: H steps, B batch, K Q
heads, D latent, A action. Random numbers come in as arguments.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pwm.algorithms.planner import planning_discount
from pwm.algorithms.world_model import WorldModelLossConfig, step_losses, step_weights
from pwm.models.layers import Head
from pwm.models.two_hot import two_hot_cross_entropy
from pwm.models.world_model import WorldModel


@dataclass(frozen=True)
class ValueConfig:
    """TD-MPC2's settings of value and prior learning."""

    value: float = 0.1
    entropy: float = 1e-4
    target_rate: float = 0.01


@dataclass
class ValueNoise:
    """Random numbers of one update: standard normal ``target`` [H, B, A] for the TD targets and
    ``prior`` [H+1, B, A] for the prior's update, and which two Q heads each of them asks."""

    target: Tensor
    prior: Tensor
    target_pair: Sequence[int]
    prior_pair: Sequence[int]

    @staticmethod
    def draw(
        steps: int, batch: int, action_dim: int, num_q: int, generator: torch.Generator,
        device: str = "cpu",
    ) -> ValueNoise:  # fmt: skip
        """Draw from a CPU generator, so that a seed gives the same update on every device."""
        pairs = [torch.randperm(num_q, generator=generator)[:2].tolist() for _ in range(2)]
        both = torch.randn(2 * steps + 1, batch, action_dim, generator=generator).to(device)
        return ValueNoise(both[:steps], both[steps:], *pairs)


class ValueScale(nn.Module):
    """Running spread of Q values, their 5th to 95th percentile, at least 1: it makes the prior's
    loss independent of the reward's units."""

    value: Tensor

    def __init__(self, rate: float = 0.01):
        super().__init__()
        self.rate = rate
        self.register_buffer("value", torch.ones(()))

    @torch.no_grad()
    def update(self, q: Tensor) -> None:
        """Take in values of any shape."""
        low, high = torch.quantile(q.detach().flatten(), q.new_tensor([0.05, 0.95]))
        self.value.lerp_((high - low).clamp(min=1.0), self.rate)


def discounts(episode_lengths: Sequence[int | None]) -> Tensor:
    """[tasks] discount of each task by its episode length in agent steps."""
    return torch.tensor([planning_discount(length) for length in episode_lengths])


def joint_loss(
    model: WorldModel,
    first: Tensor,
    encoded: Tensor,
    actions: Tensor,
    rewards: Tensor,
    terminated: Tensor,
    task: Tensor,
    targets: Tensor,
    config: WorldModelLossConfig,
    value_weight: float,
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """World-model loss with TD-MPC2's value term (arXiv 2310.16828, eq. 3):

        L = 1/H sum_t rho^t [... + c_v mean_k CE(Q_k(z_t, a_t), target_t)]

    Args:
        first: [B, O] observations 0; encoded: [H, B, D] latents of the observations 1..H.
        actions: [H, B, A]; rewards, terminated: [H, B]; task: [B].
        targets: [H, B] of :func:`td_targets`.

    Returns:
        Scalar loss, the rollout's latents [H+1, B, D] (for :func:`prior_loss`), metric tensors.
    """
    total, latents, joint, metrics = step_losses(
        model, first, encoded, actions, rewards, terminated, task, config
    )
    value = value_loss(model, joint, targets)
    weights = step_weights(config, total)
    loss = (weights * (total + value_weight * value)).mean()
    metrics["value_loss"] = (weights * value).mean().detach()
    metrics["td_target_mean"] = targets.mean()
    metrics["loss"] = loss.detach()
    return loss, latents, metrics


@torch.no_grad()
def td_targets(
    model: WorldModel,
    next_latents: Tensor,
    rewards: Tensor,
    terminated: Tensor,
    task: Tensor,
    gamma: Tensor,
    noise: ValueNoise,
) -> Tensor:
    """r + gamma (1 - terminated) min of two random target heads at the prior's action, [H, B].

    Args:
        next_latents: [H, B, D] encoded next observations; rewards, terminated: [H, B]; gamma: [B].
    """
    assert model.target_q_heads is not None
    action = model.prior(next_latents, task, noise.target)
    joint = model.join(next_latents, task, action)
    values = _two_values(model, model.target_q_heads, joint, noise.target_pair).amin(0)
    return rewards + gamma * (1 - terminated) * values


def value_loss(model: WorldModel, joint: Tensor, targets: Tensor) -> Tensor:
    """[H] cross-entropy of every Q head with its targets, mean over heads and batch.

    Args:
        joint: [H, B, D+E+A] input of the heads; targets: [H, B].
    """
    assert model.q_heads is not None
    c = model.config
    losses = [
        two_hot_cross_entropy(head(joint), targets, c.bin_low, c.bin_high).mean(1)
        for head in model.q_heads
    ]
    return torch.stack(losses).mean(0)


def prior_loss(
    model: WorldModel,
    latents: Tensor,
    task: Tensor,
    noise: ValueNoise,
    scale: ValueScale,
    rho: float,
    entropy_weight: float,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss of the policy prior on the latents of a rollout; Q heads take part as functions.

        L = - mean_t rho^t [Q(z_t, a) / scale + entropy_weight * A * entropy],   a ~ prior(z_t)

    Q is the mean of two random heads. The entropy counts once for each of the task's A real
    actions, as in TD-MPC2's code.

    Args:
        latents: [H+1, B, D], whose gradient is not wanted.

    Returns:
        Scalar loss and scalar metric tensors.
    """
    assert model.q_heads is not None
    latents = latents.detach()
    sample = model.sample_prior(latents, task, noise.prior)
    q = _values_of_actions(model, model.join(latents, task), sample.action, noise.prior_pair)
    scale.update(q[0])
    single = model.embedding is None
    actions = model.action_masks[0].sum() if single else model.action_masks[task].sum(-1)
    objective = q / scale.value + entropy_weight * actions * sample.entropy
    weights = rho ** torch.arange(len(latents), device=q.device, dtype=q.dtype)
    loss = -(weights * objective.mean(1)).mean()
    return loss, {
        "prior_loss": loss.detach(),
        "prior_entropy": sample.entropy.mean().detach(),
        "q_mean": q.mean().detach(),
        "q_scale": scale.value.clone(),
    }


def _values_of_actions(
    model: WorldModel, state: Tensor, action: Tensor, pair: Sequence[int]
) -> Tensor:
    """[...] mean of the decoded values of two heads, differentiable in the actions.

    The first layer is applied to state [..., D+E] and action [..., A] apart, so that
    back-propagation does not work out the gradient of the state, which nobody uses.
    """
    assert model.q_heads is not None
    width, values = state.shape[-1], []
    for index in pair:
        head = model.q_heads[index]
        assert isinstance(head, Head)
        linear = head.first.linear
        hidden = F.linear(state, linear.weight[:, :width], linear.bias)
        hidden = hidden + F.linear(action, linear.weight[:, width:])
        values.append(model.decode_reward(head.after_first(hidden)))
    return torch.stack(values).mean(0)


def _two_values(
    model: WorldModel, heads: nn.ModuleList, joint: Tensor, pair: Sequence[int]
) -> Tensor:
    """[2, ...] decoded values of the two heads in ``pair``; the others are not evaluated."""
    return torch.stack([model.decode_reward(heads[index](joint)) for index in pair])


@torch.no_grad()
def update_targets(model: WorldModel, rate: float) -> None:
    """Move the target heads a step of ``rate`` towards the Q heads."""
    assert model.q_heads is not None and model.target_q_heads is not None
    targets: list[Tensor] = list(model.target_q_heads.parameters())
    heads: list[Tensor] = list(model.q_heads.parameters())
    torch._foreach_lerp_(targets, heads, rate)
