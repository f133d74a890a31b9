"""``pwm tdmpc2``: one loop of acting, storing and learning; determinism; resuming; bad settings."""

from __future__ import annotations

from dataclasses import replace

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.wrappers import TimeLimit

from pwm import WorldModel, envs
from pwm.cli import main
from pwm.data import EpisodeDataset
from pwm.envs import registry
from pwm.errors import UserError
from pwm.runtime.files import read_json
from pwm.runtime.metrics import read_metrics
from pwm.runtime.run_folder import checkpoint_steps
from pwm.stages import evaluate, tdmpc2
from pwm.stages.tdmpc2_config import model_of, seed_steps_of

TASK, LENGTH = "test/rail", 20


class Rail(gymnasium.Env):
    """A point on a rail: reward for being near 0, the end of the rail ends the episode."""

    observation_space = gymnasium.spaces.Box(-2.0, 2.0, (2,), np.float32)
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.state = np.array([self.np_random.uniform(-0.5, 0.5), 0.0], np.float32)
        return self.state.copy(), {}

    def step(self, action):
        self.state[1] += 0.2 * float(action[0])
        self.state[0] += 0.2 * self.state[1]
        self.state = np.clip(self.state, -2, 2)
        x = float(self.state[0])
        return self.state.copy(), 1.0 - abs(x), abs(x) > 1, False, {}


@pytest.fixture(autouse=True, scope="module")
def _task():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "_user_tasks", {})
        patch.setattr(registry, "_measured", {})
        envs.register(TASK, lambda **options: TimeLimit(Rail(), LENGTH))
        yield


def config(out, **changes):
    settings = dict(
        task=TASK, out=str(out), size="1m", steps=160, num_envs=2, seed_steps=80, batch_size=16,
        updates_per_step=0.1, plan_iterations=1, plan_samples=96, log_every=1, eval_every=120,
        eval_episodes=2, checkpoint_every=40, device="cpu",
    )  # fmt: skip
    return tdmpc2.TDMPC2Config(**{**settings, **changes})


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("tdmpc2") / "run"
    tdmpc2.run(config(out))
    return out


def test_one_update_for_every_tenth_step_after_the_seed_steps(finished):
    records = list(read_metrics(finished / "metrics.jsonl"))
    train = [r for r in records if r["kind"] == "train"]
    assert [r["update"] for r in train] == list(range(1, 17))
    assert [r["step"] for r in train[:8]] == [80] * 8  # made up for at once
    assert [r["step"] for r in train[8:]] == [90, 100, 110, 120, 130, 140, 150, 160]
    wanted = {"loss", "consistency_loss", "reward_loss", "termination_loss", "value_loss",
              "prior_loss", "prior_entropy", "q_mean", "q_scale", "grad_norm"}  # fmt: skip
    assert wanted <= set(train[-1])
    evaluations = [r for r in records if r["kind"] == "evaluation"]
    assert [r["step"] for r in evaluations] == [120, 160]
    assert all(len(r["returns"]) == 2 for r in evaluations)
    summary = read_json(finished / "summary.json")
    assert (summary["steps"], summary["updates"]) == (160, 16)


def test_every_finished_episode_is_in_the_data_set(finished):
    task = EpisodeDataset.open(finished / "data").tasks[TASK]
    episodes = [r for r in read_metrics(finished / "metrics.jsonl") if r["kind"] == "episode"]
    assert task.lengths.tolist() == [r["length"] for r in episodes]
    assert task.returns.tolist() == pytest.approx([r["return"] for r in episodes])
    assert 160 - 2 * LENGTH < task.num_steps <= 160
    assert task.collectors == ("tdmpc2",)
    # what is stored is what the environment does
    for first, steps in zip(task.offsets, task.lengths, strict=True):
        states = task.observations[first : first + steps + 1]
        actions = task.actions[first + 1 : first + steps + 1, 0]
        velocity = np.clip(states[:-1, 1] + 0.2 * actions, -2, 2)
        np.testing.assert_allclose(states[1:, 1], velocity, atol=1e-5)


