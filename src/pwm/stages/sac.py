"""SAC from Stable-Baselines3 as a collector: train, and keep every episode in order."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from pwm.envs import TaskSpec, make
from pwm.errors import MissingExtra
from pwm.seeding import stream_seed

if TYPE_CHECKING:
    from pwm.stages.collect import CollectConfig

SAVE_EVERY_EPISODES = 10
LEARNING_STARTS = 1000


def require_sac() -> None:
    """Raise MissingExtra unless Stable-Baselines3 can be imported."""
    try:
        import stable_baselines3  # noqa: F401
    except ImportError:
        raise MissingExtra("stable_baselines3", "sac") from None


class EpisodeRecorder(gymnasium.Wrapper):
    """Hands every finished episode to ``store`` before the environment is reset."""

    def __init__(self, env: gymnasium.Env, store: Callable[..., None]):
        super().__init__(env)
        self.store = store
        self.finished = 0

    def reset(self, **options: Any) -> tuple[Any, dict[str, Any]]:
        observation, info = self.env.reset(**options)
        self._observations: list[Any] = [observation]
        self._actions: list[NDArray[np.float32]] = []
        self._rewards: list[float] = []
        return observation, info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        observation, reward, terminated, truncated, info = self.env.step(action)
        self._observations.append(observation)
        self._actions.append(np.array(action, np.float32))
        self._rewards.append(float(reward))
        if terminated or truncated:
            self.store(
                np.asarray(self._observations, np.float32),
                np.asarray(self._actions, np.float32),
                np.asarray(self._rewards, np.float32),
                bool(terminated),
                info.get("success"),
            )
            self.finished += 1
        return observation, reward, terminated, truncated, info


def collect_with_sac(
    config: CollectConfig,
    spec: TaskSpec,
    folder: Path,
    done: int,
    first_episode: int,
    store: Callable[..., None],
) -> None:
    """Train SAC for the steps that are left, storing its episodes.

    One environment and one gradient step for each environment step, Stable-Baselines3's defaults.
    Resuming restores networks and optimizers from the last save and the replay buffer from the
    stored episodes; an episode that was under way when the process died starts over.
    """
    import torch
    from stable_baselines3 import SAC
    from stable_baselines3.common.callbacks import BaseCallback

    seed = stream_seed(config.seed, "sac", spec.id, done)
    env = EpisodeRecorder(make(spec.id, seed=seed), store)
    agent = SAC(
        "MlpPolicy", env, seed=seed, device="cpu", learning_rate=config.learning_rate,
        learning_starts=LEARNING_STARTS, buffer_size=max(config.steps, 1) + 1000,
    )  # fmt: skip
    state = folder / "sac_state.pt"
    if done:
        _restore(agent, state, config, spec, first_episode)
        agent.num_timesteps = done

    class SaveAndStop(BaseCallback):
        """Saves the networks now and then; stops with the episode that reaches the goal."""

        saved = 0

        def _on_step(self) -> bool:
            episodes = env.finished
            if episodes >= self.saved + SAVE_EVERY_EPISODES:
                self.saved = episodes
                save(agent, state)
            ended = bool(self.locals["dones"][0])
            return not (ended and self.num_timesteps >= config.steps)

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # networks this small lose time on several threads
    try:
        # The callback stops the training, with the episode that reaches the goal.
        agent.learn(10**12, callback=SaveAndStop(), reset_num_timesteps=False, log_interval=10**9)
    finally:
        torch.set_num_threads(threads)
        env.close()
    save(agent, state)


def save(agent: Any, path: Path) -> None:
    """All networks and optimizers, as plain tensors, atomically."""
    import torch

    temporary = path.with_suffix(".tmp")
    torch.save(agent.get_parameters(), temporary)
    os.replace(temporary, path)


def _restore(
    agent: Any, state: Path, config: CollectConfig, spec: TaskSpec, first_episode: int
) -> None:
    """Networks from the last save (if one was made) and the replay from the data set."""
    from pwm.data import EpisodeDataset
    from pwm.runtime.run_folder import load_state

    if state.exists():
        agent.set_parameters(load_state(state))
    task = EpisodeDataset.open(config.out).tasks[spec.id]
    for offset, length in zip(
        task.offsets[first_episode:], task.lengths[first_episode:], strict=True
    ):
        rows = slice(int(offset), int(offset) + int(length) + 1)
        observations, actions = task.observations[rows], task.actions[rows]
        rewards, ends = task.rewards[rows], task.terminated[rows]
        for t in range(1, int(length) + 1):
            last = t == length
            info = {"TimeLimit.truncated": bool(last and not ends[t])}
            agent.replay_buffer.add(
                observations[t - 1], observations[t], actions[t], rewards[t : t + 1],
                np.array([last]), [info],
            )  # fmt: skip
