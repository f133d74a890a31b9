"""Pre-train a world model on offline data: data set folders in, run folder out."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from pwm.algorithms.world_model import open_loop_errors
from pwm.data import (
    Batch,
    EpisodeDataset,
    WindowSampler,
    observation_moments,
    open_datasets,
    return_facts,
)
from pwm.errors import UserError
from pwm.models.world_model import WorldModel, WorldModelConfig
from pwm.runtime.metrics import MetricsWriter, drop_after
from pwm.runtime.progress import ProgressBar, say
from pwm.runtime.run_folder import RunFolder, checkpoint_steps, plain, save_checkpoint
from pwm.runtime.system import resolve_device
from pwm.seeding import stream_seed
from pwm.stages.pretrain_config import (
    PretrainConfig,
    check,
    horizon_at,
    learning_rate_at,
    model_config_for,
)
from pwm.stages.world_model_trainer import WorldModelTrainer, require_finite, training_of

__all__ = ["PretrainConfig", "move", "run"]

# Settings that don't change the result, so that a resumed run may have others.
FREE_ON_RESUME = ("log_every", "checkpoint_every", "device", "compile")


def run(config: PretrainConfig) -> RunFolder:
    """Train the world model and return its run folder.

    Killed runs go on with ``resume``: batches depend on the step number alone and checkpoints
    hold weights, optimizer and step, so on a CPU the result is bit for bit the same.

    Raises:
        UserError: bad data, bad settings or an occupied run folder, before any work starts.
    """
    check(config)
    if not config.resume:
        RunFolder.check_free(config.out)
    datasets = open_datasets(config.data)
    device = resolve_device(config.device)
    model_config = model_config_for(config, datasets)
    for dataset in datasets:
        dataset.check_finite(model_config.tasks)
    samplers = _samplers(config, datasets, model_config)
    torch.manual_seed(stream_seed(config.seed, "world model"))
    model = WorldModel(model_config)
    if config.normalize_observations:
        for index, task in enumerate(model_config.tasks):
            mean, std = (torch.from_numpy(x) for x in observation_moments(datasets, task))
            model.set_observation_moments(index, mean, std)
    model = model.to(device)
    trainer = WorldModelTrainer(model, training_of(config), device)
    run_folder, start = _open_run(config, trainer, datasets)
    say(
        f"World model: {model.num_parameters():,} parameters, {len(model_config.tasks)} task(s), "
        f"{config.updates} updates of {config.batch_size} windows on {device}"
    )
    begin = time.monotonic()
    _train(config, run_folder, trainer, samplers, start)
    run_folder.finish(
        wall_seconds=time.monotonic() - begin, updates=config.updates, resumed=config.resume
    )
    say(
        f"World model written to {config.out}. Next: pwm extract --world-model {config.out} "
        f"--data {config.data[0]} --out POLICY_RUN"
    )
    return run_folder


def _samplers(
    config: PretrainConfig, datasets: Sequence[EpisodeDataset], model: WorldModelConfig
) -> tuple[WindowSampler, WindowSampler]:
    """Training and held-out window samplers."""
    make = partial(
        WindowSampler, datasets, tasks=model.tasks, horizon=config.horizon,
        obs_dim=model.obs_dim, action_dim=model.action_dim, seed=config.seed,
        task_weights=config.task_weights or None, holdout_fraction=config.holdout_fraction,
    )  # fmt: skip
    train = make(batch_size=config.batch_size, stream="pretrain", split="train")
    return train, make(batch_size=config.eval_batch_size, stream="holdout", split="holdout")


def _open_run(
    config: PretrainConfig, trainer: WorldModelTrainer, datasets: Sequence[EpisodeDataset]
) -> tuple[RunFolder, int]:
    """New run folder at step 0, or the resumed one with its state loaded."""
    model = trainer.model
    if not config.resume:
        tasks = model.config.tasks
        facts = {
            "model": model.config.to_dict(),
            "parameters": model.num_parameters(),
            "data_returns": {task: return_facts(datasets, task) for task in tasks},
        }
        return RunFolder.create(config.out, "pretrain", config, **facts), 0
    run_folder = RunFolder.open(config.out, stage="pretrain")
    run_folder.require_same(config, FREE_ON_RESUME)
    if run_folder.config["model"] != plain(model.config.to_dict()):
        raise UserError(f"{config.out} was started on other data; can't resume it with this")
    steps = checkpoint_steps(run_folder.checkpoints)
    start = steps[-1] if steps else 0
    if start:
        trainer.load(run_folder.checkpoints, start)
    drop_after(run_folder.metrics_path, start)
    say(f"Resuming {config.out} at update {start}")
    return run_folder, start


def _train(
    config: PretrainConfig,
    run_folder: RunFolder,
    trainer: WorldModelTrainer,
    samplers: tuple[WindowSampler, WindowSampler],
    start: int,
) -> None:
    train, holdout = samplers
    writer = MetricsWriter(run_folder.metrics_path)
    # one counter for the whole run: the first updates are as visible as the last
    with ProgressBar("pretrain", config.updates, start) as bar:
        for step in range(start + 1, config.updates + 1):
            trainer.set_learning_rate(learning_rate_at(config, step - 1))
            batch = shortened(train.sample(step), horizon_at(config, step))
            metrics = trainer.update(step, *move(batch, trainer.device))
            status = None
            if step % config.log_every == 0 or step in (1, config.updates):
                status = _log(writer, step, metrics, bar.rate(), run_folder)
            if step % config.eval_every == 0 or step == config.updates:
                # always the same windows: differences are the model's
                held_out = move(holdout.sample(0), trainer.device)
                writer.write(step, _evaluate(trainer.model, held_out), kind="evaluation")
            if step % config.checkpoint_every == 0 or step == config.updates:
                require_finite(metrics, step, run_folder)
                save_checkpoint(run_folder.checkpoints, step, trainer.weights(), trainer.state())
            bar.advance(1, status)
    writer.close()


def shortened(batch: Batch, steps: int) -> Batch:
    """The first ``steps`` steps of every window; views, nothing is copied."""
    return Batch(
        batch.observations[: steps + 1], batch.actions[:steps], batch.rewards[:steps],
        batch.terminated[:steps], batch.task,
    )  # fmt: skip


def move(batch: Batch, device: str) -> tuple[Tensor, ...]:
    """The batch's tensors on ``device`` in the order that the loss takes them."""
    fields = (batch.observations, batch.actions, batch.rewards, batch.terminated, batch.task)
    return tuple(tensor.to(device, non_blocking=True) for tensor in fields)


def _evaluate(model: WorldModel, batch: tuple[Tensor, ...]) -> dict[str, Tensor]:
    observations, actions, rewards, _, task = batch
    return open_loop_errors(model, observations, actions, rewards, task)


def _log(
    writer: MetricsWriter, step: int, metrics: dict[str, Tensor], rate: float, run: RunFolder
) -> str:
    require_finite(metrics, step, run)
    writer.write(step, {**metrics, "steps_per_second": rate}, kind="train")
    return f"loss {float(metrics['loss']):.3f}"
