"""What a data set holds: a table, JSON, and a picture of its returns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from pwm.data.dataset import EpisodeDataset, TaskData, best_tenth_mean
from pwm.errors import MissingExtra

_BARS = " ▁▂▃▄▅▆▇█"


def describe(path: str | Path) -> dict[str, Any]:
    """``{"path", "tasks": [{id, episodes, steps, returns, bytes, ...}]}``, ready for JSON.

    Raises:
        UserError: no readable data set.
    """
    dataset = EpisodeDataset.open(path)
    return {"path": str(path), "tasks": [_row(task) for task in dataset.tasks.values()]}


def print_table(path: str | Path) -> None:
    """Readable table on stdout, with a histogram of the returns of each task."""
    table = Table(title=f"Data set {path}")
    left = ("task", "collectors", "returns, low to high")
    for name in ("task", "obs", "act", "episodes", "steps", "min", "mean", "max", "best tenth",
                 "size", "collectors", "returns, low to high"):  # fmt: skip
        table.add_column(name, justify="left" if name in left else "right", no_wrap=True)
    rows = describe(path)["tasks"]
    for row in rows:
        returns = row["returns"]
        table.add_row(
            row["id"] + ("*" if row["pieces_of"] else ""), str(row["obs_dim"]),
            str(row["action_dim"]), str(row["episodes"]),
            str(row["steps"]), f"{returns['min']:.1f}", f"{returns['mean']:.1f}",
            f"{returns['max']:.1f}", f"{returns['best_tenth']:.1f}", _size(row["bytes"]),
            ", ".join(row["collectors"]), _bars(row["histogram"]["counts"]),
        )  # fmt: skip
    if any(row["pieces_of"] for row in rows):
        table.caption = "* pieces of longer episodes; the returns are those of the pieces"
    # A log or a pipe has no width of its own: give the whole table.
    console = Console()
    if not console.is_terminal:
        console = Console(width=200)
    console.print(table)


def save_histogram(path: str | Path, picture: str | Path) -> None:
    """Draw the distribution of returns, a panel a task.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    tasks = EpisodeDataset.open(path).tasks
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingExtra("matplotlib", "report") from None
    figure = Figure(figsize=(5, 2.2 * len(tasks)), layout="constrained")
    for axes, task in zip(np.ravel(figure.subplots(len(tasks), 1)), tasks.values(), strict=True):
        axes.hist(task.returns, bins=30, color="#4477aa")
        axes.axvline(task.returns.mean(), color="#cc3311", label="mean")
        axes.axvline(best_tenth_mean(task.returns), color="#228833", label="best tenth")
        axes.set(title=f"{task.id}: {task.num_episodes} episodes", ylabel="episodes")
        axes.legend(frameon=False)
    axes.set_xlabel("return of an episode")
    figure.savefig(picture, dpi=120)


def _row(task: TaskData) -> dict[str, Any]:
    returns = task.returns
    counts, edges = np.histogram(returns, bins=20)
    return {
        "id": task.id,
        "obs_dim": task.obs_dim,
        "action_dim": task.action_dim,
        "episode_length": task.episode_length,
        "pieces_of": task.pieces_of,
        "episodes": task.num_episodes,
        "steps": task.num_steps,
        "terminated": int(task.ended.sum()),
        "returns": {
            "min": float(returns.min()),
            "mean": float(returns.mean()),
            "max": float(returns.max()),
            "best_tenth": best_tenth_mean(returns),
        },
        "histogram": {"counts": counts.tolist(), "edges": edges.tolist()},
        "success": _mean_or_none(task.success),
        "bytes": task.num_bytes,
        "collectors": [task.collectors[i] for i in np.unique(task.collector_ids)],
        "seeds": np.unique(task.seeds)[:100].tolist(),
    }


def _mean_or_none(values: NDArray[np.float64]) -> float | None:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else None


def _bars(counts: list[int]) -> str:
    top = max(counts)
    # Any episode at all shows: only a count of zero is blank.
    return "".join(_BARS[-(-count * (len(_BARS) - 1) // top)] for count in counts)


def _size(count: int) -> str:
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000 or unit == "GB":
            break
        value /= 1000
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
