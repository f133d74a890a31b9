"""What only imported models have: a termination head on z', a scalar reward, clipped input."""

import pytest
import torch
from conftest import tiny_config

from pwm.algorithms.world_model import WorldModelLossConfig, world_model_loss
from pwm.models.actor import Actor
from pwm.models.frozen import FrozenTaskModel
from pwm.models.planning import PlanningModel
from pwm.models.pretrained import Policy
from pwm.models.two_hot import two_hot_cross_entropy, two_hot_decode
from pwm.models.world_model import WorldModel


def random_model(**options):
    torch.manual_seed(0)
    model = WorldModel(tiny_config(**options)).double()
    for parameter in model.parameters():
        parameter.data = parameter + 0.3 * torch.randn_like(parameter)
    return model.eval()


@pytest.mark.parametrize("planning", [False, True])
def test_termination_of_the_latent_that_a_step_leads_to(planning):
    values = dict(num_q=2, policy_prior=True) if planning else {}
    model = random_model(termination=True, termination_on_next=True, **values)
    obs, action = torch.randn(6, 5).double(), torch.rand(6, 2).double()
    task = torch.tensor(1)
    z = model.encode(obs, task)
    joint = torch.cat([model.next(z, action, task), model.embedding(task).expand(6, -1)], -1)
    expected = model.termination_head(joint).squeeze(-1)
    assert expected.std() > 1e-3
    torch.testing.assert_close(model.terminated_logits(z, action, task), expected)
    frozen = (PlanningModel if planning else FrozenTaskModel)(model, 1)
    torch.testing.assert_close(frozen.step(frozen.encode(obs), action)[2], expected)


def test_the_gradient_of_such_a_termination_reaches_the_action():
    model = random_model(termination=True, termination_on_next=True)
    frozen = FrozenTaskModel(model, 0)
    z, action = torch.rand(3, 16).double(), torch.rand(3, 2).double().requires_grad_()
    frozen.step(z, action)[2].sum().backward()
    assert action.grad.abs().min() > 0


def test_such_a_termination_is_trained_on_the_latents_of_the_rollout():
    model = random_model(termination=True, termination_on_next=True)
    steps, batch, task = 3, 4, torch.tensor([0, 1, 0, 1])
    obs, actions = torch.randn(steps + 1, batch, 5).double(), torch.rand(steps, batch, 2).double()
    ends = torch.randint(2, (steps, batch)).double()
    config = WorldModelLossConfig(rho=0.5, consistency=0, reward=0, termination=1)
    loss, metrics = world_model_loss(
        model, obs, actions, torch.zeros(steps, batch).double(), ends, task, config
    )
    z, expected = model.encode(obs[0], task), 0.0
    for t in range(steps):
        p = torch.sigmoid(model.terminated_logits(z, actions[t], task))
        z = model.next(z, actions[t], task)
        wrong = -(ends[t] * p.log() + (1 - ends[t]) * (1 - p).log())
        expected = expected + 0.5**t * wrong.mean() / steps
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(metrics["termination_loss"], expected.detach())


def test_one_bin_is_the_reward_itself():
    logits = torch.tensor([[2.5], [-7.0]])
    assert two_hot_decode(logits, -10, 10).tolist() == [2.5, -7.0]
    assert two_hot_decode(logits, -10, 10, "symlog").tolist() == [2.5, -7.0]
    loss = two_hot_cross_entropy(logits, torch.tensor([2.0, -4.0]), -10, 10)
    assert loss.tolist() == [0.25, 9.0]
    model = random_model(num_bins=1)
    z, action, task = torch.rand(4, 16).double(), torch.rand(4, 2).double(), torch.tensor(0)
    raw = model.reward_head(model.join(z, task, action))
    torch.testing.assert_close(model.reward(z, action, task), raw.squeeze(-1))


def test_normalised_observations_are_clipped():
    model = random_model(normalize_observations=True, obs_limit=5.0)
    model.set_observation_moments(1, torch.full((5,), 2.0), torch.full((5,), 0.5))
    obs = torch.tensor([[2.5, 9.0, 4.4, -50.0, 2.0]]).double()
    seen = torch.tensor([[1.0, 5.0, 4.8, -5.0, 0.0]]).double()
    task = torch.tensor(1)
    expected = model.encoder(torch.cat([seen, model.embedding(task)[None]], -1))
    torch.testing.assert_close(model.encode(obs, task), expected)
    policy = Policy.build(model, "dmc/b", Actor(16, model.action_masks[1]).double())
    torch.testing.assert_close(policy.encode(obs), expected)
