"""Scores and intervals of evaluated tasks."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pwm.errors import UserError
from pwm.runtime.files import read_json
from pwm.runtime.run_folder import RunFolder
from pwm.stages.score_table import UNIT, episode_scores
from pwm.stages.statistics import iqm, percentile_interval, resampled, stratified_bootstrap


@dataclass(frozen=True)
class Evaluated:
    """One policy of a run: its "actor", or its world model's "plan" or "prior"."""

    run: RunFolder
    policy: str

    @property
    def path(self) -> Path:
        """Folder of the results."""
        return self.run.results(self.policy)

    @property
    def command(self) -> str:
        """What evaluates it."""
        chosen = "" if self.policy == "actor" else f" --policy {self.policy}"
        return f"pwm evaluate {self.run.path}{chosen}"


@dataclass
class TaskResult:
    """Evaluated episodes of one kind of policy in one task over all runs that hold it.

    Attributes:
        policy: "actor", "plan" or "prior".
        returns: {training seed: [episode returns]}.
        success: {training seed: [success of each episode's last step]}, None where the task
            reports none.
        random: returns of the random policy's episodes, of all runs together.
        data: {"episodes", "mean", "min", "max", "best_tenth"} of the data, None when not recorded.
        data_differs: the runs were extracted from data with other returns than ``data``.
        sources: the runs and where their results are.
    """

    task: str
    policy: str = "actor"
    returns: dict[str, list[float]] = field(default_factory=dict)
    success: dict[str, list[float | None]] = field(default_factory=dict)
    random: list[float] = field(default_factory=list)
    data: dict[str, Any] | None = None
    data_differs: bool = False
    sources: list[Evaluated] = field(default_factory=list)

    def seed_means(self) -> list[float]:
        return [float(np.mean(values)) for values in self.returns.values()]

    def scores(self) -> list[NDArray[np.float64]] | None:
        """Episode scores [E] of each training seed; None for a task without scores."""
        found = [
            episode_scores(self.task, returns, self.success[seed])
            for seed, returns in self.returns.items()
        ]
        known = [np.array(values) for values in found if values is not None]
        return known if len(known) == len(found) else None


def collect_results(sources: Sequence[Evaluated]) -> list[TaskResult]:
    """Evaluated returns by task and kind of policy, in order of first appearance.

    Raises:
        UserError: a run without evaluation, or the same task, policy and seed in two runs.
    """
    results: dict[tuple[str, str], TaskResult] = {}
    origin: dict[tuple[str, str, str], Path] = {}
    for source in sources:
        success = _successes(source)
        for task, seeds in _evaluation(source).items():
            result = results.setdefault((task, source.policy), TaskResult(task, source.policy))
            for seed, returns in seeds.items():
                known = origin.setdefault((task, source.policy, seed), source.path)
                if known != source.path:
                    raise UserError(
                        f"{known} and {source.path} both hold {task} with seed {seed}; give one of "
                        "them, or extract with another --seed"
                    )
                result.returns[seed] = returns
                result.success[seed] = success.get((task, seed), [None] * len(returns))
                _require_success(source, task, result.success[seed], len(returns))
            result.sources.append(source)
            _add_baselines(result, source)
    order = list(dict.fromkeys(task for task, _ in results))
    return sorted(results.values(), key=lambda result: order.index(result.task))


def _evaluation(source: Evaluated) -> dict[str, dict[str, list[float]]]:
    path = source.path / "evaluation.json"
    if not path.exists():
        raise UserError(f"{source.run.path} is not evaluated yet; run: {source.command}")
    values = read_json(path)
    shaped = isinstance(values, dict) and all(
        isinstance(seeds, dict) and seeds and all(_is_returns(x) for x in seeds.values())
        for seeds in values.values()
    )
    if not shaped or not values:
        raise UserError(
            f"{path} is not {{task: {{seed: [finite returns]}}}}; "
            f"delete it and run: {source.command}"
        )
    return values


def _successes(source: Evaluated) -> dict[tuple[str, str], list[float | None]]:
    """{(task, training seed): success of each episode}; empty without the file."""
    path = source.path / "evaluation.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    found: dict[tuple[str, str], list[float | None]] = {}
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
            value = None if record["success"] is None else float(record["success"])
            if value is not None and not 0 <= value <= 1:
                raise ValueError
            found.setdefault((str(record["task"]), str(record["seed"])), []).append(value)
        except (ValueError, KeyError, TypeError):
            raise UserError(
                f"{path}, line {number} is damaged; delete it and run: {source.command}"
            ) from None
    return found


