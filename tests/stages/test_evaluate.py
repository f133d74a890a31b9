"""``pwm evaluate``: the numbers are those of an honest loop over the real environment."""

from __future__ import annotations

import json

import numpy as np
import pytest

from pwm import Policy
from pwm.cli import main
from pwm.envs import make
from pwm.runtime.files import read_json
from pwm.stages import evaluate
from pwm.stages.rollout import episode_seeds

from .conftest import TASKS


@pytest.fixture(scope="module")
def evaluated(policy):
    evaluate.run(evaluate.EvaluateConfig(run=str(policy), episodes=3, seed=5, device="cpu"))
    return policy


def test_returns_are_those_of_a_plain_loop(evaluated):
    results = read_json(evaluated / "evaluation.json")
    assert sorted(results) == sorted(TASKS)
    for task in TASKS:
        assert list(results[task]) == ["0"]
        policy, env = Policy.from_pretrained(evaluated, task), make(task)
        for index, seed in enumerate(episode_seeds(5, f"evaluation {task}", 3)):
            observation, _ = env.reset(seed=seed)
            total, steps, done = 0.0, 0, False
            while not done:
                observation, reward, terminated, truncated, _ = env.step(policy.act(observation))
                total, steps, done = total + reward, steps + 1, terminated or truncated
            # one observation alone and three together round differently in the last bits, and
            # chaotic dynamics make more of it: near equality says that nothing else differs
            assert results[task]["0"][index] == pytest.approx(total, rel=1e-2, abs=0.5)
            assert steps == 500


def test_episodes_are_noted_line_by_line(evaluated):
    lines = [json.loads(x) for x in (evaluated / "evaluation.jsonl").read_text().splitlines()]
    results = read_json(evaluated / "evaluation.json")
    assert len(lines) == 6
    for line in lines:
        assert line["return"] == results[line["task"]]["0"][line["episode"]]
        assert line["length"] == 500 and line["success"] is None


def test_settings_of_the_evaluation_are_noted(evaluated):
    settings = read_json(evaluated / "evaluation_settings.json")
    for task in TASKS:
        assert settings[task]["episodes"] == 3 and settings[task]["seed"] == 5
        assert settings[task]["command"]


def test_baselines_hold_random_policy_and_data(evaluated):
    baselines = read_json(evaluated / "baselines.json")
    for task in TASKS:
        assert len(baselines[task]["random"]) == 3
        noted = read_json(evaluated / "config.json")["data_returns"][task]
        assert baselines[task]["data"] == noted


def test_json_of_one_task_keeps_the_other(evaluated, capsys):
    before = read_json(evaluated / "evaluation.json")
    task = "dmc/cartpole-balance"
    code = main(["evaluate", str(evaluated), "--task", "cartpole-balance", "--episodes", "2",
                 "--seed", "9", "--device", "cpu", "--json"])  # fmt: skip
    assert code == 0
    printed = json.loads(capsys.readouterr().out)
    assert list(printed) == [task] and len(printed[task]["0"]) == 2
    after = read_json(evaluated / "evaluation.json")
    assert after[task] == printed[task] and after[TASKS[0]] == before[TASKS[0]]


def test_video_shows_the_episode(evaluated):
    imageio = pytest.importorskip("imageio.v2")
    pytest.importorskip("imageio_ffmpeg")
    evaluate.run(
        evaluate.EvaluateConfig(
            run=str(evaluated),
            tasks=("pendulum-swingup",),
            episodes=1,
            video=True,
            video_size=64,
            device="cpu",
        )  # fmt: skip
    )
    video = evaluated / "videos" / "dmc__pendulum-swingup.mp4"
    with imageio.get_reader(video) as reader:
        frames = [np.asarray(frame) for frame in reader]
    assert len(frames) == 501 and frames[0].shape == (64, 64, 3)
    assert np.std(frames[0]) > 5, "a blank picture"
    assert np.abs(frames[0].astype(int) - frames[100]).max() > 30, "nothing moves"
    assert not list(video.parent.glob("*.tmp*")) and not list(video.parent.glob(".*"))
