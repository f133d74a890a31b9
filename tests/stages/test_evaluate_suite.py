"""Evaluation of several tasks: scores of both simulators, processes side by side, suites."""

from __future__ import annotations

import json
import os
import shutil
import signal

import pytest

from pwm.cli import main
from pwm.envs import list_tasks, register, registry
from pwm.errors import MissingExtra, UserError
from pwm.runtime.files import read_json
from pwm.runtime.workers import usable_cores
from pwm.stages import collect, evaluate, extract, pretrain, report
from pwm.stages.evaluate import EvaluateConfig, TaskEvaluator

from .conftest import debug_extract, debug_pretrain

pytest.importorskip("metaworld")
pytest.importorskip("dm_control")

TASKS = ("dmc/pendulum-swingup", "metaworld/faucet-open", "metaworld/drawer-close")
FILES = ("evaluation.json", "evaluation.jsonl", "baselines.json", "evaluation_settings.json")


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """Policies of one world model for tasks of both simulators; not evaluated yet."""
    root = tmp_path_factory.mktemp("mixed")
    for task in TASKS:
        policy = "expert" if task.startswith("metaworld") else "random"
        collect.run(collect.CollectConfig(task=task, policy=policy, steps=300, num_envs=3,
                                          out=str(root / "data")))  # fmt: skip
    pretrain.run(debug_pretrain(root / "data", root / "model"))
    extract.run(debug_extract(root / "model", root / "data", root / "policy"))
    return root / "policy"


@pytest.fixture
def fresh(mixed, tmp_path):
    """A copy without results."""
    return shutil.copytree(mixed, tmp_path / "policy")


def settings(run, **changes) -> EvaluateConfig:
    return EvaluateConfig(**{**dict(run=str(run), episodes=2, seed=3, device="cpu"), **changes})


@pytest.fixture(scope="module")
def serial(mixed, tmp_path_factory):
    run = shutil.copytree(mixed, tmp_path_factory.mktemp("serial") / "policy")
    return run, evaluate.run(settings(run))


def test_processes_side_by_side_give_the_files_of_one_process(serial, fresh, capsys):
    path, results = serial
    parallel = evaluate.run(settings(fresh, workers=2))
    assert parallel == results and list(parallel) == sorted(TASKS)
    for name in FILES:
        assert (fresh / name).read_bytes() == (path / name).read_bytes(), name
    lines = [json.loads(x) for x in (fresh / "evaluation.jsonl").read_text().splitlines()]
    assert [line["length"] for line in lines] == [500, 500] + [100] * 4
    assert [line["success"] is None for line in lines] == [True] * 2 + [False] * 4
    table = capsys.readouterr().err
    assert "3/3" in table and "metaworld/drawer-close" in table
    mean = results[TASKS[0]]["0"][0] / 2 + results[TASKS[0]]["0"][1] / 2
    success = [100.0 * line["success"] for line in lines[2:]]
    score = (mean / 10 + sum(success[:2]) / 2 + sum(success[2:]) / 2) / 3
    assert f"Score: {score:.1f} (mean over 3 tasks" in table


def test_report_scores_success_where_it_is_the_measure(serial, tmp_path):
    pytest.importorskip("jinja2")
    pytest.importorskip("matplotlib")
    path, results = serial
    summary = report.run(report.ReportConfig(runs=(str(path),), out=str(tmp_path / "report")))
    rows = {row["task"]: row for row in summary["tasks"]}
    pendulum, drawer = rows[TASKS[0]], rows[TASKS[2]]
    assert pendulum["score"] == pytest.approx(sum(results[TASKS[0]]["0"]) / 20)
    assert pendulum["success"] is None
    assert drawer["score"] == 100 * drawer["success"] != drawer["return"] / 10
    assert summary["aggregate"]["tasks"] == 3
    scores = [row["score"] for row in summary["tasks"]]
    assert summary["aggregate"]["mean"] == pytest.approx(sum(scores) / 3)


def test_report_refuses_meta_world_results_without_success(serial, tmp_path):
    run = shutil.copytree(serial[0], tmp_path / "policy")
    lines = (run / "evaluation.jsonl").read_text().splitlines()
    (run / "evaluation.jsonl").write_text("\n".join(lines[:-1]) + "\n")
    with pytest.raises(UserError, match="success of the 2 episodes of metaworld/"):
        report.run(report.ReportConfig(runs=(str(run),), out=str(tmp_path / "report")))
    assert not (tmp_path / "report").exists()


