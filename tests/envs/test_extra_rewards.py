"""The 11 extra rewards against formulas that read raw MuJoCo data only."""

from __future__ import annotations

import math

import numpy as np
import pytest

from .helpers import tolerance

pytest.importorskip("dm_control")

from pwm.envs.dmcontrol import load_dm_environment  # noqa: E402

INF = math.inf


def height(model, data, body):
    return float(data.body(body).xpos[2])


def velocity_x(model, data):
    return float(data.sensordata[model.sensor("torso_subtreelinvel").adr[0]])


def walker_backwards(speed):
    def reward(model, data):
        standing = tolerance(height(model, data, "torso"), 1.2, INF, 0.6)
        upright = (1 + data.body("torso").xmat.reshape(3, 3)[2, 2]) / 2
        stand = (3 * standing + upright) / 4
        move = tolerance(velocity_x(model, data), -INF, -speed, speed / 2, 0.5, linear=True)
        return stand * (5 * move + 1) / 6

    return reward


def cheetah_backwards(model, data):
    return tolerance(velocity_x(model, data), -INF, -8, 8, 0, linear=True)


def cheetah_one_foot(raised_foot):
    def reward(model, data):
        foot = tolerance(height(model, data, raised_foot), 1.2, INF, 0.6)
        torso = tolerance(height(model, data, "torso"), 1.2, INF, 0.6)
        speed = tolerance(velocity_x(model, data), 6, INF, 6, 0, linear=True)
        return (3 * foot + 2 * torso) / 5 * (5 * speed + 1) / 6

    return reward


def cheetah_jump(model, data):
    still = tolerance(velocity_x(model, data), -0.5, 0.5, 0.5, 0, linear=True)
    parts = []
    for foot in ("bfoot", "ffoot"):
        middle = (height(model, data, "torso") + height(model, data, foot)) / 2
        parts.append((5 * tolerance(middle, 1.2, INF, 0.6) + still) / 6)
    return sum(parts) / 2


def hopper_backwards(model, data):
    over_foot = float(data.body("torso").xipos[2] - data.body("foot").xipos[2])
    standing = 1.0 if 0.6 <= over_foot <= 2 else 0.0
    return standing * tolerance(velocity_x(model, data), -INF, -1, 0.5, 0.5, linear=True)


def pendulum_spin(model, data):
    return tolerance(abs(float(data.joint("hinge").qvel[0])), 9, INF, 4.5, 0.5, linear=True)


def cup_spin(model, data):
    offset = (data.site("target").xpos - data.body("ball").xpos)[[0, 2]]
    free = model.site("target").size[[0, 2]] - model.geom("ball").size[0]
    inside = bool((np.abs(offset) < free).all())
    speed = math.hypot(data.joint("ball_x").qvel[0], data.joint("ball_z").qvel[0])
    far = tolerance(math.hypot(*offset), 0.5, INF, 0.25, 0.5, linear=True)
    fast = tolerance(speed, 6, INF, 3, 0.5, linear=True)
    return 0.0 if inside else (far + 2 * fast) / 3


def reacher_three(model, data):
    offset = data.geom("target").xpos[:2] - data.geom("finger").xpos[:2]
    radii = model.geom("target").size[0] + model.geom("finger").size[0]
    return float(math.hypot(*offset) <= radii)


def put_target_near_the_finger(physics, generator):
    """At up to twice the rewarded distance, so that the sparse reward takes both values."""
    size = physics.named.model.geom_size
    distance = generator.uniform(0, 2) * (size["target", 0] + size["finger", 0])
    angle = generator.uniform(0, 2 * math.pi)
    finger = physics.named.data.geom_xpos["finger", :2]
    offset = distance * np.array([math.cos(angle), math.sin(angle)])
    physics.named.model.geom_pos["target", :2] = finger + offset
    physics.forward()


FORMULAS = {
    "walker-walk-backwards": walker_backwards(1),
    "walker-run-backwards": walker_backwards(8),
    "cheetah-run-backwards": cheetah_backwards,
    "cheetah-run-front": cheetah_one_foot("bfoot"),
    "cheetah-run-back": cheetah_one_foot("ffoot"),
    "cheetah-jump": cheetah_jump,
    "hopper-hop-backwards": hopper_backwards,
    "reacher-three-easy": reacher_three,
    "reacher-three-hard": reacher_three,
    "cup-spin": cup_spin,
    "pendulum-spin": pendulum_spin,
}

# Spread of the random joint positions and velocities around the model's default pose, wide
# enough to reach both ends of every reward.
SPREADS = {"walker": (0.6, 9), "cheetah": (0.8, 9), "hopper": (0.3, 2), "reacher": (1.4, 1),
           "cup": (0.35, 5), "pendulum": (3, 12)}  # fmt: skip


@pytest.mark.parametrize("name", FORMULAS)
def test_reward_equals_the_independent_formula(name):
    environment = load_dm_environment(f"dmc/{name}", seed=0)
    physics, task = environment.physics, environment.task
    model, data = physics.model.ptr, physics.data.ptr
    spread_q, spread_v = SPREADS[name.partition("-")[0]]
    generator = np.random.default_rng(1)
    seen = []
    for _ in range(150):
        environment.reset()
        with physics.reset_context():
            data.qpos[:] = model.qpos0 + generator.uniform(-spread_q, spread_q, model.nq)
            data.qvel[:] = generator.uniform(-spread_v, spread_v, model.nv)
        if name.startswith("reacher"):
            put_target_near_the_finger(physics, generator)
        reward = task.get_reward(physics)
        assert isinstance(reward, float)
        assert 0 <= reward <= 1
        assert reward == pytest.approx(FORMULAS[name](model, data), abs=1e-12)
        seen.append(reward)
    # The states must have told the formulas apart from a constant.
    assert min(seen) < 0.3 and max(seen) > 0.6 and len(set(seen)) > 1


@pytest.mark.parametrize(
    ("speed", "reward"), [(0.0, 0.0), (2.25, 0.25), (-4.5, 0.5), (6.75, 0.75), (9, 1), (-20, 1)]
)
def test_pendulum_spin_by_hand(speed, reward):
    environment = load_dm_environment("pendulum-spin", seed=0)
    with environment.physics.reset_context():
        environment.physics.named.data.qvel["hinge"] = speed
    assert environment.task.get_reward(environment.physics) == pytest.approx(reward)


def test_cup_spin_pays_nothing_for_a_fast_ball_inside_the_cup():
    environment = load_dm_environment("cup-spin", seed=0)
    physics = environment.physics
    while True:
        environment.reset()
        if physics.in_target():
            break
    physics.data.qvel[:] = 20.0
    assert environment.task.get_reward(physics) == 0.0
    physics.named.data.qpos["ball_z"] -= 0.4
    physics.forward()
    assert environment.task.get_reward(physics) > 0.5


def test_cheetah_front_and_back_raise_different_feet():
    front = load_dm_environment("cheetah-run-front", seed=0)
    back = load_dm_environment("cheetah-run-back", seed=0)
    rewards = []
    for environment in (front, back):
        with environment.physics.reset_context():
            environment.physics.named.data.qpos["rooty"] = 1.2  # nose down, hind feet up
            environment.physics.named.data.qpos["rootz"] = 0.5
        rewards.append(environment.task.get_reward(environment.physics))
    assert rewards[0] > 2 * rewards[1]
