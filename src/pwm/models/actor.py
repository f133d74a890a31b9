"""Gaussian policy squashed by tanh, with a state-independent standard deviation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pwm.models.layers import Mish


@dataclass(frozen=True)
class ActorConfig:
    """Defaults of PWM (arXiv 2407.02466): MLP [400, 200, 100], log-std -1.0 with floor -1.427."""

    units: tuple[int, ...] = (400, 200, 100)
    init_log_std: float = -1.0
    min_log_std: float = -1.427


class Actor(nn.Module):
    """a = mask * tanh(mu(z) + sigma * eps).

    Args:
        latent_dim: D.
        action_mask: [A] of 0/1; masked dimensions are always exactly zero.
    """

    mask: Tensor

    def __init__(self, latent_dim: int, action_mask: Tensor, config: ActorConfig | None = None):
        super().__init__()
        self.config = config = config or ActorConfig()
        units: Sequence[int] = (latent_dim, *config.units)
        layers: list[nn.Module] = []
        for inputs, outputs in zip(units[:-1], units[1:], strict=True):
            layers += [nn.Linear(inputs, outputs), Mish(), nn.LayerNorm(outputs)]
        actions = action_mask.shape[-1]
        self.body = nn.Sequential(*layers, nn.Linear(units[-1], actions))
        self.log_std = nn.Parameter(torch.full((actions,), config.init_log_std))
        self.register_buffer("mask", action_mask.clone())

    def forward(self, z: Tensor, noise: Tensor | None = None) -> Tensor:
        """Action for latents; with ``noise`` None the deterministic (evaluation) action.

        Args:
            z: [..., D]
            noise: [..., A] standard normal, or None.

        Returns:
            [..., A] in [-1, 1].
        """
        mean = self.body(z)
        if noise is not None:
            mean = mean + self.std() * noise
        return torch.tanh(mean) * self.mask

    def std(self) -> Tensor:
        """[A] standard deviation before the tanh, never below its floor."""
        return self.log_std.clamp(min=self.config.min_log_std).exp()
