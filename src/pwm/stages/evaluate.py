"""Evaluate a run in the real environment: episodes, success, videos, baselines."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pwm.envs import task_spec
from pwm.errors import UserError, nearest
from pwm.models.pretrained import Policy, policy_tasks, slug
from pwm.runtime.files import read_json, write_json, write_text
from pwm.runtime.progress import ProgressBar, say
from pwm.runtime.run_folder import RunFolder
from pwm.runtime.system import command_line, resolve_device
from pwm.seeding import stream_seed
from pwm.stages.rollout import (
    Episodes,
    episode_seeds,
    random_actions,
    record_video,
    run_episodes,
)


@dataclass(frozen=True)
class EvaluateConfig:
    """Settings of ``pwm evaluate``.

    ``seed`` chooses the evaluation episodes. The stream differs from the one that extraction
    watches during training, whatever the seeds are.
    """

    run: str = ""
    tasks: tuple[str, ...] = ()
    episodes: int = 10
    seed: int = 0
    video: bool = False
    video_size: int = 320
    random_baseline: bool = True
    device: str = "cpu"


def run(config: EvaluateConfig) -> dict[str, dict[str, list[float]]]:
    """Evaluate the deterministic policies of a run and write the results into it.

    Writes ``evaluation.json`` ({task: {seed: [returns]}}), ``evaluation.jsonl`` (a line an
    episode), ``baselines.json`` (random policy and the data's own returns),
    ``evaluation_settings.json`` (command, seed and episodes by task) and, when asked,
    ``videos/``. Tasks that are not evaluated now keep their earlier results.

    Returns:
        {task: {training seed: [episode returns]}} of the tasks evaluated now.

    Raises:
        UserError: no policy run, unknown task, nothing to evaluate.
    """
    if config.episodes < 1:
        raise UserError("--episodes must be at least 1")
    folder = RunFolder.open(config.run, stage="extract")
    tasks = _chosen_tasks(folder, config.tasks)
    device = resolve_device(config.device)
    policies = {task: Policy.from_pretrained(config.run, task, device) for task in tasks}
    for task in tasks:
        task_spec(task)
    if config.video:
        (folder.path / "videos").mkdir(exist_ok=True)
    results: dict[str, dict[str, list[float]]] = {}
    train_seed = str(folder.config["seed"])
    begin = time.monotonic()
    with ProgressBar("evaluate", len(tasks)) as bar:
        for task, policy in policies.items():
            episodes = _evaluate_task(config, folder, policy)
            results[task] = {train_seed: [float(x) for x in episodes.returns]}
            bar.advance(1, f"{task}: {episodes.returns.mean():.1f}")
    _merge(folder.path / "evaluation.json", results)
    _merge(folder.path / "evaluation_settings.json", dict.fromkeys(tasks, _settings(config)))
    seconds = time.monotonic() - begin
    say(f"{len(tasks)} task(s), {config.episodes} episodes each, in {seconds:.1f} s")
    say(
        f"Results are in {folder.path / 'evaluation.json'}. Next: pwm report {config.run} --out DIR"
    )
    return results


def _settings(config: EvaluateConfig) -> dict[str, Any]:
    """What is needed to repeat this evaluation."""
    return {"command": command_line(), "episodes": config.episodes, "seed": config.seed}


def _chosen_tasks(folder: RunFolder, wanted: tuple[str, ...]) -> list[str]:
    known = policy_tasks(folder)
    chosen = [task_spec(task).id for task in wanted] or known
    for task in chosen:
        if task not in known:
            raise UserError(f"{folder.path} has no policy for '{task}'.{nearest(task, known)}")
    return chosen


def _evaluate_task(config: EvaluateConfig, folder: RunFolder, policy: Policy) -> Episodes:
    """One task: policy episodes, random baseline, video; files are replaced atomically."""
    task, seed = policy.task, folder.config["seed"]
    seeds = episode_seeds(config.seed, f"evaluation {task}", config.episodes)
    episodes = run_episodes(task, policy.act, seeds)
    _write_episodes(folder.path / "evaluation.jsonl", task, seed, episodes)
    baselines: dict[str, Any] = {}
    data = folder.config.get("data_returns", {}).get(task)
    if data is not None:
        baselines["data"] = data
    if config.random_baseline:
        act = random_actions(policy.action_dim, stream_seed(config.seed, "random policy", task))
        baselines["random"] = [float(x) for x in run_episodes(task, act, seeds).returns]
    _merge(folder.path / "baselines.json", {task: baselines})
    if config.video:
        target = folder.path / "videos" / f"{slug(task)}.mp4"
        record_video(task, policy.act, seeds[0], target, config.video_size)
    return episodes


def _write_episodes(path: Path, task: str, seed: int, episodes: Episodes) -> None:
    """One line an episode; earlier lines of the same task are replaced."""
    lines = []
    if path.exists():
        lines = [line for line in path.read_text().splitlines() if json.loads(line)["task"] != task]
    for index, total in enumerate(episodes.returns):
        success = episodes.success[index]
        record = {
            "task": task,
            "seed": seed,
            "episode": index,
            "return": float(total),
            "success": None if np.isnan(success) else float(success),
            "length": int(episodes.lengths[index]),
            "policy": "actor",
        }
        lines.append(json.dumps(record))
    write_text(path, "\n".join(lines) + "\n")


def _merge(path: Path, new: dict[str, Any]) -> None:
    """Replace the tasks in ``new`` and keep the others."""
    old = read_json(path) if path.exists() else {}
    write_json(path, {**old, **new})
