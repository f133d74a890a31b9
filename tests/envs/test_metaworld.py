"""Meta-World tasks: TD-MPC2's conventions around the upstream environments."""

from __future__ import annotations

import subprocess
import sys
import warnings

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from pwm.envs import list_tasks, make, make_vec
from pwm.envs.metaworld import load_metaworld_environment
from pwm.errors import MissingExtra, UserError

pytest.importorskip("metaworld")

ALL_TASKS = pytest.mark.parametrize("task_id", [task.id for task in list_tasks("metaworld")])
ZERO = np.zeros(4, np.float32)


@ALL_TASKS
def test_a_seed_gives_the_same_episode_everywhere(task_id):
    """Single environment with a past, and the copies of a vector environment."""
    envs, single = make_vec(task_id, 2), make(task_id)
    single.reset()
    for _ in range(15):
        single.step(np.array([1, -0.5, -1, 1], np.float32))
    starts, _ = envs.reset(seed=[21, 22])
    start, _ = single.reset(seed=22)
    np.testing.assert_array_equal(start, starts[1])
    generator = np.random.default_rng(0)
    for _ in range(8):
        action = generator.uniform(-1, 1, 4).astype(np.float32)
        all_next, all_rewards, *_ = envs.step(np.stack([ZERO, action]))
        following, reward, _, _, info = single.step(action)
        np.testing.assert_array_equal(following, all_next[1])
        assert reward == all_rewards[1] and info["success"] in (0.0, 1.0)
    later, _ = envs.reset()
    np.testing.assert_array_equal(later[1], single.reset()[0])
    # Every episode is another one: goal or object moved.
    assert not np.array_equal(starts[0], starts[1]) and not np.array_equal(start, later[1])


def upstream(task_id: str, seed: int):
    """Meta-World's own environment, one control step a step, in its first episode."""
    environment = load_metaworld_environment(task_id, seed)
    return environment, environment.reset()[0]


@pytest.mark.parametrize("task_id", ["mw-reach", "mw-drawer-open", "mw-pick-place-wall"])
def test_a_zero_action_follows_the_reset_and_two_control_steps_an_agent_step(task_id):
    env = make(task_id)
    observation, _ = env.reset(seed=9)
    reference, before = upstream(task_id, 9)
    np.testing.assert_array_equal(observation, before.astype(np.float32))
    reference.step(ZERO)
    for action in (np.array([0.5, 1, -0.3, 1]), np.array([-1, 0.2, 1, -1])):
        observation, reward, *_, info = env.step(action.astype(np.float32))
        control = action.astype(np.float32).astype(np.float64)
        first, second = reference.step(control), reference.step(control)
        assert reward == first[1] + second[1]
        assert info == {"success": second[4]["success"]}
        np.testing.assert_array_equal(observation, second[0].astype(np.float32))
    # The state one control step before stands behind the current one, the goal at the end.
    np.testing.assert_array_equal(observation[18:36], first[0][:18].astype(np.float32))
    np.testing.assert_array_equal(observation[36:], reference._target_pos.astype(np.float32))


def test_goals_are_spread_over_the_task_s_space_and_not_numpy_s_global_stream():
    env = make("mw-reach", seed=1)
    space = env.unwrapped.metaworld_environment.goal_space
    np.random.seed(0)
    goals = np.array([env.reset()[0][36:] for _ in range(12)])
    assert np.random.get_state()[2] == 624, "the global stream was used"
    assert (goals >= space.low - 1e-6).all() and (goals <= space.high + 1e-6).all()
    assert (np.ptp(goals, axis=0) > 0.4 * (space.high - space.low)).all()
    np.testing.assert_array_equal(make("mw-reach").reset(seed=1)[0][36:], goals[0])


def test_constructing_leaves_the_global_stream_alone():
    np.random.seed(3)
    before = np.random.get_state()[1].copy()
    make("mw-hammer").reset()
    np.testing.assert_array_equal(np.random.get_state()[1], before)


def test_episodes_are_truncated_after_100_agent_steps_and_success_is_the_current_one():
    """The hand is led to the goal and away again: solved in between, not at the end."""
    env = make("mw-reach")
    observation, _ = env.reset(seed=2)
    goal, successes = observation[36:], []
    for step in range(100):
        target = goal if step < 70 else goal + np.array([0, -0.3, 0])
        action = np.append(np.clip(10 * (target - observation[:3]), -1, 1), 0).astype(np.float32)
        observation, reward, terminated, truncated, info = env.step(action)
        assert not terminated and truncated == (step == 99)
        successes.append(info["success"])
    assert successes[69] == 1.0 and successes[-1] == 0.0
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step(ZERO)
    env.reset()
    assert env.step(ZERO)[2:4] == (False, False)


