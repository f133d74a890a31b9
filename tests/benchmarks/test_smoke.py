"""Every benchmark runs and prints what it promises; how fast is not tested."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"
TINY = ["--size", "1M", "--batch", "8", "--horizon", "2", "--repeats", "1", "--json"]


def run(script, *arguments):
    done = subprocess.run([sys.executable, str(FOLDER / script), *arguments],
                          capture_output=True, text=True)  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("script", ["extraction.py", "pretraining.py"])
def test_updates(script):
    result = run(script, *TINY)
    assert (result["size"], result["batch"], result["horizon"]) == ("1M", 8, 2)
    for name in ("median_seconds", "gemm_gflops", "share_of_gemm_rate", "gflop_per_update"):
        assert result[name] > 0, name
    assert result["share_of_gemm_rate"] < 1.5


def test_sampler():
    result = run("sampler.py", *TINY, "--episodes", "1")
    for name in ("update_seconds", "memory_windows_per_second", "disk_times_faster_than_update"):
        assert result[name] > 0, name


def test_convert():
    result = run("convert.py", "--gigabytes", "0.005", "--json")
    assert 4 < result["file_mb"] < 6
    for name in ("mb_per_second", "copy_mb_per_second", "peak_memory_mb"):
        assert result[name] > 0, name


def test_planning():
    result = run("planning.py", "--size", "1M", "--envs", "1,2", "--samples", "64", "--repeats",
                 "1", "--json")  # fmt: skip
    assert result["largest_difference"]["eager"] < 1e-3 and result["floor_seconds"] > 0
    rows = [(row["what"], row["envs"]) for row in result["rows"]]
    assert rows == [("reference", 1), ("plan eager", 1), ("plan eager", 2), ("prior", 1),
                    ("actor", 1)]  # fmt: skip
    for row in result["rows"]:
        assert 0 < row["min_seconds"] <= row["median_seconds"] <= row["max_seconds"]
        assert row["times_faster_than_reference"] > 0


def test_envs():
    pytest.importorskip("dm_control")
    (row,) = run("envs.py", "--tasks", "pendulum-swingup", "--num-envs", "2", "--steps", "5",
                 "--repeats", "1", "--json")["results"]  # fmt: skip
    assert row["task"] == "pendulum-swingup" and row["ratio"] > 0


def test_experts():
    pytest.importorskip("metaworld")
    result = run("experts.py", "--tasks", "metaworld/reach", "--episodes", "2", "--json")
    assert result["mean"] == result["success"]["metaworld/reach"] == 1.0
    assert result["returns"]["metaworld/reach"] > 1000