def test_the_run_plans_by_default(finished):
    results = evaluate.run(
        evaluate.EvaluateConfig(
            run=str(finished), episodes=2, plan_iterations=1, plan_samples=96, device="cpu"
        )
    )
    assert len(results[TASK]["0"]) == 2
    assert (finished / "plan" / "evaluation.json").exists()


def test_same_seed_same_agent_and_other_seed_another(finished, tmp_path):
    tdmpc2.run(config(tmp_path / "again"))
    tdmpc2.run(config(tmp_path / "other", seed=1))
    one, again, other = (
        WorldModel.from_pretrained(run).state_dict()
        for run in (finished, tmp_path / "again", tmp_path / "other")
    )
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not torch.equal(one["encoder.0.linear.weight"], other["encoder.0.linear.weight"])


def test_a_killed_run_goes_on_with_its_episodes_and_networks(tmp_path, monkeypatch):
    out, save = tmp_path / "run", tdmpc2.save_checkpoint

    def save_and_die(folder, step, *rest):
        save(folder, step, *rest)
        if step == 120:
            raise KeyboardInterrupt

    monkeypatch.setattr(tdmpc2, "save_checkpoint", save_and_die)
    with pytest.raises(KeyboardInterrupt):
        tdmpc2.run(config(out))
    monkeypatch.undo()
    before = EpisodeDataset.open(out / "data").tasks[TASK]
    kept = np.array(before.observations)
    assert checkpoint_steps(out / "checkpoints")[-1] == 120
    tdmpc2.run(config(out, resume=True, steps=200))
    after = EpisodeDataset.open(out / "data").tasks[TASK]
    assert after.lengths[: before.num_episodes].tolist() == before.lengths.tolist()
    assert (after.observations[: len(kept)] == kept).all()
    # other episodes than before the kill
    new = after.observations[after.offsets[before.num_episodes :]]
    assert not (new[:, None] == kept[before.offsets][None]).all(-1).any()
    updates = [r["update"] for r in read_metrics(out / "metrics.jsonl") if r["kind"] == "train"]
    assert updates == list(range(1, 21))  # none twice: the checkpoint was at update 12
    assert read_json(out / "summary.json")["resumed"]


def test_settings_that_are_tdmpc2s(tmp_path):
    dmc = envs.task_spec("cartpole-balance")
    plain = tdmpc2.TDMPC2Config(task="cartpole-balance", out="x")
    assert (plain.horizon, plain.rho, plain.batch_size, plain.size) == (3, 0.5, 256, "5m")
    model = model_of(plain, dmc)
    assert (model.latent_dim, model.hidden_dim, model.num_q, model.task_dim) == (512, 512, 5, 0)
    assert not model.termination and model_of(plain, envs.task_spec(TASK)).termination
    assert seed_steps_of(plain, dmc) == 2500
    assert seed_steps_of(config("x", num_envs=8, seed_steps=10), dmc) == 4000


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"task": ""}, "--task"),
        ({"task": "cartpole-balnace"}, "cartpole-balance"),
        ({"out": ""}, "--out"),
        ({"size": "6m"}, "unknown --size '6m'"),
        ({"batch_size": 0}, "--batch-size"),
        ({"updates_per_step": 0.0}, "--updates-per-step"),
        ({"plan_samples": 30}, "--plan-samples"),
        ({"buffer_size": 10}, "--buffer-size 10"),
    ],
)
def test_bad_settings_change_nothing(tmp_path, changes, message):
    with pytest.raises(UserError, match=message):
        tdmpc2.run(replace(config(tmp_path / "run"), **changes))
    assert not list(tmp_path.iterdir())


def test_an_occupied_folder_and_other_settings_on_resume(finished, capsys):
    assert main(["tdmpc2", "--task", "cartpole-balance", "--out", str(finished)]) == 2
    assert "already exists" in capsys.readouterr().err
    with pytest.raises(UserError, match="--batch-size 16, not 32"):
        tdmpc2.run(config(finished, resume=True, batch_size=32))
