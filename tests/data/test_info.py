"""``pwm data info``: the table, its JSON and the picture."""

from __future__ import annotations

import json

import numpy as np
import pytest

from pwm.cli import main
from pwm.data import EpisodeWriter


@pytest.fixture
def data(tmp_path):
    with EpisodeWriter(tmp_path / "d", "x/task", obs_dim=2, action_dim=1, episode_length=9,
                       collector="sac") as writer:  # fmt: skip
        for seed, total in enumerate((1.0, 2.0, 6.0)):
            writer.append(np.zeros((5, 2)), np.zeros((4, 1)), np.full(4, total / 4),
                          terminated=seed == 2, seed=seed)  # fmt: skip
    return tmp_path / "d"


def test_json(data, capsys):
    assert main(["data", "info", str(data), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    (task,) = printed["tasks"]
    assert (task["id"], task["episodes"], task["steps"], task["terminated"]) == ("x/task", 3, 12, 1)
    assert task["returns"] == {"min": 1.0, "mean": 3.0, "max": 6.0, "best_tenth": 6.0}
    assert sum(task["histogram"]["counts"]) == 3
    assert task["bytes"] == 15 * (2 * 4 + 4 + 4 + 1)
    assert task["collectors"] == ["sac"] and task["seeds"] == [0, 1, 2]


def test_table_and_picture(data, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    picture = tmp_path / "returns.png"
    assert main(["data", "info", str(data), "--png", str(picture)]) == 0
    out = capsys.readouterr().out
    for text in ("x/task", "1.0", "3.0", "6.0", "sac", "█"):
        assert text in out
    assert picture.read_bytes().startswith(b"\x89PNG") and picture.stat().st_size > 3000