def _require_success(
    source: Evaluated, task: str, success: list[float | None], episodes: int
) -> None:
    """Meta-World's score is the success, which must not be a mere part of the episodes'."""
    if task.startswith("metaworld/") and (len(success) != episodes or None in success):
        raise UserError(
            f"{source.path / 'evaluation.jsonl'} does not hold the success of the {episodes} "
            f"episodes of {task}; run: {source.command} --tasks {task}"
        )


def _is_returns(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) > 0
        and all(isinstance(x, int | float) and math.isfinite(x) for x in value)
    )


def _add_baselines(result: TaskResult, source: Evaluated) -> None:
    """What the policy is compared with: the first run's data, the random episodes of all runs."""
    path = source.path / "baselines.json"
    found = (read_json(path) if path.exists() else {}).get(result.task, {})
    result.random += found.get("random") or []
    data = found.get("data") or (source.run.config.get("data_returns") or {}).get(result.task)
    if data is not None and result.data is None:
        result.data = data
    elif data is not None and data != result.data:
        result.data_differs = True


def task_row(result: TaskResult, seed: int, resamples: int) -> dict[str, Any]:
    """Headline numbers of one task, ready for JSON.

    The interval is a bootstrap over seeds, or over the episodes of the only seed; None when there
    is a single number.
    """
    several = len(result.returns) > 1
    values = result.seed_means() if several else next(iter(result.returns.values()))
    mean = float(np.mean(result.seed_means()))
    interval = None
    if len(values) > 1:
        interval = list(stratified_bootstrap([values], _mean, resamples, seed))
    data, scores = result.data, result.scores()
    random = float(np.mean(result.random)) if result.random else None
    return {
        "task": result.task,
        "policy": result.policy,
        "seeds": len(result.returns),
        "episodes": sum(len(x) for x in result.returns.values()),
        "return": mean,
        "interval": interval,
        "interval_over": "seeds" if several else "episodes",
        "score": None if scores is None else float(np.mean([x.mean() for x in scores])),
        "random": random,
        "times_random": _ratio(mean, random),
        "beats_random": None if random is None else mean > random,
        "data": data,
        "data_differs": result.data_differs,
        "times_data_mean": _ratio(mean, data["mean"]) if data else None,
        "share_of_best_tenth": _ratio(mean, data["best_tenth"]) if data else None,
        "beats_data_mean": mean > data["mean"] if data else None,
        "beats_data_mean_clearly": interval[0] > data["mean"] if data and interval else None,
        "beats_best_tenth": mean > data["best_tenth"] if data else None,
        "success": _mean_success(result),
    }


def aggregate(results: Sequence[TaskResult], seed: int, resamples: int) -> dict[str, Any] | None:
    """IQM of the scores over all tasks and seeds, with a 95 % stratified-bootstrap interval.

    ``mean`` is the plain mean over the tasks, which benchmarks of task sets report.
    Strata are the tasks. With several seeds the seeds of a task are drawn again; if any task has
    one seed only, the episodes of each run are, which says nothing about the spread over seeds
    and is labelled so. None without a task whose scores are comparable.
    """
    scored = [scores for result in results if (scores := result.scores()) is not None]
    if not scored:
        return None
    seeds = [len(scores) for scores in scored]
    means = [np.array([x.mean() for x in scores]) for scores in scored]
    runs = [x for scores in scored for x in scores]
    several = min(seeds) > 1
    interval: tuple[float, float] | None = None
    if several:
        interval = stratified_bootstrap(means, iqm, resamples, seed)
    elif max(len(x) for x in runs) > 1:
        drawn = [x.mean(-1) for x in resampled(runs, resamples, seed)]
        interval = percentile_interval(iqm(np.stack(drawn, axis=-1)))
    return {
        "iqm": float(iqm(np.concatenate(means))),
        "mean": float(np.mean([values.mean() for values in means])),
        "interval": None if interval is None else list(interval),
        "interval_over": "seeds" if several else "episodes",
        "tasks": len(scored),
        "seeds": min(seeds),
        "seeds_most": max(seeds),
        "unit": UNIT,
    }


def _mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return values.mean(axis=-1)


def _ratio(value: float, base: float | None) -> float | None:
    """Ratio of returns; None where it would mean nothing."""
    return value / base if base is not None and base > 0 else None


def _mean_success(result: TaskResult) -> float | None:
    """Mean success over the task's episodes, None for tasks that do not define it."""
    values = [x for success in result.success.values() for x in success if x is not None]
    return float(np.mean(values)) if values else None
