"""``pwm collect --policy expert``: Meta-World's scripted policies as a source of data."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from pwm.cli import main
from pwm.data import EpisodeDataset
from pwm.envs import make
from pwm.envs.metaworld import scripted_expert
from pwm.errors import MissingExtra, UserError
from pwm.seeding import stream_seed
from pwm.stages import collect
from pwm.stages.collect import CollectConfig

pytest.importorskip("metaworld")
TASK = "metaworld/drawer-close"


def collected(out, **changes):
    settings = dict(task=TASK, policy="expert", steps=200, out=str(out), num_envs=2)
    collect.run(CollectConfig(**{**settings, **changes}))
    return EpisodeDataset.open(out).tasks[settings["task"]]


def test_the_stored_actions_are_the_executed_ones_and_success_that_of_the_last_step(tmp_path):
    arguments = ["--task", "mw-drawer-close", "--policy", "expert", "--noise", "0.3"]
    arguments += ["--steps", "300", "--num-envs", "2", "--out", str(tmp_path / "d")]
    assert main(["collect", *arguments]) == 0
    task = EpisodeDataset.open(tmp_path / "d").tasks[TASK]
    assert task.collectors == ("expert",) and list(task.lengths) == [100] * 4
    for index in range(2):
        env, rows = make(TASK), slice(int(task.offsets[index]), int(task.offsets[index]) + 101)
        start = stream_seed(stream_seed(0, "collect", 0), "env", index)
        observations, actions = task.observations[rows], task.actions[rows]
        np.testing.assert_array_equal(env.reset(seed=start)[0], observations[0])
        for t in range(1, 101):
            observation, reward, _, _, info = env.step(actions[t])
            np.testing.assert_array_equal(observation, observations[t])
            assert task.rewards[rows][t] == pytest.approx(reward, rel=1e-6)
        assert task.success[index] == info["success"]
        assert np.abs(actions[1:]).max() <= 1


def test_noise_is_gaussian_around_the_expert(tmp_path):
    expert = scripted_expert(TASK)
    for noise in (0.0, 0.3):
        task = collected(tmp_path / f"noise{noise}", noise=noise)
        meant = expert(task.observations[:100])
        difference = (task.actions[1:101] - meant)[np.abs(meant) < 0.1]
        assert difference.size > 60
        np.testing.assert_allclose(difference.std(), noise, rtol=0.25)


def test_experts_solve_the_task_within_an_episode(tmp_path):
    task = collected(tmp_path / "d")
    np.testing.assert_array_equal(task.success, [1.0, 1.0])
    random = collected(tmp_path / "random", policy="random")
    np.testing.assert_array_equal(random.success, [0.0, 0.0])


def test_resume_goes_on_with_the_same_settings_only(tmp_path):
    first = collected(tmp_path / "d", noise=0.3)
    kept = np.array(first.observations)
    for changes in (dict(noise=0.1), dict(noise=0.0), dict(noise=0.3, policy="random")):
        with pytest.raises(UserError, match="noise|--noise"):
            collected(tmp_path / "d", steps=400, resume=True, **changes)
    more = collected(tmp_path / "d", noise=0.3, steps=400, resume=True)
    assert more.num_episodes == 4
    np.testing.assert_array_equal(more.observations[: len(kept)], kept)
    assert len({row.tobytes() for row in more.observations[more.offsets]}) == 4


@pytest.mark.parametrize("policy", ["random", "expert"])
@pytest.mark.parametrize("more", [dict(steps=400, resume=True), dict(append=True)])
def test_going_on_with_the_same_seed_repeats_nothing(tmp_path, policy, more):
    noise = 0.3 if policy == "expert" else 0.0
    collected(tmp_path / "d", policy=policy, noise=noise)
    task = collected(tmp_path / "d", policy=policy, noise=noise, **more)
    assert task.num_episodes == 4
    starts, actions = task.observations[task.offsets], task.actions[task.offsets + 1]
    assert len({row.tobytes() for row in starts}) == 4
    if policy == "expert":
        actions = actions - scripted_expert(TASK)(starts)
    assert len({row.tobytes() for row in actions.round(4)}) == 4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(task="dmc/walker-walk"), "'dmc/walker-walk' has no scripted expert"),
        (dict(task="gym/Pendulum-v1"), "'gym/Pendulum-v1' has no scripted expert"),
        (dict(noise=-0.1), "--noise must be at least 0"),
        (dict(noise=float("nan")), "--noise must be at least 0"),
        (dict(policy="random", noise=0.3), "--noise belongs to the policies 'expert'"),
        (dict(policy="experts"), "'random', 'sac', 'expert' or 'run:DIR'"),
    ],
)
def test_bad_input_is_refused_before_anything_is_written(tmp_path, changes, message):
    with pytest.raises(UserError, match=message):
        collected(tmp_path / "d", **changes)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("policy", ["expert", "random"])
def test_without_metaworld_the_message_names_the_command(tmp_path, monkeypatch, policy):
    monkeypatch.setitem(sys.modules, "metaworld", None)
    with pytest.raises(MissingExtra, match=r"pip install 'pwm-rl\[metaworld\]'"):
        collected(tmp_path / "d", policy=policy)
    assert not list(tmp_path.iterdir())
