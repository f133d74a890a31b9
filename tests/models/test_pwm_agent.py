"""Agent files of PWM: the world model and the actor act on the same numbers as the original."""

import math

import pytest
import torch
from tdmpc2_files import Reference, actor_mean, make_actor, make_state, save_agent

from pwm.errors import UserError
from pwm.models.actor import Actor
from pwm.models.pretrained import Policy
from pwm.models.pwm_agent import STUBS, PWMAgent, is_agent
from pwm.models.world_model import WorldModel
from pwm.runtime.foreign import load_foreign

OBS, ACTION, LATENT = 5, 3, 16


def read(path):
    content = load_foreign(path, STUBS)
    assert is_agent(content)
    return PWMAgent.of_file(path, content)


def build(agent, task_dims=(ACTION,)):
    config = agent.model.sizes.config(
        [f"task {i}" for i in range(len(task_dims))], [OBS] * len(task_dims), task_dims,
        [500] * len(task_dims), **agent.options(),
    )  # fmt: skip
    model = WorldModel(config)
    model.load_state_dict(agent.own_state(config))
    return model.eval()


def policy_of(agent, model, task):
    actor = Actor(LATENT, model.action_masks[model.task_index(task)], agent.actor_config)
    actor.load_state_dict({**agent.actor, "mask": actor.mask})
    return Policy.build(model, task, actor).eval()


def test_multi_task_agent(tmp_path):
    state = make_state("PWM", tasks=3, obs=OBS, action=ACTION, enc_layers=3)
    actor = make_actor(LATENT, ACTION)
    agent = read(save_agent(tmp_path / "agent.pt", state, actor))
    assert agent.options() == {} and agent.actor_problem == ""
    model, reference = build(agent, (3, 2, 3)), Reference(state, "PWM")
    assert model.q_heads is None and model.prior_head is None
    obs, action = 2 * torch.randn(9, OBS), torch.rand(9, ACTION)
    for task in range(3):
        index = torch.tensor(task)
        z = reference.encode(obs, task)
        expected = actor_mean(actor, z)
        torch.testing.assert_close(model.encode(obs, index), z, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(model.next(z, action, index), reference.next(z, action, task),
                                   rtol=1e-5, atol=1e-5)  # fmt: skip
        torch.testing.assert_close(
            model.reward(z, action, index), reference.reward(z, action, task), rtol=1e-5, atol=1e-5
        )
        policy = policy_of(agent, model, f"task {task}")
        width = model.config.action_dims[task]
        torch.testing.assert_close(policy(obs), expected[:, :width], rtol=1e-5, atol=1e-5)


def test_single_task_agent_with_moments_of_observations_and_rewards(tmp_path):
    state = make_state("PWM", obs=OBS, action=ACTION, bins=1)
    actor = make_actor(LATENT, ACTION)
    obs_mean, obs_var = torch.randn(OBS), torch.tensor([0.3, 4.0, 1e-9, 1.0, 2.0])
    rew_mean, rew_var = torch.tensor([0.7]), torch.tensor([9.0])
    path = save_agent(tmp_path / "agent.pt", state, actor, (obs_mean, obs_var), (rew_mean, rew_var))
    agent = read(path)
    model, reference = build(agent), Reference(state, "PWM")
    obs, action = 6 * torch.randn(40, OBS), torch.rand(40, ACTION)
    # as PWM normalises: by the square root of var + 1e-5, clipped to 5 deviations
    seen = ((obs - obs_mean) / torch.sqrt(obs_var + 1e-5)).clamp(-5, 5)
    assert (seen.abs() == 5).any() and (seen.abs() < 5).any()
    z = reference.encode(seen, None)
    torch.testing.assert_close(model.encode(obs), z, rtol=1e-5, atol=1e-5)
    # the head was trained on (r - mean) / sqrt(var + 1e-5): rewards here are in reward units
    raw = reference.reward_logits(z, action, None).squeeze(-1)
    expected = raw * math.sqrt(9 + 1e-5) + 0.7
    torch.testing.assert_close(model.reward(z, action), expected, rtol=1e-5, atol=1e-5)
    policy = policy_of(agent, model, "task 0")
    torch.testing.assert_close(policy(obs), actor_mean(actor, z), rtol=1e-5, atol=1e-5)


def test_noise_and_floor_of_the_actor(tmp_path):
    state, actor = make_state("PWM", obs=OBS, action=ACTION), make_actor(LATENT, ACTION)
    actor["logstd"] = torch.tensor([-1.427, 0.5, -3.0])
    agent = read(save_agent(tmp_path / "agent.pt", state, actor))
    own = Actor(LATENT, torch.ones(ACTION), agent.actor_config)
    own.load_state_dict({**agent.actor, "mask": own.mask})
    torch.testing.assert_close(own.std(), actor["logstd"].exp())
    z, noise = torch.rand(4, LATENT), torch.randn(4, ACTION)
    mean = torch.atanh(actor_mean(actor, z).double())
    expected = torch.tanh(mean + actor["logstd"].exp() * noise).float()
    torch.testing.assert_close(own(z, noise), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda a: {}, "the file has none"),
        (lambda a: {"actor.0.weight": torch.ones(2, 2)}, "no Gaussian policy"),
        (lambda a: {k: v for k, v in a.items() if k != "logstd"}, "no Gaussian policy"),
        (lambda a: {k: v for k, v in a.items() if k != "mu_net.2.bias"}, "not Linear, Mish"),
        (lambda a: {**a, "mu_net.2.weight": torch.ones(11)}, "not Linear, Mish"),
        (lambda a: {**a, "mu_net.0.weight": torch.ones(12, LATENT + 1)}, "not Linear, Mish"),
        (lambda a: {**a, "logstd": torch.ones(ACTION, dtype=torch.int64)}, "not Linear, Mish"),
        (lambda a: {**a, "mu_net.10.gain": 3.0}, "no state dict"),
        (lambda a: [1], "the file has none"),
    ],
)
def test_an_actor_of_another_kind_is_left_out_with_the_reason(tmp_path, change, reason):
    state = make_state("PWM", obs=OBS, action=ACTION)
    path = save_agent(tmp_path / "agent.pt", state, change(make_actor(LATENT, ACTION)))
    agent = read(path)
    assert reason in agent.actor_problem and agent.actor == {}
    assert build(agent).num_parameters() == sum(t.numel() for t in state.values())


