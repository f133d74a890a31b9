"""TD-MPC2 online: act by planning, learn from the replay, in one loop (arXiv 2310.16828)."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pwm.data import EpisodeDataset, EpisodeWriter, Replay, TaskData
from pwm.envs import TaskSpec, make_vec, task_spec
from pwm.models.planning import PlanningModel
from pwm.models.world_model import WorldModel
from pwm.runtime.metrics import MetricsWriter
from pwm.runtime.progress import ProgressBar, say
from pwm.runtime.run_folder import RunFolder, checkpoint_steps, save_checkpoint
from pwm.runtime.system import resolve_device
from pwm.seeding import stream_seed
from pwm.stages.agents import AgentConfig, PlanningAct, world_model_agent
from pwm.stages.pretrain import move
from pwm.stages.recording import VectorRecorder
from pwm.stages.rollout import episode_seeds, random_actions, run_episodes
from pwm.stages.tdmpc2_config import (
    TDMPC2Config,
    check,
    episode_limit,
    model_of,
    planner_of,
    replay_rows,
    seed_steps_of,
)
from pwm.stages.world_model_trainer import WorldModelTrainer, require_finite, training_of

__all__ = ["TDMPC2Config", "run"]

# Settings that don't change what is learnt from a step, so that a resumed run may have others.
FREE_ON_RESUME = ("steps", "log_every", "eval_every", "eval_episodes", "checkpoint_every",
                  "device", "compile")  # fmt: skip


def run(config: TDMPC2Config) -> RunFolder:
    """Train TD-MPC2's agent of one task and return its run folder.

    The run holds a world model that ``pwm evaluate`` plans with, and in ``data/`` every episode of
    the training as a data set. A killed run goes on with ``resume``: networks and optimizers from
    the newest checkpoint, the replay from the stored episodes; the episodes that were under way
    are lost, and updates that the checkpoint lacks are made up for.

    Raises:
        UserError: bad settings, a simulator that is not installed, or an occupied run folder,
            before any work starts.
    """
    check(config)
    spec = task_spec(config.task)
    spec.require_installed()
    config = replace(config, task=spec.id)
    replay_rows(config, spec)
    if not config.resume:
        RunFolder.check_free(config.out)
    device = resolve_device(config.device)
    torch.manual_seed(stream_seed(config.seed, "world model"))
    trainer = WorldModelTrainer(WorldModel(model_of(config, spec)), training_of(config), device)
    run_folder = _open_run(config, trainer.model)
    online = OnlineTraining(config, spec, trainer, run_folder)
    say(f"TD-MPC2 on {spec.id}: {trainer.model.num_parameters():,} parameters, {config.steps} "
        f"agent steps in {config.num_envs} environment(s) on {device}; replay of up to "
        f"{online.replay.num_bytes / 1e9:.2f} GB")  # fmt: skip
    begin = time.monotonic()
    online.run()
    run_folder.finish(
        wall_seconds=time.monotonic() - begin, steps=online.steps, updates=online.updates,
        resumed=config.resume,
    )  # fmt: skip
    say(f"Agent written to {config.out}, its episodes to {online.data}. Next: pwm evaluate "
        f"{config.out}, or pwm pretrain PRESET --data {online.data} --out RUN")  # fmt: skip
    return run_folder


def _open_run(config: TDMPC2Config, model: WorldModel) -> RunFolder:
    if not config.resume:
        facts = {"model": model.config.to_dict(), "parameters": model.num_parameters()}
        return RunFolder.create(config.out, "tdmpc2", config, **facts)
    run_folder = RunFolder.open(config.out, stage="tdmpc2")
    run_folder.require_same(config, FREE_ON_RESUME)
    return run_folder


class OnlineTraining:
    """Environments, replay, model in training and the planner that acts with it.

    Attributes:
        steps: agent steps taken, of which those of unfinished episodes are lost in a kill.
        updates: updates made.
    """

    def __init__(
        self, config: TDMPC2Config, spec: TaskSpec, trainer: WorldModelTrainer, run: RunFolder
    ):
        self.config, self.spec, self.trainer, self.run_folder = config, spec, trainer, run
        self.data = run.path / "data"
        self.replay = Replay(
            replay_rows(config, spec), obs_dim=spec.obs_dim, action_dim=spec.action_dim,
            horizon=config.horizon, batch_size=config.batch_size, seed=config.seed,
        )  # fmt: skip
        self.seed_steps = seed_steps_of(config, spec)
        self._planned_with = 0
        self.steps = self.updates = 0
        self.writer = MetricsWriter(run.metrics_path)
        self.status = ""
        self._last: dict[str, torch.Tensor] = {}
        if config.resume:
            self._resume()

    def _resume(self) -> None:
        """Replay from the stored episodes, networks from the newest checkpoint."""
        if (self.data / "dataset.json").exists():
            dataset = EpisodeDataset.open(self.data, allow_empty=True)
            for task in dataset.tasks.values():
                self._refill(task)
        done = checkpoint_steps(self.run_folder.checkpoints)
        if done:
            state = self.trainer.load(self.run_folder.checkpoints, done[-1])
            self.updates = int(state["updates"])
        say(f"Resuming {self.run_folder.path} at step {self.steps}, update {self.updates}")

    def _refill(self, task: TaskData) -> None:
        for first, steps in zip(task.offsets.tolist(), task.lengths.tolist(), strict=True):
            all_rows, later = slice(first, first + steps + 1), slice(first + 1, first + steps + 1)
            self.replay.add(
                task.observations[all_rows], task.actions[later], task.rewards[later],
                bool(task.terminated[first + steps]),
            )  # fmt: skip
            self.steps += steps

    def run(self) -> None:
        """Act and learn until ``steps`` agent steps are taken, then save."""
        c, spec = self.config, self.spec
        # a resumed run has other episodes than the ones that it already knows
        seed = stream_seed(c.seed, "tdmpc2", self.steps)
        envs = make_vec(spec.id, c.num_envs, seed=seed)
        writer = EpisodeWriter(
            self.data, spec.id, obs_dim=spec.obs_dim, action_dim=spec.action_dim,
            episode_length=spec.episode_length, collector="tdmpc2",
        )  # fmt: skip
        planner = self._planner(seed)
        by_chance = random_actions(spec.action_dim, stream_seed(seed, "random policy"))
        try:
            with writer, ProgressBar(f"tdmpc2 {spec.id}", c.steps, self.steps) as bar:
                current, _ = envs.reset(seed=seed)
                recorder = VectorRecorder(spec, episode_limit(spec), current, self._keep_in(writer))
                while self.steps < c.steps:
                    act = self._plan_with(planner) if self.updates else by_chance
                    actions = np.asarray(act(current), np.float32)
                    current, *outcome = envs.step(actions)
                    before, self.steps = self.steps, self.steps + c.num_envs
                    planner.reset(recorder.add(actions, current, *outcome))
                    self._learn(bar)
                    self._now_and_then(before)
                    bar.advance(c.num_envs, self.status)
        finally:
            envs.close()
            self.writer.close()

    def _keep_in(self, writer: EpisodeWriter) -> Any:
        def store(
            observations: NDArray, actions: NDArray, rewards: NDArray, terminated: bool,
            success: float | None,
        ) -> None:  # fmt: skip
            writer.append(observations, actions, rewards, terminated=terminated,
                          seed=self.config.seed, success=success)  # fmt: skip
            self.replay.add(observations, actions, rewards, terminated)
            facts = {"return": float(rewards.sum()), "length": len(rewards), "success": success}
            self.writer.write(self.steps, facts, task=self.spec.id, kind="episode")
            self.status = f"return {facts['return']:.0f}"

        return store

    def _planner(self, seed: int) -> PlanningAct:
        config = AgentConfig("plan", self.trainer.device, seed, planner_of(self.config),
                             self.config.compile)  # fmt: skip
        model = PlanningModel(self.trainer.model, 0)
        return PlanningAct(model, self.config.num_envs, config)

    def _plan_with(self, planner: PlanningAct) -> Any:
        """Exploring actions of the model as it is now."""
        if self._planned_with != self.updates:
            planner.model = PlanningModel(self.trainer.model, 0)
            self._planned_with = self.updates
        return lambda observations: planner.act(observations, explore=True)

    def _learn(self, bar: ProgressBar) -> None:
        """All updates that are due by now: none during the seed steps, then one a step."""
        if self.steps < self.seed_steps or not self.replay.num_windows:
            return
        due = int(self.steps * self.config.updates_per_step)
        self.trainer.model.train()
        while self.updates < due:
            self.updates += 1
            batch = move(self.replay.sample(self.updates), self.trainer.device)
            self._last = self.trainer.update(self.updates, *batch)
            if self.updates % self.config.log_every == 0:
                self._log(self._last)
                bar.advance(0, f"update {self.updates} of {due}")
        self.trainer.model.eval()

    def _log(self, metrics: dict[str, torch.Tensor]) -> None:
        require_finite(metrics, self.updates, self.run_folder)
        self.writer.write(self.steps, metrics, kind="train", update=self.updates)

    def _now_and_then(self, before: int) -> None:
        """Evaluate and save at the steps at which it is due."""
        c, last = self.config, self.steps >= self.config.steps
        if self.updates and (last or before // c.eval_every < self.steps // c.eval_every):
            self._evaluate()
        every = c.checkpoint_every
        if self.updates and (last or before // every < self.steps // every):
            require_finite(self._last, self.updates, self.run_folder)
            state = {**self.trainer.state(), "updates": self.updates}
            save_checkpoint(self.run_folder.checkpoints, self.steps, self.trainer.weights(), state)

    def _evaluate(self) -> None:
        """Real episodes of the planning agent without exploration noise."""
        c = self.config
        config = AgentConfig("plan", self.trainer.device, c.seed, planner_of(c), c.compile)
        agent = world_model_agent(self.trainer.model, self.spec.id, config)
        seeds = episode_seeds(c.seed, f"training {self.spec.id}", c.eval_episodes)
        episodes = run_episodes(self.spec.id, agent.start(len(seeds)), seeds)
        mean = float(episodes.returns.mean())
        facts = {"real_return": mean, "returns": [float(x) for x in episodes.returns]}
        self.writer.write(self.steps, facts, task=self.spec.id, kind="evaluation",
                          update=self.updates)  # fmt: skip
        say(f"step {self.steps}: return {mean:.1f} of {len(seeds)} evaluation episodes")