class Dying(TaskEvaluator):
    """Its process is killed, or it fails, in one task."""

    def __call__(self, task):
        if task == TASKS[2]:
            os.kill(os.getpid(), signal.SIGKILL)
        if task == TASKS[1]:
            raise ValueError("a bug")
        return super().__call__(task)


def test_what_other_processes_finished_is_kept_when_one_dies(serial, fresh, monkeypatch, capsys):
    monkeypatch.setattr(evaluate, "TaskEvaluator", Dying)
    assert main(["evaluate", str(fresh), "--episodes", "2", "--seed", "3", "--workers", "2"]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("pwm: error: 2 of 3 tasks failed (")
    assert "metaworld/drawer-close: its process died (Killed" in error
    assert "metaworld/faucet-open: ValueError: a bug" in error
    assert "--workers 1 --tasks metaworld/" in error
    results = read_json(fresh / "evaluation.json")
    assert results == {TASKS[0]: serial[1][TASKS[0]]}
    assert list(read_json(fresh / "baselines.json")) == [TASKS[0]]


def test_in_one_process_finished_tasks_are_kept_too(fresh, monkeypatch):
    monkeypatch.setattr(evaluate, "TaskEvaluator", Dying)
    with pytest.raises(ValueError, match="a bug"):
        evaluate.run(settings(fresh, tasks=(TASKS[0], TASKS[1])))
    assert list(read_json(fresh / "evaluation.json")) == [TASKS[0]]


def test_a_suite_must_be_complete(fresh):
    lacking = [spec.id for spec in list_tasks("mt80") if spec.id not in TASKS]
    with pytest.raises(UserError, match=f"no policy for {len(lacking)} of the 80 tasks"):
        evaluate.run(settings(fresh, suite="mt80"))
    with pytest.raises(UserError, match="unknown suite 'mt81'.*'mt80'"):
        evaluate.run(settings(fresh, suite="mt81"))
    with pytest.raises(UserError, match="--suite and --tasks"):
        evaluate.run(settings(fresh, suite="mt80", tasks=TASKS[:1]))
    assert not (fresh / "evaluation.json").exists()


def test_a_suite_s_score_goes_by_its_name(fresh, monkeypatch, capsys):
    monkeypatch.setattr(evaluate, "list_tasks",
                        lambda suite: [registry.task_spec(x) for x in TASKS[1:]])  # fmt: skip
    assert main(["evaluate", str(fresh), "--suite", "drawers", "--episodes", "1", "--workers", "1",
                 "--json"]) == 0  # fmt: skip
    captured = capsys.readouterr()
    assert sorted(json.loads(captured.out)) == sorted(TASKS[1:])
    assert "drawers score: " in captured.err


@pytest.mark.parametrize(
    ("content", "name"), [("{", "evaluation.jsonl"), ("[]", "evaluation.json")]
)
def test_damaged_earlier_results_are_told_before_the_work(fresh, content, name):
    (fresh / name).write_text(content)
    with pytest.raises(UserError, match=name):
        evaluate.run(settings(fresh))
    assert (fresh / name).read_text() == content


def test_a_missing_simulator_is_told_before_the_work(fresh, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "metaworld", None)
    with pytest.raises(MissingExtra, match=r"pip install 'pwm-rl\[metaworld\]'"):
        evaluate.run(settings(fresh))
    assert not (fresh / "evaluation.json").exists()


def test_number_of_processes(monkeypatch):
    monkeypatch.setattr(registry, "_user_tasks", {})
    register("mine/count", lambda **kwargs: None)
    for workers, tasks, expected in (
        (0, TASKS * 30, usable_cores()), (2, TASKS, 2), (8, TASKS, 3), (1, TASKS, 1),
        (4, (*TASKS, "mine/count"), 1),
    ):  # fmt: skip
        assert evaluate._workers(settings("x", workers=workers), tasks) == expected
    assert evaluate._workers(settings("x", workers=0, device="cuda"), TASKS) == 1
    with pytest.raises(UserError, match="--workers must be at least 0"):
        evaluate._checked(settings("x", workers=-1), None)