def test_the_vector_environment_reports_the_last_step_s_success():
    envs = make_vec("mw-door-close", 2)
    envs.reset(seed=[0, 1])
    for _ in range(100):
        *_, truncated, info = envs.step(np.zeros((2, 4), np.float32))
    assert truncated.all() and info["final_info"]["success"].tolist() == [0.0, 0.0]
    assert info["final_obs"][0].shape == (39,)


def test_gymnasium_checker():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message=".*Box observation space m.*infinity.*")
        check_env(make("mw-push"), skip_render_check=True)


@pytest.mark.parametrize(
    ("action", "message"),
    [(np.zeros(6), r"shape \(4,\), not \(6,\)"), (np.full(4, np.inf), "finite")],
)
def test_unfit_actions_are_refused(action, message):
    env = make("mw-reach")
    env.reset(seed=0)
    with pytest.raises(UserError, match=message):
        env.step(action)


def test_padding_to_the_widths_of_mt80():
    tasks = list_tasks("mt80")
    widths = max(t.obs_dim for t in tasks), max(t.action_dim for t in tasks)
    assert widths == (39, 6)
    env = make("mw-reach", pad_to=widths)
    observation, info = env.reset(seed=4)
    assert observation.shape == (39,) and info["action_mask"].tolist() == [1, 1, 1, 1, 0, 0]
    walker, _ = make("walker-walk", pad_to=widths).reset(seed=4)
    assert walker.shape == (39,) and not walker[24:].any()


def test_missing_metaworld_names_the_extra(monkeypatch):
    monkeypatch.delitem(sys.modules, "metaworld.env_dict", raising=False)
    monkeypatch.setitem(sys.modules, "metaworld", None)
    with pytest.raises(MissingExtra, match=r"metaworld is not installed.*pwm-rl\[metaworld\]"):
        make("mw-reach")


def test_other_tasks_have_no_upstream_environment():
    with pytest.raises(UserError, match="'walker-walk' is no Meta-World task"):
        load_metaworld_environment("walker-walk", 0)


def test_welds_hold_the_hand_to_the_mocap_body():
    import mujoco

    env = make("mw-reach")
    model = env.unwrapped.metaworld_environment.model
    welds = model.eq_data[model.eq_type == mujoco.mjtEq.mjEQ_WELD]
    assert len(welds) > 0
    np.testing.assert_array_equal(welds[:, :11], [[0, 0, 0, 0, 0, 0, -1, 0, 0, 0, 5]] * len(welds))
    env.reset(seed=0)
    for _ in range(10):
        observation, *_ = env.step(np.array([0, 0, 1, 0], np.float32))
    mocap = env.unwrapped.metaworld_environment.data.mocap_pos[0]
    np.testing.assert_allclose(observation[:3], mocap, atol=0.06)


@pytest.mark.parametrize("order", [("mw-reach", "walker-walk"), ("walker-walk", "mw-reach")])
def test_both_simulators_draw_in_one_process(order):
    code = (
        "import numpy as np\nfrom pwm.envs import make\n"
        f"for task in {order}:\n"
        "    env = make(task, render_mode='rgb_array', width=96, height=64)\n"
        "    env.reset(seed=0)\n    env.step(np.zeros(env.action_space.shape))\n"
        "    picture = env.render()\n    print(picture.shape, picture.std() > 5)\n"
    )
    done = subprocess.run([sys.executable, "-W", "error::UserWarning", "-c", code],
                          capture_output=True, text=True)  # fmt: skip
    if "OpenGL" in done.stderr:
        pytest.skip(f"no OpenGL here: {done.stderr[-200:]}")
    assert done.stdout.splitlines() == ["(64, 96, 3) True"] * 2, done.stderr
    assert done.stderr == ""


def test_the_first_picture_is_taken_from_where_the_later_ones_are():
    import mujoco

    env = make("mw-reach", render_mode="rgb_array", width=120, height=120)
    env.reset(seed=0)
    upstream = env.unwrapped.metaworld_environment
    camera = upstream.model.camera("corner2").id
    np.testing.assert_array_equal(upstream.data.cam_xpos[camera], [0.75, 0.075, 0.7])
    try:
        first = env.render()
        mujoco.mj_forward(upstream.model, upstream.data)
        np.testing.assert_array_equal(env.render(), first)
    except UserError as error:
        pytest.skip(f"no OpenGL here: {error}")
    finally:
        env.close()


def test_the_picture_stands_upright():
    env = make("mw-reach", render_mode="rgb_array", width=120, height=120)
    env.reset(seed=0)
    try:
        picture = env.render().astype(int)
    except UserError as error:
        pytest.skip(f"no OpenGL here: {error}")
    finally:
        env.close()
    red, green, blue = picture.transpose(2, 0, 1)
    wood = np.nonzero((red > blue + 25) & (red < 2 * green))[0].mean()
    arm = np.nonzero((red > 2 * green) & (red > 60))
    # The arm rises above the table, left of it.
    assert arm[0].min() < wood - 20 and arm[1].mean() < 60
    assert env.metadata["render_fps"] == pytest.approx(40)
