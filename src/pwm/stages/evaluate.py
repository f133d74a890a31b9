"""Evaluate a run in the real environment: episodes, success, videos, baselines."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pwm.algorithms.planner import PlannerConfig
from pwm.envs import task_spec
from pwm.errors import UserError, nearest
from pwm.models.pretrained import slug
from pwm.runtime.files import read_json, write_json, write_text
from pwm.runtime.progress import ProgressBar, say
from pwm.runtime.run_folder import RunFolder
from pwm.runtime.system import command_line, resolve_device
from pwm.seeding import stream_seed
from pwm.stages.agents import Agent, AgentConfig, agent_tasks, default_policy, load_agent
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

    ``policy`` is "actor" (of a policy run), "plan" or "prior" (of a world model with Q heads and a
    policy prior), or "auto": actor or plan, by the kind of run. ``plan_iterations`` 0 means 6, or
    8 from 20 action dims on. ``compile`` concerns the planner.
    """

    run: str = ""
    tasks: tuple[str, ...] = ()
    policy: str = "auto"
    episodes: int = 10
    seed: int = 0
    video: bool = False
    video_size: int = 320
    random_baseline: bool = True
    plan_horizon: int = 3
    plan_iterations: int = 0
    plan_samples: int = 512
    compile: bool = False
    device: str = "cpu"


def run(config: EvaluateConfig) -> dict[str, dict[str, list[float]]]:
    """Evaluate the deterministic policies of a run and write the results into it.

    Results of planning and of the prior go into the subfolder ``plan`` or ``prior``. Writes
    ``evaluation.json`` ({task: {seed: [returns]}}), ``evaluation.jsonl`` (a line an episode),
    ``baselines.json`` (random policy and the data's own returns), ``evaluation_settings.json``
    (command, seed and episodes by task) and, when asked, ``videos/``. Tasks that are not evaluated
    now keep their earlier results.

    Returns:
        {task: {training seed: [episode returns]}} of the tasks evaluated now.

    Raises:
        UserError: no policy run, unknown task, nothing to evaluate.
    """
    if config.episodes < 1:
        raise UserError("--episodes must be at least 1")
    folder = RunFolder.open(config.run)
    policy = default_policy(folder) if config.policy == "auto" else config.policy
    config = replace(config, policy=policy, device=resolve_device(config.device))
    tasks = _chosen_tasks(folder, config)
    agents = {task: load_agent(config.run, task, agent_config(config)) for task in tasks}
    for task in tasks:
        task_spec(task)
    out = results_folder(folder, policy)
    (out / "videos" if config.video else out).mkdir(exist_ok=True)
    results: dict[str, dict[str, list[float]]] = {}
    train_seed = str(folder.config["seed"] or 0)
    begin = time.monotonic()
    with ProgressBar("evaluate", len(tasks)) as bar:
        for task, agent in agents.items():
            episodes = _evaluate_task(config, folder, out, agent)
            results[task] = {train_seed: [float(x) for x in episodes.returns]}
            bar.advance(1, f"{task}: {episodes.returns.mean():.1f}")
    _merge(out / "evaluation.json", results)
    _merge(out / "evaluation_settings.json", dict.fromkeys(tasks, _settings(config)))
    seconds = time.monotonic() - begin
    say(f"{len(tasks)} task(s), {config.episodes} episodes each, in {seconds:.1f} s")
    following = f" Next: pwm report {config.run} --out DIR" if policy == "actor" else ""
    say(f"Results are in {out / 'evaluation.json'}.{following}")
    return results


def agent_config(config: EvaluateConfig) -> AgentConfig:
    """How the agents of this evaluation act."""
    planner = PlannerConfig(
        config.plan_horizon, config.plan_iterations, samples=config.plan_samples
    )
    return AgentConfig(config.policy, config.device, config.seed, planner, config.compile)


def results_folder(folder: RunFolder, policy: str) -> Path:
    """Where the results of ``policy`` belong."""
    return folder.path if policy == "actor" else folder.path / policy


def _settings(config: EvaluateConfig) -> dict[str, Any]:
    """What is needed to repeat this evaluation."""
    settings = {"command": command_line(), "episodes": config.episodes, "seed": config.seed}
    if config.policy == "plan":
        settings["planner"] = asdict(agent_config(config).planner)
    return {**settings, "policy": config.policy}


def _chosen_tasks(folder: RunFolder, config: EvaluateConfig) -> list[str]:
    known = agent_tasks(folder, config.policy)
    chosen = [task_spec(task).id for task in config.tasks] or known
    for task in chosen:
        if task not in known:
            raise UserError(f"{folder.path} has no policy for '{task}'.{nearest(task, known)}")
    return chosen


def _evaluate_task(config: EvaluateConfig, folder: RunFolder, out: Path, agent: Agent) -> Episodes:
    """One task: policy episodes, random baseline, video; files are replaced atomically."""
    task, seed = agent.task, folder.config["seed"] or 0
    seeds = episode_seeds(config.seed, f"evaluation {task}", config.episodes)
    episodes = run_episodes(task, agent.start(len(seeds)), seeds)
    _write_episodes(out / "evaluation.jsonl", task, seed, config.policy, episodes)
    baselines: dict[str, Any] = {}
    data = folder.config.get("data_returns", {}).get(task)
    if data is not None:
        baselines["data"] = data
    if config.random_baseline:
        act = random_actions(agent.action_dim, stream_seed(config.seed, "random policy", task))
        baselines["random"] = [float(x) for x in run_episodes(task, act, seeds).returns]
    _merge(out / "baselines.json", {task: baselines})
    if config.video:
        target = out / "videos" / f"{slug(task)}.mp4"
        record_video(task, agent.start(1), seeds[0], target, config.video_size)
    return episodes


def _write_episodes(path: Path, task: str, seed: int, policy: str, episodes: Episodes) -> None:
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
            "policy": policy,
        }
        lines.append(json.dumps(record))
    write_text(path, "\n".join(lines) + "\n")


def _merge(path: Path, new: dict[str, Any]) -> None:
    """Replace the tasks in ``new`` and keep the others."""
    old = read_json(path) if path.exists() else {}
    write_json(path, {**old, **new})
