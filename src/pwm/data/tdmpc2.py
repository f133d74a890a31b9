"""TD-MPC2's data files (``chunk_*.pt``), read in pieces and without tensordict.

A chunk is a pickled TensorDict of N episodes of T steps: ``obs`` [N, T+1, O], ``action``
[N, T+1, A], ``reward`` [N, T+1], ``task`` [N, T+1]. Row t holds o_t and the action and reward that
led to it; the action and reward of row 0 are filler (NaN or any bits) and are never read.
Observations and actions are padded with zeros to the widest task of the set. ``task`` is the index
in the list of mt30 or mt80.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, Protocol

import numpy as np
from numpy.typing import NDArray

from pwm.data.layout import all_finite
from pwm.errors import UserError
from pwm.runtime.foreign import Stub, clean, fingerprint, load_layout, place

_AXES = {"obs": 3, "action": 3, "reward": 2, "task": 2}
_BLOCK_BYTES = 64 << 20
_REPAIR = "get a fresh copy of the file, or leave that task out with --tasks"


class SourceTask(Protocol):
    """What has to be known of a task to unpad it (:class:`pwm.envs.TaskSpec` is one)."""

    @property
    def id(self) -> str: ...
    @property
    def obs_dim(self) -> int: ...
    @property
    def action_dim(self) -> int: ...


@dataclass(frozen=True)
class _Field:
    """Where the numbers of a field begin in the file, row-major from there on."""

    offset: int
    shape: tuple[int, ...]
    dtype: np.dtype


@dataclass(frozen=True)
class Episodes:
    """Unpadded episodes of one task.

    observations [E, T+1, O], actions [E, T, A], rewards [E, T], float32; row t of the last two is
    what led to observation t + 1.
    """

    observations: NDArray[np.float32]
    actions: NDArray[np.float32]
    rewards: NDArray[np.float32]


class Chunk:
    """One file. Opening looks at the shapes only; no more than a block is ever in memory.

    Attributes:
        episodes: N. steps: T. obs_dim, action_dim: padded widths. dims: the last three.
        ignored: names of further fields, which are not read.

    Raises:
        UserError: not such a file, damaged, or fields of other shapes or types.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.fingerprint = fingerprint(path)
        self.ignored: list[str] = []
        self._fields = self._load()
        shape = self._fields["obs"].shape
        self.episodes, self.steps, self.obs_dim = shape[0], shape[1] - 1, shape[2]
        self.action_dim = self._fields["action"].shape[2]
        self.dims = (self.steps, self.obs_dim, self.action_dim)
        for name, field in self._fields.items():
            if field.shape[:2] != shape[:2]:
                raise UserError(
                    f"{path}: field '{name}' has shape {field.shape}, but 'obs' {shape}; get a "
                    "fresh copy of the file"
                )
        if self.episodes < 1 or self.steps < 1:
            raise UserError(f"{path} holds no step: 'obs' has shape {shape}; leave it out")

    def task_indices(self, num_tasks: int, task_set: str) -> NDArray[np.int64]:
        """Task index of each episode, [N].

        Raises:
            UserError: an index outside the list of ``num_tasks``, or a change within an episode.
        """
        found = np.empty(self.episodes, np.int64)
        size = max(1, _BLOCK_BYTES // (8 * (self.steps + 1)))
        for begin in range(0, self.episodes, size):
            numbers = np.arange(begin, min(begin + size, self.episodes))
            block = self._read("task", numbers)
            found[numbers] = block[:, 0]
            changes = (block != block[:, :1]).any(axis=1)
            bad = changes | (block[:, 0] < 0) | (block[:, 0] >= num_tasks)
            if bad.any():
                row = int(np.argmax(bad))
                self._refuse_task(begin + row, block[row], num_tasks, task_set)
        return found

    def _refuse_task(
        self, episode: int, values: NDArray, num_tasks: int, task_set: str
    ) -> NoReturn:
        if (values != values[0]).any():
            step = int(np.argmax(values != values[0]))
            raise UserError(
                f"{self.path}: episode {episode} changes from task {values[0]} to {values[step]} "
                f"at step {step}; get a fresh copy of the file"
            )
        raise UserError(
            f"{self.path}: episode {episode} has task index {values[0]}, but {task_set} has "
            f"{num_tasks} tasks (0 to {num_tasks - 1}); get a fresh copy of the file"
        )

    def episodes_of(self, numbers: NDArray[np.int64], task: SourceTask) -> Episodes:
        """Episodes ``numbers`` [E] (ascending), all of ``task``; checked and unpadded.

        Raises:
            UserError: padding that is not zero or a value that is not finite, by file, episode and
                step.
        """
        o = self._checked("obs", 0, task.obs_dim, numbers, task)
        a = self._checked("action", 1, task.action_dim, numbers, task)
        r = self._checked("reward", 1, 0, numbers, task)
        return Episodes(o, a, r)

    def _checked(
        self, name: str, first: int, width: int, numbers: NDArray[np.int64], task: SourceTask
    ) -> NDArray[np.float32]:
        """Rows from ``first`` on, without padding, [E, T+1-first, ...]."""
        rows = self._read(name, numbers)[:, first:]
        values = np.ascontiguousarray(rows[..., :width] if rows.ndim == 3 else rows)
        if rows.ndim == 3 and (padding := rows[..., width:]).any():
            at = np.argwhere(padding != 0)[0]
            self._refuse(name, numbers[at[0]], at[1] + first, task,
                         f"{padding[tuple(at)]} in the padding behind its {width} numbers, which "
                         "must be zero")  # fmt: skip
        if not all_finite(values):
            at = np.argwhere(~np.isfinite(values))[0]
            self._refuse(name, numbers[at[0]], at[1] + first, task, f"{values[tuple(at)]}")
        return values

    def _refuse(self, name: str, episode: int, step: int, task: SourceTask, what: str) -> NoReturn:
        raise UserError(
            f"{self.path}: field '{name}' of episode {episode} ({task.id}) holds {what} at step "
            f"{step}; {_REPAIR}"
        )

    def _read(self, name: str, numbers: NDArray[np.int64]) -> NDArray:
        """Episodes ``numbers`` of one field, [E, T+1, ...].

        Read, not mapped: mapped pages count as this process's memory, whole files of them.
        """
        field = self._fields[name]
        out = np.empty((len(numbers), *field.shape[1:]), field.dtype)
        size = out[0].nbytes
        # one read for each run of consecutive episodes
        borders = np.flatnonzero(np.diff(numbers) != 1) + 1
        try:
            with self.path.open("rb") as handle:
                for part in np.split(np.arange(len(numbers)), borders):
                    handle.seek(field.offset + int(numbers[part[0]]) * size)
                    wanted = out[part[0] : part[-1] + 1]
                    if handle.readinto(wanted.data.cast("B")) != wanted.nbytes:
                        raise OSError(0, "it became shorter")
        except OSError as error:
            raise UserError(
                f"{self.path} can't be read any more ({error.strerror}); mend that and go on with "
                "--resume"
            ) from None
        return out

    def _load(self) -> dict[str, _Field]:
        """Where the four fields are; sets ``ignored``."""
        content = load_layout(self.path, _STUBS)
        if isinstance(content, _TensorDict):
            content = vars(content).get("_tensordict")
        if not isinstance(content, dict):
            raise UserError(
                f"{self.path} holds no TensorDict but a {type(content).__name__}; give TD-MPC2's "
                "chunk_*.pt files"
            )
        missing = [name for name in _AXES if name not in content]
        if missing:
            raise UserError(
                f"{self.path} lacks the field{'s' if len(missing) > 1 else ''} "
                f"{', '.join(missing)}; give TD-MPC2's chunk_*.pt files"
            )
        self.ignored = sorted(clean(str(name)) for name in content if name not in _AXES)
        return {name: self._field(name, content[name]) for name in _AXES}

    def _field(self, name: str, value: Any) -> _Field:
        import torch

        floats = {torch.float32: np.dtype("<f4")}
        integers = {
            getattr(torch, kind): np.dtype(kind) for kind in ("int8", "int16", "int32", "int64")
        }
        kinds = integers if name == "task" else floats
        if isinstance(value, torch.Tensor) and value.layout == torch.strided:
            if value.dim() == _AXES[name] and value.dtype in kinds:
                return _Field(place(self.path, value), tuple(value.shape), kinds[value.dtype])
            found = f"{value.dtype} {tuple(value.shape)}"
        else:
            found = type(value).__name__.lstrip("_")
        raise UserError(
            f"{self.path}: field '{name}' must be {'integers' if name == 'task' else 'float32'} "
            f"with {_AXES[name]} axes, not {found}; give TD-MPC2's chunk_*.pt files"
        )


def blocks(chunk: Chunk, numbers: NDArray[np.int64], task: SourceTask) -> Iterator[Episodes]:
    """Episodes ``numbers`` of ``task``, in that order, so many at a time as fit a block."""
    row = 4 * (chunk.obs_dim + chunk.action_dim + 1)
    size = max(1, _BLOCK_BYTES // (row * (chunk.steps + 1)))
    for begin in range(0, len(numbers), size):
        yield chunk.episodes_of(numbers[begin : begin + size], task)


class _TensorDict(Stub):
    """Stands in for TensorDict: the tensors are the dict in its attribute ``_tensordict``."""


def _make_td(kind: Any, state: Any) -> _TensorDict:
    """What newer files call to make a TensorDict."""
    if kind is not _TensorDict:
        raise ValueError("not a TensorDict")
    made = _TensorDict()
    made.__setstate__(state)
    return made


# Seen in files of tensordict 0.0.3, 0.1.2, 0.2.1, 0.3.2, 0.4.0, 0.5.0, 0.6.2, 0.8.3, 0.9.1, 0.10.0,
# 0.12.4, 0.14.3, 0.15.0 and 0.15.3, all of which were read.
_STUBS: dict[str, Callable[..., Any]] = {
    "tensordict.tensordict.TensorDict": _TensorDict,  # up to 0.2
    "tensordict._td.TensorDict": _TensorDict,  # since 0.3
    "tensordict.utils._StringOnlyDict": dict,  # 0.2 to 0.4
    "tensordict._reductions._make_td": _make_td,  # since 0.5
    "tensordict.utils._LockedSchema": tuple,  # since 0.13, of a locked TensorDict
}


def expand(paths: Sequence[str]) -> list[Path]:
    """Files as they are, and the ``chunk_*.pt`` of folders in the order of their numbers.

    Raises:
        UserError: a folder without such files, or a file given twice.
    """
    found: list[Path] = []
    for path in map(Path, paths):
        if not path.is_dir():
            found.append(path)
            continue
        inside = sorted(path.glob("chunk_*.pt"), key=lambda p: (len(p.name), p.name))
        if not inside:
            raise UserError(f"folder {path} holds no chunk_*.pt; give TD-MPC2's data files")
        found += inside
    if len({path.resolve() for path in found}) < len(found):
        raise UserError("the same data file is given twice; give each once")
    return found
