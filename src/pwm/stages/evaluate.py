"""Evaluate a run in the real environment: episodes, success, videos, baselines."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pwm.algorithms.planner import PlannerConfig
from pwm.envs import list_tasks, task_spec
from pwm.envs.registry import entry_point_of
from pwm.errors import UserError, nearest
from pwm.models.pretrained import slug
from pwm.models.world_model import WorldModel
from pwm.runtime.progress import ProgressBar, say
from pwm.runtime.run_folder import RunFolder
from pwm.runtime.system import command_line, resolve_device
from pwm.runtime.workers import Done, run_in_processes, usable_cores
from pwm.seeding import stream_seed
from pwm.stages.agents import (
    Agent,
    AgentConfig,
    agent_tasks,
    default_policy,
    load_agent,
    world_model_agent,
)
from pwm.stages.evaluation_files import ResultFiles, TaskOutcome
from pwm.stages.rollout import episode_seeds, random_actions, record_video, run_episodes
from pwm.stages.score_table import TaskScore, print_scores


@dataclass(frozen=True)
class EvaluateConfig:
    """Settings of ``pwm evaluate``.

    ``seed`` chooses the evaluation episodes. The stream differs from the one that extraction
    watches during training, whatever the seeds are.

    ``policy`` is "actor" (of a policy run), "plan" or "prior" (of a world model with Q heads and a
    policy prior), or "auto": actor or plan, by the kind of run. ``plan_iterations`` 0 means 6, or
    8 from 20 action dims on. ``compile`` concerns the planner.

    ``suite`` takes all tasks of a set, such as "mt80", instead of ``tasks``. ``workers`` processes
    evaluate whole tasks side by side, 0 for one a core; 1 stays in this process.
    """

    run: str = ""
    tasks: tuple[str, ...] = ()
    suite: str = ""
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
    workers: int = 1


def run(config: EvaluateConfig) -> dict[str, dict[str, list[float]]]:
    """Evaluate the deterministic policies of a run and write the results into it.

    Results of planning and of the prior go into the subfolder ``plan`` or ``prior``. Writes
    ``evaluation.json`` ({task: {seed: [returns]}}), ``evaluation.jsonl`` (a line an episode),
    ``baselines.json`` (random policy and the data's own returns), ``evaluation_settings.json``
    (command, seed and episodes by task) and, when asked, ``videos/``. Each task is written when it
    is finished; tasks that are not evaluated now keep their earlier results.

    Returns:
        {task: {training seed: [episode returns]}} of the tasks evaluated now.

    Raises:
        UserError: no policy run, unknown task, nothing to evaluate, or a task that failed in its
            process (the others are evaluated and written then).
    """
    folder = RunFolder.open(config.run)
    config, tasks = _checked(config, folder)
    out = folder.results(config.policy)
    files = _result_files(config, folder, out)
    evaluator = TaskEvaluator(config, out)
    evaluator.check(tasks)
    (out / "videos" if config.video else out).mkdir(parents=True, exist_ok=True)
    begin = time.monotonic()
    finished, failures = _evaluate_all(evaluator, tasks, _workers(config, tasks), files)
    seconds = time.monotonic() - begin
    print_scores([TaskScore.of(task, x.returns, x.success) for task, x in finished.items()],
                 config.suite)  # fmt: skip
    say(f"{len(finished)} task(s), {config.episodes} episodes each, in {seconds:.1f} s")
    if failures:
        raise UserError(_failed(config, failures, len(tasks)))
    following = f" Next: pwm report {config.run} --out DIR" if config.policy == "actor" else ""
    say(f"Results are in {out / 'evaluation.json'}.{following}")
    return {task: {str(files.seed): outcome.returns} for task, outcome in finished.items()}


def _evaluate_all(
    evaluator: TaskEvaluator, tasks: Sequence[str], workers: int, files: ResultFiles
) -> tuple[dict[str, TaskOutcome], dict[str, str]]:
    """Evaluate and store the tasks; what finished, in the order of ``tasks``, and what failed."""
    finished: dict[str, TaskOutcome] = {}
    failures: dict[str, str] = {}
    with ProgressBar("evaluate", len(tasks)) as bar:
        for done in _outcomes(evaluator, tasks, workers):
            if done.result is None:
                failures[done.item] = str(done.failure)
                bar.advance(1, f"{done.item}: failed")
                continue
            finished[done.item] = done.result
            files.store(done.item, done.result)
            bar.advance(1, f"{done.item}: {done.result.episodes.returns.mean():.1f}")
    return {task: finished[task] for task in tasks if task in finished}, failures


class TaskEvaluator:
    """Evaluates one task after the other, in this process or in a worker's.

    A world model is loaded with the first task and kept; it does not travel between processes.
    """

    def __init__(self, config: EvaluateConfig, out: Path):
        self.config, self.out = config, out
        self._model: WorldModel | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_model": None}

    def check(self, tasks: Sequence[str]) -> None:
        """Load what acts in ``tasks`` once, so that damaged files are found before any work."""
        for task in tasks if self.config.policy == "actor" else tasks[:1]:
            self._agent(task)

    def _agent(self, task: str) -> Agent:
        settings = agent_config(self.config)
        if self.config.policy == "actor":
            return load_agent(self.config.run, task, settings)
        if self._model is None:
            self._model = WorldModel.from_pretrained(self.config.run, settings.device)
        return world_model_agent(self._model, task, settings)

    def __call__(self, task: str) -> TaskOutcome:
        """Policy episodes, the random policy on the same episodes, video."""
        config, agent = self.config, self._agent(task)
        seeds = episode_seeds(config.seed, f"evaluation {task}", config.episodes)
        outcome = TaskOutcome(run_episodes(task, agent.start(len(seeds)), seeds), None)
        if config.random_baseline:
            act = random_actions(agent.action_dim, stream_seed(config.seed, "random policy", task))
            outcome.random = run_episodes(task, act, seeds).returns.tolist()
        if config.video:
            target = self.out / "videos" / f"{slug(task)}.mp4"
            record_video(task, agent.start(1), seeds[0], target, config.video_size)
        return outcome


def _outcomes(
    evaluator: TaskEvaluator, tasks: Sequence[str], workers: int
) -> Iterable[Done[str, TaskOutcome]]:
    if workers > 1:
        return run_in_processes(evaluator, tasks, workers)
    return (Done(task, evaluator(task)) for task in tasks)


def _workers(config: EvaluateConfig, tasks: Sequence[str]) -> int:
    """Number of processes; 1 for this one."""
    if any(entry_point_of(task) is not None for task in tasks):
        return 1  # tasks that were registered here are unknown to other processes
    automatic = usable_cores() if config.device == "cpu" else 1
    return min(config.workers or automatic, len(tasks))


def _failed(config: EvaluateConfig, failures: dict[str, str], total: int) -> str:
    shown = "; ".join(f"{task}: {reason}" for task, reason in list(failures.items())[:3])
    more = f"; and {len(failures) - 3} more" if len(failures) > 3 else ""
    return (
        f"{len(failures)} of {total} tasks failed ({shown}{more}); the others are saved; try "
        f"again: pwm evaluate {config.run} --workers 1 --tasks {','.join(failures)}"
    )


def agent_config(config: EvaluateConfig) -> AgentConfig:
    """How the agents of this evaluation act."""
    planner = PlannerConfig(
        config.plan_horizon, config.plan_iterations, samples=config.plan_samples
    )
    return AgentConfig(config.policy, config.device, config.seed, planner, config.compile)


def _result_files(config: EvaluateConfig, folder: RunFolder, out: Path) -> ResultFiles:
    files = ResultFiles(
        out, agent_tasks(folder, config.policy), folder.config["seed"] or 0, config.policy,
        _settings(config), folder.config.get("data_returns") or {},
    )  # fmt: skip
    files.check()
    return files


def _settings(config: EvaluateConfig) -> dict[str, Any]:
    """What is needed to repeat this evaluation."""
    settings = {"command": command_line(), "episodes": config.episodes, "seed": config.seed}
    if config.policy == "plan":
        settings["planner"] = asdict(agent_config(config).planner)
    return {**settings, "policy": config.policy}


def _checked(config: EvaluateConfig, folder: RunFolder) -> tuple[EvaluateConfig, list[str]]:
    """Settings with their defaults filled in, and the tasks to evaluate."""
    if config.episodes < 1:
        raise UserError("--episodes must be at least 1")
    if config.workers < 0:
        raise UserError("--workers must be at least 0; 0 means one a core")
    policy = default_policy(folder) if config.policy == "auto" else config.policy
    config = replace(config, policy=policy, device=resolve_device(config.device))
    tasks = _chosen_tasks(config, folder)
    for task in tasks:
        task_spec(task).require_installed()
    return config, tasks


def _chosen_tasks(config: EvaluateConfig, folder: RunFolder) -> list[str]:
    known = agent_tasks(folder, config.policy)
    if config.suite and config.tasks:
        raise UserError("--suite and --tasks both choose the tasks; give one of them")
    if config.suite:
        chosen = [spec.id for spec in list_tasks(config.suite)]
        lacking = [task for task in chosen if task not in known]
        if lacking:
            raise UserError(
                f"{folder.path} has no policy for {len(lacking)} of the {len(chosen)} tasks of "
                f"{config.suite}, such as {lacking[0]}; without --suite all tasks that it has are "
                "evaluated"
            )
        return chosen
    chosen = list(dict.fromkeys(task_spec(task).id for task in config.tasks)) or known
    for task in chosen:
        if task not in known:
            raise UserError(f"{folder.path} has no policy for '{task}'.{nearest(task, known)}")
    return chosen
