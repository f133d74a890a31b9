"""Policy prior of a planner: a squashed Gaussian whose deviation depends on the state."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

_HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


@dataclass
class PriorSample:
    """What the prior proposes. action [..., A] in [-1, 1]; mean and log_std [..., A] before the
    tanh; entropy [...] is the one-sample estimate -log pi(action)."""

    action: Tensor
    mean: Tensor
    log_std: Tensor
    entropy: Tensor


def squashed_gaussian(
    raw: Tensor, mask: Tensor, noise: Tensor | None, log_std_min: float, log_std_max: float
) -> PriorSample:
    """TD-MPC2's policy prior (arXiv 2310.16828, eq. 4) from the raw output of its network.

        log_std = lo + (hi - lo) (tanh(raw_std) + 1) / 2,   a = tanh(mean + exp(log_std) eps)

    Args:
        raw: [..., 2 A] mean and raw deviation.
        mask: [..., A] of 0/1; masked actions are zero and add nothing to the entropy.
        noise: [..., A] standard normal; None gives the mean action.
    """
    mean, raw_std = raw.chunk(2, dim=-1)
    log_std = log_std_min + 0.5 * (log_std_max - log_std_min) * (torch.tanh(raw_std) + 1)
    mean, log_std = mean * mask, log_std * mask
    noise = torch.zeros_like(mean) if noise is None else noise * mask
    action = torch.tanh(mean + log_std.exp() * noise)
    # Change of variables of the tanh; 1e-6 keeps saturated actions finite.
    squash = torch.log((1 - action.square()).clamp(min=0) + 1e-6)
    surprise = 0.5 * noise.square() + log_std + _HALF_LOG_2PI + squash
    return PriorSample(action, mean, log_std, (surprise * mask).sum(-1))
