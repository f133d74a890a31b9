"""A small real data set and world model, made by the stages themselves."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pwm.presets import pretrain_preset
from pwm.stages import collect, extract, pretrain

TASKS = ("dmc/pendulum-swingup", "dmc/cartpole-balance")


@pytest.fixture(scope="session")
def data(tmp_path_factory) -> Path:
    """Two tasks, two random episodes each."""
    pytest.importorskip("dm_control")
    out = tmp_path_factory.mktemp("stages") / "data"
    for task in TASKS:
        collect.run(collect.CollectConfig(task=task, steps=1000, out=str(out), num_envs=2))
    return out


def debug_pretrain(data: Path, out: Path, **changes) -> pretrain.PretrainConfig:
    settings = dict(data=(str(data),), out=str(out), device="cpu", checkpoint_every=5)
    return replace(pretrain_preset("debug"), **{**settings, **changes})


def debug_extract(world_model: Path, data: Path, out: Path, **changes) -> extract.ExtractConfig:
    settings = dict(
        world_model=str(world_model), data=(str(data),), out=str(out), updates=8, batch_size=8,
        horizon=4, critic_passes=2, eval_every=4, eval_episodes=2, checkpoint_every=2,
        log_every=1, device="cpu",
    )  # fmt: skip
    return extract.ExtractConfig(**{**settings, **changes})


@pytest.fixture(scope="session")
def world_model(data, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("stages") / "world_model"
    pretrain.run(debug_pretrain(data, out))
    return out


@pytest.fixture(scope="session")
def policy(data, world_model, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("stages") / "policy"
    extract.run(debug_extract(world_model, data, out))
    return out
