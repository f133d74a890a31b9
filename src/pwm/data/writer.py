"""Append episodes to a data set so that a kill at any moment loses none that was finished."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pwm.data.layout import (
    FORMAT,
    INDEX_DTYPE,
    all_finite,
    check_index,
    check_size,
    columns,
    holds_task,
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
        new = {"id": task_id, "obs_dim": obs_dim, "action_dim": action_dim,
               "episode_length": episode_length, "collectors": [], **(metadata or {})}  # fmt: skip
        self._existing_facts()
        # dataset.json comes first: a kill from here on leaves a folder that is still a data set
        self.path.mkdir(parents=True, exist_ok=True)
        if not (self.path / "dataset.json").exists():
            write_json(self.path / "dataset.json", {"format": FORMAT})
        self.folder.mkdir(parents=True, exist_ok=True)
        self._failed = False
        with ExitStack() as stack:
            lock = stack.enter_context((self.folder / ".lock").open("w"))
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise UserError(
                    f"another process is writing to {self.folder}; wait for it"
                ) from None
            # read again: the writer before may have added a collector since
            self._open(self._existing_facts() or new, collector, stack)
            self._stack = stack.pop_all()

    def _existing_facts(self) -> dict[str, Any] | None:
        """Checked task.json of the task when it is there; None in a new or empty folder."""
        if self.path.exists() and not self.path.is_dir():
            raise UserError(f"{self.path} is a file, not a data set folder")
        # a kill before dataset.json was complete may have left its temporary file
        if self.path.is_dir() and any(
            not p.name.startswith(".dataset.json.") for p in self.path.iterdir()
        ):
            read_format(self.path)
        if not holds_task(self.folder):
            return None
        # the index first: another writer names a collector in task.json before it uses it
        index, facts = read_index(self.folder), read_task(self.folder)
        for name in ("obs_dim", "action_dim"):
            if facts[name] != getattr(self, name):
                raise UserError(
                    f"{self.folder / 'task.json'}: {name} is {facts[name]}, but {self.task_id} has "
                    f"{getattr(self, name)}; choose another data set folder"
                )
        check_index(self.folder, index, len(facts["collectors"]))
        for name, size in self._sizes(index).items():
            check_size(self.folder / name, size)
        return facts

    def _sizes(self, index: NDArray) -> dict[str, int]:
        """Bytes of each file of rows that the index commits to."""
        rows = int(index["length"].sum(dtype=np.int64)) + len(index)
        shapes = columns(self.obs_dim, self.action_dim)
        return {f"{name}.bin": rows * row_bytes(*shape) for name, shape in shapes.items()}

    def _open(self, facts: dict[str, Any], collector: str, stack: ExitStack) -> None:
        if collector not in facts["collectors"]:
            facts["collectors"].append(collector)
            write_json(self.folder / "task.json", facts)
        self._collector = facts["collectors"].index(collector)
        index = read_index(self.folder)
        self.num_episodes = len(index)
        self.num_steps = int(index["length"].sum())
        self._rows = self.num_steps + self.num_episodes
        self._files: dict[str, BinaryIO] = {}
        for name, size in self._sizes(index).items():
            self._files[name.removesuffix(".bin")] = self._at(name, size, stack)
        self._index = self._at("index.bin", len(index) * INDEX_DTYPE.itemsize, stack)

    def _at(self, name: str, size: int, stack: ExitStack) -> BinaryIO:
        """Open for appending after ``size`` bytes; what lies behind was never committed."""
        path = self.folder / name
        path.touch()
        handle = stack.enter_context(path.open("r+b"))
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
            UserError: an append before this one broke off, for example on a full disk.
        """
        o, a = np.asarray(observations, "<f4"), np.asarray(actions, "<f4")
        r = np.asarray(rewards, "<f4")
        self._check(o, a, r)
        self._store(o[None], a[None], r[None], terminated, [seed], success)

    def append_many(
        self,
        observations: ArrayLike,
        actions: ArrayLike,
        rewards: ArrayLike,
        *,
        terminated: bool,
        seeds: Sequence[int],
        success: float | None = None,
    ) -> None:
        """Store E episodes of one length, as :meth:`append` does but with one wait for the disk.

        All of them are on disk when this returns. A kill before keeps the first few or none.

        Args:
            observations: [E, T+1, O]; actions: [E, T, A]; rewards: [E, T].
            terminated, success: of every one of them.
            seeds: [E].

        Raises:
            UserError: as append; none of the episodes is written.
        """
        o, a = np.asarray(observations, "<f4"), np.asarray(actions, "<f4")
        r = np.asarray(rewards, "<f4")
        together = (o.ndim, a.ndim, r.ndim) == (3, 3, 2) and len(o) > 0
        if not together or not len(o) == len(a) == len(r) == len(seeds):
            raise UserError(
                f"{self.task_id}: episodes of shapes {(o.shape, a.shape, r.shape)} with "
                f"{len(seeds)} seeds can't be stored together"
            )
        first = (o[0], a[0], r[0])
        if all_finite(o) and all_finite(a) and all_finite(r):
            self._check(*first)
        else:
            for values in zip(o, a, r, strict=True):
                self._check(*values)
        self._store(o, a, r, terminated, seeds, success)

    def _store(
        self, o: NDArray, a: NDArray, r: NDArray, terminated: bool, seeds: Sequence[int],
        success: float | None,
    ) -> None:  # fmt: skip
        """Rows of checked episodes, [E, T+1, O], [E, T, A], [E, T], then their records."""
        if self._failed:
            raise UserError(f"an earlier write to {self.folder} failed; open a new writer")
        count, steps = r.shape
        led = np.full((count, steps + 1, self.action_dim), np.nan, "<f4")
        led[:, 1:] = a
        gained = np.full((count, steps + 1), np.nan, "<f4")
        gained[:, 1:] = r
        ends = np.zeros((count, steps + 1), "u1")
        ends[:, -1] = terminated
        rows = {"observations": o, "actions": led, "rewards": gained, "terminated": ends}
        records = np.zeros(count, INDEX_DTYPE)
        records["offset"] = self._rows + np.arange(count) * (steps + 1)
        records["length"], records["collector"] = steps, self._collector
        records["ret"] = r.sum(axis=1, dtype=np.float64)
        records["success"] = np.nan if success is None else success
        records["seed"], records["terminated"] = seeds, bool(terminated)
        # until the records are down the files' ends are unknown: after an error none may follow
        self._failed = True
        for name, values in rows.items():
            _put(self._files[name], values)
        _put(self._index, records)
        self._failed = False
        self._rows += count * (steps + 1)
        self.num_episodes += count
        self.num_steps += count * steps

    def _check(self, o: NDArray, a: NDArray, r: NDArray) -> None:
        steps = len(r)
        wanted = ((steps + 1, self.obs_dim), (steps, self.action_dim), (steps,))
        if steps < 1 or (o.shape, a.shape, r.shape) != wanted:
            raise UserError(
                f"{self.task_id}: an episode of {steps} steps needs observations, actions and "
                f"rewards of shapes {wanted}, not {(o.shape, a.shape, r.shape)}"
            )
        for name, values in (("observations", o), ("actions", a), ("rewards", r)):
            if not all_finite(values):
                bad = np.argwhere(~np.isfinite(values))[0]
                raise UserError(
                    f"{self.task_id}: {name} hold {values[tuple(bad)]} at step {bad[0]}; an "
                    "episode with values that are not finite is not stored"
                )

    def close(self) -> None:
        self._stack.close()

    def __enter__(self) -> EpisodeWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _put(handle: BinaryIO, values: NDArray) -> None:
    """Append ``values`` and wait until they are on disk."""
    handle.write(np.ascontiguousarray(values).data)
    handle.flush()
    os.fsync(handle.fileno())
