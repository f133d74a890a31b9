"""Collect episodes: random actions, a learning SAC agent, a scripted expert, a run's policy."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pwm.data import EpisodeDataset, EpisodeWriter
from pwm.envs import TaskSpec, make_vec, task_spec
from pwm.errors import UserError
from pwm.models.pretrained import slug
from pwm.runtime.files import read_json, write_json
from pwm.runtime.progress import ProgressBar, say
from pwm.seeding import stream_seed
from pwm.stages.recording import Store, VectorRecorder
from pwm.stages.rollout import Act, random_actions


@dataclass(frozen=True)
class CollectConfig:
    """Settings of ``pwm collect``.

    ``policy`` is "random", "sac" (Stable-Baselines3, trained while it collects; every episode of
    its replay is kept, in order), "expert" (the hand-written policy of a Meta-World task) or
    "run:DIR" (a policy run). The last two act with Gaussian exploration of standard deviation
    ``noise``, clipped to [-1, 1]; the action that was executed is stored.
    ``steps`` counts agent steps of this collection, rounded up to whole episodes.
    """

    task: str = ""
    policy: str = "random"
    steps: int = 10_000
    out: str = ""
    seed: int = 0
    noise: float = 0.0
    num_envs: int = 4
    learning_rate: float = 3e-4
    resume: bool = False
    append: bool = False


@dataclass
class Collection:
    """Where a collection stands: its settings on disk and what it has stored so far.

    ``episodes`` counts all of the task that are in the data set, those of earlier collections too:
    it picks the random streams, so that a collection that is resumed or appended with the same
    seed does not act out the same episodes again.
    """

    folder: Path
    steps: int
    first_episode: int
    episodes: int

    @property
    def state_file(self) -> Path:
        return self.folder / "collect.json"


def run(config: CollectConfig) -> Path:
    """Collect ``steps`` agent steps into the data set ``out`` and return its path.

    Each finished episode is on disk before the next one begins. A killed collection goes on with
    ``resume``: SAC gets its networks back and its replay from the stored episodes.

    Raises:
        UserError: bad settings, or episodes of the task are already there and neither ``resume``
            nor ``append`` was given; nothing is written then.
    """
    _check(config)
    spec = task_spec(config.task)
    spec.require_installed()
    config = replace(config, task=spec.id)
    collection = _begin(config, spec)
    act = _fixed_policy(config, spec, collection.episodes)
    done = collection.steps
    open_writer = partial(
        EpisodeWriter, config.out, spec.id, obs_dim=spec.obs_dim, action_dim=spec.action_dim,
        episode_length=spec.episode_length, collector=_collector_name(config),
    )  # fmt: skip
    progress = ProgressBar(f"collect {spec.id}", config.steps, min(done, config.steps))
    with open_writer() as writer, progress as bar:
        write_json(collection.state_file, _settings(config, collection.first_episode))

        def store(
            observations: NDArray, actions: NDArray, rewards: NDArray, terminated: bool,
            success: float | None,
        ) -> None:  # fmt: skip
            writer.append(observations, actions, rewards, terminated=terminated, seed=config.seed,
                          success=success)  # fmt: skip
            bar.advance(len(rewards), f"return {rewards.sum():.1f}")

        left = config.steps - done
        if left > 0 and act is None:
            from pwm.stages.sac import collect_with_sac

            collect_with_sac(config, spec, collection.folder, done, collection.first_episode, store)
        elif left > 0 and act is not None:
            collect_vectorised(spec, act, left, config.num_envs,
                               stream_seed(config.seed, "collect", collection.episodes),
                               store)  # fmt: skip
    say(f"Data set {config.out}: {writer.num_episodes} episodes, {writer.num_steps} steps of "
        f"{spec.id}. Next: pwm data info {config.out}, or pwm pretrain PRESET --data {config.out} "
        "--out RUN")  # fmt: skip
    return Path(config.out)


def collect_vectorised(
    spec: TaskSpec, act: Act, steps: int, num_envs: int, seed: int, store: Store
) -> None:
    """Step ``num_envs`` environments together until ``steps`` agent steps are stored.

    Only whole episodes count, and none is dropped, which would favour the short ones: episodes
    that still run when the goal is reached are finished. Without a time limit an episode is cut
    after ``steps`` steps, and what follows is stored as another one.
    """
    limit = spec.episode_length
    num_envs = max(1, min(num_envs, -(-steps // limit) if limit else num_envs))
    envs = make_vec(spec.id, num_envs, seed=seed)
    stored = 0

    def count(*episode: Any) -> None:
        nonlocal stored
        store(*episode)
        stored += len(episode[2])

    try:
        current, _ = envs.reset(seed=seed)
        recorder = VectorRecorder(spec, limit or steps, current, count)
        while recorder.active.any():
            chosen = np.asarray(act(current), np.float32)
            current, *outcome = envs.step(chosen)
            ended = recorder.add(chosen, current, *outcome)
            if stored >= steps:
                recorder.active &= ~ended
    finally:
        envs.close()


def _check(config: CollectConfig) -> None:
    if not config.out:
        raise UserError("no data set folder: give one with --out DIR")
    if config.steps < 1 or config.num_envs < 1:
        raise UserError("--steps and --num-envs must be at least 1")
    kind = config.policy.partition(":")[0]
    known = ("random", "sac", "expert", "run")
    if kind not in known or (kind == "run") != (":" in config.policy):
        raise UserError(
            f"--policy is 'random', 'sac', 'expert' or 'run:DIR', not '{config.policy}'"
        )
    if not 0 <= config.noise < math.inf:
        raise UserError(f"--noise must be at least 0, not {config.noise}")
    if config.noise and kind not in ("expert", "run"):
        raise UserError(f"--noise belongs to the policies 'expert' and 'run:DIR', not to '{kind}'")
    if config.resume and config.append:
        raise UserError("--resume continues a collection and --append starts a new one; choose one")
    if kind == "sac":
        from pwm.stages.sac import require_sac

        require_sac()


def _fixed_policy(config: CollectConfig, spec: TaskSpec, episodes: int) -> Act | None:
    """Action function of a policy that does not learn; None for SAC."""
    seed = stream_seed(config.seed, "actions", spec.id, episodes)
    if config.policy == "sac":
        return None
    if config.policy == "random":
        return random_actions(spec.action_dim, seed)
    if config.policy == "expert":
        from pwm.envs.metaworld import scripted_expert

        return _with_noise(scripted_expert(spec.id), config.noise, seed)
    from pwm.models.pretrained import Policy

    policy = Policy.from_pretrained(config.policy.partition(":")[2], spec.id)
    return _with_noise(policy.act, config.noise, seed)


def _with_noise(act: Act, deviation: float, seed: int) -> Act:
    """``act`` with Gaussian exploration, within the bounds of the actions."""
    generator = np.random.default_rng(seed)

    def noisy(observations: NDArray[np.float32]) -> NDArray[np.float32]:
        chosen = act(observations)
        noise = deviation * generator.standard_normal(chosen.shape)
        return np.clip(chosen + noise, -1, 1).astype(np.float32)

    return noisy


def _collector_name(config: CollectConfig) -> str:
    return config.policy.partition(":")[0]


def _settings(config: CollectConfig, first_episode: int) -> dict[str, Any]:
    settings = {"policy": config.policy, "seed": config.seed, "first_episode": first_episode}
    return settings | ({"noise": config.noise} if config.noise else {})


def _begin(config: CollectConfig, spec: TaskSpec) -> Collection:
    """Find out where this collection stands, without writing anything."""
    folder = Path(config.out) / "tasks" / slug(spec.id)
    if not (folder / "index.bin").exists():
        return Collection(folder, 0, 0, 0)
    try:
        lengths = EpisodeDataset.open(config.out, allow_empty=True).tasks[spec.id].lengths
    except KeyError:
        raise UserError(f"{folder} is damaged: its task.json names another task") from None
    collection = Collection(folder, 0, len(lengths), len(lengths))
    if config.append or len(lengths) == 0:
        return collection
    if not config.resume:
        raise UserError(
            f"{config.out} already holds {len(lengths)} episodes of {spec.id}; go on with "
            "--resume, add a new collection with --append, or choose another --out"
        )
    before = read_json(collection.state_file)
    if before != _settings(config, before.get("first_episode", 0)):
        raise UserError(
            f"{collection.state_file} was made with policy {before.get('policy')}, seed "
            f"{before.get('seed')} and noise {before.get('noise', 0.0)}; resume with the same ones"
        )
    first = before["first_episode"]
    return Collection(folder, int(lengths[first:].sum()), first, len(lengths))
