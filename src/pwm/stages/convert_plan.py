"""Which episodes of TD-MPC2's data files are converted: files opened, sorted by task, checked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pwm.data.layout import INDEX_DTYPE, columns, row_bytes
from pwm.data.tdmpc2 import Chunk, expand
from pwm.envs import TaskSpec, list_tasks, task_spec
from pwm.errors import UserError

TASK_SETS = ("mt30", "mt80")


@dataclass
class Plan:
    """What is to be copied: the episodes of each task in each file, in order."""

    chunks: list[Chunk]
    task_set: str
    episodes: dict[str, list[NDArray[np.int64]]]

    @property
    def steps(self) -> int:
        """Steps of an episode."""
        return self.chunks[0].steps

    def count(self, task: str) -> int:
        return sum(len(numbers) for numbers in self.episodes[task])

    @cached_property
    def total_steps(self) -> int:
        return self.steps * sum(self.count(task) for task in self.episodes)

    def bytes_of(self, task: str, episodes: int) -> int:
        spec = task_spec(task)
        row = sum(row_bytes(*c) for c in columns(spec.obs_dim, spec.action_dim).values())
        return episodes * ((self.steps + 1) * row + INDEX_DTYPE.itemsize)

    def settings(self) -> dict[str, Any]:
        """What must be the same to resume."""
        files = [{"name": c.path.name, "fingerprint": c.fingerprint} for c in self.chunks]
        return {"task_set": self.task_set, "tasks": list(self.episodes), "files": files}


def make_plan(files: Sequence[str], tasks: Sequence[str], task_set: str) -> Plan:
    """Open all files and sort their episodes by task; only shapes and task indices are read.

    Args:
        files: data files or folders of them.
        tasks: ids or aliases, all that occur when empty.
        task_set: "mt30", "mt80" or "" to find it from the width of the observations.

    Raises:
        UserError: damaged, hostile or other files, files that don't belong together, tasks that
            they don't hold.
    """
    chunks = [Chunk(path) for path in expand(files)]
    _check_alike(chunks)
    task_set = _task_set(chunks[0], task_set)
    specs = list_tasks(task_set)
    wanted = _wanted(tasks, specs, task_set)
    indices = [chunk.task_indices(len(specs), task_set) for chunk in chunks]
    found = {
        spec.id: [np.flatnonzero(index == number) for index in indices]
        for number, spec in enumerate(specs)
    }
    present = {id_: parts for id_, parts in found.items() if any(map(len, parts))}
    if absent := [id_ for id_ in wanted if id_ not in present]:
        raise UserError(
            f"the files hold no episode of {', '.join(absent)}; they hold: {', '.join(present)}"
        )
    plan = Plan(chunks, task_set, {i: p for i, p in present.items() if i in wanted or not wanted})
    for id_ in plan.episodes:
        limit = task_spec(id_).episode_length
        if limit is not None and plan.steps > limit:
            raise UserError(
                f"{chunks[0].path}: {id_} has episodes of {limit} steps, not {plan.steps}; get a "
                "fresh copy of the file, or leave the task out with --tasks"
            )
    return plan


def _check_alike(chunks: Sequence[Chunk]) -> None:
    seen: dict[str, Chunk] = {}
    first = chunks[0]
    for chunk in chunks:
        if chunk.dims != first.dims:
            raise UserError(
                f"{chunk.path} holds episodes of (steps, obs, action) {chunk.dims}, but "
                f"{first.path} {first.dims}; convert them into data sets of their own"
            )
        other = seen.setdefault(chunk.fingerprint, chunk)
        if other is not chunk:
            raise UserError(f"{chunk.path} and {other.path} hold the same; give one of them")


def _task_set(chunk: Chunk, given: str) -> str:
    """Name of the set whose padded dims are the file's."""
    if given and given not in TASK_SETS:
        raise UserError(f"--task-set is {' or '.join(TASK_SETS)}, not '{given}'")
    dims, longest = {}, 0
    for name in TASK_SETS:
        specs = list_tasks(name)
        dims[max(s.obs_dim for s in specs), max(s.action_dim for s in specs)] = name
        longest = max(longest, *(s.episode_length or 0 for s in specs))
    found = dims.get(chunk.dims[1:])
    if found is None or (given and found != given):
        known = ", ".join(f"{name}: {shape}" for shape, name in dims.items())
        raise UserError(
            f"{chunk.path}: (obs, action) widths {chunk.dims[1:]} are not those of "
            f"{given or 'a known task set'} ({known}); give files of that set"
            + (f", or --task-set {found}" if found else "")
        )
    if chunk.steps > longest:
        raise UserError(
            f"{chunk.path} holds episodes of {chunk.steps} steps, but no task of {found} has more "
            f"than {longest}; give TD-MPC2's chunk_*.pt files"
        )
    return found


def _wanted(given: Sequence[str], specs: Sequence[TaskSpec], task_set: str) -> list[str]:
    """Canonical ids of the tasks asked for, checked against the set."""
    wanted = [task_spec(name).id for name in given]
    for id_ in wanted:
        if id_ not in [spec.id for spec in specs]:
            raise UserError(f"task {id_} is not in {task_set}; see: pwm tasks --suite {task_set}")
    return wanted
