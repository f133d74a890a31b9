"""Every listed task keeps the promises of the package."""

from __future__ import annotations

import functools
import sys
import warnings

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from pwm.envs import list_tasks, make, task_spec
from pwm.errors import MissingExtra, UserError

pytest.importorskip("dm_control")

ALL_TASKS = pytest.mark.parametrize("task_id", [t.id for t in list_tasks() if t.installed])
DMC_TASKS = pytest.mark.parametrize("task_id", [t.id for t in list_tasks("dmc")])
# Most that an agent step can bring: two control steps of 1 or of 10.
MOST = {"dmc": 2.0, "metaworld": 20.0}


@functools.cache
def environment(task_id: str) -> gymnasium.Env:
    return make(task_id)


def rollout(env: gymnasium.Env, seed: int, steps: int):
    """Observations [steps + 1, O] and rewards [steps] under random actions drawn from ``seed``."""
    generator = np.random.default_rng(seed)
    observation, _ = env.reset(seed=seed)
    observations, rewards = [observation], []
    for _ in range(steps):
        action = generator.uniform(-1, 1, env.action_space.shape).astype(np.float32)
        observation, reward, terminated, truncated, _ = env.step(action)
        assert not terminated and not truncated
        observations.append(observation)
        rewards.append(reward)
    return np.stack(observations), np.array(rewards)


@ALL_TASKS
def test_spaces_are_those_of_the_registry(task_id):
    env, spec = environment(task_id), task_spec(task_id)
    assert env.observation_space == gymnasium.spaces.Box(-np.inf, np.inf, (spec.obs_dim,))
    assert env.action_space == gymnasium.spaces.Box(-1.0, 1.0, (spec.action_dim,))


@DMC_TASKS
def test_the_simulator_takes_the_same_actions(task_id):
    dm_spec = environment(task_id).unwrapped.dm_environment.action_spec()
    assert (dm_spec.minimum == -1).all() and (dm_spec.maximum == 1).all()


@ALL_TASKS
def test_steps_are_reproducible_and_rewards_bounded(task_id):
    env = environment(task_id)
    observations, rewards = rollout(env, seed=11, steps=12)
    again, rewards_again = rollout(env, seed=11, steps=12)
    assert observations.dtype == np.float32 and np.isfinite(observations).all()
    assert env.observation_space.contains(observations[0])
    assert (rewards >= 0).all() and (rewards <= MOST[task_id.partition("/")[0]]).all()
    np.testing.assert_array_equal(observations, again)
    np.testing.assert_array_equal(rewards, rewards_again)
    other, _ = env.reset(seed=12)
    assert not np.array_equal(observations[0], other)


@DMC_TASKS
def test_the_simulator_itself_never_ends_an_episode_early(task_id):
    env = environment(task_id).unwrapped
    env.reset(seed=0)
    dm_environment = env.dm_environment
    assert dm_environment._step_limit == pytest.approx(1000)
    assert dm_environment.task.get_termination(dm_environment.physics) is None


@DMC_TASKS
def test_the_reward_is_the_sum_over_two_control_steps(task_id):
    env = environment(task_id).unwrapped
    env.reset(seed=4)
    action = np.full(env.action_space.shape, 0.5, np.float32)
    observation, reward, *_ = env.step(action)
    reference = env.dm_environment
    reference.task.random.seed(4)
    reference.reset()
    steps = [reference.step(action), reference.step(action)]
    assert reward == steps[0].reward + steps[1].reward
    flat = np.concatenate([np.ravel(value) for value in steps[1].observation.values()])
    np.testing.assert_array_equal(observation, flat.astype(np.float32))


@pytest.mark.parametrize("task_id", ["walker-walk", "cup-spin", "reacher-three-easy"])
def test_gymnasium_checker(task_id):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # The checker calls an infinite observation bound unusual.
        warnings.filterwarnings("ignore", message=".*Box observation space m.*infinity.*")
        # Not the environment's: NumPy 2.5 deprecates something that dm_control itself does.
        warnings.filterwarnings("ignore", category=DeprecationWarning, module="dm_control")
        check_env(make(task_id), skip_render_check=True)


@pytest.mark.parametrize("task_id", ["pendulum-swingup", "cup-spin", "reacher-three-hard"])
def test_episodes_are_truncated_after_500_agent_steps(task_id):
    env = make(task_id)
    env.reset(seed=0)
    action = np.zeros(env.action_space.shape, np.float32)
    ends = [env.step(action)[2:4] for _ in range(500)]
    assert ends == [(False, False)] * 499 + [(False, True)]
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step(action)
    env.reset()
    assert env.step(action)[2:4] == (False, False)


def test_step_before_reset_is_refused():
    with pytest.raises(gymnasium.error.ResetNeeded):
        make("pendulum-swingup").step(np.zeros(1, np.float32))


def test_first_reset_uses_the_seed_of_make_and_later_ones_continue():
    env = make("walker-walk", seed=5)
    first, _ = env.reset()
    second, _ = env.reset()
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(first, make("walker-walk").reset(seed=5)[0])
    env.reset(seed=5)
    np.testing.assert_array_equal(second, env.reset()[0])


def test_a_seed_gives_the_same_start_whatever_happened_before():
    env = make("cheetah-run")
    start, _ = env.reset(seed=8)
    for _ in range(30):
        env.step(env.action_space.sample())
    np.testing.assert_array_equal(start, env.reset(seed=8)[0])


def test_actions_outside_the_bounds_are_clipped():
    env = make("hopper-stand")
    env.reset(seed=1)
    inside = env.step(np.array([1, -1, 1, 1], np.float32))
    env.reset(seed=1)
    outside = env.step(np.array([7, -3, 1, 2], np.float32))
    np.testing.assert_array_equal(inside[0], outside[0])
    assert inside[1] == outside[1]
    control = env.unwrapped.dm_environment.physics.control()
    np.testing.assert_array_equal(control, [1, -1, 1, 1])


@pytest.mark.parametrize(
    ("action", "message"),
    [(np.zeros(2), r"shape \(6,\), not \(2,\)"), (np.full(6, np.nan), "finite")],
)
def test_unfit_actions_are_refused(action, message):
    env = environment("dmc/walker-walk")
    env.reset(seed=0)
    with pytest.raises(UserError, match=message):
        env.step(action)


@pytest.mark.parametrize("seed", [-1, 2**32, 1.5, True, "a"])
def test_unfit_seeds_are_refused(seed):
    with pytest.raises(UserError, match="seed must"):
        make("pendulum-swingup", seed=seed)
    with pytest.raises(UserError, match="seed must"):
        environment("dmc/pendulum-swingup").reset(seed=seed)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"render_mode": "human"}, "render_mode"), ({"width": 0}, "picture size")],
)
def test_unfit_options_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        make("walker-walk", **options)


def test_missing_dm_control_names_the_extra(monkeypatch):
    monkeypatch.delitem(sys.modules, "dm_control.suite", raising=False)
    monkeypatch.setitem(sys.modules, "dm_control", None)
    with pytest.raises(MissingExtra, match=r"dm_control is not installed.*pwm-rl\[dmcontrol\]"):
        make("walker-walk")
