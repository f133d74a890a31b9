"""``pwm extract``: one task or many, determinism, resuming, and what it leaves behind."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pwm import Policy, WorldModel
from pwm.data import EpisodeDataset
from pwm.errors import UserError
from pwm.runtime.files import read_json
from pwm.runtime.metrics import read_metrics
from pwm.runtime.run_folder import checkpoint_steps
from pwm.stages import extract
from pwm.stages.rollout import episode_seeds

from .conftest import TASKS, debug_extract


def assert_same_policies(one, two, tasks=TASKS):
    for task in tasks:
        theirs = Policy.from_pretrained(two, task).state_dict()
        for name, tensor in Policy.from_pretrained(one, task).state_dict().items():
            assert torch.equal(tensor, theirs[name]), (task, name)


def test_all_tasks_of_the_model_by_default(policy, world_model):
    config = read_json(policy / "config.json")
    assert sorted(config["tasks"]) == sorted(TASKS)
    encoder = WorldModel.from_pretrained(world_model).encoder.state_dict()
    for task in TASKS:
        loaded = Policy.from_pretrained(policy, task)
        action = loaded.act(np.zeros((4, loaded.obs_dim), np.float32))
        assert action.shape == (4, loaded.action_dim) and np.abs(action).max() <= 1
        for name, tensor in loaded.encoder.state_dict().items():
            assert torch.equal(tensor, encoder[name])


def test_logs_real_against_imagined_from_the_start(policy):
    for task in TASKS:
        records = [r for r in read_metrics(policy / "metrics.jsonl") if r["task"] == task]
        evaluations = [r for r in records if r["kind"] == "evaluation"]
        assert [r["step"] for r in evaluations] == [0, 4, 8]
        for record in evaluations:
            assert {"real_return", "real_discounted", "imagined_value"} <= set(record)
            assert len(record["returns"]) == 2
        train = [r for r in records if r["kind"] == "train"]
        assert [r["step"] for r in train] == list(range(1, 9))
        assert {"imagined_return", "critic_loss", "actor_grad_norm"} <= set(train[0])


def test_notes_the_returns_of_the_data(policy, data):
    for task in TASKS:
        returns = EpisodeDataset.open(data).tasks[task].returns
        noted = read_json(policy / "config.json")["data_returns"][task]
        assert noted["episodes"] == len(returns)
        assert noted["mean"] == pytest.approx(returns.mean())
        assert noted["best_tenth"] == pytest.approx(returns.max())


def test_same_seed_same_policy_and_tasks_do_not_touch_each_other(
    data, world_model, policy, tmp_path
):
    """A task extracted alone equals the one extracted in a row of tasks."""
    extract.run(debug_extract(world_model, data, tmp_path / "alone", tasks=(TASKS[0],)))
    assert_same_policies(policy, tmp_path / "alone", TASKS[:1])
    extract.run(debug_extract(world_model, data, tmp_path / "other", tasks=(TASKS[0],), seed=1))
    one, two = (
        Policy.from_pretrained(run, TASKS[0]).state_dict() for run in (policy, tmp_path / "other")
    )
    assert any(not torch.equal(one[n], two[n]) for n in one if n.startswith("actor"))


def test_resumed_run_equals_one_that_was_not_killed(
    data, world_model, policy, tmp_path, monkeypatch
):
    save, calls = extract.save_checkpoint, []

    def save_and_die(*arguments, **kwargs):
        save(*arguments, **kwargs)
        calls.append(1)
        if len(calls) == 6:  # in the middle of the second task
            raise KeyboardInterrupt

    monkeypatch.setattr(extract, "save_checkpoint", save_and_die)
    with pytest.raises(KeyboardInterrupt):
        extract.run(debug_extract(world_model, data, tmp_path / "cut"))
    monkeypatch.undo()
    extract.run(debug_extract(world_model, data, tmp_path / "cut", resume=True))
    assert_same_policies(policy, tmp_path / "cut")
    for run in (policy, tmp_path / "cut"):
        steps = [(r["task"], r["kind"], r["step"]) for r in read_metrics(run / "metrics.jsonl")]
        assert len(steps) == len(set(steps)) == 2 * (8 + 3)


def test_extract_leaves_the_world_model_alone(data, world_model, tmp_path):
    before = {p: p.read_bytes() for p in world_model.rglob("*") if p.is_file()}
    extract.run(debug_extract(world_model, data, tmp_path / "run", tasks=(TASKS[1],), updates=2))
    assert {p: p.read_bytes() for p in world_model.rglob("*") if p.is_file()} == before


def test_resume_refuses_other_settings_and_finished_tasks_stay(data, world_model, policy):
    with pytest.raises(UserError, match="--horizon 4, not 5"):
        extract.run(debug_extract(world_model, data, policy, resume=True, horizon=5))
    before = checkpoint_steps(policy / "checkpoints" / "dmc__pendulum-swingup")
    extract.run(debug_extract(world_model, data, policy, resume=True))
    assert checkpoint_steps(policy / "checkpoints" / "dmc__pendulum-swingup") == before


def test_training_and_final_evaluation_use_other_episodes():
    for seed in range(5):
        for task in TASKS:
            during = episode_seeds(seed, f"extraction {task}", 50)
            for other in range(5):
                assert not set(during) & set(episode_seeds(other, f"evaluation {task}", 50))


def test_deployed_actor_is_the_running_average(data, world_model, tmp_path, monkeypatch):
    """Three updates by hand: the first copies the weights, later ones move by 1 - decay."""
    trainers = []
    init = extract.PolicyTrainer.__init__

    def noting(self, *arguments, **kwargs):
        init(self, *arguments, **kwargs)
        trainers.append(self)

    monkeypatch.setattr(extract.PolicyTrainer, "__init__", noting)
    seen = []
    update = extract.PolicyTrainer.update

    def recording(self, step):
        metrics = update(self, step)
        seen.append(self.actor.body[-1].weight.detach().clone())
        return metrics

    monkeypatch.setattr(extract.PolicyTrainer, "update", recording)
    for decay in (0.75, 0.0):
        seen.clear()
        extract.run(debug_extract(world_model, data, tmp_path / str(decay), tasks=TASKS[:1],
                                  updates=3, actor_average=decay))  # fmt: skip
        expected = seen[0]
        for weight in seen[1:]:
            expected = decay * expected + (1 - decay) * weight
        torch.testing.assert_close(trainers[-1].deployed.body[-1].weight, expected)


def test_best_policy_is_kept_and_last_on_request(data, world_model, tmp_path, monkeypatch):
    """Scripted returns: the best evaluation, of update 4, decides; a tie goes to the later one."""
    scores = {0: 1.0, 2: 5.0, 4: 5.0, 6: 3.0, 8: 4.0}
    kept: dict[int, dict] = {}

    class Scripted(extract.Selection):
        def offer(self, step, score):
            kept[step] = {name: t.clone() for name, t in self.policy.state_dict().items()}
            super().offer(step, scores[step])

    monkeypatch.setattr(extract, "Selection", Scripted)
    for select, step in (("best", 4), ("last", 8)):
        out = tmp_path / select
        extract.run(debug_extract(world_model, data, out, tasks=TASKS[:1], select=select,
                                  eval_every=2))  # fmt: skip
        policy = Policy.from_pretrained(out, TASKS[0]).state_dict()
        assert all(torch.equal(tensor, kept[step][name]) for name, tensor in policy.items())
    last = [r for r in read_metrics(tmp_path / "best" / "metrics.jsonl")][-1]
    assert last["selected_step"] == 4


def test_python_form_takes_plain_strings(data, world_model, tmp_path):
    run = extract.extract(
        world_model=world_model, data=str(data), tasks="pendulum-swingup", out=tmp_path / "run",
        updates=2, batch_size=4, horizon=2, eval_every=2, eval_episodes=1, device="cpu",
    )  # fmt: skip
    assert Policy.from_pretrained(run.path).task == "dmc/pendulum-swingup"


def test_python_form_takes_a_loaded_model_but_no_homeless_one(data, world_model, tmp_path):
    model = WorldModel.from_pretrained(world_model)
    settings = dict(data=data, tasks=TASKS[0], updates=1, batch_size=4, horizon=2, eval_every=2,
                    eval_episodes=1, device="cpu")  # fmt: skip
    extract.extract(world_model=model, out=tmp_path / "run", **settings)
    assert (tmp_path / "run" / "summary.json").exists()
    with pytest.raises(UserError, match="from_pretrained"):
        extract.extract(world_model=WorldModel(model.config), out=tmp_path / "no", **settings)
    assert not (tmp_path / "no").exists()
