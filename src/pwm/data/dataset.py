"""Read-only, memory-mapped view of a data set folder."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pwm.data.layout import (
    check_index,
    check_size,
    columns,
    holds_task,
    read_format,
    read_index,
    read_task,
    row_bytes,
)
from pwm.errors import UserError

_BLOCK_ROWS = 1 << 18


@dataclass(frozen=True)
class TaskData:
    """Episodes of one task. Rows of all episodes follow each other; see pwm.data.layout.

    ``observations`` [R, O], ``actions`` [R, A], ``rewards`` [R], ``terminated`` [R] are memory
    maps; episode e takes the ``lengths[e] + 1`` rows from ``offsets[e]``.
    """

    id: str
    folder: Path
    obs_dim: int
    action_dim: int
    episode_length: int | None
    observations: NDArray[np.float32]
    actions: NDArray[np.float32]
    rewards: NDArray[np.float32]
    terminated: NDArray[np.uint8]
    offsets: NDArray[np.int64]
    lengths: NDArray[np.int64]
    returns: NDArray[np.float64]
    success: NDArray[np.float64]
    seeds: NDArray[np.int64]
    ended: NDArray[np.bool_]
    collector_ids: NDArray[np.int64]
    collectors: tuple[str, ...]
    metadata: dict[str, Any]

    @property
    def num_episodes(self) -> int:
        return len(self.lengths)

    @property
    def num_steps(self) -> int:
        return int(self.lengths.sum())

    @property
    def pieces_of(self) -> int | None:
        """Steps of the episodes that these are pieces of; None when they are whole."""
        return self.metadata.get("pieces_of")

    @property
    def num_bytes(self) -> int:
        """Size of the rows on disk."""
        arrays = (self.observations, self.actions, self.rewards, self.terminated)
        return sum(array.nbytes for array in arrays)

    def any_terminated(self) -> bool:
        """Whether some episode ended by termination and not by its time limit."""
        return bool(self.ended.any())

    def check_finite(self) -> None:
        """Raise UserError at the first NaN or infinity, naming file, episode and step.

        Streams through the files in blocks; the filler of row 0 is not looked at.
        """
        for name in ("observations", "actions", "rewards"):
            values = getattr(self, name)
            for begin in range(0, len(values), _BLOCK_ROWS):
                block = values[begin : begin + _BLOCK_ROWS]
                finite = np.isfinite(block)
                if finite.all():
                    continue
                bad = begin + np.flatnonzero(~finite.reshape(len(block), -1).all(1))
                if name != "observations":
                    bad = np.setdiff1d(bad, self.offsets)
                if len(bad):
                    self._report(name, int(bad[0]))

    def _report(self, name: str, row: int) -> None:
        episode = int(np.searchsorted(self.offsets, row, side="right")) - 1
        value = np.atleast_1d(getattr(self, name)[row])
        raise UserError(
            f"{self.folder / name}.bin holds {value[~np.isfinite(value)][0]} in episode {episode} "
            f"at step {row - int(self.offsets[episode])}; remove or repair that episode"
        )


class EpisodeDataset:
    """A data set folder. ``tasks`` maps task ids to :class:`TaskData`."""

    def __init__(self, path: Path, tasks: dict[str, TaskData]):
        self.path, self.tasks = path, tasks

    @classmethod
    def open(cls, path: str | Path, *, allow_empty: bool = False) -> EpisodeDataset:
        """Map a data set; reads the indexes, not the rows.

        Raises:
            UserError: no data set, damaged or truncated files (named), or no episodes at all
                unless ``allow_empty``.
        """
        path = Path(path)
        read_format(path)
        folders = sorted(p for p in (path / "tasks").glob("*") if holds_task(p))
        tasks = [_open_task(folder) for folder in folders]
        filled = [task for task in tasks if task.num_episodes or allow_empty]
        if not filled and not allow_empty:
            raise UserError(f"data set {path} is empty: it holds no episode")
        return cls(path, {task.id: task for task in filled})

    def check_finite(self, tasks: Iterable[str] | None = None) -> None:
        """See :meth:`TaskData.check_finite`; only ``tasks`` when given."""
        wanted = set(self.tasks if tasks is None else tasks)
        for id_, task in self.tasks.items():
            if id_ in wanted:
                task.check_finite()


def open_datasets(paths: Sequence[str | Path]) -> list[EpisodeDataset]:
    """Open several folders for use together.

    Raises:
        UserError: as EpisodeDataset.open, a folder given twice, or a task that has other dims in
            two folders.
    """
    if len({Path(path).resolve() for path in paths}) < len(paths):
        raise UserError("the same data set folder is given twice")
    datasets = [EpisodeDataset.open(path) for path in paths]
    first: dict[str, TaskData] = {}
    for dataset in datasets:
        for id_, task in dataset.tasks.items():
            other = first.setdefault(id_, task)
            if (task.obs_dim, task.action_dim) != (other.obs_dim, other.action_dim):
                raise UserError(
                    f"task '{id_}' has dims {(other.obs_dim, other.action_dim)} in "
                    f"{other.folder} but {(task.obs_dim, task.action_dim)} in {task.folder}"
                )
    return datasets


def episode_returns(datasets: Sequence[EpisodeDataset], task: str) -> NDArray[np.float64]:
    """Returns of the whole episodes of ``task``, [E]; empty when there are none.

    Pieces of episodes, which TD-MPC2's 80-task data consist of, have no such return.
    """
    found = [dataset.tasks[task] for dataset in datasets if task in dataset.tasks]
    parts = [data.returns for data in found if data.pieces_of is None]
    return np.concatenate(parts) if parts else np.empty(0)


def observation_moments(
    datasets: Sequence[EpisodeDataset], task: str
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and standard deviation of each observation feature of ``task``, [obs_dim] each.

    Streams over the rows in blocks, summed in float64 about the first row.
    """
    count, shift = 0, None
    for dataset in datasets:
        if task not in dataset.tasks:
            continue
        rows = dataset.tasks[task].observations
        if shift is None:
            shift = rows[0].astype(np.float64)
            total, squares = np.zeros_like(shift), np.zeros_like(shift)
        for begin in range(0, len(rows), _BLOCK_ROWS):
            block = rows[begin : begin + _BLOCK_ROWS] - shift
            total += block.sum(axis=0)
            squares += np.square(block).sum(axis=0)
        count += len(rows)
    if shift is None:
        raise UserError(f"the data holds no episodes of task '{task}'")
    mean = total / count
    return shift + mean, np.sqrt(np.maximum(squares / count - mean**2, 0.0))


