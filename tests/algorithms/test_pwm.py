"""The actor's gradient through the imagined rollout, in float64, against finite differences."""

import pytest
import torch
from conftest import tiny_config
from torch.func import functional_call

from pwm.algorithms.normalizers import RunningMoments
from pwm.algorithms.pwm import (
    PWMConfig,
    actor_loss,
    behavior_loss,
    behavior_weights,
    critic_loss,
    critic_targets,
    imagine,
)
from pwm.algorithms.returns import td_lambda
from pwm.models.actor import Actor, ActorConfig
from pwm.models.critic import CriticConfig, CriticEnsemble
from pwm.models.frozen import FrozenTaskModel
from pwm.models.world_model import WorldModel

BATCH, HORIZON = 3, 4


class FixedScale(RunningMoments):
    """Keeps its variance, so that the loss is a plain function of the actor's weights."""

    def update(self, samples):
        pass


def parts(model, task=1):
    frozen = FrozenTaskModel(model, task)
    actor = Actor(16, frozen.action_mask, ActorConfig(units=(8, 6))).double()
    critic = CriticEnsemble(16, CriticConfig(units=(7, 5))).double()
    z0 = frozen.encode(torch.randn(BATCH, 5).double())
    noise = torch.randn(HORIZON, BATCH, 2).double()
    return frozen, actor, critic, z0, noise


@pytest.mark.parametrize("termination", [False, True])
def test_full_gradient_equals_finite_differences(termination):
    model = WorldModel(tiny_config(termination=termination)).double()
    for parameter in model.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    frozen, actor, critic, z0, noise = parts(model)
    config = PWMConfig(horizon=HORIZON, detach_policy_input=False)

    def loss_of(weights):
        def call(z, eps=None):
            return functional_call(actor, weights, (z, eps))

        return actor_loss(frozen, call, critic, FixedScale(), z0, noise, config)[0]

    names = [name for name, _ in actor.named_parameters()]
    values = tuple(p.detach().clone().requires_grad_() for p in actor.parameters())
    assert torch.autograd.gradcheck(
        lambda *w: loss_of(dict(zip(names, w, strict=True))), values, eps=1e-6, atol=1e-7
    )


def test_detached_policy_input_is_the_gradient_at_fixed_policy_inputs(tiny_model):
    """With sg(z) the gradient is that of the return when every action's input latent is frozen."""
    frozen, actor, critic, z0, noise = parts(tiny_model)
    config = PWMConfig(horizon=HORIZON, detach_policy_input=True)
    inputs = imagine(frozen, actor, z0, noise, config).latents[:-1].detach()
    parameters = list(actor.parameters())

    def loss_with_inputs():
        step = iter(inputs)
        return actor_loss(
            frozen, lambda z, eps: actor(next(step), eps), critic, FixedScale(), z0, noise,
            PWMConfig(horizon=HORIZON, detach_policy_input=False),
        )[0]  # fmt: skip

    loss = actor_loss(frozen, actor, critic, FixedScale(), z0, noise, config)[0]
    gradients = torch.autograd.grad(loss, parameters)
    direction = [torch.randn_like(p) for p in parameters]
    eps, sides = 1e-6, []
    for sign in (1, -1):
        for p, d in zip(parameters, direction, strict=True):
            p.data += sign * eps * d
        sides.append(loss_with_inputs().item())
        for p, d in zip(parameters, direction, strict=True):
            p.data -= sign * eps * d
    numeric = (sides[0] - sides[1]) / (2 * eps)
    exact = sum((g * d).sum().item() for g, d in zip(gradients, direction, strict=True))
    assert exact == pytest.approx(numeric, rel=1e-6)


def test_frozen_model_and_critic_never_receive_a_gradient(tiny_model):
    frozen, actor, critic, z0, noise = parts(tiny_model)
    loss, rollout, _ = actor_loss(
        frozen, actor, critic, RunningMoments(), z0, noise, PWMConfig(horizon=HORIZON)
    )
    torch.autograd.grad(loss, list(actor.parameters()), retain_graph=True)
    assert all(p.grad is None for p in [*frozen.parameters(), *critic.parameters()])
    loss.backward()
    assert all(p.grad is None for p in frozen.parameters())
    assert all(p.grad is None for p in tiny_model.parameters())
    assert all(buffer.grad_fn is None for buffer in frozen.buffers())
    latents, targets = critic_targets(critic, rollout, PWMConfig(horizon=HORIZON))
    assert not latents.requires_grad and not targets.requires_grad


