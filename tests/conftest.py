"""Shared fixtures: a tiny world model and reproducible torch seeds."""

from __future__ import annotations

import os

# Before torch loads: tests run many small kernels, often on several workers.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch

from pwm.models.world_model import WorldModel, WorldModelConfig


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def tiny_config(**changes) -> WorldModelConfig:
    """Two tasks of different dims; small enough for finite differences."""
    values = dict(
        tasks=("dmc/a", "dmc/b"),
        obs_dims=(3, 5),
        action_dims=(1, 2),
        episode_lengths=(500, 500),
        task_dim=4,
        latent_dim=16,
        hidden_dim=12,
        encoder_dim=10,
        encoder_layers=1,
        num_bins=21,
    )
    return WorldModelConfig(**{**values, **changes})


@pytest.fixture
def tiny_model() -> WorldModel:
    """Float64 model whose heads are not zero, so that every path carries a gradient."""
    model = WorldModel(tiny_config()).double()
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        noise = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
        parameter.data += 0.3 * noise
    return model
