"""World-model loss against a direct, step-by-step calculation."""

import pytest
import torch
from conftest import tiny_config

from pwm.algorithms.world_model import WorldModelLossConfig, open_loop_errors, world_model_loss
from pwm.models.two_hot import two_hot
from pwm.models.world_model import WorldModel

H, B = 4, 3


def window():
    observations = torch.randn(H + 1, B, 5).double()
    actions = torch.rand(H, B, 2).double()
    rewards = 2 * torch.rand(H, B).double()
    return observations, actions, rewards, torch.zeros(H, B).double(), torch.tensor([0, 1, 1])


def test_equals_the_formula(tiny_model):
    observations, actions, rewards, terminated, task = window()
    config = WorldModelLossConfig(rho=0.8, consistency=3.0, reward=0.5)
    loss, _ = world_model_loss(tiny_model, observations, actions, rewards, terminated, task, config)
    c, total = tiny_model.config, 0.0
    z = tiny_model.encode(observations[0], task)
    for t in range(H):
        code = two_hot(rewards[t], c.bin_low, c.bin_high, c.num_bins)
        log_p = torch.log_softmax(tiny_model.reward_logits(z, actions[t], task), -1)
        z = tiny_model.next(z, actions[t], task)
        target = tiny_model.encode(observations[t + 1], task)
        step = 3.0 * (z - target).square().mean() + 0.5 * -(code * log_p).sum(-1).mean()
        total += 0.8**t * step
    torch.testing.assert_close(loss, total / H)


def test_targets_carry_no_gradient_but_every_weight_gets_one(tiny_model):
    observations, *rest = window()
    observations.requires_grad_()
    loss, _ = world_model_loss(tiny_model, observations, *rest, WorldModelLossConfig())
    loss.backward()
    assert observations.grad[0].abs().sum() > 0
    assert observations.grad[1:].abs().sum() == 0
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in tiny_model.parameters())


@pytest.mark.parametrize("on_next", [False, True])
def test_termination_head_learns_the_last_step(on_next):
    """Cross-entropy of each step's flag, asked of (z, a) or of the latent that follows."""
    model = WorldModel(tiny_config(termination=True, termination_on_next=on_next)).double()
    model.termination_head.out.weight.data.normal_()
    observations, actions, rewards, terminated, task = window()
    terminated[-1, 1] = 1
    with_head, _ = world_model_loss(
        model, observations, actions, rewards, terminated, task,
        WorldModelLossConfig(rho=0.8, consistency=0.0, reward=0.0, termination=2.0),
    )  # fmt: skip
    z, total = model.encode(observations[0], task), 0.0
    for t in range(H):
        p = torch.sigmoid(model.terminated_logits(z, actions[t], task))
        likely = torch.where(terminated[t] == 1, p, 1 - p)
        total += 0.8**t * 2.0 * -likely.log().mean()
        z = model.next(z, actions[t], task)
    torch.testing.assert_close(with_head, total / H)


def test_open_loop_error_is_relative_to_the_latent_variance(tiny_model):
    observations, actions, rewards, _, task = window()
    errors = open_loop_errors(tiny_model, observations, actions, rewards, task, depths=(1, 4, 8))
    truth = tiny_model.encode(observations, task)
    z = truth[0]
    for t in range(4):
        reward = tiny_model.reward(z, actions[t], task)
        z = tiny_model.next(z, actions[t], task)
    spread = truth.flatten(0, 1).var(0, unbiased=False).mean()
    expected = (z - truth[4]).square().mean() / spread
    torch.testing.assert_close(errors["latent_error_4"], expected)
    torch.testing.assert_close(errors["reward_error_4"], (reward - rewards[3]).abs().mean())
    assert "latent_error_8" not in errors


@pytest.mark.parametrize("sharp, entropy", [(0.0, 1.0), (20.0, 0.0)])
def test_entropy_shows_collapsed_and_one_hot_latents(tiny_model, sharp, entropy):
    last = tiny_model.encoder[-1]
    last.norm.weight.data.fill_(sharp)
    last.norm.bias.data.zero_()
    observations, actions, rewards, _, task = window()
    errors = open_loop_errors(tiny_model, observations, actions, rewards, task)
    assert errors["latent_entropy"].item() == pytest.approx(entropy, abs=0.05)
