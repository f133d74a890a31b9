"""TD(lambda) and the H-step objective against hand-worked and quadratic-time references."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pwm.algorithms.returns import discounted_objective, td_lambda


def test_hand_worked_example():
    rewards = torch.tensor([[1.0], [2.0], [3.0]])
    values = torch.tensor([[10.0], [20.0], [30.0]])  # V(z_1), V(z_2), V(z_3)
    targets = td_lambda(rewards, values, None, gamma=0.5, lam=0.5)
    # G_2 = 3 + .5 * 30 = 18;  G_1 = 2 + .5 (.5 * 20 + .5 * 18) = 11.5
    # G_0 = 1 + .5 (.5 * 10 + .5 * 11.5) = 6.375
    torch.testing.assert_close(targets, torch.tensor([[6.375], [11.5], [18.0]]))


def reference(rewards, values, alive, gamma, lam):
    """Average of all n-step returns with weights (1 - lam) lam^(n-1), quadratic time."""
    steps = len(rewards)
    targets = []
    for t in range(steps):
        total, n_step, weight, discount = 0.0, 0.0, 1.0, 1.0
        for k in range(t, steps):
            n_step += discount * rewards[k]
            discount *= gamma * alive[k]
            share = weight * (1 - lam) if k < steps - 1 else weight
            total += share * (n_step + discount * values[k])
            weight *= lam
        targets.append(total)
    return targets


@given(
    st.integers(1, 7),
    st.floats(0, 1),
    st.floats(0, 1),
    st.booleans(),
    st.integers(0, 2**31),
)
def test_equals_the_quadratic_reference(steps, gamma, lam, ends, seed):
    g = torch.Generator().manual_seed(seed)
    rewards = torch.randn(steps, 1, generator=g, dtype=torch.float64)
    values = torch.randn(steps, 1, generator=g, dtype=torch.float64)
    alive = (torch.rand(steps, 1, generator=g) > 0.3).double()
    mask = alive if ends else None
    ones = [1.0] * steps
    expected = reference(
        rewards[:, 0].tolist(), values[:, 0].tolist(), alive[:, 0].tolist() if ends else ones,
        gamma, lam,
    )  # fmt: skip
    actual = td_lambda(rewards, values, mask, gamma, lam)[:, 0].tolist()
    assert actual == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_lambda_limits():
    rewards, values = torch.randn(5, 3), torch.randn(5, 3)
    one_step = rewards + 0.9 * values
    torch.testing.assert_close(td_lambda(rewards, values, None, 0.9, 0.0), one_step)
    monte_carlo = td_lambda(rewards, values, None, 0.9, 1.0)[0]
    torch.testing.assert_close(monte_carlo, discounted_objective(rewards, values[-1], None, 0.9))


def test_objective_bootstraps_with_gamma_to_the_horizon():
    rewards = torch.ones(3, 1)
    objective = discounted_objective(rewards, torch.tensor([8.0]), None, gamma=0.5)
    assert objective.item() == 1 + 0.5 + 0.25 + 0.125 * 8


def test_nothing_counts_after_a_termination():
    rewards = torch.tensor([[1.0], [1.0], [100.0]])
    alive = torch.tensor([[1.0], [0.0], [1.0]])
    objective = discounted_objective(rewards, torch.tensor([1000.0]), alive, gamma=0.5)
    assert objective.item() == 1.5
