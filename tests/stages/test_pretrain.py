"""``pwm pretrain``: what it logs, determinism, and resuming bit for bit."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from pwm import WorldModel
from pwm.data import EpisodeDataset
from pwm.errors import UserError
from pwm.presets import pretrain_preset
from pwm.runtime.files import read_json
from pwm.runtime.metrics import read_metrics
from pwm.runtime.run_folder import checkpoint_steps
from pwm.stages import pretrain
from pwm.stages.pretrain_config import check, horizon_at, learning_rate_at

from .conftest import TASKS, debug_pretrain


def weights(run):
    return WorldModel.from_pretrained(run).state_dict()


def assert_same_weights(one, two):
    for name, tensor in weights(one).items():
        assert torch.equal(tensor, weights(two)[name]), name


def test_logs_what_the_documentation_promises(world_model):
    records = list(read_metrics(world_model / "metrics.jsonl"))
    train = [r for r in records if r["kind"] == "train"]
    held_out = [r for r in records if r["kind"] == "evaluation"]
    assert {"loss", "consistency_loss", "reward_loss", "grad_norm", "steps_per_second"} <= set(
        train[-1]
    )
    for depth in (1, 4, 8, 16):
        assert {f"latent_error_{depth}", f"reward_error_{depth}"} <= set(held_out[-1])
    assert {"latent_entropy", "latent_variance"} <= set(held_out[-1])
    assert [r["step"] for r in held_out] == [10, 20]
    config = read_json(world_model / "config.json")
    assert config["stage"] == "pretrain" and config["seed"] == 0
    assert config["versions"]["torch"] and config["hardware"] and config["command"]
    assert sorted(config["model"]["tasks"]) == sorted(TASKS)
    summary = read_json(world_model / "summary.json")
    assert summary["wall_seconds"] > 0 and summary["peak_memory_bytes"] > 1e7


def test_same_seed_same_weights_other_seed_others(data, world_model, tmp_path):
    pretrain.run(debug_pretrain(data, tmp_path / "again"))
    assert_same_weights(world_model, tmp_path / "again")
    pretrain.run(debug_pretrain(data, tmp_path / "other", seed=1))
    one, two = weights(world_model), weights(tmp_path / "other")
    assert not any(torch.equal(one[n], two[n]) for n in one if n.endswith("linear.weight"))


def test_resumed_run_equals_one_that_was_not_killed(data, world_model, tmp_path, monkeypatch):
    """Stopped between two checkpoints, with short windows and moments in play as well."""
    changes = dict(short_fraction=0.5, decay_fraction=0.5, normalize_observations=True)
    pretrain.run(debug_pretrain(data, tmp_path / "whole", **changes))
    save = pretrain.save_checkpoint

    def save_and_die(folder, step, *rest, **kwargs):
        save(folder, step, *rest, **kwargs)
        if step == 10:
            raise KeyboardInterrupt

    monkeypatch.setattr(pretrain, "save_checkpoint", save_and_die)
    with pytest.raises(KeyboardInterrupt):
        pretrain.run(debug_pretrain(data, tmp_path / "cut", **changes))
    monkeypatch.undo()
    assert checkpoint_steps(tmp_path / "cut" / "checkpoints")[-1] == 10
    pretrain.run(debug_pretrain(data, tmp_path / "cut", resume=True, **changes))
    assert_same_weights(tmp_path / "whole", tmp_path / "cut")
    kinds = [(r["step"], r["kind"]) for r in read_metrics(tmp_path / "cut" / "metrics.jsonl")]
    assert kinds == [
        (r["step"], r["kind"]) for r in read_metrics(tmp_path / "whole" / "metrics.jsonl")
    ]


@pytest.mark.slow
def test_process_killed_at_any_moment_resumes_to_the_same_weights(data, tmp_path):
    command = [sys.executable, "-m", "pwm", "pretrain", "debug", "--data", str(data),
               "--updates", "300", "--checkpoint-every", "20", "--device", "cpu"]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    subprocess.run([*command, "--out", str(whole)], check=True, env=environment,
                   capture_output=True)  # fmt: skip
    process = subprocess.Popen([*command, "--out", str(cut)], env=environment,
                               stderr=subprocess.PIPE)  # fmt: skip
    deadline = time.monotonic() + 60
    while not checkpoint_steps(cut / "checkpoints") and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.1)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert 0 < checkpoint_steps(cut / "checkpoints")[-1] < 300
    assert not (cut / "summary.json").exists()
    subprocess.run([*command, "--out", str(cut), "--resume"], check=True, env=environment,
                   capture_output=True)  # fmt: skip
    assert_same_weights(whole, cut)


def test_only_the_newest_checkpoints_are_kept(world_model):
    assert checkpoint_steps(world_model / "checkpoints") == [15, 20]


def test_resume_refuses_other_settings(data, tmp_path):
    pretrain.run(debug_pretrain(data, tmp_path / "run"))
    with pytest.raises(UserError, match="--batch-size 16, not 32"):
        pretrain.run(debug_pretrain(data, tmp_path / "run", resume=True, batch_size=32))


def test_moments_come_from_the_data(data, tmp_path):
    pretrain.run(debug_pretrain(data, tmp_path / "run", normalize_observations=True, updates=5))
    model = WorldModel.from_pretrained(tmp_path / "run")
    for index, task in enumerate(model.config.tasks):
        rows = np.asarray(EpisodeDataset.open(data).tasks[task].observations, np.float64)
        width = rows.shape[1]
        np.testing.assert_allclose(model.obs_mean[index, :width], rows.mean(0), atol=1e-5)
        np.testing.assert_allclose(model.obs_scale[index, :width], 1 / rows.std(0), rtol=1e-4)
        assert (model.obs_mean[index, width:] == 0).all()


def test_one_task_alone_needs_no_embedding(data, tmp_path):
    pretrain.run(debug_pretrain(data, tmp_path / "run", tasks=("pendulum-swingup",), updates=5))
    model = WorldModel.from_pretrained(tmp_path / "run")
    assert model.embedding is None and model.config.tasks == (TASKS[0],)


def test_schedules_by_hand():
    config = pretrain.PretrainConfig(
        updates=100, learning_rate=1.0, decay_fraction=0.5, short_fraction=0.3
    )
    assert [learning_rate_at(config, s) for s in (0, 50, 75, 100)] == [1.0, 1.0, 0.5, 0.02]
    assert [horizon_at(config, s) for s in (1, 30, 31, 100)] == [4, 4, 16, 16]


def test_training_that_diverges_stops_with_the_last_good_checkpoint(data, tmp_path):
    with pytest.raises(UserError, match="diverged"):
        pretrain.run(debug_pretrain(data, tmp_path / "run", learning_rate=1e30, log_every=1))


def test_q_heads_and_prior_train_on_request_and_resume_bit_for_bit(data, tmp_path):
    changes = dict(num_q=2, horizon=3, rho=0.5)
    pretrain.run(debug_pretrain(data, tmp_path / "whole", **changes))
    records = [r for r in read_metrics(tmp_path / "whole" / "metrics.jsonl")]
    assert {"value_loss", "prior_loss", "q_mean"} <= set(records[-2])
    model = WorldModel.from_pretrained(tmp_path / "whole")
    untrained = WorldModel(model.config)
    for name in ("q_heads.0.out.weight", "target_q_heads.0.out.weight"):
        assert model.state_dict()[name].abs().sum() > 0, name  # zero at the start
    prior = "prior_head.out.weight"
    assert not torch.equal(model.state_dict()[prior], untrained.state_dict()[prior])
    shutil.copytree(tmp_path / "whole", tmp_path / "cut")
    shutil.rmtree(tmp_path / "cut" / "checkpoints" / "step_00000020")
    pretrain.run(debug_pretrain(data, tmp_path / "cut", resume=True, **changes))
    assert_same_weights(tmp_path / "whole", tmp_path / "cut")


def test_presets_of_tdmpc2():
    plain, full = pretrain_preset("mt30-5m"), pretrain_preset("tdmpc2-mt30-5m")
    assert (plain.horizon, plain.rho, plain.num_q) == (16, 0.99, 0)
    assert (full.horizon, full.rho, full.num_q) == (3, 0.5, 5)
    assert full.latent_dim == plain.latent_dim
    for name in ("tdmpc2-single-1m", "tdmpc2-mt80-317m"):
        check(replace(pretrain_preset(name), data=("d",), out="o"))


def test_a_task_that_the_data_lacks(data, tmp_path):
    for name in ("cartpole-swingup", "no-such-task"):
        with pytest.raises(UserError, match=f"holds no task '{name}'"):
            pretrain.run(debug_pretrain(data, tmp_path / "run", tasks=(name,)))
    assert not list(tmp_path.iterdir())


def test_one_q_head_is_refused(data, tmp_path):
    with pytest.raises(UserError, match="--num-q"):
        pretrain.run(debug_pretrain(data, tmp_path / "run", num_q=1))
