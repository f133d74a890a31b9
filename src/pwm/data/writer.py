"""Append episodes to a data set so that a kill at any moment loses none that was finished."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pwm.data.layout import (
    FORMAT,
    INDEX_DTYPE,
    columns,
    read_format,
    read_index,
    read_task,
    row_bytes,
    slug,
    write_json,
)
from pwm.errors import UserError


class EpisodeWriter:
    """Writer of one task's episodes; one writer at a time, any number of readers.

    Rows go to disk first, the index record last: an episode exists when its record does. What a
    killed writer left behind its last record is cut off when the next one opens.

    Args:
        path: data set folder, made when it does not exist.
        task_id: canonical task id.
        obs_dim, action_dim: unpadded dims.
        episode_length: time limit in agent steps, None without one.
        collector: who acts, for example "sac".
        metadata: further JSON-able facts for task.json.

    Raises:
        UserError: other dims than the task's stored ones, a damaged folder, or another writer.
    """

    def __init__(
        self,
        path: str | Path,
        task_id: str,
        *,
        obs_dim: int,
        action_dim: int,
        episode_length: int | None,
        collector: str,
        metadata: dict[str, Any] | None = None,
    ):
        self.path, self.task_id = Path(path), task_id
        self.obs_dim, self.action_dim = obs_dim, action_dim
        self.folder = self.path / "tasks" / slug(task_id)
        facts = self._existing_facts()
        new = {"id": task_id, "obs_dim": obs_dim, "action_dim": action_dim,
               "episode_length": episode_length, "collectors": [], **(metadata or {})}  # fmt: skip
        for name in ("obs_dim", "action_dim"):
            if facts and facts[name] != new[name]:
                raise UserError(
                    f"{self.folder / 'task.json'}: {name} is {facts[name]}, but {task_id} has "
                    f"{new[name]}; choose another data set folder"
                )
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = (self.folder / ".lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._lock.close()
            raise UserError(f"another process is writing to {self.folder}; wait for it") from None
        try:
            self._open(facts or new, collector)
        except BaseException:
            self._lock.close()
            raise

    def _existing_facts(self) -> dict[str, Any] | None:
        """task.json of the task when it is there; checks that a non-empty folder is a data set."""
        if self.path.exists() and not self.path.is_dir():
            raise UserError(f"{self.path} is a file, not a data set folder")
        if self.path.is_dir() and any(self.path.iterdir()):
            read_format(self.path)
        return read_task(self.folder) if (self.folder / "task.json").exists() else None

    def _open(self, facts: dict[str, Any], collector: str) -> None:
        if not (self.path / "dataset.json").exists():
            write_json(self.path / "dataset.json", {"format": FORMAT})
        if collector not in facts["collectors"]:
            facts["collectors"].append(collector)
            write_json(self.folder / "task.json", facts)
        self._collector = facts["collectors"].index(collector)
        index = read_index(self.folder)
        self.num_episodes = len(index)
        self.num_steps = int(index["length"].sum())
        self._rows = self.num_steps + self.num_episodes
        self._files: dict[str, BinaryIO] = {}
        for name, (dtype, shape) in columns(self.obs_dim, self.action_dim).items():
            self._files[name] = self._at(f"{name}.bin", self._rows * row_bytes(dtype, shape))
        self._index = self._at("index.bin", len(index) * INDEX_DTYPE.itemsize)

    def _at(self, name: str, size: int) -> BinaryIO:
        """Open for appending after ``size`` bytes; what lies behind was never committed."""
        path = self.folder / name
        path.touch()
        if path.stat().st_size < size:
            raise UserError(f"{path} is truncated: the index promises {size} bytes; restore it")
        handle = path.open("r+b")
        handle.truncate(size)
        handle.seek(size)
        return handle

    def append(
        self,
        observations: ArrayLike,
        actions: ArrayLike,
        rewards: ArrayLike,
        *,
        terminated: bool,
        seed: int,
        success: float | None = None,
    ) -> None:
        """Store one whole episode; it is on disk when this returns.

        Args:
            observations: [T+1, O]; actions: [T, A]; rewards: [T].
            terminated: whether the last step ended the task (not the time limit).
            seed: where the episode's randomness came from.
            success: of the last step, None when the task has no such notion.

        Raises:
            UserError: wrong dims, no step, or values that are not finite. Nothing is written.
        """
        o, a = np.asarray(observations, "<f4"), np.asarray(actions, "<f4")
        r = np.asarray(rewards, "<f4")
        steps = len(r)
        self._check(o, a, r)
        filler = np.full((1, self.action_dim), np.nan, "<f4")
        ends = np.zeros(steps + 1, "u1")
        ends[-1] = terminated
        rows: dict[str, NDArray] = {
            "observations": o,
            "actions": np.concatenate([filler, a]),
            "rewards": np.concatenate([filler[0, :1], r]),
            "terminated": ends,
        }
        for name, values in rows.items():
            self._files[name].write(values.tobytes())
            self._files[name].flush()
            os.fsync(self._files[name].fileno())
        record = np.array(
            [(self._rows, steps, self._collector, r.sum(dtype=np.float64),
              np.nan if success is None else success, seed, bool(terminated))],
            INDEX_DTYPE,
        )  # fmt: skip
        self._index.write(record.tobytes())
        self._index.flush()
        os.fsync(self._index.fileno())
        self._rows += steps + 1
        self.num_episodes += 1
        self.num_steps += steps

    def _check(self, o: NDArray, a: NDArray, r: NDArray) -> None:
        steps = len(r)
        wanted = ((steps + 1, self.obs_dim), (steps, self.action_dim), (steps,))
        if steps < 1 or (o.shape, a.shape, r.shape) != wanted:
            raise UserError(
                f"{self.task_id}: an episode of {steps} steps needs observations, actions and "
                f"rewards of shapes {wanted}, not {(o.shape, a.shape, r.shape)}"
            )
        for name, values in (("observations", o), ("actions", a), ("rewards", r)):
            if not np.isfinite(values).all():
                bad = np.argwhere(~np.isfinite(values))[0]
                raise UserError(
                    f"{self.task_id}: {name} hold {values[tuple(bad)]} at step {bad[0]}; an "
                    "episode with values that are not finite is not stored"
                )

    def close(self) -> None:
        for handle in (*self._files.values(), self._index):
            handle.close()
        self._lock.close()

    def __enter__(self) -> EpisodeWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
