"""World-model training: the open-loop latent loss and its diagnostics, as pure functions."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from pwm.models.two_hot import two_hot_cross_entropy
from pwm.models.world_model import WorldModel


@dataclass(frozen=True)
class WorldModelLossConfig:
    """Weights of the loss terms; defaults are TD-MPC2's multi-task values and PWM's rho."""

    rho: float = 0.99
    consistency: float = 20.0
    reward: float = 0.1
    termination: float = 1.0


def rollout_latents(model: WorldModel, z0: Tensor, actions: Tensor, task: Tensor) -> Tensor:
    """Open-loop latents under given actions.

    Args:
        z0: [B, D]; actions: [H, B, A]; task: [B].

    Returns:
        [H+1, B, D], the first row being ``z0``.
    """
    latents = [z0]
    for action in actions:
        latents.append(model.next(latents[-1], action, task))
    return torch.stack(latents)


def step_losses(
    model: WorldModel,
    first: Tensor,
    encoded: Tensor,
    actions: Tensor,
    rewards: Tensor,
    terminated: Tensor,
    task: Tensor,
    config: WorldModelLossConfig,
) -> tuple[Tensor, Tensor, Tensor, dict[str, Tensor]]:
    """The loss terms at each step of an open-loop rollout.

    Windows never cross an episode's end, so only their last step can be terminal and nothing has
    to be masked.

    Args:
        first: [B, O] observations 0; encoded: [H, B, D] latents of the observations 1..H.

    Returns:
        Weighted sum of the terms [H]; the rollout's latents [H+1, B, D]; the heads' input
        [H, B, D+E+A] at every step; the terms' means over rho^t as metrics.
    """
    latents = rollout_latents(model, model.encode(first, task), actions, task)
    joint = model.join(latents[:-1], task, actions)
    weights = step_weights(config, rewards)
    c = model.config
    consistency = F.mse_loss(latents[1:], encoded, reduction="none").mean((1, 2))
    logits = model.reward_head(joint)
    reward = two_hot_cross_entropy(logits, rewards, c.bin_low, c.bin_high).mean(1)
    total = config.consistency * consistency + config.reward * reward
    metrics = {
        "consistency_loss": (weights * consistency).mean().detach(),
        "reward_loss": (weights * reward).mean().detach(),
    }
    if model.termination_head is not None:
        read = model.join(latents[1:], task) if c.termination_on_next else joint
        ends = model.termination_head(read).squeeze(-1)
        ending = F.binary_cross_entropy_with_logits(ends, terminated, reduction="none").mean(1)
        total = total + config.termination * ending
        metrics["termination_loss"] = (weights * ending).mean().detach()
    return total, latents, joint, metrics


def step_weights(config: WorldModelLossConfig, like: Tensor) -> Tensor:
    """rho^t for each of the steps that ``like`` [H, ...] has: [H]."""
    return config.rho ** torch.arange(len(like), device=like.device, dtype=like.dtype)


@torch.no_grad()
def encode_next(model: WorldModel, observations: Tensor, task: Tensor) -> Tensor:
    """[H, B, D] latents sg E(s_{t+1}) of the observations [H+1, B, O] after the first."""
    return model.encode(observations[1:], task)


def world_model_loss(
    model: WorldModel,
    observations: Tensor,
    actions: Tensor,
    rewards: Tensor,
    terminated: Tensor,
    task: Tensor,
    config: WorldModelLossConfig,
) -> tuple[Tensor, dict[str, Tensor]]:
    """TD-MPC2's joint-embedding loss over a window (arXiv 2310.16828, eq. 3, without values).

        L = 1/H sum_t rho^t [c_d mean ||z_{t+1} - sg E(s_{t+1})||^2 + c_r CE(R(z_t, a_t), r_t)]

    Args:
        observations: [H+1, B, O]; actions: [H, B, A]; rewards, terminated: [H, B]; task: [B].

    Returns:
        Scalar loss and scalar metric tensors (no host synchronisation).
    """
    encoded = encode_next(model, observations, task)
    total, _, _, metrics = step_losses(
        model, observations[0], encoded, actions, rewards, terminated, task, config
    )
    loss = (step_weights(config, total) * total).mean()
    metrics["loss"] = loss.detach()
    return loss, metrics


@torch.no_grad()
def open_loop_errors(
    model: WorldModel,
    observations: Tensor,
    actions: Tensor,
    rewards: Tensor,
    task: Tensor,
    depths: tuple[int, ...] = (1, 4, 8, 16),
) -> dict[str, Tensor]:
    """Prediction quality on held-out windows.

    Returns:
        ``latent_error_k``: mean squared latent error after k open-loop steps, divided by the
        variance of the true latents (1 = no better than predicting their mean);
        ``reward_error_k``: mean absolute reward error of step k in reward units;
        ``latent_entropy``: mean entropy of the SimNorm groups as a share of its maximum (1 =
        every group uniform, a collapsed encoder; 0 = one-hot);
        ``latent_variance``: variance of the true latents over the batch, 0 when collapsed.
    """
    truth = model.encode(observations, task)
    latents = rollout_latents(model, truth[0], actions, task)
    spread = truth.flatten(0, 1).var(0, unbiased=False).mean()
    predicted = model.reward(latents[:-1], actions, task)
    result: dict[str, Tensor] = {}
    for k in depths:
        if k <= actions.shape[0]:
            error = (latents[k] - truth[k]).square().mean()
            result[f"latent_error_{k}"] = error / spread.clamp(min=1e-12)
            result[f"reward_error_{k}"] = (predicted[k - 1] - rewards[k - 1]).abs().mean()
    groups = truth.unflatten(-1, (-1, model.config.simnorm_dim))
    entropy = -(groups * groups.clamp(min=1e-12).log()).sum(-1).mean()
    result["latent_entropy"] = entropy / torch.log(entropy.new_tensor(model.config.simnorm_dim))
    result["latent_variance"] = spread
    return result
