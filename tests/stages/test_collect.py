"""``pwm collect``: whole episodes, in order, none lost by a kill."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from pwm.data import EpisodeDataset
from pwm.envs import TaskSpec, make, register, registry
from pwm.errors import UserError
from pwm.seeding import stream_seed
from pwm.stages import collect
from pwm.stages.collect import CollectConfig, collect_vectorised

from .conftest import TASKS


def test_stored_episodes_replay_in_the_simulator(data):
    """The stored actions, played from the same start, give the stored observations and rewards."""
    task = EpisodeDataset.open(data).tasks["dmc/pendulum-swingup"]
    assert list(task.lengths) == [500, 500] and not task.any_terminated()
    assert task.collectors == ("random",)
    env = make("pendulum-swingup")
    first = stream_seed(stream_seed(0, "collect", 0), "env", 0)
    observation, _ = env.reset(seed=first)
    np.testing.assert_array_equal(task.observations[0], observation)
    total = 0.0
    for t in range(1, 501):
        observation, reward, *_ = env.step(task.actions[t])
        np.testing.assert_array_equal(task.observations[t], observation)
        assert task.rewards[t] == pytest.approx(reward, rel=1e-6)
        total += reward
    assert task.returns[0] == pytest.approx(total, rel=1e-5)


def test_same_seed_same_data_and_append_adds_other_episodes(tmp_path):
    for name in ("a", "b"):
        collect.run(CollectConfig(task=TASKS[0], steps=500, out=str(tmp_path / name), seed=3))
    a, b = (EpisodeDataset.open(tmp_path / n).tasks[TASKS[0]] for n in ("a", "b"))
    np.testing.assert_array_equal(a.observations, b.observations)
    with pytest.raises(UserError, match="--append"):
        collect.run(CollectConfig(task=TASKS[0], steps=500, out=str(tmp_path / "a")))
    collect.run(
        CollectConfig(task=TASKS[0], steps=500, out=str(tmp_path / "a"), seed=4, append=True)
    )
    more = EpisodeDataset.open(tmp_path / "a").tasks[TASKS[0]]
    assert more.num_episodes == 2 and list(more.seeds) == [3, 4]
    np.testing.assert_array_equal(more.observations[:501], b.observations)
    assert not np.array_equal(more.observations[501:], b.observations)


def test_policy_run_collects_with_noise(policy, tmp_path):
    for name, noise in (("still", 0.0), ("noisy", 0.5)):
        collect.run(CollectConfig(task=TASKS[0], policy=f"run:{policy}", steps=500, noise=noise,
                                  out=str(tmp_path / name)))  # fmt: skip
    still, noisy = (EpisodeDataset.open(tmp_path / n).tasks[TASKS[0]] for n in ("still", "noisy"))
    assert still.collectors == ("run",)
    jumps = [np.abs(np.diff(d.actions[1:], axis=0)).mean() for d in (still, noisy)]
    assert jumps[1] > 3 * jumps[0] and np.abs(noisy.actions[1:]).max() <= 1


class RaggedEnvs:
    """Two vectorised environments whose episodes last 2, 3, 4, ... steps; o = steps so far."""

    def __init__(self):
        self.lengths, self.t = np.array([2, 5]), np.zeros(2, int)

    def reset(self, seed=None):
        return self.t[:, None].astype(np.float32), {}

    def step(self, actions):
        self.t += 1
        ended = self.t == self.lengths
        final = np.full(2, None, object)
        for i in np.flatnonzero(ended):
            final[i] = np.array([self.t[i]], np.float32)
        rewards = self.t.astype(float)
        self.t[ended], self.lengths[ended] = 0, self.lengths[ended] + 1
        return self.t[:, None].astype(np.float32), rewards, ended, ended & False, {
            "final_obs": final, "_final_obs": ended}  # fmt: skip

    def close(self):
        pass


def ragged(monkeypatch, steps):
    monkeypatch.setattr(collect, "make_vec", lambda *args, **kwargs: RaggedEnvs())
    spec = TaskSpec("x/y", ("x",), obs_dim=1, action_dim=1, episode_length=None,
                    action_repeat=1, extra=None)  # fmt: skip
    stored: list[tuple] = []

    def store(*episode):
        stored.append(tuple(np.array(part) for part in episode[:4]))

    collect_vectorised(spec, lambda o: np.zeros((2, 1)), steps, 2, 0, store)
    return stored


def test_episodes_that_run_when_the_goal_is_reached_are_finished(monkeypatch):
    stored = ragged(monkeypatch, steps=6)
    # environment 0: 2, 3, 4 steps; environment 1: 5. The goal of 6 is passed at time 5.
    assert [len(rewards) for _, _, rewards, _ in stored] == [2, 3, 5]
    for observations, _, rewards, terminated in stored:
        steps = len(rewards)
        np.testing.assert_array_equal(observations[:, 0], np.arange(steps + 1))
        np.testing.assert_array_equal(rewards, np.arange(1, steps + 1))
        assert terminated


def test_without_a_time_limit_long_episodes_are_cut(monkeypatch):
    stored = ragged(monkeypatch, steps=3)
    assert [(len(r), bool(e)) for _, _, r, e in stored] == [(2, True), (3, False), (3, True)]
    np.testing.assert_array_equal(stored[1][0][:, 0], [0, 1, 2, 3])


def _collecting(out, steps):
    return [sys.executable, "-m", "pwm", "collect", "--task", "pendulum-swingup", "--policy",
            "sac", "--steps", str(steps), "--out", str(out)]  # fmt: skip


@pytest.mark.slow
def test_killed_sac_collection_resumes_without_losing_an_episode(tmp_path):
    pytest.importorskip("stable_baselines3")
    out = tmp_path / "data"
    folder = out / "tasks" / "dmc__pendulum-swingup"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(_collecting(out, 10**6), env=environment, stderr=subprocess.PIPE)

    def episodes():
        return EpisodeDataset.open(out, allow_empty=True).tasks["dmc/pendulum-swingup"]

    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if (folder / "index.bin").exists() and episodes().num_episodes >= 3:
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    before = episodes()
    kept, count = np.array(before.observations), before.num_episodes
    assert count >= 3
    goal = (count + 1) * 500
    done = subprocess.run([*_collecting(out, goal), "--resume"], env=environment,
                          capture_output=True, text=True)  # fmt: skip
    assert done.returncode == 0, done.stderr
    after = episodes()
    assert after.num_episodes == count + 1 and after.collectors == ("sac",)
    np.testing.assert_array_equal(after.observations[: len(kept)], kept)
    assert (after.lengths == 500).all()


def test_user_registered_environment_can_be_collected(tmp_path, monkeypatch):
    gymnasium = pytest.importorskip("gymnasium")
    monkeypatch.setattr(registry, "_user_tasks", {})
    monkeypatch.setattr(registry, "_measured", {})
    register("mine/pendulum", lambda **kwargs: gymnasium.make("Pendulum-v1", **kwargs))
    collect.run(CollectConfig(task="mine/pendulum", steps=300, out=str(tmp_path / "d")))
    task = EpisodeDataset.open(tmp_path / "d").tasks["mine/pendulum"]
    assert task.num_steps >= 300 and task.obs_dim == 3
    assert np.abs(task.actions[1:200]).max() <= 1
