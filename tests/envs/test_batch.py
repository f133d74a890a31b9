"""The ``mujoco.batch`` backend equals dm_control step by step, for every task of mt30."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest

pytest.importorskip("dm_control")

from pwm.envs import list_tasks, make, make_vec
from pwm.envs.batch import BatchDMControlVectorEnv, supports_batch
from pwm.errors import UserError

TASKS = [task.id for task in list_tasks(suite="mt30")]


def _pair(task: str, num_envs: int, **kwargs) -> tuple:
    return (
        make_vec(task, num_envs, backend="batch", **kwargs),
        make_vec(task, num_envs, backend="reference", **kwargs),
    )


def test_every_task_of_mt30_is_supported():
    assert len(TASKS) == 30
    assert all(supports_batch(task) for task in TASKS)
    assert not supports_batch("gym/Pendulum-v1")


@pytest.mark.parametrize("task", TASKS)
def test_equal_to_dm_control_step_by_step(task):
    """Same seeds and actions give the same bits, over contacts and saturated actions.

    Rewards alone may differ by rounding: NumPy's exp over an array is not libm's over a number.
    """
    batch, reference = _pair(task, 3)
    seeds = [11, 22, 33]
    observations, _ = batch.reset(seed=seeds)
    expected, _ = reference.reset(seed=seeds)
    np.testing.assert_array_equal(observations, expected)
    random = np.random.default_rng(len(task))
    for step in range(60):
        # beyond the bounds now and then: both clip
        actions = random.uniform(-1.3, 1.3, batch.action_space.shape).astype(np.float32)
        got, wanted = batch.step(actions), reference.step(actions)
        np.testing.assert_array_equal(got[0], wanted[0], err_msg=f"observation, step {step}")
        np.testing.assert_allclose(got[1], wanted[1], rtol=1e-12, err_msg=f"reward, step {step}")
        np.testing.assert_array_equal(got[2:4], wanted[2:4])


@pytest.mark.parametrize(
    "task", ["cartpole-swingup", "reacher-easy", "finger-turn-hard", "fish-swim", "cup-catch"]
)
def test_equal_over_the_end_of_an_episode(task):
    """The automatic reset draws the same next state, and the last observation is kept."""
    batch, reference = _pair(task, 2, seed=4)
    batch.reset()
    reference.reset()
    random = np.random.default_rng(0)
    for _ in range(505):
        actions = random.uniform(-1, 1, batch.action_space.shape).astype(np.float32)
        got, wanted = batch.step(actions), reference.step(actions)
        np.testing.assert_array_equal(got[0], wanted[0])
        np.testing.assert_allclose(got[1], wanted[1], rtol=1e-12)
        np.testing.assert_array_equal(got[3], wanted[3])
        assert got[3].any() == ("_final_obs" in got[4])
        if got[3].any():
            ended = got[4]
            np.testing.assert_array_equal(ended["_final_obs"], wanted[4]["_final_obs"])
            for ours, theirs in zip(ended["final_obs"], wanted[4]["final_obs"], strict=True):
                np.testing.assert_array_equal(ours, theirs)


def test_threads_do_not_change_the_results():
    envs = [BatchDMControlVectorEnv("dmc/walker-run", 6, seed=1, num_threads=n) for n in (1, 2)]
    for env in envs:
        env.reset()
    random = np.random.default_rng(0)
    for _ in range(20):
        actions = random.uniform(-1, 1, (6, 6)).astype(np.float32)
        one, two = (env.step(actions) for env in envs)
        np.testing.assert_array_equal(one[0], two[0])
        np.testing.assert_array_equal(one[1], two[1])


def test_partial_reset_leaves_the_others_alone():
    env = make_vec("dmc/cartpole-swingup", 3, seed=0, backend="batch")
    env.reset()
    moved = env.step(np.ones((3, 1), np.float32))[0]
    observations, _ = env.reset(options={"reset_mask": np.array([False, True, False])})
    np.testing.assert_array_equal(observations[[0, 2]], moved[[0, 2]])
    assert not np.array_equal(observations[1], moved[1])
    with pytest.raises(UserError, match="reset_mask"):
        env.reset(options={"reset_mask": np.zeros(3, bool)})


def test_padding_and_masks_as_in_the_reference():
    batch, reference = _pair("dmc/cup-catch", 2, pad_to=(24, 6), seed=3)
    got, wanted = batch.reset(), reference.reset()
    np.testing.assert_array_equal(got[0], wanted[0])
    np.testing.assert_array_equal(got[1]["action_mask"], wanted[1]["action_mask"])
    np.testing.assert_array_equal(batch.action_mask, [1, 1, 0, 0, 0, 0])
    actions = np.ones((2, 6), np.float32)
    np.testing.assert_array_equal(batch.step(actions)[0], reference.step(actions)[0])


def test_bad_actions_are_refused_before_any_environment_moves():
    env = make_vec("dmc/pendulum-swingup", 2, backend="batch")
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step(np.zeros((2, 1), np.float32))
    env.reset(seed=0)
    with pytest.raises(UserError, match="finite"):
        env.step(np.array([[0.0], [np.nan]], np.float32))
    with pytest.raises(UserError, match="shape"):
        env.step(np.zeros((2, 2), np.float32))
    first = env.step(np.zeros((2, 1), np.float32))[0]
    env.reset(seed=0)
    np.testing.assert_array_equal(env.step(np.zeros((2, 1), np.float32))[0], first)


def test_auto_takes_the_batch_and_single_make_agrees():
    env = make_vec("walker-walk", 2)
    assert isinstance(env, BatchDMControlVectorEnv)
    first, _ = env.reset(seed=[5, 6])
    np.testing.assert_array_equal(first[1], make("walker-walk").reset(seed=6)[0])
