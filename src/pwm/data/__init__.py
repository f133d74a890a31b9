"""Offline data: episodes on disk, samplers of windows and states."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pwm.data.dataset import (
        EpisodeDataset,
        TaskData,
        best_tenth_mean,
        episode_returns,
        observation_moments,
        open_datasets,
        return_facts,
    )
    from pwm.data.replay import Replay
    from pwm.data.sampler import Batch, StateSampler, WindowSampler
    from pwm.data.writer import EpisodeWriter

_HOMES = {
    "Batch": "sampler",
    "EpisodeDataset": "dataset",
    "EpisodeWriter": "writer",
    "Replay": "replay",
    "StateSampler": "sampler",
    "TaskData": "dataset",
    "WindowSampler": "sampler",
    "best_tenth_mean": "dataset",
    "episode_returns": "dataset",
    "observation_moments": "dataset",
    "open_datasets": "dataset",
    "return_facts": "dataset",
}

__all__ = [
    "Batch",
    "EpisodeDataset",
    "EpisodeWriter",
    "Replay",
    "StateSampler",
    "TaskData",
    "WindowSampler",
    "best_tenth_mean",
    "episode_returns",
    "observation_moments",
    "open_datasets",
    "return_facts",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"pwm.data.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'pwm.data' has no attribute '{name}'")
