"""Policy extraction by first-order gradients through a frozen world model.

PWM (arXiv 2407.02466), section 4: an actor is improved by back-propagating an H-step imagined
return through the model, a critic ensemble learns TD(lambda) values on the same rollout. Pure
functions of tensors and modules; shapes: H horizon, B batch, D latent, A action.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from pwm.algorithms.normalizers import RunningMoments
from pwm.algorithms.returns import discounted_objective, td_lambda
from pwm.models.actor import Actor
from pwm.models.critic import CriticEnsemble
from pwm.models.frozen import FrozenTaskModel


@dataclass(frozen=True)
class PWMConfig:
    """Hyper-parameters of the update rules (ALGORITHM defaults of the paper)."""

    horizon: int = 16
    gamma: float = 0.99
    lam: float = 0.95
    detach_policy_input: bool = True
    reward_space: str = "linear"
    critic_passes: int = 8
    critic_minibatches: int = 4
    actor_clip: float = 1.0
    critic_clip: float = 100.0
    behavior_weight: float = 0.0
    behavior_sharpness: float = 1.0


@dataclass
class Rollout:
    """An imagined trajectory. latents [H+1, B, D]; the rest [H, B, ...]."""

    latents: Tensor
    actions: Tensor
    rewards: Tensor
    not_terminated: Tensor | None


def imagine(
    model: FrozenTaskModel, actor: Actor, z0: Tensor, noise: Tensor, config: PWMConfig
) -> Rollout:
    """Roll the actor through the frozen model, differentiably.

    Args:
        z0: [B, D] start latents; noise: [H, B, A] standard normal.
    """
    z = z0
    latents, actions, logits, ends = [z0], [], [], []
    for eps in noise:
        action = actor(z.detach() if config.detach_policy_input else z, eps)
        z, reward_logits, end_logits = model.step(z, action)
        latents.append(z)
        actions.append(action)
        logits.append(reward_logits)
        if end_logits is not None:
            ends.append(end_logits)
    rewards = model.source.decode_reward(torch.stack(logits), config.reward_space)
    alive = 1 - torch.sigmoid(torch.stack(ends)) if ends else None
    return Rollout(torch.stack(latents), torch.stack(actions), rewards, alive)


def actor_loss(
    model: FrozenTaskModel,
    actor: Actor,
    critic: CriticEnsemble,
    moments: RunningMoments,
    z0: Tensor,
    noise: Tensor,
    config: PWMConfig,
) -> tuple[Tensor, Rollout, dict[str, Tensor]]:
    """Negative imagined objective, scaled by its running standard deviation.

        loss = - mean(J) / sqrt(var_running(J) + 1e-5)

    Returns:
        Scalar loss, the rollout (for the critic) and scalar metric tensors.
    """
    rollout = imagine(model, actor, z0, noise, config)
    last_value = critic.minimum(rollout.latents[-1])
    objective = discounted_objective(
        rollout.rewards, last_value, rollout.not_terminated, config.gamma
    )
    moments.update(objective)
    scale = torch.rsqrt(moments.var + 1e-5).to(objective.dtype)
    loss = -objective.mean() * scale
    metrics = {
        "actor_loss": loss.detach(),
        "imagined_return": objective.mean().detach(),
        "imagined_reward": rollout.rewards.mean().detach(),
        "last_value": last_value.mean().detach(),
    }
    return loss, rollout, metrics


@torch.no_grad()
def behavior_weights(
    critic: CriticEnsemble,
    first: Tensor,
    last: Tensor,
    rewards: Tensor,
    terminated: Tensor,
    config: PWMConfig,
) -> Tensor:
    """How much each window's first action is worth copying, [B] with mean 1.

    Softmax over the batch of the standardised advantage of the data's own N-step return over the
    critic's value: advantage-weighted regression (Peng et al. 2019, arXiv 1910.00177).

    Args:
        first, last: [B, D] encoded real observations at both ends of the window.
        rewards, terminated: [N, B].
    """
    steps = torch.arange(len(rewards), device=rewards.device, dtype=rewards.dtype)
    # Reward t counts while no earlier step ended the episode.
    alive = torch.cumprod(1 - terminated, 0)
    before = torch.cat([torch.ones_like(alive[:1]), alive[:-1]])
    discount = (config.gamma**steps)[:, None]
    returns = (discount * before * rewards).sum(0)
    returns = returns + config.gamma ** len(rewards) * alive[-1] * critic.minimum(last)
    advantage = returns - critic.minimum(first)
    standard = (advantage - advantage.mean()) / (advantage.std() + 1e-6)
    return torch.softmax(config.behavior_sharpness * standard, 0) * len(advantage)


def behavior_loss(actor: Actor, latents: Tensor, actions: Tensor, weights: Tensor) -> Tensor:
    """Weighted squared distance between the policy's mean action and the data's, a scalar.

    Keeps the policy where the data, and so the model, can be trusted (compare TD3+BC, Fujimoto and
    Gu 2021, arXiv 2106.06860).

    Args:
        latents: [B, D]; actions: [B, A], zero in padded entries; weights: [B].
    """
    return (weights * (actor(latents) - actions).square().sum(-1)).mean()


@torch.no_grad()
def critic_targets(
    critic: CriticEnsemble, rollout: Rollout, config: PWMConfig
) -> tuple[Tensor, Tensor]:
    """Regression data for the critic: ([H*B, D] latents, [H*B] TD(lambda) targets)."""
    latents = rollout.latents.detach()
    values = critic.minimum(latents[1:])
    targets = td_lambda(rollout.rewards, values, rollout.not_terminated, config.gamma, config.lam)
    return latents[:-1].flatten(0, 1), targets.flatten()


def critic_loss(critic: CriticEnsemble, latents: Tensor, targets: Tensor) -> Tensor:
    """Mean over members of the mean squared error; latents [N, D], targets [N]."""
    values = critic(latents)
    return F.mse_loss(values, targets.expand_as(values))
