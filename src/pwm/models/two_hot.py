"""Symlog two-hot coding of scalars (DreamerV3, arXiv 2301.04104; TD-MPC2, arXiv 2310.16828)."""

from __future__ import annotations

import torch
from torch import Tensor


def symlog(x: Tensor) -> Tensor:
    """sign(x) ln(1 + abs(x)): compresses large magnitudes, identity near zero."""
    return torch.sign(x) * torch.log1p(torch.abs(x))


def symexp(x: Tensor) -> Tensor:
    """Inverse of :func:`symlog`."""
    return torch.sign(x) * torch.expm1(torch.abs(x))


def bin_centres(low: float, high: float, bins: int, like: Tensor) -> Tensor:
    """[bins] equally spaced centres in symlog space, on the device and dtype of ``like``."""
    return torch.linspace(low, high, bins, device=like.device, dtype=like.dtype)


def two_hot(x: Tensor, low: float, high: float, bins: int) -> Tensor:
    """Encode scalars as two neighbouring bin weights whose mean is symlog(x).

    Args:
        x: [...] scalars in their own units; values beyond the range are clamped to its ends.
        low, high, bins: the grid in symlog space.

    Returns:
        [..., bins], non-negative, sums to 1, at most two entries not zero.
    """
    position = (symlog(x).clamp(low, high) - low) * ((bins - 1) / (high - low))
    lower = position.floor().clamp(max=bins - 2)
    upper_weight = (position - lower).unsqueeze(-1)
    index = lower.long().unsqueeze(-1)
    code = torch.zeros(*x.shape, bins, device=x.device, dtype=x.dtype)
    code.scatter_(-1, index, 1 - upper_weight)
    return code.scatter_(-1, index + 1, upper_weight)


def two_hot_cross_entropy(logits: Tensor, x: Tensor, low: float, high: float) -> Tensor:
    """Cross-entropy between softmax(logits) and the two-hot code of ``x``, without building it.

    Args:
        logits: [..., bins]; with one bin, the scalar itself.
        x: [...] target scalars.

    Returns:
        [...] in nats; the squared error with one bin.
    """
    bins = logits.shape[-1]
    if bins == 1:
        return (logits.squeeze(-1) - x).square()
    position = (symlog(x).clamp(low, high) - low) * ((bins - 1) / (high - low))
    lower = position.floor().clamp(max=bins - 2)
    upper_weight = position - lower
    index = lower.long().unsqueeze(-1)
    pair = logits.gather(-1, torch.cat([index, index + 1], dim=-1))
    expected = pair[..., 0] * (1 - upper_weight) + pair[..., 1] * upper_weight
    return torch.logsumexp(logits, dim=-1) - expected


def two_hot_decode(logits: Tensor, low: float, high: float, space: str = "linear") -> Tensor:
    """Expected scalar of a categorical over symlog bins.

    Args:
        logits: [..., bins]; with one bin, the scalar itself, which is returned as it is.
        space: "linear" returns symexp of the expected bin (reward units); "symlog" leaves the
            expectation in symlog space, as the published PWM code did by mistake.

    Returns:
        [...]
    """
    if logits.shape[-1] == 1:
        return logits.squeeze(-1)
    centres = bin_centres(low, high, logits.shape[-1], logits)
    expected = torch.softmax(logits, dim=-1) @ centres
    return symexp(expected) if space == "linear" else expected
