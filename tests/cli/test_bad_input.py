"""Every kind of bad input: one clear line on stderr, exit code 2, nothing changed on disk."""

import json
import subprocess
import sys
import time

import numpy as np
import pytest
from damage import tree

from pwm.cli import main
from pwm.data import EpisodeWriter


def make_data(path, task="dmc/pendulum-swingup", obs=3, act=1, episodes=3, length=40):
    rng = np.random.default_rng(0)
    with EpisodeWriter(
        path, task, obs_dim=obs, action_dim=act, episode_length=500, collector="test"
    ) as writer:
        for seed in range(episodes):
            writer.append(
                rng.normal(size=(length + 1, obs)).astype(np.float32),
                rng.uniform(-1, 1, (length, act)).astype(np.float32),
                rng.uniform(0, 2, length).astype(np.float32),
                terminated=False, seed=seed,
            )  # fmt: skip
    return path


@pytest.fixture(scope="module")
def world_model(tmp_path_factory):
    root = tmp_path_factory.mktemp("world")
    make_data(root / "data")
    code = main(["pretrain", "debug", "--data", str(root / "data"), "--out", str(root / "wm")])
    assert code == 0
    return root


def fails(arguments, root, capsys, *needles):
    """The command exits with 2, says ``needles`` in one line, and changes nothing under root."""
    before = tree(root)
    assert main([str(a) for a in arguments]) == 2
    captured = capsys.readouterr()
    lines = captured.err.strip().splitlines()
    assert len(lines) == 1, captured.err
    assert captured.out == ""
    for needle in needles:
        assert needle in lines[0], lines[0]
    assert tree(root) == before


def test_unknown_verb_task_preset_and_flag(tmp_path, capsys):
    fails(["pretrian"], tmp_path, capsys, "Did you mean 'pretrain'")
    data = make_data(tmp_path / "data")
    out = tmp_path / "run"
    fails(["pretrain", "mt30-5n", "--data", data, "--out", out], tmp_path, capsys,
          "unknown preset 'mt30-5n'", "'mt30-5m'")  # fmt: skip
    fails(["pretrain", "debug", "--data", data, "--out", out, "--btach-size", "3"], tmp_path,
          capsys, "--btach-size")  # fmt: skip
    fails(["pretrain", "debug", "--data", data, "--out", out, "--batch-size", "x"], tmp_path,
          capsys, "--batch-size", "'x'")  # fmt: skip
    fails(["collect", "--task", "walker-wlak", "--out", tmp_path / "d"], tmp_path, capsys,
          "unknown task 'walker-wlak'", "walker-walk")  # fmt: skip
    fails(["tasks", "--suite", "mt31"], tmp_path, capsys, "mt30")
    fails(["collect", "--task", "pendulum-swingup", "--policy", "sca", "--out", tmp_path / "d"],
          tmp_path, capsys, "--policy", "'sca'")  # fmt: skip


def test_missing_arguments(tmp_path, capsys):
    fails(["pretrain", "debug"], tmp_path, capsys, "--data")
    fails(["pretrain", "debug", "--data", tmp_path], tmp_path, capsys, "--out")
    fails(["extract"], tmp_path, capsys, "--world-model")
    fails(["pretrain"], tmp_path, capsys, "PRESET")


def test_empty_missing_and_truncated_data(tmp_path, capsys):
    out = tmp_path / "run"
    pretrain = ["pretrain", "debug", "--out", out, "--data"]
    fails([*pretrain, tmp_path / "nothing"], tmp_path, capsys, "nothing")
    (tmp_path / "empty").mkdir()
    fails([*pretrain, tmp_path / "empty"], tmp_path, capsys, "empty")
    data = make_data(tmp_path / "data")
    rewards = data / "tasks" / "dmc__pendulum-swingup" / "rewards.bin"
    rewards.write_bytes(rewards.read_bytes()[:-8])
    fails([*pretrain, data], tmp_path, capsys, "rewards.bin", "truncated")
    fails(["data", "info", data], tmp_path, capsys, "rewards.bin")


