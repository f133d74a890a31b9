"""Damaged data sets: each damage is named in one line, and nothing on disk changes."""

from __future__ import annotations

import json

import numpy as np
import pytest

from pwm.data import EpisodeDataset, dataset
from pwm.errors import UserError

from .helpers import FOLDER, NAME, store, write_task, writer

ROWS = {"observations": 3, "actions": 2, "rewards": 1}


@pytest.fixture
def data(tmp_path):
    """Episodes of 4 and 9 steps, and a second task that is whole."""
    store(tmp_path / "d", [4, 9])
    write_task(tmp_path / "d", "x/whole", 1, [3], (2, 1))
    return tmp_path / "d"


def refused(data, message):
    """Reader and writer raise one line; the files stay as they are."""
    before = {p: p.read_bytes() for p in data.rglob("*") if p.is_file()}
    with pytest.raises(UserError, match=message) as caught:
        EpisodeDataset.open(data)
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match=message):
        writer(data, collector="another")
    assert {p: p.read_bytes() for p in data.rglob("*") if p.is_file()} == before


@pytest.mark.parametrize("name", ["observations", "actions", "rewards", "terminated"])
def test_truncated_rows(data, name):
    path = data / FOLDER / f"{name}.bin"
    path.write_bytes(path.read_bytes()[:-1])
    refused(data, rf"{name}.bin is truncated")


@pytest.mark.parametrize("name", ["observations.bin", "index.bin", "task.json"])
def test_missing_file(data, name):
    """A lost index must not pass for an empty one: the next writer would cut off all rows."""
    (data / FOLDER / name).unlink()
    refused(data, rf"{name} does not exist")


def test_damaged_index(data):
    path = data / FOLDER / "index.bin"
    whole = np.fromfile(path, np.uint8)
    for episode, byte in ((0, 0), (1, len(whole) // 2)):
        index = whole.copy()
        index[byte] += 7
        index.tofile(path)
        refused(data, rf"index.bin is damaged at episode {episode}")


def test_damaged_json(data):
    path = data / FOLDER / "task.json"
    facts = json.loads(path.read_text())
    for text, message in (
        ("{", "task.json is not valid JSON"),
        ("[]", "task.json holds no JSON object"),
        (json.dumps({**facts, "obs_dim": "3"}), "task.json: field 'obs_dim' is missing or not int"),
        (json.dumps({**facts, "obs_dim": 0}), "task.json: obs_dim and action_dim must be"),
        (json.dumps({**facts, "id": "x/other"}), "task.json: field 'id' is 'x/other'"),
    ):
        path.write_text(text)
        refused(data, message)
    path.write_text(json.dumps({**facts, "collectors": []}))
    refused(data, "names a collector that task.json does not list")
    path.write_text(json.dumps(facts))
    (data / "dataset.json").write_text('{"format": 99}')
    refused(data, "field 'format' is 99")
    (data / "dataset.json").unlink()
    refused(data, "dataset.json does not exist")


def test_no_data(tmp_path):
    with pytest.raises(UserError, match="none does not exist"):
        EpisodeDataset.open(tmp_path / "none")
    (tmp_path / "bare").mkdir()
    with pytest.raises(UserError, match="bare is empty"):
        EpisodeDataset.open(tmp_path / "bare")
    writer(tmp_path / "begun").close()
    with pytest.raises(UserError, match="begun is empty: it holds no episode"):
        EpisodeDataset.open(tmp_path / "begun")
    assert EpisodeDataset.open(tmp_path / "begun", allow_empty=True).tasks[NAME].num_steps == 0
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="is a file, not a data set folder"):
        writer(tmp_path / "file")


@pytest.mark.parametrize("block", [1, 4, 1 << 18])
@pytest.mark.parametrize("name", list(ROWS))
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_located(data, monkeypatch, name, bad, block):
    monkeypatch.setattr(dataset, "_BLOCK_ROWS", block)
    path = data / FOLDER / f"{name}.bin"
    whole = np.fromfile(path, "<f4").reshape(-1, ROWS[name])
    EpisodeDataset.open(data).check_finite()
    # episode 1 begins at row 5; row 0 of an episode holds an observation, else filler
    places = [(4, 0, 4), (6, 1, 1), (14, 1, 9)] + [(5, 1, 0)] * (name == "observations")
    for row, episode, step in places:
        values = whole.copy()
        values[row, -1] = bad
        values.tofile(path)
        found = EpisodeDataset.open(data)
        message = rf"{name}.bin holds {bad} in episode {episode} at step {step};"
        with pytest.raises(UserError, match=message):
            found.check_finite()
        found.check_finite(["x/whole"])
