"""TD-MPC2's value and prior losses: step by step, finite differences, what gets gradients."""

import pytest
import torch
from conftest import tiny_config

from pwm.algorithms.tdmpc2 import (
    ValueNoise,
    ValueScale,
    discounts,
    joint_loss,
    prior_loss,
    td_targets,
    update_targets,
    value_loss,
)
from pwm.algorithms.world_model import (
    WorldModelLossConfig,
    encode_next,
    rollout_latents,
    world_model_loss,
)
from pwm.models.two_hot import two_hot
from pwm.models.world_model import WorldModel

H, B, K = 3, 4, 4
CONFIG = WorldModelLossConfig(rho=0.7, consistency=3.0, reward=0.5)


@pytest.fixture
def model():
    model = WorldModel(tiny_config(num_q=K, policy_prior=True)).double()
    for parameter in model.parameters():
        parameter.data = parameter + 0.3 * torch.randn_like(parameter)
    return model.eval()


@pytest.fixture
def window():
    return dict(
        observations=torch.randn(H + 1, B, 5).double(),
        actions=2 * torch.rand(H, B, 2).double() - 1,
        rewards=2 * torch.rand(H, B).double(),
        terminated=torch.zeros(H, B).double(),
        task=torch.tensor([0, 1, 1, 0]),
    )


def noise():
    drawn = ValueNoise.draw(H, B, 2, K, torch.Generator().manual_seed(3))
    drawn.target, drawn.prior = drawn.target.double(), drawn.prior.double()
    return drawn


def loss_of(model, window, targets, value_weight=0.25):
    w = window
    encoded = encode_next(model, w["observations"], w["task"])
    return joint_loss(
        model, w["observations"][0], encoded, w["actions"], w["rewards"], w["terminated"],
        w["task"], targets, CONFIG, value_weight,
    )  # fmt: skip


def test_td_targets_by_single_calls(model, window):
    window["terminated"][-1, 2] = 1
    gamma, drawn = torch.tensor([0.9, 0.8, 0.8, 0.9]).double(), noise()
    z = encode_next(model, window["observations"], window["task"])
    found = td_targets(
        model, z, window["rewards"], window["terminated"], window["task"], gamma, drawn
    )
    for t in range(H):
        for b in range(B):
            task = window["task"][b]
            action = model.prior(z[t, b], task, drawn.target[t, b])
            values = model.q_values(z[t, b], action, task, target=True)
            worst = min(float(values[k]) for k in drawn.target_pair)
            alive = 0.0 if (t, b) == (H - 1, 2) else 1.0
            expected = float(window["rewards"][t, b]) + alive * float(gamma[b]) * worst
            assert float(found[t, b]) == pytest.approx(expected)
    assert not found.requires_grad


def test_joint_loss_adds_the_cross_entropy_of_every_head(model, window):
    targets = 3 * torch.randn(H, B).double()
    loss, latents, metrics = loss_of(model, window, targets)
    alone, _ = world_model_loss(model, **window, config=CONFIG)
    z = model.encode(window["observations"][0], window["task"])
    torch.testing.assert_close(
        latents, rollout_latents(model, z, window["actions"], window["task"])
    )
    c, extra = model.config, 0.0
    for t in range(H):
        code = two_hot(targets[t], c.bin_low, c.bin_high, c.num_bins)
        logits = model.q_logits(latents[t], window["actions"][t], window["task"])
        heads = [-(code * torch.log_softmax(row, -1)).sum(-1).mean() for row in logits]
        extra = extra + 0.7**t * sum(heads) / K
    torch.testing.assert_close(loss, alone + 0.25 * extra / H)
    torch.testing.assert_close(metrics["value_loss"], (extra / H).detach())


def test_joint_loss_reaches_model_and_heads_but_neither_prior_nor_targets(model, window):
    loss_of(model, window, torch.ones(H, B).double())[0].backward()
    silent = {"prior_head", "target_q_heads"}
    for name, parameter in model.named_parameters():
        reached = parameter.grad is not None and bool(parameter.grad.abs().sum() > 0)
        assert reached == (name.split(".")[0] not in silent), name


