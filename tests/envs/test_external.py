"""Gymnasium ids and registered tasks."""

from __future__ import annotations

from importlib.util import find_spec

import gymnasium
import numpy as np
import pytest

from pwm.envs import make, register, registry, task_spec
from pwm.errors import UserError

from .helpers import CountingEnv


@pytest.fixture(autouse=True)
def clean_registry(monkeypatch):
    monkeypatch.setattr(registry, "_user_tasks", {})
    monkeypatch.setattr(registry, "_measured", {})


def test_gymnasium_id_has_its_own_dims_and_limit():
    spec = task_spec("gym/Pendulum-v1")
    assert (spec.id, spec.obs_dim, spec.action_dim) == ("gym/Pendulum-v1", 3, 1)
    assert (spec.episode_length, spec.action_repeat) == (200, 1)
    assert task_spec("gym/Pendulum-v1") is spec


@pytest.mark.parametrize("name", ["Pendulum-v1", "HalfCheetah-v5"])
def test_gymnasium_env_equals_the_raw_one_with_stretched_actions(name):
    if name.startswith("Half"):
        pytest.importorskip("mujoco")
    env, raw = make(f"gym/{name}"), gymnasium.make(name)
    space = raw.action_space
    assert isinstance(space, gymnasium.spaces.Box)
    observation, _ = env.reset(seed=3)
    raw_observation, _ = raw.reset(seed=3)
    generator = np.random.default_rng(0)
    for _ in range(10):
        np.testing.assert_array_equal(observation, raw_observation.astype(np.float32))
        assert observation.dtype == np.float32 and env.observation_space.contains(observation)
        action = generator.uniform(-1, 1, space.shape).astype(np.float32)
        observation, reward, *_ = env.step(action)
        raw_observation, raw_reward, *_ = raw.step((action * space.high).astype(space.dtype))
        assert reward == pytest.approx(float(raw_reward), rel=1e-6)


def test_first_reset_uses_the_seed_of_make_and_later_ones_continue():
    env = make("gym/Pendulum-v1", seed=5)
    first, second = env.reset()[0], env.reset()[0]
    np.testing.assert_array_equal(first, make("gym/Pendulum-v1").reset(seed=5)[0])
    assert not np.array_equal(first, second)


def test_registered_ids_of_gymnasium_work(monkeypatch):
    gymnasium.register("Counting-v0", entry_point=CountingEnv, max_episode_steps=2)
    try:
        assert task_spec("gym/Counting-v0").episode_length == 2
        env = make("gym/Counting-v0")
        env.reset()
        assert env.step(np.zeros(2, np.float32))[2:4] == (False, False)
        assert env.step(np.zeros(2, np.float32))[2:4] == (False, True)
    finally:
        gymnasium.registry.pop("Counting-v0")


def test_actions_are_stretched_to_the_bounds_and_clipped():
    register("mine/count", CountingEnv)
    env = make("mine/count")
    env.reset()
    for action in ([-1, -1], [0, 0], [1, 1]):
        env.step(np.array(action, np.float32))
    env.reset()
    env.step(np.array([5, -5], np.float32))
    received = [list(action) for action in env.unwrapped.received]
    assert received == [[-2, 0], [1, 5], [4, 10], [4, 0]]
    assert env.action_space == gymnasium.spaces.Box(-1.0, 1.0, (2,))
    assert env.observation_space == gymnasium.spaces.Box(-10.0, 10.0, (2,))


def test_terminations_and_infos_pass():
    register("mine/count", lambda **kwargs: CountingEnv(length=2, **kwargs))
    env = make("mine/count")
    env.reset()
    assert env.step(np.zeros(2, np.float32))[2:] == (False, False, {"success": 0.0})
    assert env.step(np.zeros(2, np.float32))[2:] == (True, False, {"success": 1.0})


def test_time_limit_wrapper_of_the_entry_point_is_read():
    register("mine/limited", lambda: gymnasium.wrappers.TimeLimit(CountingEnv(), 7))
    assert task_spec("mine/limited").episode_length == 7


@pytest.mark.parametrize(
    ("task_id", "message"),
    [
        ("gym/Pendulum-v9", "'gym/Pendulum-v9' is no Gymnasium id"),
        ("gym/Pendolum-v1", "Did you mean 'Pendulum-v1'"),
        ("gym/", "no Gymnasium id"),
        ("gym/no_such_module:Env-v0", "no Gymnasium id"),
        ("gym/CartPole-v1", "action space must be a 1-D Box"),
        ("gym/FrozenLake-v1", "observation space must be a 1-D Box"),
    ],
)
def test_unfit_gymnasium_ids_are_refused(task_id, message):
    with pytest.raises(UserError, match=message):
        make(task_id)
    with pytest.raises(UserError, match=message):
        task_spec(task_id)


def test_unbounded_actions_are_refused():
    class Unbounded(CountingEnv):
        def __init__(self):
            super().__init__()
            self.action_space = gymnasium.spaces.Box(-np.inf, np.inf, (1,))

    register("mine/unbounded", Unbounded)
    with pytest.raises(UserError, match="must be bounded"):
        make("mine/unbounded")


def test_an_entry_point_that_returns_no_environment_is_refused():
    register("mine/none", lambda: None)
    with pytest.raises(UserError, match="returned NoneType"):
        make("mine/none")


@pytest.mark.parametrize(
    ("action", "message"), [(np.zeros(3), "shape"), (np.full(2, np.inf), "finite")]
)
def test_unfit_actions_are_refused(action, message):
    register("mine/count", CountingEnv)
    env = make("mine/count")
    env.reset()
    with pytest.raises(UserError, match=message):
        env.step(action)
    assert not env.unwrapped.received


@pytest.mark.skipif(find_spec("pygame") is not None, reason="pygame is installed")
def test_a_missing_drawing_package_is_named():
    env = make("gym/Pendulum-v1", render_mode="rgb_array")
    env.reset()
    with pytest.raises(UserError, match="pygame"):
        env.render()
