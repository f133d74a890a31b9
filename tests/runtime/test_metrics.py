"""JSON lines: complete lines only, honest about values that are not finite."""

import json

import torch

from pwm.runtime.metrics import MetricsWriter, drop_after, read_metrics


def test_lines_and_tensors(tmp_path):
    writer = MetricsWriter(tmp_path / "m.jsonl")
    writer.write(1, {"loss": torch.tensor(0.5), "list": [1, 2]}, kind="train")
    writer.write(2, {"loss": float("nan")})
    writer.close()
    first, second = read_metrics(tmp_path / "m.jsonl")
    assert (first["step"], first["loss"], first["kind"]) == (1, 0.5, "train")
    assert second["loss"] is None and second["not_finite"] == ["loss"]


def test_a_line_cut_off_by_a_kill_is_skipped(tmp_path):
    path = tmp_path / "m.jsonl"
    path.write_text(json.dumps({"step": 1}) + "\n" + '{"step": 2, "lo')
    assert [record["step"] for record in read_metrics(path)] == [1]


def test_a_resumed_run_forgets_only_its_own_later_lines(tmp_path):
    writer = MetricsWriter(tmp_path / "m.jsonl")
    for step in (1, 2, 3):
        writer.write(step, {}, task="a")
        writer.write(step, {}, task="b")
    writer.close()
    drop_after(tmp_path / "m.jsonl", 1, task="a")
    kept = [(r["task"], r["step"]) for r in read_metrics(tmp_path / "m.jsonl")]
    assert kept == [("a", 1), ("b", 1), ("b", 2), ("b", 3)]
