"""Layers against torch's reference implementations."""

import torch
from torch.nn import functional as F

from pwm.models.layers import Head, NormedLinear, mish, pad_features, simnorm


def test_simnorm_is_a_softmax_a_group():
    x = torch.randn(5, 24, dtype=torch.float64) * 20
    y = simnorm(x, 8)
    torch.testing.assert_close(y, torch.softmax(x.view(5, 3, 8), -1).view(5, 24))
    torch.testing.assert_close(y.view(5, 3, 8).sum(-1), torch.ones(5, 3, dtype=torch.float64))


def test_simnorm_of_extreme_inputs_is_finite():
    x = torch.tensor([[1e4, -1e4, 0, 0, 0, 0, 0, 0]])
    y = simnorm(x, 8)
    assert torch.isfinite(y).all()
    assert y[0, 0] == 1


def test_mish_and_its_gradient():
    x = torch.linspace(-40, 40, 401, dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(mish(x), F.mish(x), rtol=1e-12, atol=1e-12)
    (ours,) = torch.autograd.grad(mish(x).sin().sum(), x)
    (reference,) = torch.autograd.grad(F.mish(x).sin().sum(), x)
    torch.testing.assert_close(ours, reference, rtol=1e-10, atol=1e-12)


def test_mish_inside_a_compiled_function_uses_the_same_formula(monkeypatch):
    x = torch.linspace(-40, 40, 401, dtype=torch.float64)
    eager = mish(x)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    torch.testing.assert_close(mish(x), eager, rtol=1e-12, atol=1e-12)


def test_normed_linear_is_linear_norm_mish():
    layer = NormedLinear(4, 6).double()
    x = torch.randn(3, 4, dtype=torch.float64)
    expected = F.mish(F.layer_norm(layer.linear(x), (6,)))
    torch.testing.assert_close(layer(x), expected)


def test_zero_last_head_starts_at_zero_and_continues_from_its_first_layer():
    head = Head(4, [6, 5], 3)
    x = torch.randn(2, 4)
    torch.testing.assert_close(head.after_first(head.hidden[0].linear(x)), head(x))


def test_padding_adds_zeros_and_refuses_to_cut():
    assert pad_features(torch.ones(2, 3), 5).tolist() == [[1, 1, 1, 0, 0]] * 2
    try:
        pad_features(torch.ones(2, 3), 2)
    except ValueError as error:
        assert "3 features" in str(error)
    else:
        raise AssertionError("a wider tensor must be refused")
