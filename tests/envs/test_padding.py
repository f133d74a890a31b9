"""Padding to multi-task widths."""

from __future__ import annotations

import numpy as np
import pytest

from pwm.envs import action_mask, make, make_vec, register, registry
from pwm.errors import UserError

from .helpers import CountingEnv


@pytest.fixture(autouse=True)
def counting(monkeypatch):
    monkeypatch.setattr(registry, "_user_tasks", {})
    monkeypatch.setattr(registry, "_measured", {})
    register("mine/count", CountingEnv)


def test_action_mask():
    mask = action_mask(2, 5)
    assert mask.dtype == np.float32
    assert list(mask) == [1, 1, 0, 0, 0]
    assert list(action_mask(3, 3)) == [1, 1, 1]


@pytest.mark.parametrize(("action_dim", "padded"), [(0, 3), (4, 3), (-1, 3)])
def test_action_mask_refuses(action_dim, padded):
    with pytest.raises(UserError, match="does not fit"):
        action_mask(action_dim, padded)


def test_padded_env_shows_zeros_and_ignores_surplus_actions():
    env, plain = make("mine/count", pad_to=(5, 4)), make("mine/count")
    observation, info = env.reset(seed=1)
    raw, _ = plain.reset(seed=1)
    np.testing.assert_array_equal(observation, [*raw, 0, 0, 0])
    assert observation.dtype == np.float32 and env.observation_space.contains(observation)
    np.testing.assert_array_equal(info["action_mask"], [1, 1, 0, 0])
    observation, reward, _, _, info = env.step(np.array([0.5, -1, 0.9, -0.9], np.float32))
    raw, raw_reward, *_ = plain.step(np.array([0.5, -1], np.float32))
    np.testing.assert_array_equal(observation, [*raw, 0, 0, 0])
    assert reward == raw_reward
    np.testing.assert_array_equal(info["action_mask"], env.action_mask)
    assert env.action_mask.dtype == np.float32
    np.testing.assert_array_equal(env.unwrapped.received, plain.unwrapped.received)
    assert env.action_space.shape == (4,)


def test_padding_bounds_hold_only_zero():
    env = make("mine/count", pad_to=(3, 2))
    np.testing.assert_array_equal(env.observation_space.high, [10, 10, 0])
    np.testing.assert_array_equal(env.observation_space.low, [-10, -10, 0])


def test_changing_the_mask_of_an_info_changes_nothing_else():
    env = make("mine/count", pad_to=(2, 3))
    _, info = env.reset()
    info["action_mask"][:] = 0
    assert list(env.action_mask) == [1, 1, 0]


@pytest.mark.parametrize("pad_to", [(1, 4), (4, 1)])
def test_padding_below_the_task_is_refused(pad_to):
    with pytest.raises(UserError, match="smaller than the task's dims"):
        make("mine/count", pad_to=pad_to)


def test_unpadded_action_is_refused():
    env = make("mine/count", pad_to=(5, 4))
    env.reset()
    with pytest.raises(UserError, match="padded shape"):
        env.step(np.zeros(2, np.float32))


def test_padded_vector_env():
    envs = make_vec("mine/count", 2, pad_to=(5, 4), backend="reference")
    observations, info = envs.reset()
    assert observations.shape == (2, 5) and (observations[:, 2:] == 0).all()
    np.testing.assert_array_equal(info["action_mask"], [[1, 1, 0, 0]] * 2)
    np.testing.assert_array_equal(envs.action_mask, [1, 1, 0, 0])
    for _ in range(3):
        observations, *_, info = envs.step(np.zeros((2, 4), np.float32))
        np.testing.assert_array_equal(info["action_mask"], [[1, 1, 0, 0]] * 2)
    np.testing.assert_array_equal(info["final_obs"][0][1:], [3, 0, 0, 0])


def test_dmc_task_padded_to_the_30_task_widths():
    pytest.importorskip("dm_control")
    env = make("pendulum-swingup", seed=2, pad_to=(24, 6))
    observation, _ = env.reset()
    raw, _ = make("pendulum-swingup", seed=2).reset()
    np.testing.assert_array_equal(observation, np.pad(raw, (0, 21)))
    assert list(env.action_mask) == [1, 0, 0, 0, 0, 0]