def best_tenth_mean(returns: NDArray[np.float64]) -> float:
    """Mean of the best tenth of the episodes (rounded up, at least one)."""
    count = -(-len(returns) // 10)
    return float(np.sort(returns)[-count:].mean())


def return_facts(datasets: Sequence[EpisodeDataset], task: str) -> dict[str, float] | None:
    """Facts about the returns of ``task``; None when the data holds pieces of episodes only."""
    returns = episode_returns(datasets, task)
    if len(returns) == 0:
        return None
    return {
        "episodes": len(returns),
        "mean": float(returns.mean()),
        "min": float(returns.min()),
        "max": float(returns.max()),
        "best_tenth": best_tenth_mean(returns),
    }


def _open_task(folder: Path) -> TaskData:
    # the index first: a writer at work names a collector in task.json before it uses it
    index, facts = read_index(folder), read_task(folder)
    rows = int(index["length"].sum(dtype=np.int64)) + len(index)
    check_index(folder, index, len(facts["collectors"]))
    arrays = {
        name: _map(folder / f"{name}.bin", dtype, (rows, *shape))
        for name, (dtype, shape) in columns(facts["obs_dim"], facts["action_dim"]).items()
    }
    return TaskData(
        id=facts["id"], folder=folder, obs_dim=facts["obs_dim"], action_dim=facts["action_dim"],
        episode_length=facts.get("episode_length"), **arrays,
        offsets=index["offset"].astype(np.int64), lengths=index["length"].astype(np.int64),
        returns=index["ret"].copy(), success=index["success"].copy(), seeds=index["seed"].copy(),
        ended=index["terminated"].astype(bool),
        collector_ids=index["collector"].astype(np.int64),
        collectors=tuple(facts["collectors"]), metadata=facts,
    )  # fmt: skip


def _map(path: Path, dtype: np.dtype, shape: tuple[int, ...]) -> NDArray[Any]:
    """Memory map of the committed rows."""
    check_size(path, shape[0] * row_bytes(dtype, shape[1:]))
    if shape[0] == 0:
        return np.empty(shape, dtype)
    return np.memmap(path, dtype, mode="r", shape=shape)
