"""File layout of a data set and the small records that its readers and writer share.

    DIR/dataset.json                  format version
    DIR/tasks/<slug>/task.json        id, dims, episode length, collectors
    DIR/tasks/<slug>/*.bin            raw little-endian rows: observations, actions, rewards,
                                      terminated
    DIR/tasks/<slug>/index.bin        one record an episode, written last: the commit

An episode of T steps takes T + 1 rows. Row t holds o_t and the action, reward and terminated flag
that led to it; the action and reward of row 0 are filler (NaN) and are never read.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from pwm.errors import UserError

FORMAT = 1

INDEX_DTYPE = np.dtype(
    [
        ("offset", "<i8"),
        ("length", "<i4"),
        ("collector", "<i4"),
        ("ret", "<f8"),
        ("success", "<f8"),
        ("seed", "<i8"),
        ("terminated", "<i8"),
    ]
)


def slug(task_id: str) -> str:
    """Task id as a folder name: ``dmc/walker-walk`` -> ``dmc__walker-walk``."""
    return task_id.replace("/", "__")


def columns(obs_dim: int, action_dim: int) -> dict[str, tuple[np.dtype, tuple[int, ...]]]:
    """File stem -> (dtype, shape of one row)."""
    f4 = np.dtype("<f4")
    return {
        "observations": (f4, (obs_dim,)),
        "actions": (f4, (action_dim,)),
        "rewards": (f4, ()),
        "terminated": (np.dtype("u1"), ()),
    }


def row_bytes(dtype: np.dtype, shape: tuple[int, ...]) -> int:
    return dtype.itemsize * int(np.prod(shape, dtype=np.int64))


def all_finite(values: np.ndarray) -> bool:
    """Whether no value is NaN or infinite; quick when that is so.

    One such value makes the sum one too. The sum of finite values can overflow: look closer then.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        return bool(np.isfinite(values.sum(dtype=values.dtype)) or np.isfinite(values).all())


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object; UserError names the file when it is missing or damaged."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; is this a data set folder?") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid JSON ({error}); restore it") from None
    if not isinstance(value, dict):
        raise UserError(f"{path} holds no JSON object; restore it")
    return value


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Replace the file in one step."""
    # dataset.json has no lock: two writers of different tasks may make it at the same time
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with temporary.open("w", encoding="utf-8") as handle:
        json.dump(value, handle, indent=2)
        handle.write("\n")
        handle.flush()
        os.fsync(handle.fileno())
    os.replace(temporary, path)


def read_format(folder: Path) -> None:
    """Check that ``folder`` is a data set of a version that can be read."""
    if not folder.is_dir():
        raise UserError(f"data set {folder} does not exist")
    if not any(folder.iterdir()):
        raise UserError(f"data set {folder} is empty; fill it with pwm collect")
    found = read_json(folder / "dataset.json").get("format")
    if found != FORMAT:
        raise UserError(
            f"{folder / 'dataset.json'}: field 'format' is {found!r}, this version of pwm reads "
            f"{FORMAT}"
        )


def holds_task(folder: Path) -> bool:
    """Whether a task was begun here: a writer makes task.json before any other file."""
    return (folder / "task.json").exists() or any(folder.glob("*.bin"))


def read_task(folder: Path) -> dict[str, Any]:
    """task.json with its fields checked."""
    path = folder / "task.json"
    facts = read_json(path)
    for name, kinds in (("id", str), ("obs_dim", int), ("action_dim", int), ("collectors", list)):
        if not isinstance(facts.get(name), kinds):
            raise UserError(f"{path}: field '{name}' is missing or not {kinds.__name__}")
    if facts["obs_dim"] < 1 or facts["action_dim"] < 1:
        raise UserError(f"{path}: obs_dim and action_dim must be at least 1")
    if slug(facts["id"]) != folder.name:
        raise UserError(f"{path}: field 'id' is '{facts['id']}', which the folder is not named for")
    return facts


def read_index(folder: Path) -> np.ndarray:
    """Complete episode records; a record that a kill cut off is ignored.

    Raises:
        UserError: rows without an index. A writer makes the index before it writes rows, and would
            cut all of them off if a lost index passed for an empty one.
    """
    path = folder / "index.bin"
    if not path.exists():
        if any(rows.stat().st_size for rows in folder.glob("*.bin")):
            raise UserError(f"{path} does not exist, but rows beside it do; restore it")
        return np.empty(0, INDEX_DTYPE)
    usable = path.stat().st_size // INDEX_DTYPE.itemsize
    return np.fromfile(path, INDEX_DTYPE, count=usable)


def check_index(folder: Path, index: np.ndarray, collectors: int) -> None:
    """The records must describe rows that follow each other without a gap."""
    steps = index["length"].astype(np.int64) + 1
    expected = np.cumsum(steps) - steps
    if len(index) and ((index["length"] < 1).any() or (index["offset"] != expected).any()):
        episode = int(np.argmax((index["length"] < 1) | (index["offset"] != expected)))
        raise UserError(f"{folder / 'index.bin'} is damaged at episode {episode}; restore it")
    if len(index) and not (0 <= index["collector"].min() <= index["collector"].max() < collectors):
        raise UserError(f"{folder / 'index.bin'} names a collector that task.json does not list")


def check_size(path: Path, needed: int) -> None:
    """UserError when a file of rows is missing or shorter than the index promises."""
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        if needed == 0:
            return
        raise UserError(f"{path} does not exist; restore the data set") from None
    if size < needed:
        raise UserError(
            f"{path} is truncated: {size} bytes, but the index promises {needed}; restore it"
        )
