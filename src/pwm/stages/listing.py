"""Task table of ``pwm tasks``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from pwm.envs import TaskSpec


def tasks_as_json(tasks: Sequence[TaskSpec]) -> dict[str, Any]:
    """``{"tasks": [...]}`` with the fields of the table."""
    return {"tasks": [_row(task) for task in tasks]}


def print_tasks(tasks: Sequence[TaskSpec]) -> None:
    """Readable table on stdout, narrow enough for a terminal of 80 columns."""
    table = Table(title=f"{len(tasks)} tasks", box=box.SIMPLE_HEAD, show_edge=False, padding=0)
    for name in ("id", "suites", "obs", "act", "steps", "installed"):
        table.add_column(
            name, justify="left" if name in ("id", "suites") else "right", no_wrap=True
        )
    for task in tasks:
        table.add_row(
            task.id, ", ".join(task.suites), str(task.obs_dim), str(task.action_dim),
            str(task.episode_length or "-"), "yes" if task.installed else "no",
        )  # fmt: skip
    console = Console()
    console.print(table)
    for extra in sorted({str(task.extra) for task in tasks if not task.installed}):
        console.print(f"To install what lacks: pip install 'pwm-rl[{extra}]'", markup=False)


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
