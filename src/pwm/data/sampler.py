"""Batches of windows and of states, as pure functions of (seed, stream, step)."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pwm.data.dataset import EpisodeDataset, TaskData
from pwm.errors import UserError
from pwm.seeding import stream_seed


@dataclass
class Batch:
    """Windows of H steps, zero-padded to the model's dims.

    observations [H+1, B, O]; actions [H, B, A]; rewards [H, B]; terminated [H, B] as float32;
    task [B] int64, an index into the sampler's ``tasks``. Action t leads from observation t to
    observation t + 1 and earns reward t.
    """

    observations: Tensor
    actions: Tensor
    rewards: Tensor
    terminated: Tensor
    task: Tensor


class WindowSampler:
    """Uniform over all valid windows of the chosen tasks, or tasks by weight.

    An episode of T steps holds T - H + 1 windows; none crosses an episode's border or touches the
    filler of its row 0. The batch of a step depends on nothing but (seed, stream, step), so a
    resumed run sees what it would have seen.

    Args:
        tasks: ids in the order of the model's task indices.
        horizon: H, steps of a window.
        obs_dim, action_dim: padded dims.
        task_weights: probability of each task (any scale); None: uniform over windows.
        split: "train", "holdout" (a seeded share of each task's episodes that have a window, of
            all folders together) or "all". A task with one such episode has it in both train and
            holdout.
        holdout_fraction: of the episodes, at least one and never all; 0 holds none out and makes
            every split "all".
        memory_limit: data up to this many bytes is held in memory, more is read from disk.

    Raises:
        UserError: a task without any window, or weights that do not fit.
    """

    def __init__(
        self,
        datasets: Sequence[EpisodeDataset],
        *,
        tasks: Sequence[str],
        horizon: int,
        batch_size: int,
        obs_dim: int,
        action_dim: int,
        seed: int,
        stream: str,
        task_weights: Sequence[float] | None = None,
        split: str = "all",
        holdout_fraction: float = 0.05,
        memory_limit: int = 2 << 30,
    ):
        self.horizon, self.batch_size = horizon, batch_size
        self.obs_dim, self.action_dim = obs_dim, action_dim
        self._key = [stream_seed(seed, stream), zlib.crc32(stream.encode())]
        self._parts: list[_Part] = []
        total = sum(t.num_bytes for d in datasets for i, t in d.tasks.items() if i in set(tasks))
        for index, id_ in enumerate(tasks):
            found = [dataset.tasks[id_] for dataset in datasets if id_ in dataset.tasks]
            parts = [
                _Part.of(task, index, horizon, episodes)
                for task, episodes in zip(
                    found, _split(found, horizon, seed, split, holdout_fraction), strict=True
                )
            ]
            parts = [part for part in parts if part.windows]
            if not parts:
                raise UserError(
                    f"task '{id_}' has no episode of at least {horizon} steps; lower --horizon "
                    "or collect longer episodes"
                )
            self._parts += [part.in_memory() for part in parts] if total <= memory_limit else parts
        self._ends = np.cumsum([part.windows for part in self._parts])
        self._share = self._shares(tasks, task_weights)

    @property
    def num_windows(self) -> int:
        """All valid windows of the split."""
        return int(self._ends[-1])

    def _shares(
        self, tasks: Sequence[str], weights: Sequence[float] | None
    ) -> NDArray[np.float64] | None:
        """Probability of each part when tasks are weighted."""
        if weights is None:
            return None
        w = np.asarray(weights, np.float64)
        if w.shape != (len(tasks),) or (w < 0).any() or not np.isfinite(w).all() or w.sum() <= 0:
            raise UserError(
                f"--task-weights needs {len(tasks)} non-negative numbers, one for each of: "
                f"{', '.join(tasks)}"
            )
        windows = np.array([part.windows for part in self._parts], np.float64)
        index = np.array([part.index for part in self._parts])
        totals = np.bincount(index, windows, minlength=len(tasks))
        share = w[index] * windows / totals[index]
        return share / share.sum()

    def sample(self, step: int) -> Batch:
        """The batch of ``step``."""
        generator = counted_generator(self._key, step)
        part, window = self._draw(generator)
        h, b = self.horizon, self.batch_size
        observations = np.zeros((h + 1, b, self.obs_dim), np.float32)
        actions = np.zeros((h, b, self.action_dim), np.float32)
        rewards = np.empty((h, b), np.float32)
        terminated = np.empty((h, b), np.float32)
        task = np.empty(b, np.int64)
        for number in np.unique(part):
            source, columns = self._parts[number], np.flatnonzero(part == number)
            rows = source.first_rows(window[columns]) + np.arange(h + 1)[:, None]
            observations[:, columns, : source.task.obs_dim] = source.task.observations[rows]
            later = rows[1:]
            actions[:, columns, : source.task.action_dim] = source.task.actions[later]
            rewards[:, columns] = source.task.rewards[later]
            terminated[:, columns] = source.task.terminated[later]
            task[columns] = source.index
        arrays = (observations, actions, rewards, terminated, task)
        return Batch(*(torch.from_numpy(array) for array in arrays))

    def _draw(self, generator: np.random.Generator) -> tuple[NDArray, NDArray]:
        """Part number and window number within it, [B] each."""
        if self._share is None:
            flat = generator.integers(self.num_windows, size=self.batch_size)
            part = np.searchsorted(self._ends, flat, side="right")
            starts = self._ends - np.array([p.windows for p in self._parts])
            return part, flat - starts[part]
        part = generator.choice(len(self._parts), size=self.batch_size, p=self._share)
        windows = np.array([p.windows for p in self._parts])
        return part, generator.integers(windows[part])


class StateSampler:
    """Observations of one task, uniform over all rows of all episodes, row 0 included.

    A pure function of (seed, stream, step), like :class:`WindowSampler`.
    """

    def __init__(
        self,
        datasets: Sequence[EpisodeDataset],
        *,
        task: str,
        batch_size: int,
        obs_dim: int,
        seed: int,
        stream: str,
        memory_limit: int = 2 << 30,
    ):
        self._tasks = [dataset.tasks[task] for dataset in datasets if task in dataset.tasks]
        if not self._tasks:
            raise UserError(f"the data holds no episodes of task '{task}'")
        self._sources = [source.observations for source in self._tasks]
        if sum(source.nbytes for source in self._sources) <= memory_limit:
            self._sources = [np.array(source) for source in self._sources]
        self._ends = np.cumsum([len(source) for source in self._sources])
        self.batch_size, self.obs_dim = batch_size, obs_dim
        self._key = [stream_seed(seed, stream), zlib.crc32(stream.encode())]

    def sample(self, step: int) -> Tensor:
        """[B, obs_dim] zero-padded observations of ``step``."""
        flat = counted_generator(self._key, step).integers(self._ends[-1], size=self.batch_size)
        out = np.zeros((self.batch_size, self.obs_dim), np.float32)
        part = np.searchsorted(self._ends, flat, side="right")
        for number in np.unique(part):
            source, rows = self._sources[number], part == number
            begin = self._ends[number] - len(source)
            out[rows, : source.shape[1]] = source[flat[rows] - begin]
        return torch.from_numpy(out)


@dataclass(frozen=True)
class _Part:
    """One task's usable episodes in one folder."""

    task: TaskData
    index: int
    offsets: NDArray[np.int64]
    ends: NDArray[np.int64]  # running number of windows
    windows: int

    @classmethod
    def of(cls, task: TaskData, index: int, horizon: int, episodes: NDArray[np.bool_]) -> _Part:
        counts = np.where(episodes, np.maximum(task.lengths - horizon + 1, 0), 0)
        usable = counts > 0
        ends = np.cumsum(counts[usable])
        total = int(ends[-1]) if len(ends) else 0
        return cls(task, index, task.offsets[usable], ends, total)

    def in_memory(self) -> _Part:
        """The same part with its rows copied out of the memory maps."""
        names = ("observations", "actions", "rewards", "terminated")
        values = {**vars(self.task), **{n: np.array(getattr(self.task, n)) for n in names}}
        return _Part(TaskData(**values), self.index, self.offsets, self.ends, self.windows)

    def first_rows(self, window: NDArray[np.int64]) -> NDArray[np.int64]:
        """First row of each numbered window: windows of an episode are numbered one by one."""
        episode = np.searchsorted(self.ends, window, side="right")
        before = np.where(episode > 0, self.ends[episode - 1], 0)
        return self.offsets[episode] + window - before


def _split(
    tasks: Sequence[TaskData], horizon: int, seed: int, split: str, fraction: float
) -> list[NDArray[np.bool_]]:
    """Episodes of the split in each folder of one task; deterministic for (seed, task).

    Only episodes with a window are shared out, over all folders at once: else a split could be
    left without any, or one folder's lone episode be trained on and tested on.
    """
    if not tasks:
        return []
    chosen = np.concatenate([task.lengths >= horizon for task in tasks])
    usable = np.flatnonzero(chosen)
    if split != "all" and len(usable) >= 2 and fraction > 0:
        held = min(max(1, round(fraction * len(usable))), len(usable) - 1)
        rng = np.random.default_rng(stream_seed(seed, "holdout", tasks[0].id))
        holdout = np.zeros(len(chosen), bool)
        holdout[usable[rng.permutation(len(usable))[:held]]] = True
        chosen = holdout if split == "holdout" else chosen & ~holdout
    return np.split(chosen, np.cumsum([task.num_episodes for task in tasks])[:-1])


def counted_generator(key: list[int], step: int) -> np.random.Generator:
    """Counter-based generator: the step is the counter, so nothing has to be remembered."""
    return np.random.Generator(np.random.Philox(key=key, counter=[0, 0, 0, step]))
