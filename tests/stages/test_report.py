"""``pwm report``: right numbers, one self-contained page, nothing touched on bad input."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

pytest.importorskip("jinja2")
pytest.importorskip("matplotlib")

from pwm.cli import main
from pwm.errors import MissingExtra, UserError
from pwm.runtime.files import write_json
from pwm.runtime.metrics import MetricsWriter
from pwm.runtime.run_folder import RunFolder
from pwm.stages import report
from pwm.stages.report import ReportConfig

WALK, STAND, GYM = "dmc/walker-walk", "dmc/walker-stand", "gym/Pendulum-v1"
HOSTILE = 'gym/<img src=x onerror="alert(1)">&amp;{{ 7 * 7 }}'
DATA = {"episodes": 10, "mean": 200.0, "min": 10.0, "max": 500.0, "best_tenth": 450.0}


def policy_run(path, seed, walk, other=(-500.0, -300.0), second=GYM, data=DATA, finished=True):
    """An evaluated extract run of two tasks with given returns."""
    folder = RunFolder.create(path, "extract", {"seed": seed, "updates": 10})
    writer = MetricsWriter(folder.metrics_path)
    for task in (WALK, second):
        for step in (0, 5, 10):
            # a resumed run may evaluate with another number of episodes
            returns = [step + 0.5] if step == 10 else [float(step), step + 1.0]
            metrics = {"real_return": step, "returns": returns, "selected_step": 5,
                       "real_discounted": step / 10, "imagined_value": step / 5}  # fmt: skip
            writer.write(step, metrics, task=task, kind="evaluation")
    writer.close()
    results = {WALK: {str(seed): list(walk)}, second: {str(seed): list(other)}}
    write_json(path / "evaluation.json", results)
    write_json(path / "baselines.json", {WALK: {"random": [20.0, 40.0], "data": data}, second: {}})
    lines = [{"task": WALK, "seed": seed, "episode": i, "return": r, "success": None}
             for i, r in enumerate(walk)]  # fmt: skip
    lines += [{"task": second, "seed": seed, "episode": i, "return": r, "success": float(i)}
              for i, r in enumerate(other)]  # fmt: skip
    (path / "evaluation.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines))
    (path / "videos").mkdir()
    (path / "videos" / "dmc__walker-walk.mp4").write_bytes(b"not really a video")
    if finished:
        folder.finish(wall_seconds=90.0, task_seconds={WALK: 60.0, second: 30.0})
    return path


def model_run(path):
    folder = RunFolder.create(path, "pretrain", {"seed": 0, "note": "<script>alert(1)</script>"},
                              parameters=1234567)  # fmt: skip
    writer = MetricsWriter(folder.metrics_path)
    for step in (1, 50, 100):
        metrics = {"consistency_loss": 1 / step, "reward_loss": 2 / step, "grad_norm": 1.0}
        writer.write(step, metrics, kind="train")
        errors = {f"{kind}_error_{k}": k / step for kind in ("latent", "reward")
                  for k in (1, 4, 8, 16)}  # fmt: skip
        writer.write(step, {**errors, "latent_entropy": 0.8}, kind="evaluation")
    writer.close()
    return path


@pytest.fixture
def runs(tmp_path):
    return (
        str(model_run(tmp_path / "model")),
        str(policy_run(tmp_path / "p0", 0, (100.0, 300.0))),
        str(policy_run(tmp_path / "p1", 1, (500.0, 700.0))),
    )


def test_numbers_over_seeds(runs, tmp_path):
    result = report.run(ReportConfig(runs=runs, out=str(tmp_path / "out")))
    assert json.loads((tmp_path / "out" / "report.json").read_text()) == result
    walk, gym = result["tasks"]
    assert walk["task"] == WALK and walk["return"] == pytest.approx(400.0)
    assert walk["score"] == pytest.approx(40.0) and walk["interval_over"] == "seeds"
    assert walk["interval"] == [200.0, 600.0]  # two seeds: the extremes are a quarter each
    assert walk["random"] == 30.0 and walk["times_data_mean"] == pytest.approx(2.0)
    assert walk["beats_data_mean"] and not walk["beats_best_tenth"]
    assert not walk["beats_data_mean_clearly"]  # 200 is the interval's low end too
    assert walk["share_of_best_tenth"] == pytest.approx(400 / 450)
    assert gym["score"] is None and gym["data"] is None and gym["success"] == 0.5
    assert result["aggregate"]["iqm"] == pytest.approx(40.0)
    assert (result["aggregate"]["tasks"], result["aggregate"]["seeds"]) == (1, 2)


def test_interval_and_iqm_over_two_tasks_and_two_seeds(tmp_path):
    """Scores 10, 20 and 30, 60: the IQM leaves out 10 and 60; all 16 resamples are known."""
    paths = [
        str(policy_run(tmp_path / f"p{seed}", seed, (walk,), (stand,), second=STAND))
        for seed, walk, stand in ((0, 100.0, 300.0), (1, 200.0, 600.0))
    ]
    result = report.run(ReportConfig(runs=tuple(paths), out=str(tmp_path / "out")))
    total = result["aggregate"]
    assert total["iqm"] == pytest.approx(25.0) and total["interval_over"] == "seeds"
    # 10 10 | 30 30 -> 20 and 20 20 | 60 60 -> 40 are a sixteenth each, more than 2.5 %
    assert total["interval"] == [20.0, 40.0]
    assert [row["score"] for row in result["tasks"]] == [15.0, 45.0]


def test_mixed_seed_counts_fall_back_to_episodes(tmp_path):
    first = policy_run(tmp_path / "p0", 0, (100.0, 100.0), (300.0, 300.0), second=STAND)
    second = policy_run(tmp_path / "p1", 1, (200.0, 200.0), second=GYM)
    result = report.run(ReportConfig(runs=(str(first), str(second)), out=str(tmp_path / "out")))
    total = result["aggregate"]
    # every run's episodes are equal, so no resample can differ from the mean of 10, 20 and 30
    assert total["iqm"] == pytest.approx(20.0)
    assert total["interval"] == pytest.approx([20.0, 20.0])
    assert (total["seeds"], total["seeds_most"]) == (1, 2)
    assert result["tasks"][0]["beats_random"] and not result["tasks"][0]["beats_data_mean"]
    assert total["interval_over"] == "episodes"
    assert "a task with one seed only" in (tmp_path / "out" / "report.html").read_text()


def test_clearly_means_the_whole_interval(tmp_path):
    sure = policy_run(tmp_path / "p0", 0, (201.0, 250.0, 300.0))
    result = report.run(ReportConfig(runs=(str(sure),), out=str(tmp_path / "out")))
    assert result["tasks"][0]["beats_data_mean_clearly"]
    assert "yes, clearly" in (tmp_path / "out" / "report.html").read_text()


def test_single_episode_has_no_interval(tmp_path):
    only = policy_run(tmp_path / "p0", 0, (100.0,), (-1.0,))
    result = report.run(ReportConfig(runs=(str(only),), out=str(tmp_path / "out")))
    assert [row["interval"] for row in result["tasks"]] == [None, None]
    assert result["aggregate"]["interval"] is None
    assert "no interval" in (tmp_path / "out" / "report.html").read_text()


def test_runs_of_different_data_are_named(runs, tmp_path):
    other = policy_run(tmp_path / "p2", 2, (1.0, 2.0), data={**DATA, "mean": 9.0})
    result = report.run(ReportConfig(runs=(*runs, str(other)), out=str(tmp_path / "out")))
    assert result["tasks"][0]["beats_random"] is True
    assert result["tasks"][0]["data_differs"] and result["tasks"][0]["data"] == DATA
    assert "different data" in (tmp_path / "out" / "report.html").read_text()


def test_one_seed_is_labelled(runs, tmp_path):
    result = report.run(ReportConfig(runs=runs[:2], out=str(tmp_path / "out")))
    walk = result["tasks"][0]
    assert walk["return"] == pytest.approx(200.0) and walk["interval_over"] == "episodes"
    assert not walk["beats_data_mean"]
    page = (tmp_path / "out" / "report.html").read_text()
    assert "one seed only" in page and ">no</span>" in page


def test_page_is_self_contained_and_escaped(runs, tmp_path):
    report.run(ReportConfig(runs=runs, out=str(tmp_path / "out")))
    page = (tmp_path / "out" / "report.html").read_text()
    assert not re.search(r"""(src|href|url)\s*[=(]\s*["']?(https?:)?//""", page)
    assert "<script" not in page and "&lt;script&gt;" in page
    assert page.count("<svg") == 2 * 2 + 5
    assert page.count("data:video/mp4;base64,") == 2
    for text in ("400.0", "1,234,567", "unfinished", "1.5 min", "30 s", "data: best tenth",
                 "imagined", "of seeds", "89&nbsp;%", "2.00&nbsp;×", "policy kept"):  # fmt: skip
        assert text in page, text
    assert "currentColor" in page and "#010203" not in page  # axes follow light and dark
    ids = re.findall(r'="#(?!\d)(\w+)"|url\(#(\w+)\)', page)
    assert ids and all(f'id="{a or b}"' in page for a, b in ids)


def test_hostile_names_and_commands_stay_text(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["pwm", "extract", "</pre><script>alert(2)</script>"])
    run = policy_run(tmp_path / "<b>run", 0, (1.0, 2.0), second=HOSTILE)
    report.run(ReportConfig(runs=(str(run),), out=str(tmp_path / "out")))
    page = (tmp_path / "out" / "report.html").read_text()
    for bad in ("<script", "<img", "<b>run", ">49<", 'onerror="'):
        assert bad not in page, bad
    assert "&lt;img" in page and "{{ 7 * 7 }}" in page and "&lt;b&gt;run" in page


def test_world_model_alone_and_untrained(tmp_path):
    """A run that was killed before it logged anything, and no policy at all."""
    RunFolder.create(tmp_path / "model", "pretrain", {"seed": 0})
    config = ReportConfig(runs=(str(tmp_path / "model"),), out=str(tmp_path / "out"))
    result = report.run(config)
    assert result["tasks"] == [] and result["aggregate"] is None
    page = (tmp_path / "out" / "report.html").read_text()
    assert "(unfinished)" in page and "Nothing logged yet" in page and "<svg" not in page


def test_same_runs_same_bytes(runs, tmp_path):
    pages = []
    for _ in range(2):
        report.run(ReportConfig(runs=runs, out=str(tmp_path / "out")))
        pages.append((tmp_path / "out" / "report.html").read_bytes())
    assert pages[0] == pages[1]


def test_planning_with_a_world_model_stands_beside_the_policies(runs, tmp_path):
    online = RunFolder.create(tmp_path / "online", "tdmpc2", {"seed": 0})
    writer = MetricsWriter(online.metrics_path)
    for step in (500, 1000):
        writer.write(step, {"return": 1.0}, task=WALK, kind="episode")
        writer.write(step, {"value_loss": 2.0, "q_mean": 3.0}, kind="train", update=step // 5)
        writer.write(step, {"returns": [90.0, 110.0]}, task=WALK, kind="evaluation")
    writer.close()
    config = ReportConfig(runs=(*runs, str(online.path)), out=str(tmp_path / "out"))
    with pytest.raises(UserError, match="online is not evaluated yet; run: .*--policy plan"):
        report.run(config)
    (online.path / "plan").mkdir()
    write_json(online.path / "plan" / "evaluation.json", {WALK: {"0": [500.0, 700.0]}})
    write_json(
        online.path / "plan" / "evaluation_settings.json", {WALK: {"command": "pwm plan it"}}
    )
    result = report.run(config)
    rows = [(row["task"], row["policy"], row["return"]) for row in result["tasks"]]
    assert rows[:2] == [(WALK, "actor", 400.0), (WALK, "plan", 600.0)]
    assert result["aggregates"]["plan"]["iqm"] == 60.0
    assert result["aggregate"] == result["aggregates"]["actor"]
    page = (tmp_path / "out" / "report.html").read_text()
    for text in ("planning", "agent steps", "Action values", "pwm plan it", "MPPI"):
        assert text in page, text


def test_bad_input_changes_nothing(runs, tmp_path):
    policy_run(tmp_path / "again", 0, (1.0, 2.0))
    bare = policy_run(tmp_path / "bare", 7, (1.0, 2.0))
    (bare / "evaluation.json").unlink()
    empty = policy_run(tmp_path / "empty", 8, ())
    cut = policy_run(tmp_path / "cut", 9, (1.0, 2.0))
    (cut / "evaluation.jsonl").write_text('{"task": "dmc')
    torn = policy_run(tmp_path / "torn", 10, (1.0, 2.0))
    (torn / "metrics.jsonl").write_text('{"step": \n')
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("precious")
    out = str(tmp_path / "out")
    before = sorted(tmp_path.rglob("*"))
    for config, message in (
        (ReportConfig(out=out), "no runs"),
        (ReportConfig(runs=runs), "--out"),
        (ReportConfig(runs=(*runs, str(tmp_path / "again")), out=out), "both hold"),
        (ReportConfig(runs=(*runs, runs[1]), out=out), "twice"),
        (ReportConfig(runs=(str(bare),), out=out), "pwm evaluate"),
        (ReportConfig(runs=(str(empty),), out=out), r"empty/evaluation.json .*pwm evaluate"),
        (ReportConfig(runs=(str(cut),), out=out), "evaluation.jsonl, line 1 is damaged"),
        (ReportConfig(runs=(str(torn),), out=out), "torn/metrics.jsonl is damaged"),
        (ReportConfig(runs=(str(tmp_path / "full"),), out=out), "no config.json"),
        (ReportConfig(runs=runs, out=out, resamples=0), "--resamples"),
        (ReportConfig(runs=(str(tmp_path / "nothing"),), out=out), "does not exist"),
        (ReportConfig(runs=runs, out=str(tmp_path / "full")), "other files"),
    ):
        with pytest.raises(UserError, match=message) as caught:
            report.run(config)
        assert "\n" not in str(caught.value)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("missing", ["jinja2", "matplotlib"])
def test_missing_extra(runs, tmp_path, monkeypatch, missing):
    monkeypatch.setattr(report, "find_spec", lambda name: None if name == missing else object())
    with pytest.raises(MissingExtra, match=rf"{missing} is not installed.*\[report\]"):
        report.run(ReportConfig(runs=runs, out=str(tmp_path / "out")))
    assert not (tmp_path / "out").exists()


def test_json_on_stdout(runs, tmp_path, capsys):
    assert main(["report", *runs, "--out", str(tmp_path / "out"), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["page"].endswith("report.html") and len(printed["tasks"]) == 2


def test_real_runs(world_model, policy, tmp_path):
    """What the stages really write fits into the report."""
    from pwm.stages import evaluate

    evaluate.run(evaluate.EvaluateConfig(run=str(policy), episodes=2, device="cpu"))
    result = report.run(
        ReportConfig(runs=(str(world_model), str(policy)), out=str(tmp_path / "out"))
    )
    for row in result["tasks"]:
        assert np.isfinite(row["return"]) and row["data"]["episodes"] == 2
