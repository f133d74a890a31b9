"""Extract a policy per task from a frozen world model by first-order gradients."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pwm.data import (
    EpisodeDataset,
    StateSampler,
    WindowSampler,
    open_datasets,
    return_facts,
)
from pwm.envs import task_spec
from pwm.errors import UserError
from pwm.models.actor import ActorConfig
from pwm.models.pretrained import Policy, actor_facts, slug
from pwm.models.world_model import WorldModel
from pwm.runtime.metrics import MetricsWriter, drop_after
from pwm.runtime.progress import ProgressBar, say
from pwm.runtime.run_folder import RunFolder, checkpoint_steps, save_checkpoint
from pwm.runtime.system import resolve_device
from pwm.stages.extract_config import ExtractConfig, check, trainer_config
from pwm.stages.rollout import episode_seeds, run_episodes
from pwm.stages.selection import Selection
from pwm.stages.trainer import PolicyTrainer

__all__ = ["ExtractConfig", "extract", "run", "trainer_config"]

# Settings that don't change the result, so that a resumed run may have others.
FREE_ON_RESUME = ("log_every", "eval_every", "eval_episodes", "checkpoint_every", "device",
                  "compile")  # fmt: skip


def extract(**settings: Any) -> RunFolder:
    """Python form of ``pwm extract``: keyword arguments are the fields of ExtractConfig.

    ``world_model`` may be a run folder or a model that came from one; ``data`` and ``tasks`` may
    be single strings. Returns the policy run folder.

    Raises:
        UserError: see :func:`run`.
    """
    model = settings.get("world_model")
    if isinstance(model, WorldModel):
        if model.source is None:
            raise UserError("extract needs a world model from WorldModel.from_pretrained(RUN)")
        settings["world_model"] = model.source
    for name in ("data", "tasks"):
        if isinstance(settings.get(name), str | Path):
            settings[name] = (str(settings[name]),)
    settings = {k: str(v) if k in ("world_model", "out") else v for k, v in settings.items()}
    return run(ExtractConfig(**settings))


def run(config: ExtractConfig) -> RunFolder:
    """Train one policy a task against the frozen world model; return the run folder.

    Raises:
        UserError: unknown task, data that does not fit the model, or an occupied run folder,
            before any work starts.
    """
    check(config)
    if not config.resume:
        RunFolder.check_free(config.out)
    model = WorldModel.from_pretrained(config.world_model)
    config = replace(config, tasks=_task_ids(config, model))
    datasets = open_datasets(config.data)
    _check_data(config, model, datasets)
    for dataset in datasets:
        dataset.check_finite(config.tasks)
    device = resolve_device(config.device)
    model = model.to(device).freeze()
    run_folder = _open_run(config, model, datasets)
    say(f"{len(config.tasks)} task(s), {config.updates} updates of {config.batch_size} each, "
        f"on {device}")  # fmt: skip
    begin = time.monotonic()
    seconds = {}
    for task in config.tasks:
        task_begin = time.monotonic()
        _extract_task(config, run_folder, model, datasets, task, device)
        seconds[task] = time.monotonic() - task_begin
    run_folder.finish(
        wall_seconds=time.monotonic() - begin, task_seconds=seconds, resumed=config.resume
    )
    say(f"Policies written to {config.out}. Next: pwm evaluate {config.out} --episodes 10 --video")
    return run_folder


def _task_ids(config: ExtractConfig, model: WorldModel) -> tuple[str, ...]:
    """Canonical ids of the asked-for tasks, or all tasks of the model."""
    if not config.tasks:
        return model.config.tasks
    known = model.config.tasks
    ids = tuple(task if task in known else task_spec(task).id for task in config.tasks)
    for id_ in ids:
        model.task_index(id_)
    return ids


def _check_data(
    config: ExtractConfig, model: WorldModel, datasets: Sequence[EpisodeDataset]
) -> None:
    for id_ in config.tasks:
        index = model.task_index(id_)
        found = [dataset.tasks[id_] for dataset in datasets if id_ in dataset.tasks]
        if not found:
            raise UserError(f"{', '.join(config.data)} holds no episodes of task '{id_}'")
        expected = (model.config.obs_dims[index], model.config.action_dims[index])
        for task in found:
            if (task.obs_dim, task.action_dim) != expected:
                raise UserError(
                    f"task '{id_}': the data has observation and action dims "
                    f"{(task.obs_dim, task.action_dim)}, the world model {expected}"
                )


def _open_run(
    config: ExtractConfig, model: WorldModel, datasets: Sequence[EpisodeDataset]
) -> RunFolder:
    if config.resume:
        run_folder = RunFolder.open(config.out, stage="extract")
        given = replace(config, tasks=tuple(run_folder.config["config"]["tasks"]))
        run_folder.require_same(given, FREE_ON_RESUME)
        if tuple(run_folder.config["tasks"]) != config.tasks:
            raise UserError(f"{config.out} was started with other tasks; can't resume it")
        return run_folder
    facts = {
        "model": model.config.to_dict(),
        "actor": actor_facts(ActorConfig(units=config.actor_units)),
        "tasks": list(config.tasks),
        "data_returns": {task: return_facts(datasets, task) for task in config.tasks},
    }
    return RunFolder.create(config.out, "extract", config, **facts)


def _extract_task(
    config: ExtractConfig,
    run_folder: RunFolder,
    model: WorldModel,
    datasets: Sequence[EpisodeDataset],
    task: str,
    device: str,
) -> None:
    """All updates of one task: resume, update, log, evaluate, checkpoint."""
    folder = run_folder.checkpoints / slug(task)
    # uniform over every observation of the task, good behaviour and bad
    states = StateSampler(
        datasets, task=task, batch_size=config.batch_size, obs_dim=model.config.obs_dim,
        seed=config.seed, stream=f"start states {task}",
    )  # fmt: skip
    windows = _windows(config, model, datasets, task) if config.behavior_weight else None
    trainer = PolicyTrainer(model, task, states, trainer_config(config), device, windows)
    steps = checkpoint_steps(folder)
    start = steps[-1] if steps else 0
    if start >= config.updates:
        return
    if start:
        trainer.load(folder, start)
    drop_after(run_folder.metrics_path, start, task=task)
    policy = Policy.build(model, task, trainer.deployed)
    selection = Selection(config.select, policy)
    if start:
        selection.load(folder, start)
    writer = MetricsWriter(run_folder.metrics_path)
    with ProgressBar(f"extract {task}", config.updates, start) as bar:
        status = _evaluate(config, writer, 0, selection, trainer) if start == 0 else ""
        for step in range(start + 1, config.updates + 1):
            metrics = trainer.update(step)
            if step % config.log_every == 0 or step == config.updates:
                trainer.require_finite(metrics, step)
                writer.write(step, metrics, task=task, kind="train", updates_per_second=bar.rate())
            if step % config.eval_every == 0 or step == config.updates:
                status = _evaluate(config, writer, step, selection, trainer)
            if step % config.checkpoint_every == 0 or step == config.updates:
                trainer.require_finite(metrics, step)
                state = None if step == config.updates else trainer.state() | selection.state()
                weights = {"policy": selection.weights()} | trainer.weights()
                save_checkpoint(folder, step, weights, state)
            bar.advance(1, status)
    writer.close()


def _windows(
    config: ExtractConfig, model: WorldModel, datasets: Sequence[EpisodeDataset], task: str
) -> WindowSampler:
    """Real steps of the task, for the behaviour prior.

    Windows are no longer than the median episode, or most short episodes would have none.
    """
    lengths = np.concatenate([d.tasks[task].lengths for d in datasets if task in d.tasks])
    horizon = max(1, min(config.behavior_horizon, int(np.median(lengths))))
    return WindowSampler(
        datasets, tasks=(task,), horizon=horizon, batch_size=config.batch_size,
        obs_dim=model.config.obs_dim, action_dim=model.config.action_dim, seed=config.seed,
        stream=f"behavior {task}",
    )  # fmt: skip


def _evaluate(
    config: ExtractConfig,
    writer: MetricsWriter,
    step: int,
    selection: Selection,
    trainer: PolicyTrainer,
) -> str:
    """Real return against the value that the model imagines from the same start states."""
    policy = selection.policy
    seeds = episode_seeds(config.seed, f"extraction {policy.task}", config.eval_episodes)
    episodes = run_episodes(policy.task, policy.act, seeds, config.gamma)
    with torch.no_grad():
        first = torch.as_tensor(episodes.first_observations, device=policy.embedded.device)
        imagined = trainer.critic.minimum(policy.encode(first)).mean().item()
    selection.offer(step, float(episodes.returns.mean()))
    writer.write(
        step,
        {
            "real_return": float(episodes.returns.mean()),
            "real_discounted": float(episodes.discounted.mean()),
            "imagined_value": imagined,
            "returns": [float(x) for x in np.asarray(episodes.returns)],
            "selected_step": selection.step,
        },
        task=policy.task,
        kind="evaluation",
    )
    return (
        f"return {episodes.returns.mean():.0f} (discounted {episodes.discounted.mean():.0f}, "
        f"imagined {imagined:.0f})"
    )