def test_prior_loss_gradient_against_finite_differences(model, window):
    latents, drawn = model.encode(window["observations"], window["task"]), noise()
    scale = ValueScale(0.0).double()  # rate 0: the scale is a constant of the update
    scale.value.fill_(1.7)

    def value():
        return prior_loss(model, latents, window["task"], drawn, scale, 0.7, 0.1)[0]

    parameters = list(model.prior_head.parameters())
    gradients = torch.autograd.grad(value(), parameters)
    for parameter, gradient in zip(parameters, gradients, strict=True):
        at, eps = int(gradient.abs().argmax()), 1e-6
        flat, ends = parameter.data.view(-1), []
        kept = flat[at].item()
        for moved in (kept + eps, kept - eps):
            flat[at] = moved
            ends.append(float(value()))
        flat[at] = kept
        slope = (ends[0] - ends[1]) / (2 * eps)
        assert slope == pytest.approx(float(gradient.flatten()[at]), rel=1e-4)


def test_prior_loss_by_single_calls(model, window):
    latents = model.encode(window["observations"], window["task"]).detach()
    drawn, scale = noise(), ValueScale(0.0).double()
    scale.value.fill_(2.0)
    loss, metrics = prior_loss(model, latents, window["task"], drawn, scale, 0.7, 0.1)
    total = 0.0
    for t in range(H + 1):
        for b in range(B):
            task = window["task"][b]
            sample = model.sample_prior(latents[t, b], task, drawn.prior[t, b])
            values = model.q_values(latents[t, b], sample.action, task)
            q = sum(float(values[k]) for k in drawn.prior_pair) / 2
            actions = (1, 2)[int(task)]  # real actions of the task
            total += 0.7**t * (q / 2.0 + 0.1 * actions * float(sample.entropy))
    assert float(loss) == pytest.approx(-total / (H + 1) / B)
    assert float(metrics["q_scale"]) == 2.0


def test_scale_by_hand():
    scale = ValueScale(rate=0.25)
    scale.update(torch.arange(101.0))  # 5th to 95th percentile: 5 to 95
    assert float(scale.value) == pytest.approx(1 + 0.25 * (90 - 1))
    small = ValueScale(rate=0.25)
    small.update(torch.full((10,), 3.0))
    assert float(small.value) == 1.0


def test_target_heads_follow_slowly(model):
    before = [p.clone() for p in model.target_q_heads.parameters()]
    update_targets(model, 0.1)
    for old, new, head in zip(
        before, model.target_q_heads.parameters(), model.q_heads.parameters(), strict=True
    ):
        torch.testing.assert_close(new, 0.9 * old + 0.1 * head)


def test_discount_follows_the_episode_length():
    assert discounts([500, 100, None]).tolist() == pytest.approx([0.99, 0.95, 0.995])


def test_noise_follows_the_seed_and_the_two_heads_differ():
    first, again = noise(), noise()
    assert torch.equal(first.target, again.target) and torch.equal(first.prior, again.prior)
    for seed in range(20):
        drawn = ValueNoise.draw(1, 1, 1, K, torch.Generator().manual_seed(seed))
        for pair in (drawn.target_pair, drawn.prior_pair):
            assert len(set(pair)) == 2 and set(pair) <= set(range(K))


def test_value_loss_is_least_at_the_targets(model, window):
    """Heads that put all weight on the target's bins lose less than any that do not."""
    joint = torch.randn(H, B, model.q_heads[0].first.linear.in_features).double()
    targets = torch.zeros(H, B).double()
    before = value_loss(model, joint, targets)
    for head in model.q_heads:
        head.out.weight.data.zero_()
        head.out.bias.data.fill_(-50.0)
        head.out.bias.data[model.config.num_bins // 2] = 50.0
    assert (value_loss(model, joint, targets) < 1e-6).all() and (before > 0.1).all()