def test_masked_actions_are_exactly_zero(tiny_model):
    frozen, actor, _, z0, noise = parts(tiny_model, task=0)
    actions = imagine(frozen, actor, z0, noise, PWMConfig(horizon=HORIZON)).actions
    assert (actions[..., 1] == 0).all()
    assert (actions[..., 0] != 0).all()
    assert (actor(z0)[..., 1] == 0).all()


def test_loss_is_scaled_by_the_running_deviation(tiny_model):
    frozen, actor, critic, z0, noise = parts(tiny_model)
    config, moments = PWMConfig(horizon=HORIZON), FixedScale()
    plain = actor_loss(frozen, actor, critic, moments, z0, noise, config)[0]
    moments.var.fill_(4.0)
    scaled = actor_loss(frozen, actor, critic, moments, z0, noise, config)[0]
    assert (plain / scaled).item() == pytest.approx(2.0, rel=1e-4)


def test_critic_regression_data_are_td_lambda_targets(tiny_model):
    frozen, actor, critic, z0, noise = parts(tiny_model)
    config = PWMConfig(horizon=HORIZON, lam=0.7)
    rollout = imagine(frozen, actor, z0, noise, config)
    latents, targets = critic_targets(critic, rollout, config)
    values = critic(rollout.latents[1:]).amin(0)
    expected = td_lambda(rollout.rewards, values, None, config.gamma, 0.7)
    torch.testing.assert_close(targets.view(HORIZON, BATCH), expected)
    torch.testing.assert_close(latents.view(HORIZON, BATCH, -1), rollout.latents[:-1])
    loss = critic_loss(critic, latents, targets)
    manual = (critic(latents) - targets).square().mean()
    torch.testing.assert_close(loss, manual)


def test_log_std_has_a_floor():
    actor = Actor(16, torch.ones(2))
    assert torch.allclose(actor.std(), torch.full((2,), -1.0).exp())
    actor.log_std.data.fill_(-5)
    torch.testing.assert_close(actor.std(), torch.full((2,), -1.427).exp())


def test_behavior_weights_by_hand(tiny_model):
    """Advantages of the data's own 2-step returns, standardised, through a softmax."""
    frozen, _, critic, _, _ = parts(tiny_model)
    first, last = frozen.encode(torch.randn(2, 4, 5).double())
    rewards, ends = torch.rand(2, 4).double(), torch.zeros(2, 4).double()
    ends[1, 0] = 1.0  # the second step ends window 0: no bootstrap
    ends[0, 1] = 1.0  # the first step ends window 1: no second reward either
    config = PWMConfig(gamma=0.9, behavior_sharpness=2.0)
    value = critic.minimum(last)
    returns = rewards[0] + 0.9 * rewards[1] + 0.81 * value
    returns[0] = rewards[0, 0] + 0.9 * rewards[1, 0]
    returns[1] = rewards[0, 1]
    advantage = returns - critic.minimum(first)
    z = (advantage - advantage.mean()) / (advantage.std() + 1e-6)
    expected = 4 * torch.exp(2 * z) / torch.exp(2 * z).sum()
    weights = behavior_weights(critic, first, last, rewards, ends, config)
    torch.testing.assert_close(weights, expected.detach())
    assert not weights.requires_grad and weights.mean() == pytest.approx(1.0)


def test_behavior_loss_pulls_only_the_actor_towards_the_data(tiny_model):
    frozen, actor, _, z0, _ = parts(tiny_model, task=0)
    target, weights = torch.tensor([[0.4, 0.0]] * BATCH).double(), torch.tensor([2.0, 1.0, 0.0])
    loss = behavior_loss(actor, z0, target, weights.double())
    means = actor(z0).detach()
    expected = (2 * (means[0, 0] - 0.4) ** 2 + (means[1, 0] - 0.4) ** 2) / 3
    torch.testing.assert_close(loss.detach(), expected)  # the masked action adds nothing
    loss.backward()
    assert not any(p.grad is not None for p in frozen.parameters())
    with torch.no_grad():
        for parameter in actor.parameters():
            if parameter.grad is not None:
                parameter -= 1e-3 * parameter.grad
    assert behavior_loss(actor, z0, target, weights.double()) < loss
