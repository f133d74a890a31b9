"""Task table of ``pwm tasks``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from pwm.envs import TaskSpec


def tasks_as_json(tasks: Sequence[TaskSpec]) -> dict[str, Any]:
    """``{"tasks": [...]}`` with the fields of the table."""
    return {"tasks": [_row(task) for task in tasks]}


def print_tasks(tasks: Sequence[TaskSpec]) -> None:
    """Readable table on stdout."""
    table = Table(title=f"{len(tasks)} tasks")
    for name in ("id", "suites", "obs", "action", "episode", "repeat", "installed"):
        table.add_column(
            name, justify="left" if name in ("id", "suites") else "right", no_wrap=True
        )
    for row in map(_row, tasks):
        status = "yes" if row["installed"] else f"no: pip install 'pwm-rl[{row['extra']}]'"
        table.add_row(
            row["id"], ", ".join(row["suites"]), str(row["obs_dim"]), str(row["action_dim"]),
            str(row["episode_length"]), str(row["action_repeat"]), status,
        )  # fmt: skip
    Console().print(table)


def _row(task: TaskSpec) -> dict[str, Any]:
    return {
        "id": task.id,
        "suites": list(task.suites),
        "obs_dim": task.obs_dim,
        "action_dim": task.action_dim,
        "episode_length": task.episode_length,
        "action_repeat": task.action_repeat,
        "installed": task.installed,
        "extra": task.extra,
    }
