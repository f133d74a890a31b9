"""Run folders and checkpoints: atomic, complete or absent, clear errors."""

import json

import pytest
import torch

from pwm.errors import UserError
from pwm.runtime.files import new_directory, write_json
from pwm.runtime.run_folder import (
    RunFolder,
    checkpoint_path,
    checkpoint_steps,
    load_state,
    load_weights,
    save_checkpoint,
)


def test_create_records_what_a_rerun_needs(tmp_path):
    run = RunFolder.create(tmp_path / "run", "pretrain", {"seed": 3}, model={"latent_dim": 8})
    config = json.loads((run.path / "config.json").read_text())
    assert config["stage"] == "pretrain" and config["seed"] == 3
    assert config["model"] == {"latent_dim": 8}
    assert {"command", "git_revision", "versions", "hardware", "precision"} <= set(config)
    assert run.metrics_path.exists() and run.checkpoints.is_dir()
    assert RunFolder.open(run.path, "pretrain").config == config


def test_an_occupied_folder_is_refused_and_left_alone(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "mine.txt").write_text("keep")
    with pytest.raises(UserError, match="already exists"):
        RunFolder.create(tmp_path / "run", "pretrain", {})
    assert [p.name for p in (tmp_path / "run").iterdir()] == ["mine.txt"]
    with pytest.raises(UserError, match="is a file"):
        RunFolder.check_free(tmp_path / "run" / "mine.txt")


def test_opening_the_wrong_thing_says_what_is_wrong(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        RunFolder.open(tmp_path / "nothing")
    with pytest.raises(UserError, match="no config.json"):
        RunFolder.open(tmp_path)
    RunFolder.create(tmp_path / "run", "pretrain", {})
    with pytest.raises(UserError, match="'pwm pretrain', but a run of 'pwm extract'"):
        RunFolder.open(tmp_path / "run", "extract")
    write_json(tmp_path / "run" / "config.json", {"format": 99, "stage": "a", "config": {}})
    with pytest.raises(UserError, match="format 99"):
        RunFolder.open(tmp_path / "run")
    (tmp_path / "run" / "config.json").write_text("{broken")
    with pytest.raises(UserError, match="not valid JSON"):
        RunFolder.open(tmp_path / "run")


def test_checkpoints_round_trip_and_old_ones_go(tmp_path):
    weights = {"w": torch.arange(6.0).view(2, 3).t()}
    for step in (10, 20, 30):
        save_checkpoint(tmp_path, step, {"m": weights}, {"step": step})
    assert checkpoint_steps(tmp_path) == [20, 30]
    newest = checkpoint_path(tmp_path, 30)
    assert torch.equal(load_weights(newest / "m.safetensors")["w"], weights["w"])
    assert load_state(newest / "state.pt") == {"step": 30}


def test_a_failed_write_leaves_nothing_behind(tmp_path):
    with pytest.raises(RuntimeError), new_directory(tmp_path / "step_00000001") as temporary:
        (temporary / "half").write_text("x")
        raise RuntimeError("killed")
    assert list(tmp_path.iterdir()) == []


def test_damaged_files_are_named(tmp_path):
    bad = tmp_path / "m.safetensors"
    with pytest.raises(UserError, match="incomplete"):
        load_weights(bad)
    bad.write_bytes(b"\x10\x00\x00\x00\x00\x00\x00\x00{nonsense")
    with pytest.raises(UserError, match="damaged"):
        load_weights(bad)
    (tmp_path / "state.pt").write_bytes(b"nonsense")
    with pytest.raises(UserError, match="state.pt can't be read"):
        load_state(tmp_path / "state.pt")


class Hostile:
    def __reduce__(self):
        return (print, ("code ran",))


def test_state_files_never_run_code(tmp_path, capsys):
    torch.save({"x": Hostile()}, tmp_path / "state.pt")
    with pytest.raises(UserError, match="state.pt"):
        load_state(tmp_path / "state.pt")
    assert "code ran" not in capsys.readouterr().out
