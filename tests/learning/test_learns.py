"""Short runs that must learn, on the data set that ships with the package. Fixed seeds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("dm_control")

from pwm.demo import demo_data
from pwm.presets import demo_extract, pretrain_preset
from pwm.runtime.files import read_json
from pwm.runtime.metrics import read_metrics
from pwm.stages import evaluate, extract, pretrain

TASK = "dmc/reacher-easy"


@pytest.fixture(scope="module")
def world_model(tmp_path_factory):
    """One task, short windows: half a minute on one core."""
    out = tmp_path_factory.mktemp("learning") / "world_model"
    settings = replace(
        pretrain_preset("demo"), data=(str(demo_data()),), tasks=(TASK,), out=str(out),
        updates=900, batch_size=192, eval_every=50, device="cpu",
    )  # fmt: skip
    pretrain.run(settings)
    return out


@pytest.mark.slow
def test_world_model_predicts_held_out_episodes(world_model):
    held_out = [r for r in read_metrics(world_model / "metrics.jsonl") if r["kind"] == "evaluation"]
    first, last = held_out[0], held_out[-1]
    assert last["latent_error_1"] < 0.25 and last["latent_error_16"] < 0.8
    assert last["reward_error_1"] < 0.7 * first["reward_error_1"]
    assert 0.3 < last["latent_entropy"] < 0.98 and last["latent_variance"] > 1e-3


@pytest.mark.slow
def test_policy_beats_its_data(world_model, tmp_path):
    """Well above the data's mean and far above the random policy."""
    run = tmp_path / "policy"
    settings = replace(
        demo_extract(), world_model=str(world_model), data=(str(demo_data()),), tasks=(TASK,),
        out=str(run), updates=150, eval_every=50, device="cpu",
    )  # fmt: skip
    extract.run(settings)
    results = evaluate.run(evaluate.EvaluateConfig(run=str(run), episodes=50, device="cpu"))
    mean = np.mean(results[TASK]["0"])
    baselines = read_json(run / "baselines.json")[TASK]
    assert mean > 1.2 * baselines["data"]["mean"]
    assert mean > 3 * np.mean(baselines["random"])
