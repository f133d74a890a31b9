"""TD-MPC2's value learning and policy prior (arXiv 2310.16828), as pure functions.

Together with :mod:`pwm.algorithms.world_model` this is its full loss. Shapes: H steps, B batch, K Q
heads, D latent, A action. Random numbers come in as arguments.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pwm.algorithms.planner import planning_discount
from pwm.models.two_hot import two_hot_cross_entropy
from pwm.models.world_model import WorldModel


@dataclass(frozen=True)
class ValueConfig:
    """TD-MPC2's settings of value and prior learning."""

    value: float = 0.1
    entropy: float = 1e-4
    rho: float = 0.5
    target_rate: float = 0.01


@dataclass
class ValueNoise:
    """Random numbers of one update: standard normal [H, B, A] for TD targets and [H+1, B, A] for the
    prior's update, and two pairs of Q heads [2] each."""

    target: Tensor
    prior: Tensor
    target_pair: Tensor
    prior_pair: Tensor

    @staticmethod
    def draw(
        steps: int, batch: int, action_dim: int, num_q: int, generator: torch.Generator, device: str
    ) -> ValueNoise:
        """Draw from a CPU generator."""
        both = torch.randn(2 * steps + 1, batch, action_dim, generator=generator).to(device)
        pairs = [torch.randperm(num_q, generator=generator)[:2].to(device) for _ in range(2)]
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
        levels = q.new_tensor([0.05, 0.95])
        low, high = torch.quantile(q.detach().flatten(), levels)
        self.value.lerp_((high - low).clamp(min=1.0), self.rate)


def discounts(model: WorldModel) -> Tensor:
    """[tasks] discount of each task by its episode length."""
    lengths = model.config.episode_lengths
    device = model.action_masks.device
    return torch.tensor([planning_discount(length) for length in lengths], device=device)


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
    """r + gamma (1 - terminated) min of two random target heads at the prior's action.

    Args:
        next_latents: [H, B, D] encoded next observations; rewards, terminated: [H, B]; gamma: [B].

    Returns:
        [H, B]
    """
    assert model.target_q_heads is not None
    action = model.prior(next_latents, task, noise.target)
    joint = model.join(next_latents, task, action)
    values = _two_values(model, model.target_q_heads, joint, noise.target_pair).amin(0)
    return rewards + gamma * (1 - terminated) * values


def value_loss(model: WorldModel, joint: Tensor, targets: Tensor) -> Tensor:
    """[H] cross-entropy of every Q head with its targets, averaged over heads and batch.

    Args:
        joint: [H, B, D+E+A] inputs of the heads; targets: [H, B].
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
    config: ValueConfig,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss of the policy prior on the latents of a rollout; Q heads take part as functions.

        - mean_t rho^t [Q(z_t, a) / scale + entropy_weight * entropy],   a ~ prior(z_t)

    Args:
        latents: [H+1, B, D], detached by this function.

    Returns:
        Scalar loss and scalar metric tensors.
    """
    assert model.q_heads is not None
    latents = latents.detach()
    sample = model.sample_prior(latents, task, noise.prior)
    joint = model.join(latents, task, sample.action)
    q = _two_values(model, model.q_heads, joint, noise.prior_pair).mean(0)
    scale.update(q[0])
    objective = q / scale.value + config.entropy * sample.entropy
    weights = config.rho ** torch.arange(len(latents), device=q.device, dtype=q.dtype)
    loss = -(weights * objective.mean(1)).mean()
    return loss, {
        "prior_loss": loss.detach(),
        "prior_entropy": sample.entropy.mean().detach(),
        "q_mean": q.mean().detach(),
        "q_scale": scale.value.detach().clone(),
    }


def _two_values(
    model: WorldModel, heads: nn.ModuleList, joint: Tensor, pair: Tensor
) -> Tensor:
    """[2, ...] decoded values of the two heads in ``pair``; the others are not evaluated."""
    return torch.stack([model.decode_reward(heads[index](joint)) for index in pair.tolist()])


@torch.no_grad()
def update_targets(model: WorldModel, rate: float) -> None:
    """Move the target heads a step of ``rate`` towards the Q heads."""
    assert model.q_heads is not None and model.target_q_heads is not None
    targets, heads = list(model.target_q_heads.parameters()), list(model.q_heads.parameters())
    torch._foreach_lerp_(targets, heads, rate)
