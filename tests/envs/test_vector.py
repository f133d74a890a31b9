"""The reference vector environment and the choice of a backend."""

from __future__ import annotations

import itertools

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

from pwm.envs import make, make_vec, register, registry
from pwm.envs.seeds import env_seeds
from pwm.errors import UserError
from pwm.seeding import stream_seed

from .helpers import CountingEnv


@pytest.fixture(autouse=True)
def counting(monkeypatch):
    """mine/count: the episodes of the copies last 2, 3, 4, ... steps in the order of creation."""
    monkeypatch.setattr(registry, "_user_tasks", {})
    monkeypatch.setattr(registry, "_measured", {})
    lengths = itertools.count(2)
    register("mine/count", lambda **kwargs: CountingEnv(length=next(lengths), **kwargs))


def test_ended_episodes_are_reset_within_the_step():
    envs = make_vec("mine/count", 2)
    assert envs.metadata["autoreset_mode"] == AutoresetMode.SAME_STEP
    actions = np.zeros((2, 2), np.float32)
    first, _ = envs.reset(seed=[1, 2])
    twins = [make("mine/count"), make("mine/count")]
    starts = [[twin.reset(seed=seed)[0], twin.reset()[0]]
              for twin, seed in zip(twins, (1, 2), strict=True)]  # fmt: skip
    np.testing.assert_array_equal(first, [starts[0][0], starts[1][0]])
    envs.step(actions)
    observations, rewards, terminated, truncated, info = envs.step(actions)
    # Environment 0 ended: its reward is the last step's, its observation the next start.
    assert list(terminated) == [True, False] and not truncated.any()
    assert list(rewards) == [2, 2]
    np.testing.assert_array_equal(observations[0], starts[0][1])
    np.testing.assert_array_equal(observations[1], [starts[1][0][0], 2])
    assert list(info["_final_obs"]) == [True, False]
    np.testing.assert_array_equal(info["final_obs"][0], [starts[0][0][0], 2])
    assert info["final_info"]["success"][0] == 1.0
    observations, rewards, terminated, _, info = envs.step(actions)
    # No dummy step: environment 0 is one step into its new episode while 1 ends.
    np.testing.assert_array_equal(observations[0], [starts[0][1][0], 1])
    assert list(terminated) == [False, True] and list(rewards) == [1, 3]
    assert list(info["_final_obs"]) == [False, True]
    np.testing.assert_array_equal(info["final_obs"][1], [starts[1][0][0], 3])


def test_an_int_seed_gives_each_environment_its_named_stream():
    envs = make_vec("gym/Pendulum-v1", 3, seed=7)
    first, _ = envs.reset()
    expected = [
        make("gym/Pendulum-v1").reset(seed=stream_seed(7, "env", index))[0] for index in range(3)
    ]
    np.testing.assert_array_equal(first, expected)
    second, _ = envs.reset()
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(envs.reset(seed=7)[0], first)
    np.testing.assert_array_equal(envs.reset()[0], second)
    assert not np.array_equal(envs.reset(seed=8)[0], first)


def test_more_environments_do_not_change_the_streams_of_the_others():
    assert env_seeds(3, 4)[:2] == env_seeds(3, 2)
    assert len(set(env_seeds(3, 100))) == 100


def test_dmc_reference_equals_single_environments_and_is_truncated():
    pytest.importorskip("dm_control")
    seeds = [5, 6]
    envs = make_vec("pendulum-spin", 2, backend="reference")
    singles = [make("pendulum-spin") for _ in seeds]
    observations, _ = envs.reset(seed=seeds)
    starts = [single.reset(seed=seed)[0] for single, seed in zip(singles, seeds, strict=True)]
    np.testing.assert_array_equal(observations, starts)
    generator = np.random.default_rng(0)
    for step in range(500):
        actions = generator.uniform(-1, 1, (2, 1)).astype(np.float32)
        observations, rewards, terminated, truncated, info = envs.step(actions)
        results = [single.step(action) for single, action in zip(singles, actions, strict=True)]
        assert list(rewards) == [result[1] for result in results]
        assert not terminated.any() and truncated.all() == (step == 499)
    for index, single in enumerate(singles):
        np.testing.assert_array_equal(info["final_obs"][index], results[index][0])
        np.testing.assert_array_equal(observations[index], single.reset()[0])


@pytest.mark.parametrize(
    ("actions", "message"),
    [
        (np.zeros((2, 1)), "shape"),
        (np.zeros((3, 2)), "shape"),
        (np.array([[0, 0], [0, np.nan]]), "finite"),
    ],
)
def test_unfit_actions_are_refused_before_any_environment_steps(actions, message):
    envs = make_vec("mine/count", 2)
    envs.reset()
    with pytest.raises(UserError, match=message):
        envs.step(actions)
    assert not envs.envs[0].unwrapped.received


@pytest.mark.parametrize("seed", [[1], [1, 2, 3], [1, -2], -5])
def test_unfit_seeds_are_refused(seed):
    envs = make_vec("mine/count", 2)
    with pytest.raises(UserError, match="seed"):
        envs.reset(seed=seed)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (("mine/count", 0), {}, "num_envs"),
        (("mine/count", 2.0), {}, "num_envs"),
        (("mine/count", 2), {"backend": "fast"}, "unknown backend 'fast'"),
        (("mine/count", 2), {"backend": "batch"}, "no batch backend"),
        (("mine/cuont", 2), {}, "Did you mean 'mine/count'"),
    ],
)
def test_unfit_arguments_are_refused(arguments, options, message):
    with pytest.raises(UserError, match=message):
        make_vec(*arguments, **options)


def test_auto_backend_is_a_vector_env_of_the_task():
    pytest.importorskip("dm_control")
    envs = make_vec("walker-walk-backward", 2)
    assert isinstance(envs, gymnasium.vector.VectorEnv)
    assert envs.metadata["autoreset_mode"] == AutoresetMode.SAME_STEP
    assert envs.observation_space.shape == (2, 24) and envs.action_space.shape == (2, 6)
    start, _ = envs.reset(seed=[3, 4])
    for index, seed in enumerate((3, 4)):
        np.testing.assert_array_equal(
            start[index], make("walker-walk-backwards").reset(seed=seed)[0]
        )