def refused(path, *needles):
    with pytest.raises(UserError) as error:
        read(path)
    text = str(error.value)
    assert "\n" not in text and str(path) in text
    for needle in needles:
        assert needle in text, text


def test_what_is_refused(tmp_path):
    path = tmp_path / "agent.pt"
    state, actor = make_state("PWM", obs=OBS, action=ACTION), make_actor(LATENT, ACTION)
    two = (torch.zeros(2), torch.ones(2))
    refused(save_agent(path, state, actor, two), "'obs_rms' has no mean of 5 numbers")
    bad = (torch.zeros(OBS), torch.full((OBS,), math.nan))
    refused(save_agent(path, state, actor, bad), "obs_rms.var", "NaN")
    bad = (torch.zeros(OBS), -torch.ones(OBS))
    refused(save_agent(path, state, actor, bad), "'obs_rms.var' is negative")
    one = (torch.zeros(1), torch.ones(1))
    refused(save_agent(path, state, actor, None, one), "in bins and normalised")
    refused(save_agent(path, state, actor, replay=3), "it holds replay as well")
    refused(save_agent(path, [1], actor), "'world_model' is no state dict")
    refused(save_agent(path, state, actor, obs_rms=7), "'obs_rms' has no mean")
    less = {k: v for k, v in state.items() if k != "_encoder.1.ln.bias"}
    refused(save_agent(path, less, actor), "layout PWM", "lacks 1 of", "_encoder.1.ln.bias")
    more = {**state, "_pi.0.weight": torch.ones(2, 2)}
    refused(save_agent(path, more, actor), "no part of such a model", "_pi.0.weight")
    actor["mu_net.3.bias"][2] = math.inf
    refused(save_agent(path, state, actor), "actor body.3.bias", "infinite")
