"""Data sets whose every value tells where it came from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from pwm.data import EpisodeWriter

NAME, FOLDER = "x/task", "tasks/x__task"


def value(task: int, episode: int, t: int) -> float:
    """A number that names (task, episode, step); exact in float32."""
    return task * 1_000_000 + episode * 1000 + t


def decode(number: float) -> tuple[int, int, int]:
    whole = round(number)
    return whole // 1_000_000, whole % 1_000_000 // 1000, whole % 1000


def write_task(
    path: Path, name: str, task: int, lengths: Sequence[int], dims: tuple[int, int], first: int = 0
) -> None:
    """Episodes of the given lengths: observation and reward t hold value(task, episode, t)."""
    obs_dim, action_dim = dims
    with EpisodeWriter(path, name, obs_dim=obs_dim, action_dim=action_dim, episode_length=None,
                       collector="test") as writer:  # fmt: skip
        for index, length in enumerate(lengths):
            episode = first + index
            steps = np.array([value(task, episode, t) for t in range(length + 1)])
            writer.append(
                np.repeat(steps[:, None], obs_dim, 1), np.repeat(steps[1:, None], action_dim, 1),
                steps[1:], terminated=episode % 2 == 0, seed=episode,
            )  # fmt: skip


def windows(lengths: Mapping[int, Sequence[int]], horizon: int) -> set[tuple[int, int, int]]:
    """All valid windows (task, episode, first step), enumerated the slow way."""
    return {
        (task, episode, t)
        for task, episodes in lengths.items()
        for episode, length in enumerate(episodes)
        for t in range(length + 1)
        if t + horizon <= length
    }


def writer(path, **changes):
    options = dict(obs_dim=3, action_dim=2, episode_length=50, collector="test")
    return EpisodeWriter(path, NAME, **{**options, **changes})


def episode(steps, seed=0, obs=3, action=2):
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(steps + 1, obs)).astype(np.float32),
            rng.uniform(-1, 1, (steps, action)).astype(np.float32),
            rng.normal(size=steps).astype(np.float32))  # fmt: skip


def store(path, lengths, **changes):
    with writer(path, **changes) as open_writer:
        for seed, length in enumerate(lengths):
            open_writer.append(*episode(length, seed), terminated=seed == 1, seed=seed, success=0.5)
