"""``pwm report``: right numbers, one self-contained page, nothing touched on bad input."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

pytest.importorskip("jinja2")
pytest.importorskip("matplotlib")

from pwm.cli import main
from pwm.errors import UserError
from pwm.runtime.files import write_json
from pwm.runtime.metrics import MetricsWriter
from pwm.runtime.run_folder import RunFolder
from pwm.stages import report
from pwm.stages.report import ReportConfig

WALK, GYM = "dmc/walker-walk", "gym/Pendulum-v1"
DATA = {"episodes": 10, "mean": 200.0, "min": 10.0, "max": 500.0, "best_tenth": 450.0}


def policy_run(path, seed, walk, gym=(-500.0, -300.0), finished=True):
    """An evaluated extract run of two tasks with given returns."""
    folder = RunFolder.create(path, "extract", {"seed": seed, "updates": 10})
    writer = MetricsWriter(folder.metrics_path)
    for task in (WALK, GYM):
        for step in (0, 5, 10):
            metrics = {"real_return": step, "returns": [step, step + 1.0],
                       "real_discounted": step / 10, "imagined_value": step / 5}  # fmt: skip
            writer.write(step, metrics, task=task, kind="evaluation")
    writer.close()
    write_json(path / "evaluation.json", {WALK: {str(seed): list(walk)},
                                          GYM: {str(seed): list(gym)}})  # fmt: skip
    write_json(path / "baselines.json", {WALK: {"random": [20.0, 40.0], "data": DATA}, GYM: {}})
    lines = [{"task": WALK, "seed": seed, "episode": i, "return": r, "success": None}
             for i, r in enumerate(walk)]  # fmt: skip
    lines += [{"task": GYM, "seed": seed, "episode": i, "return": r, "success": float(i)}
              for i, r in enumerate(gym)]  # fmt: skip
    (path / "evaluation.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines))
    (path / "videos").mkdir()
    (path / "videos" / "dmc__walker-walk.mp4").write_bytes(b"not really a video")
    if finished:
        folder.finish(wall_seconds=90.0, task_seconds={WALK: 60.0, GYM: 30.0})
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
    assert walk["share_of_best_tenth"] == pytest.approx(400 / 450)
    assert gym["score"] is None and gym["data"] is None and gym["success"] == 0.5
    assert result["aggregate"]["iqm"] == pytest.approx(40.0)
    assert (result["aggregate"]["tasks"], result["aggregate"]["seeds"]) == (1, 2)


def test_one_seed_is_labelled(runs, tmp_path):
    result = report.run(ReportConfig(runs=runs[:2], out=str(tmp_path / "out")))
    walk = result["tasks"][0]
    assert walk["return"] == pytest.approx(200.0) and walk["interval_over"] == "episodes"
    assert not walk["beats_data_mean"]
    page = (tmp_path / "out" / "report.html").read_text()
    assert "one seed only" in page and "not above its mean" in page


def test_page_is_self_contained_and_escaped(runs, tmp_path):
    report.run(ReportConfig(runs=runs, out=str(tmp_path / "out")))
    page = (tmp_path / "out" / "report.html").read_text()
    assert not re.search(r"""(src|href|url)\s*[=(]\s*["']?(https?:)?//""", page)
    assert "<script" not in page and "&lt;script&gt;" in page
    assert page.count("<svg") == 2 * 2 + 5
    assert page.count("data:video/mp4;base64,") == 2
    for text in ("400.0", "1,234,567", "unfinished", "1.5 min", "data: best tenth", "imagined"):
        assert text in page, text


def test_same_runs_same_bytes(runs, tmp_path):
    pages = []
    for _ in range(2):
        report.run(ReportConfig(runs=runs, out=str(tmp_path / "out")))
        pages.append((tmp_path / "out" / "report.html").read_bytes())
    assert pages[0] == pages[1]


def test_bad_input_changes_nothing(runs, tmp_path):
    policy_run(tmp_path / "again", 0, (1.0, 2.0))
    bare = policy_run(tmp_path / "bare", 7, (1.0, 2.0))
    (bare / "evaluation.json").unlink()
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
        (ReportConfig(runs=(str(tmp_path / "nothing"),), out=out), "does not exist"),
        (ReportConfig(runs=runs, out=str(tmp_path / "full")), "other files"),
    ):
        with pytest.raises(UserError, match=message):
            report.run(config)
    assert sorted(tmp_path.rglob("*")) == before


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
