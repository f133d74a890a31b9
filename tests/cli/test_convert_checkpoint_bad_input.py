"""Bad input of ``pwm convert tdmpc2-checkpoint``: one clear line, exit code 2, nothing on disk."""

from __future__ import annotations

import pytest
import torch
from damage import Touch, tree
from tdmpc2_files import make_actor, make_state, save, save_agent

from pwm.cli import main
from pwm.envs import list_tasks

MT30_DIMS = [spec.action_dim for spec in list_tasks("mt30")]
MULTI = dict(tasks=30, obs=24, action=6, action_dims=MT30_DIMS)


@pytest.fixture
def fails(tmp_path, capsys):
    def check(arguments, *needles, out=True):
        """Exit code 2, ``needles`` in the one line on stderr, nothing new under tmp_path."""
        before = tree(tmp_path)
        more = ["--out", tmp_path / "new" / "run"] if out else []
        command = ["convert", "tdmpc2-checkpoint", *arguments, *more]
        assert main([str(argument) for argument in command]) == 2
        captured = capsys.readouterr()
        (line,) = captured.err.strip().splitlines()
        assert captured.out == "" and line.startswith("pwm: error: ")
        for needle in needles:
            assert str(needle) in line, line
        assert tree(tmp_path) == before

    return check


@pytest.fixture
def single(tmp_path):
    return save(tmp_path / "single.pt", make_state("OLD"))


@pytest.fixture
def multi(tmp_path):
    return save(tmp_path / "multi.pt", make_state("NEW", **MULTI))


def test_arguments(single, multi, fails):
    fails([], "FILE", "--help")
    fails([single], "--out", out=False)
    fails([single, "--task", "pendulum-swingup", "--task-set", "mt30"], "give one of them")
    fails([multi, "--task-set", "mt31"], "'mt31'", "Did you mean 'mt30'")
    fails([single, "--task", "pendulum-swignup"], "pendulum-swingup")
    fails([single, "--task", "pendulum-swingup", "--log-std-range", "2", "-10"], "low before high")
    fails([single, "--task", "pendulum-swingup", "--log-std-range", "2"], "two numbers")
    fails([single, "--task", "pendulum-swingup", "--log-std-range", "nan", "2"], "two numbers")
    fails([single, "--back", "--task", "pendulum-swingup"], "--back takes no other setting")


def test_files_that_are_something_else(tmp_path, fails):
    fails([tmp_path / "none.pt"], "none.pt does not exist")
    (tmp_path / "text.pt").write_text("hello")
    fails([tmp_path / "text.pt"], "is not a torch file")
    torch.save({"weight": torch.ones(2)}, tmp_path / "other.pt")
    fails([tmp_path / "other.pt"], "is no checkpoint of TD-MPC2", "weight")
    torch.save([1, 2], tmp_path / "list.pt")
    fails([tmp_path / "list.pt"], "is no checkpoint of TD-MPC2")
    torch.save({"world_model": {}, "actor": {}}, tmp_path / "agent.pt")
    fails([tmp_path / "agent.pt"], "layout PWM", "lacks", "_encoder.0.weight")


@pytest.mark.parametrize("where", ["beside", "inside", "agent"])
def test_a_hostile_file_is_named_and_not_run(tmp_path, fails, where):
    mark, file = tmp_path / "mark", tmp_path / "hostile.pt"
    state = make_state("OLD")
    if where == "agent":
        save_agent(file, make_state("PWM"), make_actor(16, 1), critic=Touch(mark))
    elif where == "inside":
        save(file, {**state, "_pi.0.bias": Touch(mark)})
    else:
        torch.save({"model": state, "optim": Touch(mark)}, file)
    fails([file, "--task", "pendulum-swingup"], "hostile.pt asks for", "system", "nothing was run")
    assert not mark.exists()
    if where != "agent":
        torch.load(file, weights_only=False)
        assert mark.exists(), "the file is hostile indeed"


@pytest.mark.parametrize("keep", [0.1, 0.5, 0.9, 0.999])
def test_a_truncated_file(single, fails, keep):
    data = single.read_bytes()
    single.write_bytes(data[: int(keep * len(data))])
    fails([single, "--task", "pendulum-swingup"], "single.pt", "truncated")


