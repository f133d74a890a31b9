"""Ensemble of state-value networks V_k(z), evaluated together."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pwm.models.layers import Head


@dataclass(frozen=True)
class CriticConfig:
    """Defaults of PWM (arXiv 2407.02466): three value MLPs [400, 200], minimum taken."""

    units: tuple[int, ...] = (400, 200)
    members: int = 3


class CriticEnsemble(nn.Module):
    """K independent value functions on the latent.

    Plain modules in a list: on CPUs they beat a vmapped ensemble (see benchmarks/README.md).
    """

    def __init__(self, latent_dim: int, config: CriticConfig | None = None):
        super().__init__()
        self.config = config = config or CriticConfig()
        self.members = nn.ModuleList(
            Head(latent_dim, config.units, 1) for _ in range(config.members)
        )

    def forward(self, z: Tensor) -> Tensor:
        """[..., D] -> [K, ...] values, one row a member."""
        return torch.stack([member(z).squeeze(-1) for member in self.members])

    def minimum(self, z: Tensor) -> Tensor:
        """[..., D] -> [...] smallest value of the ensemble (pessimism against over-estimation)."""
        return self(z).amin(dim=0)