def test_too_short_episodes_for_the_horizon(tmp_path, capsys):
    data = make_data(tmp_path / "data", length=10)
    fails(["pretrain", "debug", "--data", data, "--out", tmp_path / "run"], tmp_path, capsys,
          "dmc/pendulum-swingup")  # fmt: skip


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite_are_located(tmp_path, capsys, value):
    data = make_data(tmp_path / "data", episodes=3, length=40)
    path = data / "tasks" / "dmc__pendulum-swingup" / "observations.bin"
    raw = np.fromfile(path, np.float32).reshape(-1, 3)
    raw[41 + 7, 2] = value  # episode 1, step 7
    raw.tofile(path)
    fails(["pretrain", "debug", "--data", data, "--out", tmp_path / "run"], tmp_path, capsys,
          "observations.bin", "episode 1", "step 7")  # fmt: skip


def test_an_existing_run_folder(world_model, capsys):
    root = world_model
    fails(["pretrain", "debug", "--data", root / "data", "--out", root / "wm"], root, capsys,
          "already exists", "--resume")  # fmt: skip
    fails(["extract", "--world-model", root / "wm", "--data", root / "data", "--out",
           root / "wm"], root, capsys, "already exists")  # fmt: skip


def test_data_that_does_not_fit_the_model(world_model, tmp_path, capsys):
    wm = world_model / "wm"
    other = make_data(tmp_path / "other", "dmc/cartpole-swingup", obs=5)
    fails(["extract", "--world-model", wm, "--data", other, "--out", tmp_path / "p"], tmp_path,
          capsys, "no episodes of task 'dmc/pendulum-swingup'")  # fmt: skip
    wide = make_data(tmp_path / "wide", obs=4)
    fails(["extract", "--world-model", wm, "--data", wide, "--out", tmp_path / "p"], tmp_path,
          capsys, "(4, 1)", "(3, 1)")  # fmt: skip
    fails(["extract", "--world-model", wm, "--data", world_model / "data", "--task",
           "cartpole-swingup", "--out", tmp_path / "p"], tmp_path, capsys,
          "does not know task 'dmc/cartpole-swingup'")  # fmt: skip
    fails(["extract", "--world-model", tmp_path, "--data", other, "--out", tmp_path / "p"],
          tmp_path, capsys, "not a run folder")  # fmt: skip
    fails(["evaluate", wm], tmp_path, capsys, "pwm pretrain")


def test_collecting_twice_into_the_same_place(tmp_path, capsys):
    data = make_data(tmp_path / "data")
    fails(["collect", "--task", "pendulum-swingup", "--steps", "500", "--out", data], tmp_path,
          capsys, "already holds 3 episodes", "--resume", "--append")  # fmt: skip


def test_missing_extras_name_the_install_command(tmp_path, capsys, monkeypatch):
    import importlib.util

    monkeypatch.setitem(sys.modules, "stable_baselines3", None)
    fails(["collect", "--task", "pendulum-swingup", "--policy", "sac", "--out", tmp_path / "d"],
          tmp_path, capsys, "pip install 'pwm-rl[sac]'")  # fmt: skip
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "imageio" else find(name, *a)
    )
    fails(["demo", "--out", tmp_path / "demo"], tmp_path, capsys, "pip install 'pwm-rl[demo]'")


def test_the_command_starts_fast_and_reports_on_stderr_only():
    begin = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "pwm", "--help"], capture_output=True, text=True
    )
    assert done.returncode == 0 and "pretrain" in done.stdout
    assert time.monotonic() - begin < 10
    loaded = {line.rsplit("|", 1)[-1].strip() for line in done.stderr.splitlines()}
    assert not loaded & {"torch", "numpy", "mujoco", "gymnasium", "rich"}


def test_json_goes_to_stdout_as_one_object(capsys):
    assert main(["tasks", "--suite", "mt30", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["tasks"]) == 30
