"""Scores and intervals of evaluated tasks."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pwm.runtime.run_folder import RunFolder
from pwm.stages.statistics import bootstrap_interval, iqm, percentile_interval, resampled


@dataclass
class TaskResult:
    """Evaluated episodes of one task: ``returns`` {seed: [episode returns]}, ``baselines``
    {"random": [...], "data": {...}} and the run folders that they come from."""

    task: str
    returns: dict[str, list[float]]
    baselines: dict[str, Any]
    folders: list[RunFolder]

    def seed_means(self) -> list[float]:
        return [float(np.mean(values)) for values in self.returns.values()]


def normaliser(task: str) -> float | None:
    """Return that counts as a score of 1, or None where no such scale is agreed on."""
    return 10.0 if task.startswith("dmc/") else None


def task_row(result: TaskResult, seed: int, resamples: int) -> dict[str, Any]:
    """Headline numbers of one task, ready for JSON.

    The interval is a bootstrap over seeds, or over the episodes of the only seed.
    """
    several = len(result.returns) > 1
    values = result.seed_means() if several else next(iter(result.returns.values()))
    mean = float(np.mean(result.seed_means()))
    low, high = bootstrap_interval([values], _mean, resamples=resamples, seed=seed)
    data = result.baselines.get("data")
    random = result.baselines.get("random")
    scale = normaliser(result.task)
    return {
        "task": result.task,
        "seeds": len(result.returns),
        "episodes": sum(len(values) for values in result.returns.values()),
        "return": mean,
        "interval": [low, high],
        "interval_over": "seeds" if several else "episodes",
        "score": None if scale is None else mean / scale,
        "random": None if random is None else float(np.mean(random)),
        "data": data,
        "times_data_mean": _ratio(mean, data["mean"]) if data else None,
        "share_of_best_tenth": _ratio(mean, data["best_tenth"]) if data else None,
        "beats_data_mean": mean > data["mean"] if data else None,
        "beats_best_tenth": mean > data["best_tenth"] if data else None,
        "success": _success(result),
    }


def aggregate(results: Sequence[TaskResult], seed: int, resamples: int) -> dict[str, Any] | None:
    """IQM of the scores over all tasks and seeds, with a 95 % stratified-bootstrap interval.

    Strata are the tasks. With several seeds the seeds of a task are drawn again; with one seed its
    episodes are, which says nothing about the spread over seeds and is labelled so.
    """
    scored = [r for r in results if normaliser(r.task) is not None]
    if not scored:
        return None
    several = all(len(r.returns) > 1 for r in scored)
    scales = [normaliser(r.task) or 1.0 for r in scored]
    means = [np.array(r.seed_means()) / s for r, s in zip(scored, scales, strict=True)]
    if several:
        interval = bootstrap_interval(means, resamples=resamples, seed=seed)
    else:
        episodes = [
            np.concatenate([np.asarray(v) for v in r.returns.values()]) / s
            for r, s in zip(scored, scales, strict=True)
        ]
        drawn = [values.mean(-1) for values in resampled(episodes, resamples, seed)]
        interval = percentile_interval(iqm(np.stack(drawn, axis=-1)))
    return {
        "iqm": float(iqm(np.concatenate(means))),
        "interval": list(interval),
        "interval_over": "seeds" if several else "episodes",
        "tasks": len(scored),
        "seeds": min(len(r.returns) for r in scored),
        "unit": "score = return / 10, at most 100",
    }


def _mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return values.mean(axis=-1)


def _ratio(value: float, base: float) -> float | None:
    """Ratio of returns; None where it would mean nothing."""
    return value / base if base > 0 else None


def _success(result: TaskResult) -> float | None:
    """Mean success over the task's episodes, None for tasks that do not define it."""
    values: list[float] = []
    for folder in result.folders:
        path = folder.path / "evaluation.jsonl"
        if path.exists():
            lines = (json.loads(line) for line in path.read_text().splitlines())
            values += [
                line["success"]
                for line in lines
                if line["task"] == result.task and line["success"] is not None
            ]
    return float(np.mean(values)) if values else None
