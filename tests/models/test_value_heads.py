"""Q heads and policy prior: formulas by hand, masks, targets, dropout, frozen copies."""

import math

import pytest
import torch
from conftest import tiny_config

from pwm.errors import UserError
from pwm.models.frozen import FrozenTaskModel
from pwm.models.prior import squashed_gaussian
from pwm.models.world_model import WorldModel, WorldModelConfig


def model_with_values(**options):
    torch.manual_seed(0)
    model = WorldModel(tiny_config(num_q=3, policy_prior=True, **options)).double()
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter + 0.2 * torch.randn_like(parameter)
    return model.eval()


def test_squashed_gaussian_by_hand():
    raw = torch.tensor([0.3, 9.0, 0.0, 5.0], dtype=torch.float64)  # two means, two deviations
    mask = torch.tensor([1.0, 0.0], dtype=torch.float64)
    noise = torch.tensor([0.5, 0.7], dtype=torch.float64)
    sample = squashed_gaussian(raw, mask, noise, -4.0, 2.0)
    log_std = -4 + 3 * (math.tanh(0) + 1)
    action = math.tanh(0.3 + math.exp(log_std) * 0.5)
    density = math.exp(-0.5 * 0.5**2) / math.sqrt(2 * math.pi) / math.exp(log_std)
    entropy = -math.log(density / (1 - action**2 + 1e-6))
    assert sample.action.tolist() == pytest.approx([action, 0.0])
    assert sample.log_std.tolist() == pytest.approx([log_std, 0.0])
    assert float(sample.entropy) == pytest.approx(entropy)
    mean = squashed_gaussian(raw, mask, None, -4.0, 2.0).action
    assert mean.tolist() == pytest.approx([math.tanh(0.3), 0.0])


def test_heads_have_their_shapes_and_padding_stays_zero():
    model = model_with_values()
    c = model.config
    obs, task = torch.randn(4, 7, c.obs_dim).double(), torch.tensor([0, 1, 0, 1, 0, 1, 0])
    z = model.encode(obs, task)
    action = model.prior(z, task, torch.randn(4, 7, c.action_dim).double())
    assert action.shape == (4, 7, c.action_dim)
    assert (action * (1 - model.action_masks[task])).abs().sum() == 0
    assert action.abs().max() <= 1
    assert model.q_values(z, action, task).shape == (3, 4, 7)
    assert model.q_logits(z, action, task).shape == (3, 4, 7, c.num_bins)


def test_targets_start_equal_have_no_gradient_and_never_drop():
    torch.manual_seed(0)
    model = WorldModel(tiny_config(num_q=2, policy_prior=True, q_dropout=0.5))
    for a, b in zip(model.q_heads.parameters(), model.target_q_heads.parameters(), strict=True):
        torch.testing.assert_close(a, b)
        assert a.requires_grad and not b.requires_grad
    for head in (*model.q_heads, *model.target_q_heads):
        torch.nn.init.normal_(head.out.weight)
    model.train()
    c = model.config
    z, action, task = torch.rand(5, c.latent_dim), torch.rand(5, c.action_dim), torch.tensor(0)
    once, again = model.q_logits(z, action, task), model.q_logits(z, action, task)
    assert not torch.allclose(once, again)
    once, again = (model.q_logits(z, action, task, target=True) for _ in range(2))
    torch.testing.assert_close(once, again)
    model.eval()
    torch.testing.assert_close(model.q_logits(z, action, task), model.q_logits(z, action, task))


def test_parameter_count_leaves_the_targets_out():
    plain, full = WorldModel(tiny_config()), WorldModel(tiny_config(num_q=2, policy_prior=True))
    extra = sum(p.numel() for p in full.q_heads.parameters())
    extra += sum(p.numel() for p in full.prior_head.parameters())
    assert full.num_parameters() == plain.num_parameters() + extra


def test_frozen_copy_leaves_the_values_out_and_the_original_whole():
    model = model_with_values()
    frozen = FrozenTaskModel(model, 1)
    assert frozen.source.q_heads is None and frozen.source.prior_head is None
    assert model.q_heads is not None and model.target_q_heads is not None
    z, action = torch.rand(3, model.config.latent_dim).double(), torch.rand(3, 2).double()
    expected = model.next(z, action, torch.tensor(1))
    torch.testing.assert_close(frozen.step(z, action)[0], expected)


def test_symlog_observations():
    model = model_with_values(symlog_observations=True)
    plain = model_with_values()
    obs = 30 * torch.randn(6, model.config.obs_dim).double()
    squashed = torch.sign(obs) * torch.log(1 + obs.abs())
    torch.testing.assert_close(
        model.encode(obs, torch.tensor(0)), plain.encode(squashed, torch.tensor(0))
    )


def test_config_refuses_what_cannot_work_and_reads_old_files():
    with pytest.raises(UserError, match="at least 2 Q heads"):
        tiny_config(policy_prior=True)
    with pytest.raises(UserError, match="log_std_min"):
        tiny_config(log_std_min=1.0, log_std_max=0.0)
    old = tiny_config().to_dict()
    for name in ("num_q", "q_dropout", "policy_prior", "log_std_min", "log_std_max",
                 "symlog_observations"):  # fmt: skip
        del old[name]
    assert WorldModelConfig.from_dict(old) == tiny_config()
