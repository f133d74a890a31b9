"""``pwm convert tdmpc2-checkpoint``: what arrives in the run folder, and the road from there."""

from __future__ import annotations

import pytest
import torch
from data.helpers import source_fields, write_chunk
from tdmpc2_files import Reference, actor_mean, make_actor, make_state, save, save_agent

from pwm import Policy, WorldModel
from pwm.cli import main
from pwm.envs import list_tasks
from pwm.errors import UserError
from pwm.runtime.files import read_json
from pwm.runtime.run_folder import RunFolder
from pwm.stages import convert_checkpoint
from pwm.stages.convert_checkpoint import ConvertCheckpointConfig

from .conftest import debug_pretrain

PENDULUM = "dmc/pendulum-swingup"
MT30 = list_tasks("mt30")
MT30_DIMS = [spec.action_dim for spec in MT30]
MULTI = dict(tasks=30, obs=24, action=6, action_dims=MT30_DIMS)


def convert(file, out, **settings):
    return convert_checkpoint.run(ConvertCheckpointConfig(str(file), str(out), **settings))


def written(tmp_path, layout, **options):
    state = make_state(layout, **options)
    return save(tmp_path / f"{layout}.pt", state), state


@pytest.mark.parametrize("layout", ["OLD", "NEW", "NOV24"])
def test_a_multi_task_model_in_its_run_folder(tmp_path, layout, capsys):
    file, state = written(tmp_path, layout, enc_layers=3, num_q=5, **MULTI)
    convert(file, tmp_path / "run")
    said = capsys.readouterr().err
    for text in (f"layout {layout}", "size custom", "30 tasks of mt30", "latent 16", "hidden 24",
                 "encoder 2 x 20", "5 Q heads", "task embedding 8", "24 observations", "6 actions",
                 "101 bins", "-10 to 2", "pwm evaluate", "pwm extract"):  # fmt: skip
        assert text in said, (text, said)
    config = read_json(tmp_path / "run" / "config.json")
    assert config["stage"] == "convert"
    assert config["source"]["file"] == f"{layout}.pt" and config["source"]["layout"] == layout
    assert config["model"]["tasks"] == [spec.id for spec in MT30]
    assert config["model"]["action_dims"] == MT30_DIMS
    assert config["model"]["episode_lengths"] == [500] * 30
    assert RunFolder(tmp_path / "run").summary()["parameters"] > 10_000
    model = WorldModel.from_pretrained(tmp_path / "run")
    reference = Reference(state, layout, masks=model.action_masks)
    obs, noise = torch.randn(20, 24), torch.randn(20, 6)
    for task in (0, 7, 29):
        index = torch.tensor(task)
        z = reference.encode(obs, task)
        torch.testing.assert_close(model.encode(obs, index), z, rtol=1e-5, atol=1e-5)
        action = reference.prior(z, task, noise)
        torch.testing.assert_close(model.prior(z, index, noise), action, rtol=1e-5, atol=1e-5)
        assert action[:, MT30_DIMS[task] :].abs().sum() == 0
        for target in (False, True):
            torch.testing.assert_close(
                model.q_values(z, action, index, target),
                reference.q_values(z, action, task, target),
                rtol=1e-5,
                atol=1e-5,
            )


def test_mt80_is_found_by_its_80_rows_and_39_observations(tmp_path):
    file, _ = written(tmp_path, "OLD", tasks=80, obs=39, action=6)
    convert(file, tmp_path / "run")
    config = WorldModel.from_pretrained(tmp_path / "run").config
    assert config.tasks == tuple(spec.id for spec in list_tasks("mt80"))
    assert (config.obs_dims[79], config.action_dims[79], config.episode_lengths[79]) == (39, 4, 100)
    convert(file, tmp_path / "again", task_set="mt80")


@pytest.mark.parametrize(
    ("layout", "log_std", "given", "expected"),
    [
        ("OLD", (-10, 2), (), (-10.0, 2.0)),
        ("OLD", (-10, 2), (-5.0, 0.5), (-5.0, 0.5)),
        ("NEW", (-5, 0.5), (), (-5.0, 0.5)),
        ("NEW", (-5, 0.5), (-4.0, 1.0), (-4.0, 1.0)),
        ("FLAT", (-10, 2), (), (-10.0, 2.0)),
    ],
)
def test_range_of_the_log_std(tmp_path, layout, log_std, given, expected):
    file, state = written(tmp_path, layout, log_std=log_std)
    convert(file, tmp_path / "run", task=PENDULUM, log_std_range=given)
    model = WorldModel.from_pretrained(tmp_path / "run")
    assert (model.config.log_std_min, model.config.log_std_max) == expected
    z, noise = torch.rand(6, 16), torch.randn(6, 1)
    torch.testing.assert_close(
        model.prior(z, None, noise), Reference(state, layout, expected).prior(z, None, noise),
        rtol=1e-5, atol=1e-5,
    )  # fmt: skip