@pytest.mark.parametrize("layout", ["OLD", "NEW", "NOV24", "FLAT"])
def test_missing_unknown_misshapen_and_infinite(tmp_path, fails, layout):
    task, file = ["--task", "pendulum-swingup"], tmp_path / "file.pt"
    state = make_state(layout)
    linear = "_reward.3.weight" if layout == "FLAT" else "_reward.1.weight"
    less = {k: v for k, v in state.items() if k not in (linear, "_pi.0.bias")}
    fails([save(file, less), *task], f"layout {layout}", "lacks 2 of", linear, "_pi.0.bias")
    more = {**state, "_extra.weight": torch.ones(2), "_more": torch.ones(2)}
    fails([save(file, more), *task], "2 keys that are no part", "_extra.weight, _more")
    shaped = {**state, linear: torch.ones(24, 25)}
    fails([save(file, shaped), *task], f"'{linear}' has shape (24, 25)", "expected (24, 24)")
    state[linear] = torch.full((24, 24), float("nan"))
    fails([save(file, state), *task], f"'{linear}' has 576 of 576 values", "NaN")


def test_tasks_that_do_not_fit(tmp_path, single, multi, fails):
    fails([single], "single-task model of 3 observations and 1 actions", "--task ID",
          "dmc/pendulum-swingup")  # fmt: skip
    fails([single, "--task-set", "mt30"], "--task-set is for multi-task models", "--task ID")
    fails([single, "--task", "walker-walk"], "dmc/walker-walk has 24 observations and 6 actions",
          "but the model 3 and 1")  # fmt: skip
    fails([multi, "--task", "walker-walk"], "multi-task model of 30 tasks", "leave it out")
    fails([multi, "--task-set", "mt80"], "(30, 24, 6)", "not mt80", "--task-set mt30")
    odd = save(tmp_path / "odd.pt", make_state("OLD", tasks=12, obs=24, action=6))
    fails([odd], "(12, 24, 6)", "not a known task set", "mt80: (80, 39, 6)")
    wide = save(tmp_path / "wide.pt", make_state("OLD", tasks=30, obs=39, action=6))
    fails([wide, "--task-set", "mt30"], "(30, 39, 6)", "not mt30 (mt30: (30, 24, 6)")


def test_masks_of_another_list_of_tasks(tmp_path, fails):
    swapped = [MT30_DIMS[1], *MT30_DIMS[1:]]
    swapped[4], swapped[5] = 6, 6
    file = save(tmp_path / "file.pt", make_state("NEW", **{**MULTI, "action_dims": swapped}))
    fails([file], "mask of task 4 is [1, 1, 1, 1, 1, 1]", "dmc/reacher-easy has 2 actions")


def test_agents_of_pwm(tmp_path, fails):
    state = make_state("PWM", tasks=30, obs=24, action=6)
    file = save_agent(tmp_path / "agent.pt", state, make_actor(16, 6))
    fails([file, "--task", "mw-reach"], "mw-reach is not in mt30")
    fails([file, "--symlog-obs"], "an agent of PWM", "--symlog-obs")
    fails([file, "--log-std-range", "-5", "0.5"], "an agent of PWM", "--log-std-range")


def test_what_is_there_stays(tmp_path, single, fails, capsys):
    run = tmp_path / "run"
    convert = [single, "--task", "pendulum-swingup", "--out", run]
    assert main(["convert", "tdmpc2-checkpoint", *map(str, convert)]) == 0
    capsys.readouterr()
    fails(convert, f"--out {run} exists already", out=False)
    fails([single, "--task", "pendulum-swingup", "--out", single], "exists already", out=False)
    fails([run, "--back", "--out", single], f"--out {single} exists already", out=False)
    fails([tmp_path / "nowhere", "--back"], "nowhere does not exist")
    fails([single, "--back"], "single.pt is a file", "--back takes a run folder")


def test_a_full_disk_leaves_nothing(tmp_path, single, monkeypatch):
    from pwm.stages import convert_back, convert_checkpoint

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    run, back = tmp_path / "run", tmp_path / "back.pt"
    before = tree(tmp_path)
    settings = convert_checkpoint.ConvertCheckpointConfig(
        str(single), str(run), task="pendulum-swingup"
    )
    with monkeypatch.context() as patch:
        patch.setattr(convert_checkpoint, "save_checkpoint", full)
        with pytest.raises(OSError):
            convert_checkpoint.run(settings)
    assert tree(tmp_path) == before
    convert_checkpoint.run(settings)
    before = tree(tmp_path)
    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError):
        convert_back.write_tdmpc2(run, back)
    assert tree(tmp_path) == before
