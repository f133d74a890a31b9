"""What counts as a score, and the table of scores that an evaluation ends with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from rich.table import Table

from pwm.runtime.progress import console, say

UNIT = "score = return / 10 (DMControl), 100 x success of the last step (Meta-World); at most 100"


def episode_scores(
    task: str, returns: Sequence[float], success: Sequence[float | None]
) -> list[float] | None:
    """Scores of episodes, 0 to 100; None where no such scale is agreed on.

    As for TD-MPC2's benchmarks (arXiv 2310.16828): return / 10 for DMControl, 100 x success of the
    last step for Meta-World. ``success`` is only looked at for the latter.
    """
    if task.startswith("dmc/"):
        return [value / 10.0 for value in returns]
    if task.startswith("metaworld/"):
        known = [value for value in success if value is not None]
        return [100.0 * value for value in known] if len(known) == len(success) else None
    return None


@dataclass(frozen=True)
class TaskScore:
    """Means over the episodes of one task; ``success`` and ``score`` None where not defined."""

    task: str
    mean_return: float
    success: float | None
    score: float | None

    @classmethod
    def of(cls, task: str, returns: Sequence[float], success: Sequence[float | None]) -> TaskScore:
        known = [value for value in success if value is not None]
        scores = episode_scores(task, returns, success)
        return cls(
            task,
            float(np.mean(returns)),
            float(np.mean(known)) if known else None,
            None if scores is None else float(np.mean(scores)),
        )


def suite_score(scores: Sequence[TaskScore]) -> float | None:
    """Plain mean of the scores over the tasks that have one."""
    known = [each.score for each in scores if each.score is not None]
    return float(np.mean(known)) if known else None


def print_scores(scores: Sequence[TaskScore], suite: str = "") -> None:
    """Table on stderr: a row a task, then the mean score, under the name of ``suite`` if given."""
    table = Table()
    table.add_column("task", no_wrap=True)
    for name in ("return", "success", "score"):
        table.add_column(name, justify="right", no_wrap=True)
    for each in scores:
        share = "-" if each.success is None else f"{100 * each.success:.0f} %"
        points = "-" if each.score is None else f"{each.score:.1f}"
        table.add_row(each.task, f"{each.mean_return:.1f}", share, points)
    console.print(table)
    mean = suite_score(scores)
    if mean is not None:
        count = sum(each.score is not None for each in scores)
        name = f"{suite} score" if suite else "Score"
        say(f"{name}: {mean:.1f} (mean over {count} task{'s'[: count > 1]}; {UNIT})")