def test_symlog_of_observations(tmp_path):
    file, state = written(tmp_path, "FLAT")
    convert(file, tmp_path / "run", task=PENDULUM, symlog_obs=True)
    obs = 9 * torch.randn(7, 3)
    expected = Reference(state, "FLAT").encode(obs.sign() * torch.log(1 + obs.abs()), None)
    model = WorldModel.from_pretrained(tmp_path / "run")
    torch.testing.assert_close(model.encode(obs), expected, rtol=1e-5, atol=1e-5)


def test_there_and_back_again_bit_for_bit(tmp_path, capsys):
    cases = {
        "multi": (dict(MULTI, num_q=5), {}),
        "single": (dict(termination=True, log_std=(-5.0, 0.5)), {"task": PENDULUM}),
    }
    for name, (options, settings) in cases.items():
        state = make_state("NEW", **options)
        file, run, back = (tmp_path / f"{name}{end}" for end in (".pt", "", "-back.pt"))
        convert(save(file, state), run, **settings)
        convert(run, back, back=True)
        said = capsys.readouterr().err
        assert "num_enc_layers=2 enc_dim=20 mlp_dim=24 latent_dim=16" in said
        assert ("task=mt30" if name == "multi" else f"order: {PENDULUM}") in said
        # the reader of TD-MPC2 unpickles anything; ours must not need more than tensors
        found = torch.load(back, weights_only=True)
        assert list(found) == ["model"] and set(found["model"]) == set(state)
        for key, value in state.items():
            again = found["model"][key]
            if isinstance(value, torch.Tensor):
                assert again.dtype == value.dtype and torch.equal(again, value), key
            else:
                assert again == value, key
        assert not list(tmp_path.glob(".*"))


def test_what_tdmpc2_has_no_place_for_is_refused(tmp_path, data):
    from pwm.stages import pretrain

    pretrain.run(debug_pretrain(data, tmp_path / "plain", updates=2))
    pretrain.run(
        debug_pretrain(data, tmp_path / "normal", updates=2, num_q=2, normalize_observations=True)
    )
    file, _ = written(tmp_path, "FLAT")
    convert(file, tmp_path / "symlog", task=PENDULUM, symlog_obs=True)
    out = tmp_path / "back.pt"
    for run, text in (
        ("plain", "no Q heads and policy prior"),
        ("normal", "does not normalise observations"),
        ("symlog", "does not take symlog"),
    ):
        with pytest.raises(UserError, match=text):
            convert(tmp_path / run, out, back=True)
        assert not out.exists()


def test_a_model_that_was_trained_here_goes_to_tdmpc2(tmp_path, data):
    from pwm.stages import pretrain

    pretrain.run(debug_pretrain(data, tmp_path / "run", updates=3, num_q=3))
    convert(tmp_path / "run", tmp_path / "out.pt", back=True)
    state = torch.load(tmp_path / "out.pt", weights_only=True)["model"]
    model = WorldModel.from_pretrained(tmp_path / "run")
    reference = Reference(state, "NEW", masks=state["_action_masks"])
    obs, noise = torch.randn(8, 5), torch.randn(8, 1)
    for task in (0, 1):
        index, z = torch.tensor(task), reference.encode(obs, task)
        torch.testing.assert_close(model.encode(obs, index), z, rtol=1e-5, atol=1e-5)
        action = reference.prior(z, task, noise)
        torch.testing.assert_close(model.prior(z, index, noise), action, rtol=1e-5, atol=1e-5)
        expected = reference.q_values(z, action, task)
        torch.testing.assert_close(model.q_values(z, action, index), expected, rtol=1e-5, atol=1e-5)


