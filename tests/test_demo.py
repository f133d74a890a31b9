"""``pwm demo`` end to end with next to no training, and the data set that it ships."""

from __future__ import annotations

from dataclasses import replace

import pytest

pytest.importorskip("dm_control")
pytest.importorskip("jinja2")

from pwm import demo
from pwm.data import EpisodeDataset
from pwm.errors import UserError
from pwm.presets import demo_extract, pretrain_preset
from pwm.runtime.files import read_json


def test_shipped_data_is_small_and_sound():
    folder = demo.demo_data()
    assert sum(p.stat().st_size for p in folder.rglob("*") if p.is_file()) < 10e6
    assert (folder / "README.md").is_file(), "the data card"
    dataset = EpisodeDataset.open(folder)
    dataset.check_finite()
    dims = {(task.obs_dim, task.action_dim) for task in dataset.tasks.values()}
    assert len(dataset.tasks) == 3 and len(dims) == 3


@pytest.mark.slow
def test_whole_road(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(
        demo, "pretrain_preset",
        lambda name: replace(pretrain_preset("debug"), normalize_observations=True),
    )  # fmt: skip
    monkeypatch.setattr(
        demo, "demo_extract",
        lambda: replace(demo_extract(), updates=2, batch_size=8, eval_every=2, eval_episodes=1),
    )  # fmt: skip
    out = tmp_path / "demo"
    page = demo.run(demo.DemoConfig(out=str(out), video=True))
    assert page == out / "report" / "report.html" and page.stat().st_size > 50_000
    report = read_json(out / "report" / "report.json")
    assert len(report["tasks"]) == 3
    for row in report["tasks"]:
        assert row["data"]["mean"] > 0 and row["random"] is not None
    assert page.read_text().count("data:video/mp4") == 3
    printed = capsys.readouterr()
    assert "dmc/walker-stand" in printed.out and str(page) in printed.err
    with pytest.raises(UserError, match="already exists"):
        demo.run(demo.DemoConfig(out=str(out)))
