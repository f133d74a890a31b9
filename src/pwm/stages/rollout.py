"""Episodes of a policy in the real environment: the only ground truth of this project."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pwm.envs import make, make_vec
from pwm.errors import MissingExtra
from pwm.seeding import stream_seed

Act = Callable[[NDArray[np.float32]], NDArray[np.float32]]


@dataclass
class Episodes:
    """Results of E episodes; arrays are [E]. ``success`` is NaN where the task reports none."""

    returns: NDArray[np.float64]
    discounted: NDArray[np.float64]
    lengths: NDArray[np.int64]
    success: NDArray[np.float64]
    first_observations: NDArray[np.float32]


def episode_seeds(seed: int, purpose: str, episodes: int) -> list[int]:
    """Environment seeds of the stream ``purpose``; different purposes never share their seeds.

    Evaluation during training and the final evaluation use different purposes, so that the
    reported episodes are never the ones that were looked at before.
    """
    return [stream_seed(seed, purpose, index) for index in range(episodes)]


def run_episodes(task: str, act: Act, seeds: Sequence[int], gamma: float = 0.99) -> Episodes:
    """One episode for each seed, all environments stepped together.

    The real observation is encoded at every step (inside ``act``) and the environment's own
    rewards are summed; nothing here comes from the model.

    Args:
        act: observations [E, O] -> actions [E, A] in [-1, 1].
        seeds: reset seed of each episode.
        gamma: discount of the discounted return, to compare with imagined values.
    """
    count = len(seeds)
    envs = make_vec(task, count, seed=0)
    try:
        observations, _ = envs.reset(seed=list(seeds))  # type: ignore[arg-type]
        result = Episodes(
            np.zeros(count), np.zeros(count), np.zeros(count, np.int64),
            np.full(count, np.nan), np.array(observations, np.float32),
        )  # fmt: skip
        running = np.ones(count, bool)
        discount = 1.0
        while running.any():
            observations, rewards, terminated, truncated, info = envs.step(act(observations))
            result.returns += np.where(running, rewards, 0.0)
            result.discounted += np.where(running, discount * rewards, 0.0)
            result.lengths += running
            discount *= gamma
            ended = running & (terminated | truncated)
            _note_success(result.success, ended, info)
            running &= ~ended
        return result
    finally:
        envs.close()


def _note_success(success: NDArray[np.float64], ended: NDArray[np.bool_], info: dict) -> None:
    """Success of the last step: with SAME_STEP autoreset it is in ``final_info``."""
    values = info.get("final_info", info).get("success")
    if values is not None:
        success[ended] = np.asarray(values, np.float64)[ended]


def random_actions(action_dim: int, seed: int) -> Act:
    """Uniform random policy in [-1, 1]."""
    generator = np.random.default_rng(seed)

    def act(observations: NDArray[np.float32]) -> NDArray[np.float32]:
        shape = (len(observations), action_dim)
        return generator.uniform(-1, 1, shape).astype(np.float32)

    return act


def record_video(task: str, act: Act, seed: int, path: Path, size: int = 320) -> float:
    """Film one episode as mp4 (real time) and return its return.

    Raises:
        MissingExtra: imageio is not installed.
        UserError: no headless renderer on this machine.
    """
    try:
        import imageio.v2 as imageio
    except ImportError:
        raise MissingExtra("imageio", "video") from None
    env = make(task, seed=seed, render_mode="rgb_array", width=size, height=size)
    total, done = 0.0, False
    temporary = path.with_name(f".{path.name}.tmp.mp4")
    try:
        observation, _ = env.reset(seed=seed)
        first = _frame(env)
        rate = float(env.metadata.get("render_fps", 25))
        video: Any = imageio.get_writer(temporary, fps=rate, macro_block_size=16, quality=6)
        with video:
            video.append_data(first)
            while not done:
                action = act(np.asarray(observation, np.float32)[None])[0]
                observation, reward, terminated, truncated, _ = env.step(action)
                video.append_data(_frame(env))
                total += float(reward)
                done = terminated or truncated
        temporary.replace(path)
    finally:
        env.close()
        temporary.unlink(missing_ok=True)
    return total


def _frame(env: Any) -> NDArray[np.uint8]:
    return np.asarray(env.render(), np.uint8)
