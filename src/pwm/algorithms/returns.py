"""Returns over imagined or real trajectories. Time-major: T time, B batch."""

from __future__ import annotations

import torch
from torch import Tensor


def td_lambda(
    rewards: Tensor, next_values: Tensor, not_terminated: Tensor | None, gamma: float, lam: float
) -> Tensor:
    """TD(lambda) targets by the backward recursion (Sutton & Barto, section 12.2).

        G_t = r_t + gamma m_t [(1 - lam) V(z_{t+1}) + lam G_{t+1}],   G_T = V(z_T)

    Args:
        rewards: [T, B] reward of step t.
        next_values: [T, B] V(z_{t+1}), so that the last row is the bootstrap value.
        not_terminated: [T, B] m_t, 0 where step t terminated, or None when nothing ends.
        gamma: discount a step.
        lam: 0 gives one-step TD, 1 the discounted return with a bootstrap at the end.

    Returns:
        [T, B] targets G_t.
    """
    discount = gamma if not_terminated is None else gamma * not_terminated
    one_step = rewards + discount * (1 - lam) * next_values
    carry = discount * lam
    target = next_values[-1]
    targets = []
    for t in reversed(range(rewards.shape[0])):
        keep = carry if isinstance(carry, float) else carry[t]
        target = one_step[t] + keep * target
        targets.append(target)
    return torch.stack(targets[::-1])


def discounted_objective(
    rewards: Tensor, last_value: Tensor, not_terminated: Tensor | None, gamma: float
) -> Tensor:
    """H-step objective J = sum_{t<H} gamma^t r_t + gamma^H V(z_H) (PWM eq. 5 with its bootstrap
    discounted by gamma^H).

    Args:
        rewards: [T, B]
        last_value: [B] bootstrap value V(z_T).
        not_terminated: [T, B] or None; rewards and bootstrap after a termination count nothing.

    Returns:
        [B]
    """
    steps = rewards.shape[0]
    powers = gamma ** torch.arange(steps, device=rewards.device, dtype=rewards.dtype)
    weights = powers.unsqueeze(-1)
    if not_terminated is None:
        return (weights * rewards).sum(0) + gamma**steps * last_value
    alive = torch.cumprod(not_terminated, dim=0)
    before = torch.cat([torch.ones_like(alive[:1]), alive[:-1]])
    return (weights * before * rewards).sum(0) + gamma**steps * alive[-1] * last_value
