"""Starts and models of the extra tasks."""

from __future__ import annotations

import math

import numpy as np
import pytest

mujoco = pytest.importorskip("mujoco")
pytest.importorskip("dm_control")

from pwm.envs.dmcontrol import load_dm_environment  # noqa: E402


def ball_inside(model, data):
    offset = np.abs(data.site("target").xpos - data.body("ball").xpos)[[0, 2]]
    return bool((offset < model.site("target").size[[0, 2]] - model.geom("ball").size[0]).all())


def test_cup_spin_starts_in_the_cup_nine_times_of_ten():
    environment = load_dm_environment("cup-spin", seed=0)
    model, data = environment.physics.model.ptr, environment.physics.data.ptr
    inside = []
    for _ in range(300):
        environment.reset()
        assert data.ncon == 0
        assert (data.qvel == 0).all() and (data.joint("cup_x").qpos == 0).all()
        assert -0.2 <= data.joint("ball_x").qpos[0] <= 0.2
        assert 0.2 <= data.joint("ball_z").qpos[0] <= 0.5
        inside.append(ball_inside(model, data))
    # 30 outside expected, standard deviation 5.
    assert 15 <= inside.count(False) <= 45


@pytest.mark.parametrize("seed", range(12))
def test_cup_spin_takes_the_first_fitting_draw(seed):
    environment = load_dm_environment("cup-spin", seed=seed)
    environment.reset()
    start = environment.physics.data.qpos.copy()
    model = environment.physics.model.ptr
    data = mujoco.MjData(model)
    stream = np.random.RandomState(seed)
    anywhere = stream.uniform() < 0.1
    for _ in range(5000):
        mujoco.mj_resetData(model, data)
        data.joint("ball_x").qpos[0] = stream.uniform(-0.2, 0.2)
        data.joint("ball_z").qpos[0] = stream.uniform(0.2, 0.5)
        mujoco.mj_forward(model, data)
        if data.ncon == 0 and (anywhere or ball_inside(model, data)):
            break
    np.testing.assert_array_equal(start, data.qpos)


@pytest.mark.parametrize(("level", "size"), [("easy", 0.05), ("hard", 0.015)])
def test_reacher_three_model(level, size):
    environment = load_dm_environment(f"reacher-three-{level}", seed=0)
    model = environment.physics.model.ptr
    environment.reset()
    names = [model.joint(i).name for i in range(model.njnt)]
    assert names == ["shoulder0", "shoulder1", "wrist"]
    assert [model.actuator(i).name for i in range(model.nu)] == names
    assert list(model.actuator_trnid[:, 0]) == [0, 1, 2]
    assert (model.actuator_gear[:, 0] == 0.05).all() and (model.actuator_ctrllimited == 1).all()
    assert list(model.jnt_limited) == [0, 1, 1]
    limit = math.radians(80)
    np.testing.assert_allclose(model.jnt_range[1:], [[-limit, limit]] * 2)
    np.testing.assert_array_equal(model.dof_damping, 0.01)
    np.testing.assert_array_equal(model.jnt_axis, [[0, 0, 1]] * 3)
    for body, x, z in [("arm0", 0, 0.01), ("arm1", 0.09, 0), ("hand", 0.09, 0),
                       ("finger", 0.09, 0)]:  # fmt: skip
        np.testing.assert_allclose(model.body(body).pos, [x, 0, z])
    for link, length in [("arm0", 0.09), ("arm1", 0.09), ("hand", 0.10)]:
        # MuJoCo stores a capsule as (radius, half length).
        np.testing.assert_allclose(model.geom(link).size[:2], [0.01, length / 2])
    assert model.geom("finger").size[0] == 0.01
    assert model.geom("target").size[0] == size
    assert model.camera("hand").bodyid[0] == model.body("finger").id
    assert model.opt.timestep == 0.02
    assert model.opt.disableflags & mujoco.mjtDisableBit.mjDSBL_CONTACT


def test_reacher_three_keeps_the_stock_arena():
    from dm_control.suite import reacher

    environment = load_dm_environment("reacher-three-easy", seed=0)
    stock = reacher.easy().physics.model.ptr
    model = environment.physics.model.ptr
    arena = {"ground", "wall_x", "wall_y", "wall_neg_x", "wall_neg_y", "root", "target", "finger"}
    names = {model.geom(i).name for i in range(model.ngeom)}
    assert names == arena | {"arm0", "arm1", "hand"}
    for name in arena - {"finger", "target"}:
        np.testing.assert_array_equal(model.geom(name).pos, stock.geom(name).pos)


def test_reacher_three_starts_over_the_whole_range():
    environment = load_dm_environment("reacher-three-hard", seed=0)
    data = environment.physics.data.ptr
    joints, radii = [], []
    for _ in range(300):
        observation = environment.reset().observation
        assert list(observation) == ["position", "to_target", "velocity"]
        joints.append(data.qpos.copy())
        radii.append(math.hypot(*data.geom("target").xpos[:2]))
    low, high = np.min(joints, 0), np.max(joints, 0)
    limits = np.array([math.pi, math.radians(80), math.radians(80)])
    assert (np.abs(low) <= limits).all() and (np.abs(high) <= limits).all()
    assert (low < -0.9 * limits).all() and (high > 0.9 * limits).all()
    assert 0.05 <= min(radii) < 0.06 and 0.19 < max(radii) <= 0.20


def test_a_changed_stock_file_is_noticed():
    from pwm.envs.dmcontrol_extra.reacher import three_link_xml

    with pytest.raises(ValueError, match="no arm"):
        three_link_xml("<mujoco><worldbody/><actuator/></mujoco>")


def test_only_dmc_tasks_load():
    from pwm.errors import UserError

    with pytest.raises(UserError, match="no DMControl task"):
        load_dm_environment("gym/Pendulum-v1", seed=0)
