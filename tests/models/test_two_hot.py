"""Symlog two-hot coding against closed forms."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pwm.models.two_hot import symexp, symlog, two_hot, two_hot_cross_entropy, two_hot_decode

LOW, HIGH, BINS = -10.0, 10.0, 101
scalars = st.floats(-20_000, 20_000, allow_nan=False)


def test_symlog_values():
    x = torch.tensor([0.0, math.e - 1, -(math.e - 1)], dtype=torch.float64)
    torch.testing.assert_close(symlog(x), torch.tensor([0.0, 1.0, -1.0], dtype=torch.float64))


@given(scalars)
def test_symexp_inverts_symlog(value):
    x = torch.tensor(value, dtype=torch.float64)
    torch.testing.assert_close(symexp(symlog(x)), x, rtol=1e-9, atol=1e-9)


@given(scalars)
def test_round_trip_through_the_code(value):
    x = torch.tensor([value], dtype=torch.float64)
    code = two_hot(x, LOW, HIGH, BINS)
    assert code.min() >= 0
    assert (code > 0).sum() <= 2
    assert code.sum().item() == pytest.approx(1.0)
    decoded = two_hot_decode(code.clamp(min=1e-300).log(), LOW, HIGH)
    torch.testing.assert_close(decoded, x, rtol=1e-6, atol=1e-6)


def test_hand_worked_code():
    # symlog(x) = 0.1 lies halfway between the centres 0.0 (bin 50) and 0.2 (bin 51).
    x = symexp(torch.tensor([0.1], dtype=torch.float64))
    code = two_hot(x, LOW, HIGH, BINS)[0]
    assert code[50].item() == pytest.approx(0.5)
    assert code[51].item() == pytest.approx(0.5)


def test_values_beyond_the_range_are_clamped_to_the_end_bins():
    code = two_hot(torch.tensor([1e9, -1e9], dtype=torch.float64), LOW, HIGH, BINS)
    assert code[0, -1] == 1 and code[1, 0] == 1


def test_cross_entropy_equals_the_definition():
    logits = torch.randn(7, BINS, dtype=torch.float64)
    x = torch.linspace(-3, 50, 7, dtype=torch.float64)
    expected = -(two_hot(x, LOW, HIGH, BINS) * torch.log_softmax(logits, -1)).sum(-1)
    torch.testing.assert_close(two_hot_cross_entropy(logits, x, LOW, HIGH), expected)


def test_reward_spaces_differ_by_symexp():
    logits = torch.randn(5, BINS, dtype=torch.float64)
    inside = two_hot_decode(logits, LOW, HIGH, "symlog")
    torch.testing.assert_close(two_hot_decode(logits, LOW, HIGH, "linear"), symexp(inside))