def test_an_agent_of_pwm_brings_its_world_model_and_policy(tmp_path, capsys):
    state = make_state("PWM", tasks=30, obs=24, action=6, task_dim=8)
    actor = make_actor(16, 6)
    file = save_agent(tmp_path / "agent.pt", state, actor)
    convert(file, tmp_path / "bare")
    said = capsys.readouterr().err
    assert "layout PWM" in said and "30 tasks of mt30" in said
    assert "not taken over: critics" in said and "which task it was trained on" in said
    assert not (tmp_path / "bare" / "policy").exists()
    convert(file, tmp_path / "run", task="pendulum-swingup")
    assert f"actor for {PENDULUM}" in capsys.readouterr().err
    policy = Policy.from_pretrained(tmp_path / "run" / "policy")
    assert policy.task == PENDULUM
    obs, padded = torch.randn(5, 3), torch.zeros(5, 24)
    padded[:, :3] = obs
    expected = actor_mean(actor, Reference(state, "PWM").encode(padded, 7))[:, :1]
    torch.testing.assert_close(policy(obs), expected, rtol=1e-5, atol=1e-5)
    with pytest.raises(UserError, match="no Q heads"):
        convert(tmp_path / "run", tmp_path / "x.pt", back=True)


def road(*arguments):
    assert main([str(argument) for argument in arguments]) == 0


@pytest.mark.parametrize("layout", ["OLD", "NEW", "NOV24", "FLAT"])
def test_from_the_file_to_a_policy_in_the_real_environment(tmp_path, layout, data):
    file, _ = written(tmp_path, layout)
    run, policy = tmp_path / "run", tmp_path / "policy"
    road("convert", "tdmpc2-checkpoint", file, "--out", run, "--task", "pendulum-swingup",
         "--log-std-range", -5, 0.5)  # fmt: skip
    few = ["--episodes", 1, "--no-random-baseline", "--workers", 1]
    road("evaluate", run, "--policy", "prior", *few)
    road("evaluate", run, "--policy", "plan", *few, "--plan-samples", 88, "--plan-iterations", 1,
         "--plan-horizon", 1)  # fmt: skip
    road("extract", "--world-model", run, "--data", data, "--out", policy, "--updates", 3,
         "--batch-size", 8, "--horizon", 3, "--critic-passes", 1, "--eval-every", 3,
         "--eval-episodes", 1, "--device", "cpu")  # fmt: skip
    road("evaluate", policy, *few)
    for folder in (run / "prior", run / "plan", policy):
        returns = read_json(folder / "evaluation.json")[PENDULUM]["0"]
        assert len(returns) == 1 and 0 <= returns[0] <= 500


def test_from_an_agent_of_pwm_to_the_real_environment(tmp_path):
    pytest.importorskip("dm_control")
    state, actor = make_state("PWM"), make_actor(16, 1)
    file = save_agent(tmp_path / "agent.pt", state, actor, (torch.zeros(3), torch.ones(3)))
    road("convert", "tdmpc2-checkpoint", file, "--out", tmp_path / "run", "--task", PENDULUM)
    road("evaluate", tmp_path / "run" / "policy", "--episodes", 1, "--workers", 1)
    results = read_json(tmp_path / "run" / "policy" / "evaluation.json")
    assert len(results[PENDULUM]["0"]) == 1


@pytest.mark.parametrize("layout", ["OLD", "NEW", "NOV24", "PWM"])
def test_extraction_from_an_imported_model_and_imported_data(tmp_path, layout):
    pytest.importorskip("dm_control")
    if layout == "PWM":
        file = save_agent(tmp_path / "a.pt", make_state("PWM", **MULTI), make_actor(16, 6))
    else:
        file, _ = written(tmp_path, layout, **MULTI)
    chunk = write_chunk(tmp_path / "chunk_0.pt", source_fields([1, 7, 7]))
    run, data, policy = tmp_path / "run", tmp_path / "data", tmp_path / "policy"
    road("convert", "tdmpc2-checkpoint", file, "--out", run)
    road("convert", "tdmpc2-data", chunk, "--out", data)
    road("extract", "--world-model", run, "--data", data, "--task", PENDULUM, "--out", policy,
         "--updates", 3, "--batch-size", 8, "--horizon", 3, "--critic-passes", 1,
         "--behavior-horizon", 5, "--eval-every", 3, "--eval-episodes", 1,
         "--device", "cpu")  # fmt: skip
    road("evaluate", policy, "--episodes", 1, "--no-random-baseline", "--workers", 1)
    assert len(read_json(policy / "evaluation.json")[PENDULUM]["0"]) == 1
    encoder = WorldModel.from_pretrained(run).encoder.state_dict()
    for name, tensor in Policy.from_pretrained(policy).encoder.state_dict().items():
        assert torch.equal(tensor, encoder[name])
