"""Data sets whose every value tells where it came from, and data files of TD-MPC2."""

from __future__ import annotations

import sys
from collections import namedtuple
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch

from pwm.data import EpisodeWriter
from pwm.envs import list_tasks

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


# What the pickles of TensorDicts name, by the version of tensordict that began with it. Kept in
# files: 0.0.3 to 0.1.2 as "0.1", 0.2.1 as "0.2", 0.3.2 and 0.4.0 as "0.3", 0.5.0 to 0.12.4 as
# "0.5", and a locked one of 0.13 to 0.15.3 as "0.13".
FORMS = ("0.1", "0.2", "0.3", "0.5", "0.13")


class _Made:
    """Pickles as a call of ``function``."""

    def __init__(self, function, *arguments):
        self.value = (function, arguments)

    def __reduce__(self):
        return self.value


@contextmanager
def _tensordict_of(form: str) -> Iterator[dict[str, Any]]:
    """The module members that a file names, importable as long as it is written."""
    home = "tensordict.tensordict" if form in ("0.1", "0.2") else "tensordict._td"
    members = {
        "TensorDict": type("TensorDict", (), {"__module__": home}),
        "_StringOnlyDict": type("_StringOnlyDict", (dict,), {"__module__": "tensordict.utils"}),
        "_LockedSchema": namedtuple("_LockedSchema", "keys", module="tensordict.utils"),
    }
    members["_make_td"] = lambda kind, state: None
    members["_make_td"].__module__ = "tensordict._reductions"
    members["_make_td"].__qualname__ = "_make_td"
    assert not any(module.partition(".")[0] == "tensordict" for module in sys.modules)
    for name, member in members.items():
        for module in ("tensordict", member.__module__):
            sys.modules.setdefault(module, ModuleType(module))
        setattr(sys.modules[member.__module__], name, member)
    try:
        yield members
    finally:
        for module in [m for m in sys.modules if m.partition(".")[0] == "tensordict"]:
            del sys.modules[module]


def write_chunk(path: Path, fields: Mapping[str, Any], form: str = "0.5") -> Path:
    """A data file as TD-MPC2 writes it: torch.save of a TensorDict, without tensordict."""
    with _tensordict_of(form) as td:
        entries = td["_StringOnlyDict"](fields) if form in ("0.2", "0.3") else dict(fields)
        state = {"_device": torch.device("cpu"), "_tensordict": entries, "_is_locked": False}
        if "obs" in fields and isinstance(fields["obs"], torch.Tensor):
            state["_batch_size"] = fields["obs"].shape[:2]
        if form == "0.2":
            state |= {"_lock_id": set(), "_locked_tensordicts": []}
        if form == "0.13":
            state |= {"_is_locked": True, "_locked_schema": td["_LockedSchema"](tuple(fields))}
        made = td["TensorDict"]()
        made.__dict__.update(state)
        if form in ("0.5", "0.13"):
            made = _Made(td["_make_td"], td["TensorDict"], state)
        torch.save(made, path)
    return path


def source_fields(
    tasks: Sequence[int], steps: int = 20, task_set: str = "mt30", seed: int = 0
) -> dict[str, torch.Tensor]:
    """Fields of a data file with one episode for each task index; row 0 filled with anything."""
    specs = list_tasks(task_set)
    dims = max(s.obs_dim for s in specs), max(s.action_dim for s in specs)
    rng = np.random.default_rng(seed)
    shape = (len(tasks), steps + 1)
    obs = np.zeros((*shape, dims[0]), np.float32)
    action = np.zeros((*shape, dims[1]), np.float32)
    reward = rng.uniform(0, 2, shape).astype(np.float32)
    for episode, index in enumerate(tasks):
        spec = specs[index]
        obs[episode, :, : spec.obs_dim] = rng.normal(size=(shape[1], spec.obs_dim))
        action[episode, :, : spec.action_dim] = rng.uniform(-1, 1, (shape[1], spec.action_dim))
    action[:, 0], reward[:, 0] = np.resize([np.nan, np.inf, 1e38], dims[1]), np.nan
    task = np.repeat(np.array(tasks, np.int32)[:, None], shape[1], 1)
    arrays = {"obs": obs, "action": action, "reward": reward, "task": task}
    return {name: torch.from_numpy(array) for name, array in arrays.items()}
